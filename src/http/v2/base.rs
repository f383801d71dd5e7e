//! `GET /v2/`: this is a registry.

use actix_web::HttpResponse;

pub(super) fn get() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body("{}")
}
