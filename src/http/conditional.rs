//! Entity tags: content is named by its digest, so a client that has the digest has the content (RFC 9110, 13).

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, IF_NONE_MATCH, IF_RANGE};

/// What a digest names never changes.
pub(crate) const IMMUTABLE: &str = "max-age=31536000, immutable";

pub(crate) fn etag(digest: &str) -> String {
    format!("\"{digest}\"")
}

/// The client holds exactly this.
pub(crate) fn is_unchanged(request: &HttpRequest, etag: &str) -> bool {
    let is_same = |tag: &str| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    };
    text(request, IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(is_same))
}

/// A range is of the content that the client began with.
pub(crate) fn is_same_range(request: &HttpRequest, etag: &str) -> bool {
    text(request, IF_RANGE).is_none_or(|tag| tag.trim() == etag)
}

fn text(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn tags_compare_as_the_rfc_says() {
        let with = |name: &'static str, value: &'static str| {
            TestRequest::default().insert_header((name, value)).to_http_request()
        };
        let tag = etag("sha256:00");
        for same in ["\"sha256:00\"", "W/\"sha256:00\"", "\"x\", \"sha256:00\"", "*"] {
            assert!(is_unchanged(&with("if-none-match", same), &tag), "{same}");
        }
        assert!(!is_unchanged(&with("if-none-match", "\"x\""), &tag));
        assert!(!is_unchanged(&TestRequest::default().to_http_request(), &tag));
        assert!(is_same_range(&TestRequest::default().to_http_request(), &tag));
        assert!(is_same_range(&with("if-range", "\"sha256:00\""), &tag));
        // Weak tags and dates never match a range.
        assert!(!is_same_range(&with("if-range", "W/\"sha256:00\""), &tag));
        assert!(!is_same_range(&with("if-range", "Sat, 29 Oct 1994 19:43:31 GMT"), &tag));
    }
}
