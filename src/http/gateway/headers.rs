//! What every answer of the gateway says about itself.

use std::fmt::Write as _;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LOCATION, ETAG, HeaderName, HeaderValue, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpResponse, HttpResponseBuilder};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sampan_storage::Cid;

use super::request::Wish;

const PATH: HeaderName = HeaderName::from_static("x-ipfs-path");
const ROOTS: HeaderName = HeaderName::from_static("x-ipfs-roots");
/// What a CID names never changes (path gateway specification, "Cache-Control").
const IMMUTABLE: &str = "public, max-age=29030400, immutable";
/// Letters of a file name that a client chose.
const MAX_NAME: usize = 255;

/// What is known before the body.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    pub(super) wish: &'a Wish,
    /// The root, and where each name of the path led to.
    pub(super) roots: Vec<Cid>,
    /// Seconds that a name may be believed; `None` for what never changes.
    pub(super) age: Option<u64>,
}

impl Answer<'_> {
    /// `name` is that of the file that a browser would save.
    pub(super) fn begin(&self, etag: &str, name: &str) -> HttpResponseBuilder {
        let mut response = HttpResponse::Ok();
        response.insert_header((ETAG, etag));
        match self.age {
            None => response.insert_header((CACHE_CONTROL, IMMUTABLE)),
            Some(age) => response.insert_header((CACHE_CONTROL, format!("public, max-age={age}"))),
        };
        response
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((VARY, "Accept"))
            .insert_header((CONTENT_DISPOSITION, attachment(self.wish.filename.as_deref().unwrap_or(name))));
        if let Ok(path) = HeaderValue::from_str(&self.wish.path) {
            response.insert_header((PATH, path));
        }
        if !self.roots.is_empty() {
            let roots: Vec<String> = self.roots.iter().map(Cid::to_string).collect();
            response.insert_header((ROOTS, roots.join(",")));
        }
        if let Some(location) = self.wish.location.as_ref().and_then(|text| HeaderValue::from_str(text).ok())
        {
            response.insert_header((CONTENT_LOCATION, location));
        }
        response
    }
}

/// Saved and never shown, under a name that any client understands (RFC 6266, with RFC 8187 for what is not ASCII).
pub(super) fn attachment(name: &str) -> String {
    let name: String = name.chars().take(MAX_NAME).collect();
    let plain = |char: char| if char.is_ascii_graphic() || char == ' ' { char } else { '_' };
    let ascii: String =
        name.chars().map(plain).map(|c| if matches!(c, '"' | '\\') { '_' } else { c }).collect();
    let mut text = format!("attachment; filename=\"{ascii}\"");
    if ascii != name {
        const ENCODED: &percent_encoding::AsciiSet =
            &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        // Writing to a String does not fail.
        let _ = write!(text, "; filename*=UTF-8''{}", utf8_percent_encode(&name, ENCODED));
    }
    text
}
