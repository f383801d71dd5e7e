//! Fuzz targets for what a client asks of the gateway.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a target is there to panic"
)]

use actix_web::http::header::{ACCEPT, HeaderMap, HeaderValue};

use super::headers::attachment;
use super::request::{Format, Wish};

/// A request: path and query on the first line, `Accept` on the second.
pub fn gateway(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (url, accept) = text.split_once('\n').unwrap_or((text, ""));
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut headers = HeaderMap::new();
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(ACCEPT, accept);
    }
    let Ok(wish) = Wish::read(path, query, &headers) else { return };
    assert!(path.starts_with("/ipfs/") || path.starts_with("/ipns/"));
    let name = wish.filename.as_deref().unwrap_or("a");
    assert!(HeaderValue::from_str(&attachment(name)).is_ok(), "{name:?}");
    if let Format::Car(options) = wish.format {
        assert!(HeaderValue::from_str(&options.tag()).is_ok());
    }
    // What the answer says of itself leads to the same without `Accept`.
    if let Some(location) = &wish.location {
        let (path, query) = location.split_once('?').unwrap();
        let again = Wish::read(path, query, &HeaderMap::new()).unwrap();
        assert_eq!(again.address, wish.address);
        let same_kind = std::mem::discriminant(&again.format) == std::mem::discriminant(&wish.format);
        assert!(same_kind, "{location}");
    }
}
