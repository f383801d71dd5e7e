//! The distribution API: one catch-all under `/v2/`, read into a [`Route`] and handed to the file of its resource.

pub(crate) mod path;

mod base;
mod blobs;
mod catalog;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod manifests;
mod paging;
mod query;
mod referrers;
mod tags;
pub(super) mod uploads;

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};

use super::State;
use super::access::Visitor;
use super::error::HttpError;
use path::{PathError, Route};

/// Clients look for it before they believe that this is a registry.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(crate) fn configure(config: &mut web::ServiceConfig) {
    config.route("/v2", web::to(serve)).route("/v2/{tail:.*}", web::to(serve));
}

async fn serve(request: HttpRequest, payload: web::Payload, state: web::Data<State>) -> HttpResponse {
    let answer = handle(&request, payload, state).await;
    let mut response = answer.unwrap_or_else(|error| error.respond());
    response.headers_mut().insert(API_VERSION.0, API_VERSION.1);
    response
}

async fn handle(
    request: &HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, HttpError> {
    let method = request.method();
    let route = Route::parse(request.uri().path()).map_err(|error| match error {
        PathError::Tag { .. } => PathError::Tag { pushed: method == Method::PUT },
        other => other,
    })?;
    let verb = Verb::of(&route, method)?;
    if verb.is_push() {
        state.access.may_push(&Visitor::of(request))?;
    }
    match (route, verb) {
        (Route::Base, _) => Ok(base::get()),
        (Route::Catalog, _) => catalog::get(request, &state).await,
        (Route::Tags(repository), _) => tags::get(request, &state, &repository).await,
        (Route::Referrers(repository, subject), _) => {
            referrers::get(request, &state, &repository, &subject).await
        }
        (Route::Manifest(repository, reference), Verb::Put) => {
            manifests::put(request, payload, &state, &repository, reference).await
        }
        (Route::Manifest(repository, reference), Verb::Delete) => {
            manifests::delete(&state, &repository, &reference).await
        }
        (Route::Manifest(repository, reference), _) => {
            manifests::get(request, &state, &repository, &reference).await
        }
        (Route::Blob(repository, digest), Verb::Delete) => blobs::delete(&state, &repository, &digest).await,
        (Route::Blob(repository, digest), _) => blobs::get(request, &state, &repository, &digest).await,
        (Route::Uploads(repository), _) => uploads::post(request, payload, state, repository).await,
        (Route::Upload(repository, id), Verb::Patch) => {
            uploads::patch(request, payload, state, repository, id).await
        }
        (Route::Upload(repository, id), Verb::Put) => {
            uploads::put(request, payload, state, repository, id).await
        }
        (Route::Upload(repository, id), Verb::Delete) => uploads::delete(&state, &repository, &id).await,
        (Route::Upload(repository, id), _) => uploads::status(&state, &repository, &id).await,
    }
}

/// What a request does to its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// GET or HEAD.
    Get,
    /// GET or HEAD of an upload, which shows what a push is doing.
    Status,
    Post,
    Patch,
    Put,
    Delete,
}

impl Verb {
    fn of(route: &Route, method: &Method) -> Result<Self, HttpError> {
        let allow = match route {
            Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => "GET, HEAD",
            Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Route::Blob(..) => "GET, HEAD, DELETE",
            Route::Uploads(_) => "POST",
            Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
        };
        if !allow.split(", ").any(|name| name == method.as_str()) {
            return Err(HttpError::Method { allow });
        }
        Ok(match (method.as_str(), route) {
            ("GET" | "HEAD", Route::Upload(..)) => Self::Status,
            ("POST", _) => Self::Post,
            ("PATCH", _) => Self::Patch,
            ("PUT", _) => Self::Put,
            ("DELETE", _) => Self::Delete,
            _ => Self::Get,
        })
    }

    fn is_push(self) -> bool {
        self != Self::Get
    }
}

/// A `Warning` that clients show their users (distribution-spec, "Warnings").
fn warning(text: &str) -> (HeaderName, String) {
    (HeaderName::from_static("warning"), format!("299 - \"{text}\""))
}
