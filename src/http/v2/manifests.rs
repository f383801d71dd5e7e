//! `/v2/<name>/manifests/<reference>`

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use sampan_storage::{Reference, RepositoryName, Tag};

use super::super::State;
use super::super::conditional::{self, IMMUTABLE};
use super::super::error::{HttpError, QueryError};
use super::query::Query;
use super::{CONTENT_DIGEST, warning};
use crate::auth::Caller;
use crate::budget::{Budget, Share};
use crate::registry::{Deleted, MAX_MANIFEST, ManifestPush, RegistryError};

/// Tags of one push. The spec wants at least 10.
const MAX_TAGS: usize = 100;
/// A client that sends nothing of its manifest for so long is gone.
const BODY_IDLE: Duration = Duration::from_secs(30);
/// And one that is not done by then sends in drops.
const BODY_TIME: Duration = Duration::from_mins(5);

/// Bytes of all manifests that are on their way, beyond what each has for nothing. One of the largest gets in alone, the
/// usual ones by the hundred.
static BUDGET: Budget = Budget::new(32 * 1024 * 1024);
const FREE: usize = 8 * 1024;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

pub(super) async fn get(
    request: &HttpRequest,
    state: &State,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<HttpResponse, HttpError> {
    let manifest = state.registry.manifest(repository, reference).await?;
    let digest = manifest.digest.to_string();
    let etag = conditional::etag(&digest);
    let status =
        if conditional::is_unchanged(request, &etag) { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = HttpResponse::build(status);
    response.insert_header((CONTENT_DIGEST, digest)).insert_header((ETAG, etag));
    match reference {
        Reference::Digest(_) => response.insert_header((CACHE_CONTROL, IMMUTABLE)),
        Reference::Tag(_) => response.insert_header((CACHE_CONTROL, "no-cache")),
    };
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response.finish());
    }
    response.insert_header((CONTENT_TYPE, manifest.media_type.as_ref()));
    Ok(response.body(manifest.bytes))
}

pub(super) async fn put(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
    caller: &Caller,
    repository: &RepositoryName,
    reference: Reference,
) -> Result<HttpResponse, HttpError> {
    let tags = tags(&Query::of(request)?)?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.map(str::to_owned);
    let body = tokio::time::timeout(BODY_TIME, collect(request, payload));
    let (bytes, _room) = body.await.unwrap_or(Err(HttpError::ManifestCut))?;
    let push = ManifestPush { reference: reference.clone(), content_type, bytes, tags: tags.clone() };
    let pushed = state.registry.put_manifest(repository, push, &state.access.sight(caller)).await?;

    let mut response = HttpResponse::Created();
    state.metrics.manifests_pushed.inc();
    response.insert_header((LOCATION, state.urls.base(request).manifest(repository, &pushed.digest)));
    response.insert_header((CONTENT_DIGEST, pushed.digest.to_string()));
    if let Some(subject) = pushed.subject {
        response.insert_header((OCI_SUBJECT, subject.to_string()));
    }
    for tag in tags {
        response.append_header((OCI_TAG, tag.as_str()));
    }
    Ok(response.finish())
}

pub(super) async fn delete(
    state: &State,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<HttpResponse, HttpError> {
    Ok(deleted(&state.registry.delete_manifest(repository, reference).await?))
}

/// 202, with a warning where a followed name shows the same thing still.
pub(super) fn deleted(deleted: &Deleted) -> HttpResponse {
    let mut response = HttpResponse::Accepted();
    if let Some(tree) = &deleted.unmasked {
        let text = format!("the followed name {tree} has it too, so it is still seen here");
        response.insert_header(warning(&text));
    }
    response.finish()
}

fn tags(query: &Query) -> Result<Vec<Tag>, QueryError> {
    let parse = |text: &str| text.parse().map_err(|_| QueryError::Tag(text.chars().take(128).collect()));
    let mut tags: Vec<Tag> = Vec::new();
    for tag in query.all("tag") {
        let tag = parse(tag)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > MAX_TAGS {
            return Err(QueryError::TooManyTags { limit: MAX_TAGS });
        }
    }
    Ok(tags)
}

/// The whole body, if it is no longer than a manifest may be, and its share of the room.
async fn collect(request: &HttpRequest, mut payload: web::Payload) -> Result<(Bytes, Share), HttpError> {
    let too_large = || RegistryError::ManifestTooLarge { limit: MAX_MANIFEST };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > MAX_MANIFEST) {
        return Err(too_large().into());
    }
    let (mut body, mut share) = (BytesMut::new(), BUDGET.share());
    loop {
        match tokio::time::timeout(BODY_IDLE, payload.next()).await {
            Ok(None) => return Ok((body.freeze(), share)),
            Ok(Some(Ok(piece))) if (body.len() + piece.len()) as u64 > MAX_MANIFEST => {
                return Err(too_large().into());
            }
            Ok(Some(Ok(piece))) => {
                let length = body.len() + piece.len();
                if length > FREE && !share.reach(length) {
                    return Err(HttpError::ManifestsBusy);
                }
                body.extend_from_slice(&piece);
            }
            Ok(Some(Err(_))) | Err(_) => return Err(HttpError::ManifestCut),
        }
    }
}
