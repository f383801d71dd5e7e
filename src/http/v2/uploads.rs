//! `/v2/<name>/blobs/uploads/`: sessions that take a blob in, in one request or many.

use actix_web::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use sampan_storage::{Digest, RepositoryName, UploadId};
use tracing::Instrument;

use super::super::State;
use super::super::error::{HttpError, QueryError};
use super::super::urls::Base;
use super::CONTENT_DIGEST;
use super::query::Query;
use crate::auth::Caller;
use crate::registry::{RegistryError, UploadStatus, Window};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Starts a session, or takes or mounts a whole blob.
pub(super) async fn post(
    request: &HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
    caller: &Caller,
    repository: RepositoryName,
) -> Result<HttpResponse, HttpError> {
    let query = Query::of(request)?;
    let mount = query.digest("mount")?;
    if let Some(digest) = mount {
        let from = query.get("from").filter(|from| !from.is_empty()).map(str::parse::<RepositoryName>);
        // From a name that no repository can have, or that the caller may not pull, there is nothing to mount: it
        // uploads instead. A refusal would end containerd's push.
        if let Ok(from) = from.transpose()
            && state.registry.mount(&repository, &digest, from, state.access.sight(caller)).await?
        {
            return Ok(created(request, &state, &repository, &digest));
        }
    }
    if let (Some(digest), None) = (query.digest("digest")?, mount) {
        let (name, there) = (repository.clone(), state.clone());
        detached(async move { there.registry.put_blob(&name, &digest, payload).await }).await?;
        return Ok(created(request, &state, &repository, &digest));
    }
    let parse =
        |text: &str| text.parse().map_err(|error| QueryError::Digest { name: "digest-algorithm", error });
    let announced = query.get("digest-algorithm").map(parse).transpose()?;
    let algorithm = announced.or(mount.map(|digest| digest.algorithm()));
    let status = state.registry.start_upload(&repository, algorithm).await?;
    Ok(progress(&mut HttpResponse::Accepted(), &state.urls.base(request), &repository, &status))
}

pub(super) async fn status(
    request: &HttpRequest,
    state: &State,
    repository: &RepositoryName,
    id: &UploadId,
) -> Result<HttpResponse, HttpError> {
    let status = state.registry.upload_status(repository, id).await?;
    Ok(progress(&mut HttpResponse::NoContent(), &state.urls.base(request), repository, &status))
}

pub(super) async fn patch(
    request: &HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
    repository: RepositoryName,
    id: UploadId,
) -> Result<HttpResponse, HttpError> {
    let window = window(request)?;
    let base = state.urls.base(request);
    let (name, there) = (repository.clone(), state.clone());
    let status =
        detached(async move { there.registry.append(&name, &id, window, payload).await }).await.map_err(
            |error| HttpError::Upload { error: error.into(), location: base.upload(&repository, &id) },
        )?;
    Ok(progress(&mut HttpResponse::Accepted(), &base, &repository, &status))
}

pub(super) async fn put(
    request: &HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
    repository: RepositoryName,
    id: UploadId,
) -> Result<HttpResponse, HttpError> {
    let digest = Query::of(request)?.digest("digest")?.ok_or(QueryError::DigestMissing)?;
    let window = window(request)?;
    let base = state.urls.base(request);
    let (name, there) = (repository.clone(), state.clone());
    detached(async move { there.registry.finish_upload(&name, &id, &digest, window, payload).await })
        .await
        .map_err(|error| HttpError::Upload { error: error.into(), location: base.upload(&repository, &id) })?;
    Ok(created(request, &state, &repository, &digest))
}

pub(super) async fn delete(
    state: &State,
    repository: &RepositoryName,
    id: &UploadId,
) -> Result<HttpResponse, HttpError> {
    state.registry.cancel_upload(repository, id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Where the session is and how far it has come. Zero bytes are `0-0`: the spec has no other way to say it.
pub(in super::super) fn add_progress(response: &mut HttpResponseBuilder, location: &str, offset: u64) {
    response.insert_header((LOCATION, location));
    response.insert_header((RANGE, format!("0-{}", offset.saturating_sub(1))));
}

fn progress(
    response: &mut HttpResponseBuilder,
    base: &Base<'_>,
    repository: &RepositoryName,
    status: &UploadStatus,
) -> HttpResponse {
    add_progress(response, &base.upload(repository, &status.id), status.offset);
    response.insert_header((UPLOAD_UUID, status.id.to_string())).finish()
}

fn created(
    request: &HttpRequest,
    state: &State,
    repository: &RepositoryName,
    digest: &Digest,
) -> HttpResponse {
    state.metrics.blobs_pushed.inc();
    HttpResponse::Created()
        .insert_header((LOCATION, state.urls.base(request).blob(repository, digest)))
        .insert_header((CONTENT_DIGEST, digest.to_string()))
        .finish()
}

/// The bytes that the request says it carries: `<first>-<last>` (distribution-spec, "Pushing a blob in chunks").
/// RFC 9110's form, `bytes <first>-<last>/<size>`, means the same and is taken too.
fn window(request: &HttpRequest) -> Result<Option<Window>, QueryError> {
    let Some(value) = request.headers().get(CONTENT_RANGE) else { return Ok(None) };
    let window = value.to_str().ok().and_then(parse_window).ok_or(QueryError::ContentRange)?;
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length != window.len()) {
        return Err(QueryError::ContentLength);
    }
    Ok(Some(window))
}

pub(super) fn parse_window(text: &str) -> Option<Window> {
    let range = text.strip_prefix("bytes").map_or(text, str::trim_start);
    let range = range.split('/').next()?;
    let (start, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let window = Window { start: number(start)?, last: number(last)? };
    (window.start <= window.last).then_some(window)
}

/// Goes on when the client hangs up: what it sent until then is written, so that it can resume.
async fn detached<T: 'static>(
    work: impl Future<Output = Result<T, RegistryError>> + 'static,
) -> Result<T, RegistryError> {
    actix_web::rt::spawn(work.in_current_span()).await.unwrap_or(Err(RegistryError::Stopping))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_in_both_forms() {
        let window = |start, last| Some(Window { start, last });
        assert_eq!(parse_window("0-0"), window(0, 0));
        assert_eq!(parse_window("1024-2047"), window(1024, 2047));
        assert_eq!(parse_window("bytes 5-9/10"), window(5, 9));
        assert_eq!(parse_window("bytes 5-9/*"), window(5, 9));
        for bad in ["", "-", "5-", "-5", "9-5", "a-b", "+1-2", "0-18446744073709551616", "bytes */5"] {
            assert_eq!(parse_window(bad), None, "{bad}");
        }
        assert_eq!(Window { start: 0, last: u64::MAX }.len(), u64::MAX);
    }
}
