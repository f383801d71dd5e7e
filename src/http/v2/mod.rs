//! The distribution API: one catch-all under `/v2/`, read into a [`Route`] and handed to the file of its resource.

pub(crate) mod path;

mod base;
mod blobs;
mod catalog;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod manifests;
mod paging;
pub(super) mod query;
mod referrers;
mod tags;
pub(super) mod uploads;

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};

use super::State;
use super::error::HttpError;
use crate::auth::{Action, Ask};
use path::{PathError, Route};

/// Clients look for it before they believe that this is a registry.
const API_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(super) fn routes(config: &mut web::ServiceConfig, prefix: &str) {
    config
        .route(&format!("{prefix}/v2"), web::to(serve))
        .route(&format!("{prefix}/v2/{{tail:.*}}"), web::to(serve));
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
    let path = request.uri().path().strip_prefix(state.urls.prefix()).ok_or(PathError::Unknown)?;
    let route = Route::parse(path).map_err(|error| match error {
        PathError::Tag { .. } => PathError::Tag { pushed: method == Method::PUT },
        other => other,
    })?;
    let verb = Verb::of(&route, method)?;
    let ask = verb.ask(&route);
    let failed = |_: &HttpError| {
        state.metrics.auth_failures.inc();
    };
    let caller = state.access.identify(request, ask).await.inspect_err(failed)?;
    state.access.check(request, &caller, ask)?;
    if verb.is_write() {
        state.registry.check_writable()?;
    }
    match (route, verb) {
        (Route::Base, _) => Ok(base::get()),
        (Route::Catalog, _) => catalog::get(request, &state, caller).await,
        (Route::Tags(repository), _) => tags::get(request, &state, &repository).await,
        (Route::Referrers(repository, subject), _) => {
            referrers::get(request, &state, &repository, &subject).await
        }
        (Route::Manifest(repository, reference), Verb::Put) => {
            manifests::put(request, payload, &state, &caller, &repository, reference).await
        }
        (Route::Manifest(repository, reference), Verb::Delete) => {
            manifests::delete(&state, &repository, &reference).await
        }
        (Route::Manifest(repository, reference), _) => {
            manifests::get(request, &state, &repository, &reference).await
        }
        (Route::Blob(repository, digest), Verb::Delete) => blobs::delete(&state, &repository, &digest).await,
        (Route::Blob(repository, digest), _) => blobs::get(request, &state, &repository, &digest).await,
        (Route::Uploads(repository), _) => uploads::post(request, payload, state, &caller, repository).await,
        (Route::Upload(repository, id), Verb::Patch) => {
            uploads::patch(request, payload, state, repository, id).await
        }
        (Route::Upload(repository, id), Verb::Put) => {
            uploads::put(request, payload, state, repository, id).await
        }
        (Route::Upload(repository, id), Verb::Delete) => uploads::delete(&state, &repository, &id).await,
        (Route::Upload(repository, id), _) => uploads::status(request, &state, &repository, &id).await,
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

    /// What the gate is asked. Uploads belong to a push from their beginning to their end, whichever the method.
    fn ask(self, route: &Route) -> Ask<'_> {
        match (route, self) {
            (Route::Base, _) => Ask::Door,
            (Route::Catalog, _) => Ask::Catalog,
            (Route::Uploads(name) | Route::Upload(name, _), _) => Ask::Repository(name, Action::Push),
            (Route::Tags(name) | Route::Referrers(name, _), _) => Ask::Repository(name, Action::Pull),
            (Route::Manifest(name, _) | Route::Blob(name, _), Self::Get | Self::Status) => {
                Ask::Repository(name, Action::Pull)
            }
            (Route::Manifest(name, _) | Route::Blob(name, _), Self::Delete) => {
                Ask::Repository(name, Action::Delete)
            }
            (Route::Manifest(name, _) | Route::Blob(name, _), Self::Put | Self::Post | Self::Patch) => {
                Ask::Repository(name, Action::Push)
            }
        }
    }

    fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::Status)
    }
}

/// A `Warning` that clients show their users (distribution-spec, "Warnings").
fn warning(text: &str) -> (HeaderName, String) {
    (HeaderName::from_static("warning"), format!("299 - \"{text}\""))
}
