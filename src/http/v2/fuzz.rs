//! Fuzz targets for paths, queries and headers of requests.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target is there to panic"
)]

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::TestRequest;

use super::paging;
use super::path::Route;
use super::query::Query;
use super::uploads::parse_window;
use crate::config::Locations;
use crate::http::range::{Selection, content_range as write_range, select};
use crate::http::urls::Urls;
use crate::registry::MAX_PAGE;

/// Paths below `/v2/`: what is read is written back as a path that leads to the same.
pub fn path(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(route) = Route::parse(text) else { return };
    let (repository, written) = match &route {
        Route::Base | Route::Catalog => return,
        Route::Tags(repository) => (repository, format!("/v2/{repository}/tags/list")),
        Route::Manifest(repository, reference) => {
            (repository, format!("/v2/{repository}/manifests/{reference}"))
        }
        Route::Blob(repository, digest) => (repository, format!("/v2/{repository}/blobs/{digest}")),
        Route::Uploads(repository) => (repository, format!("/v2/{repository}/blobs/uploads/")),
        Route::Upload(repository, id) => (repository, format!("/v2/{repository}/blobs/uploads/{id}")),
        Route::Referrers(repository, digest) => (repository, format!("/v2/{repository}/referrers/{digest}")),
    };
    assert!(!repository.as_str().contains(".."));
    assert!(written.bytes().all(|byte| byte.is_ascii_graphic()), "{written:?} goes into a header");
    assert_eq!(Route::parse(&written), Ok(route));
}

/// Query strings, page sizes, and the links that lead on.
pub fn query(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(query) = Query::read(text) else { return };
    let limit = paging::limit(&query, MAX_PAGE);
    assert!(limit.is_err() || limit.is_ok_and(|limit| limit <= MAX_PAGE));
    let _ = (query.digest("digest"), query.digest("mount"), query.all("tag").count());
    let last = query.get("last").unwrap_or_default();
    let (_, link) = paging::next("/v2/a/tags/list", &[("n", "7"), ("last", last)]);
    assert!(HeaderValue::from_str(&link).is_ok(), "{link:?}");
    let next = link.strip_prefix("</v2/a/tags/list?").and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
    let next = next.map(|next| Query::read(next).map(|next| next.get("last") == Some(last)));
    assert_eq!(next, Some(Ok(true)), "{link:?}");
}

/// `Range` headers. The first two bytes are the length of the content.
pub fn range(data: &[u8]) {
    let Some((size, header)) = data.split_first_chunk::<2>() else { return };
    let size = u64::from(u16::from_le_bytes(*size));
    let Ok(header) = str::from_utf8(header) else { return };
    let Selection::Parts(parts) = select(Some(header), size) else { return };
    assert!(!parts.is_empty() && parts.iter().all(|part| part.start < part.end && part.end <= size));
    let total: u64 = parts.iter().map(|part| part.end - part.start).sum();
    assert!(total <= size || parts.len() == 1, "no more is sent than the content has");
    for part in parts {
        let again = format!("bytes={}-{}", part.start, part.end - 1);
        assert_eq!(select(Some(&again), size), Selection::Parts(vec![part.clone()]));
        assert!(HeaderValue::from_str(&write_range(&part, size)).is_ok());
    }
}

/// `Content-Range` of uploads.
pub fn content_range(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Some(window) = parse_window(text) else { return };
    assert!(window.start <= window.last && window.len() > 0);
    assert_eq!(parse_window(&format!("{}-{}", window.start, window.last)), Some(window));
}

/// What proxies say of a request, one header in each line: a location goes into a header and keeps its path.
pub fn forwarded(data: &[u8]) {
    let mut request = TestRequest::get().uri("/v2/");
    for line in data.split(|byte| *byte == b'\n').take(8) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value[1..].trim_ascii()))
        else {
            continue;
        };
        request = request.append_header((name, value));
    }
    let request = request.to_http_request();
    let urls = Urls::new(Locations::Asked, "/registry".to_owned());
    let location = urls.base(&request).catalog();
    assert!(HeaderValue::from_str(&location).is_ok(), "{location:?}");
    let host = location.strip_suffix("/registry/v2/_catalog").unwrap();
    if !host.is_empty() {
        let host = ["http://", "https://"].iter().find_map(|scheme| host.strip_prefix(scheme)).unwrap();
        assert!(!host.is_empty() && !host.contains(['/', '?', '#', '@', '\\', ' ']), "{location:?}");
        let uri: actix_web::http::Uri = location.parse().unwrap();
        assert_eq!(uri.path(), "/registry/v2/_catalog");
    }
}
