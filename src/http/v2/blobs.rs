//! `/v2/<name>/blobs/<digest>`, whole, in a range or in several.

use std::ops::Range;
use std::rc::Rc;

use actix_web::body::SizedStream;
use actix_web::http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use sampan_storage::{Digest, RepositoryName};

use super::super::State;
use super::super::body::{self, HeadOf};
use super::super::conditional::{self, IMMUTABLE};
use super::super::connection::Connection;
use super::super::error::HttpError;
use super::super::range::{self, Selection};
use super::{CONTENT_DIGEST, manifests};
use crate::registry::Blob;

const OCTETS: &str = "application/octet-stream";

pub(super) async fn get(
    request: &HttpRequest,
    state: &State,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<HttpResponse, HttpError> {
    let blob = state.registry.blob(repository, digest).await?;
    let size = blob.size();
    let etag = conditional::etag(&digest.to_string());
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_DIGEST, digest.to_string()));
    response.insert_header((CACHE_CONTROL, IMMUTABLE));
    response.insert_header((ACCEPT_RANGES, "bytes"));
    if conditional::is_unchanged(request, &etag) {
        return Ok(response.status(StatusCode::NOT_MODIFIED).insert_header((ETAG, etag)).finish());
    }
    response.insert_header((CONTENT_TYPE, OCTETS));
    let ranges = request.headers().get(RANGE).and_then(|value| value.to_str().ok());
    // Of a file that has changed since, a client wants the whole.
    let ranges = ranges.filter(|_| conditional::is_same_range(request, &etag));
    response.insert_header((ETAG, etag));
    if request.method() == Method::HEAD {
        return Ok(response.body(HeadOf(size)));
    }
    match range::select(ranges, size) {
        Selection::Unsatisfiable => Err(HttpError::Range { size }),
        Selection::Whole => send(request, state, &mut response, blob, 0..size).await,
        Selection::Parts(parts) => match parts.as_slice() {
            [part] => {
                response.status(StatusCode::PARTIAL_CONTENT);
                response.insert_header((CONTENT_RANGE, range::content_range(part, size)));
                send(request, state, &mut response, blob, part.clone()).await
            }
            _ => Ok(send_parts(request, state, &mut response, &blob, parts, digest)),
        },
    }
}

pub(super) async fn delete(
    state: &State,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<HttpResponse, HttpError> {
    Ok(manifests::deleted(&state.registry.delete_blob(repository, digest).await?))
}

async fn send(
    request: &HttpRequest,
    state: &State,
    response: &mut HttpResponseBuilder,
    blob: Blob,
    range: Range<u64>,
) -> Result<HttpResponse, HttpError> {
    let length = range.end - range.start;
    // Opened before the answer begins, so that a blob that no peer gives is a 404 and no broken body.
    if let Blob::Remote(want) = blob {
        let opened = state.registry.open(want, Some(range)).await?;
        return Ok(response.body(SizedStream::new(length, opened.body)));
    }
    Ok(response
        .body(SizedStream::new(length, body::part(&state.registry, &blob, range, request.conn_data()))))
}

/// `multipart/byteranges` (RFC 9110, section 14.6).
fn send_parts(
    request: &HttpRequest,
    state: &State,
    response: &mut HttpResponseBuilder,
    blob: &Blob,
    parts: Vec<Range<u64>>,
    digest: &Digest,
) -> HttpResponse {
    let size = blob.size();
    // Content that held its own digest in hex would have to be its own hash.
    let hex = digest.hex();
    let boundary = hex.get(..48).unwrap_or(&hex);
    let head = |part: &Range<u64>| {
        let content_range = range::content_range(part, size);
        format!("\r\n--{boundary}\r\nContent-Type: {OCTETS}\r\nContent-Range: {content_range}\r\n\r\n")
    };
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = parts.iter().map(|part| head(part).len() as u64 + part.end - part.start).sum::<u64>();
    let length = length + tail.len() as u64;

    response.status(StatusCode::PARTIAL_CONTENT);
    response.insert_header((CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}")));
    let heads: Vec<String> = parts.iter().map(head).collect();
    let (registry, blob) = (state.registry.clone(), blob.clone());
    let connection = request.conn_data::<Rc<Connection>>().cloned();
    let text = |text: String| stream::once(std::future::ready(Ok(Bytes::from(text))));
    let body = stream::iter(heads.into_iter().zip(parts))
        .flat_map(move |(head, part)| {
            text(head).chain(body::part(&registry, &blob, part, connection.as_ref()))
        })
        .chain(text(tail));
    response.body(SizedStream::new(length, body.boxed_local()))
}
