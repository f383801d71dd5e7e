//! `n`, `last` and the `Link` to the next page, as tags, catalog and referrers have them.

use actix_web::http::header::{HeaderName, LINK};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::error::QueryError;
use super::query::Query;

/// Items that a client asks for; a page of the largest size where it does not say.
pub(super) fn limit(query: &Query, most: usize) -> Result<usize, QueryError> {
    match query.get("n") {
        None => Ok(most),
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            // More digits than fit are more than a page.
            Ok(text.parse().unwrap_or(most).min(most))
        }
        Some(_) => Err(QueryError::PageSize),
    }
}

/// The header that leads on (RFC 8288). Parameters are encoded here.
pub(super) fn next(path: &str, parameters: &[(&str, &str)]) -> (HeaderName, String) {
    let encode =
        |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let parameters: Vec<String> = parameters.iter().map(encode).collect();
    (LINK, format!("<{path}?{}>; rel=\"next\"", parameters.join("&")))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::registry::MAX_PAGE;

    fn of(query: &str) -> Result<usize, QueryError> {
        let request = TestRequest::with_uri(&format!("/v2/_catalog?{query}")).to_http_request();
        limit(&Query::of(&request)?, MAX_PAGE)
    }

    #[test]
    fn page_sizes_are_cut_and_never_trusted() {
        assert_eq!(of(""), Ok(MAX_PAGE));
        assert_eq!(of("n=0"), Ok(0));
        assert_eq!(of("n=7"), Ok(7));
        assert_eq!(of("n=99999999999999999999999999"), Ok(MAX_PAGE));
        for bad in ["n=", "n=-1", "n=x", "n=1.5", "n=%2B1"] {
            assert_eq!(of(bad), Err(QueryError::PageSize), "{bad}");
        }
    }

    #[test]
    fn links_are_encoded() {
        let (_, link) = next("/v2/a/tags/list", &[("n", "2"), ("last", "a+b/c>")]);
        assert_eq!(link, "</v2/a/tags/list?n=2&last=a%2Bb%2Fc%3E>; rel=\"next\"");
    }
}
