//! `GET /auth/token`: tokens for those who log in with a password and for those who do not, where both may come
//! (Distribution's "Token Authentication Specification"). OAuth 2's `POST` is not taken; clients fall back to `GET`.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};

use super::State;
use super::access::{credentials, failed};
use super::error::HttpError;
use super::v2::path::PathError;
use super::v2::query::Query;
use crate::auth::TOKEN_PATH;

/// Adds the route, below the prefix.
pub(super) fn routes(config: &mut web::ServiceConfig, prefix: &str) {
    config.route(&format!("{prefix}{TOKEN_PATH}"), web::to(serve));
}

async fn serve(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    get(&request, &state).await.unwrap_or_else(|error| error.respond())
}

async fn get(request: &HttpRequest, state: &State) -> Result<HttpResponse, HttpError> {
    if request.method() != "GET" {
        return Err(HttpError::Method { allow: "GET" });
    }
    let access = &state.access;
    let query = Query::of(request)?;
    let scopes: Vec<&str> = query.all("scope").collect();
    let login = |error| failed(request, error, &access.auth.basic_challenge());
    let credentials = credentials(request)?.transpose().map_err(login)?;
    match access.auth.token(credentials, &scopes).await {
        None => Err(PathError::Unknown.into()),
        Some(Err(error)) => {
            state.metrics.auth_failures.inc();
            Err(login(error))
        }
        Some(Ok(grant)) => Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(grant)),
    }
}
