//! Where answers point to: every `Location` and `Link` begins with what is made here.
//!
//! A path alone is right behind every proxy, and clients that guard themselves against being sent to private addresses
//! take nothing else. Who wants whole URLs gets them from one that is configured, or from what the request says.

use std::borrow::Cow;

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HOST, HeaderMap};
use sampan_storage::{Digest, RepositoryName, UploadId};

use super::server::Secure;
use crate::config::{self, Locations};

/// How locations are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Urls {
    locations: Locations,
    prefix: String,
}

/// What the locations of one answer begin with.
#[derive(Clone, Debug)]
pub(crate) struct Base<'a>(Cow<'a, str>);

impl Urls {
    /// `prefix` is empty, or begins with a slash and ends without one.
    pub(crate) fn new(locations: Locations, prefix: String) -> Self {
        let locations = match locations {
            // A URL with a path knows the whole way; one without leads to the prefix.
            Locations::Fixed(url) if !has_path(&url) => Locations::Fixed(url + &prefix),
            other => other,
        };
        Self { locations, prefix }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn base(&self, request: &HttpRequest) -> Base<'_> {
        Base(match &self.locations {
            Locations::Relative => Cow::Borrowed(&self.prefix),
            Locations::Fixed(url) => Cow::Borrowed(url),
            Locations::Asked => match asked(request) {
                Some(origin) => Cow::Owned(origin + &self.prefix),
                None => Cow::Borrowed(&self.prefix),
            },
        })
    }
}

impl Base<'_> {
    pub(crate) fn manifest(&self, repository: &RepositoryName, digest: &Digest) -> String {
        format!("{}/v2/{repository}/manifests/{digest}", self.0)
    }

    pub(crate) fn blob(&self, repository: &RepositoryName, digest: &Digest) -> String {
        format!("{}/v2/{repository}/blobs/{digest}", self.0)
    }

    pub(crate) fn upload(&self, repository: &RepositoryName, id: &UploadId) -> String {
        format!("{}/v2/{repository}/blobs/uploads/{id}", self.0)
    }

    pub(crate) fn catalog(&self) -> String {
        format!("{}/v2/_catalog", self.0)
    }

    pub(crate) fn tags(&self, repository: &RepositoryName) -> String {
        format!("{}/v2/{repository}/tags/list", self.0)
    }

    pub(crate) fn referrers(&self, repository: &RepositoryName, subject: &Digest) -> String {
        format!("{}/v2/{repository}/referrers/{subject}", self.0)
    }
}

fn has_path(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'))
}

/// Scheme and host as the request, or the first proxy before it, names them; `None` where one of them is no such thing.
fn asked(request: &HttpRequest) -> Option<String> {
    let headers = request.headers();
    let mut scheme = if request.conn_data::<Secure>().is_some() { "https" } else { "http" };
    let authority = request.uri().authority().map(actix_web::http::uri::Authority::as_str);
    let mut host = text(headers, HOST.as_str()).or(authority);
    let mut port = None;
    // RFC 7239 stands above the older headers.
    if let Some(forwarded) = text(headers, FORWARDED.as_str()) {
        scheme = parameter(forwarded, "proto").unwrap_or(scheme);
        host = parameter(forwarded, "host").or(host);
    } else {
        scheme = text(headers, "x-forwarded-proto").map_or(scheme, first);
        if let Some(forwarded) = text(headers, "x-forwarded-host") {
            host = Some(first(forwarded));
        }
        port = text(headers, "x-forwarded-port").map(first).and_then(|port| port.parse::<u16>().ok());
    }
    let scheme = ["https", "http"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
    let host = host.filter(|host| config::is_host(host))?;
    let has_port = host.rsplit_once(':').is_some_and(|(_, behind)| !behind.contains(']'));
    let default = if scheme == "https" { 443 } else { 80 };
    let port = port.filter(|port| !has_port && *port != default);
    Some(port.map_or_else(|| format!("{scheme}://{host}"), |port| format!("{scheme}://{host}:{port}")))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Each proxy appends what it was asked for; the first is what the client said.
fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or_default().trim()
}

/// A parameter of the first element of `Forwarded`.
fn parameter<'a>(forwarded: &'a str, name: &str) -> Option<&'a str> {
    let pairs = first(forwarded).split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn upload(urls: &Urls, headers: &[(&str, &str)]) -> String {
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        urls.base(&request.to_http_request()).tags(&"a/b".parse().unwrap())
    }

    #[test]
    fn locations_are_paths_whoever_asks() {
        let urls = Urls::default();
        let proxied = [("host", "evil.example"), ("x-forwarded-proto", "https"), ("forwarded", "host=x")];
        assert_eq!(upload(&urls, &proxied), "/v2/a/b/tags/list");
        let below = Urls::new(Locations::Relative, "/my/registry".to_owned());
        assert_eq!(upload(&below, &proxied), "/my/registry/v2/a/b/tags/list");
    }

    #[test]
    fn a_configured_url_stands_above_all() {
        let fixed = |url: &str, prefix: &str| {
            let urls = Urls::new(Locations::Fixed(url.to_owned()), prefix.to_owned());
            upload(&urls, &[("host", "evil.example"), ("x-forwarded-host", "evil.example")])
        };
        assert_eq!(fixed("https://a:5000", ""), "https://a:5000/v2/a/b/tags/list");
        assert_eq!(fixed("https://a", "/p"), "https://a/p/v2/a/b/tags/list");
        // As Distribution: the path of the URL is the whole way.
        assert_eq!(fixed("https://a/outer", "/p"), "https://a/outer/v2/a/b/tags/list");
    }

    #[test]
    fn whole_urls_are_what_the_first_proxy_was_asked_for() {
        let urls = Urls::new(Locations::Asked, "/p".to_owned());
        let host = ("host", "registry:5000");
        for (headers, origin) in [
            (vec![host], "http://registry:5000"),
            (vec![host, ("x-forwarded-proto", "https")], "https://registry:5000"),
            (
                vec![host, ("x-forwarded-proto", "HTTPS, http"), ("x-forwarded-host", "a.example, b")],
                "https://a.example",
            ),
            (
                vec![host, ("x-forwarded-host", "a.example"), ("x-forwarded-port", "8443")],
                "http://a.example:8443",
            ),
            (
                vec![
                    host,
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "a"),
                    ("x-forwarded-port", "443"),
                ],
                "https://a",
            ),
            (vec![host, ("x-forwarded-host", "a:1"), ("x-forwarded-port", "2")], "http://a:1"),
            (vec![host, ("x-forwarded-host", "[::1]"), ("x-forwarded-port", "2")], "http://[::1]:2"),
            (vec![host, ("x-forwarded-port", "99999")], "http://registry:5000"),
            (
                vec![host, ("forwarded", "for=192.0.2.1;proto=https;host=\"a:8443\", for=x;host=b")],
                "https://a:8443",
            ),
            // RFC 7239 alone counts where it is there.
            (vec![host, ("forwarded", "for=x"), ("x-forwarded-host", "evil")], "http://registry:5000"),
        ] {
            assert_eq!(upload(&urls, &headers), format!("{origin}/p/v2/a/b/tags/list"), "{headers:?}");
        }
    }

    #[test]
    fn what_is_no_host_or_scheme_leaves_a_path() {
        let urls = Urls::new(Locations::Asked, String::new());
        let host = ("host", "registry");
        for header in [
            ("x-forwarded-host", "evil.example/path"),
            ("x-forwarded-host", "user@evil"),
            ("x-forwarded-host", "a b"),
            ("x-forwarded-host", ""),
            ("x-forwarded-proto", "javascript"),
            ("forwarded", "host=\"\""),
            ("forwarded", "host=a\"b"),
            ("forwarded", "proto=gopher"),
            ("forwarded", "host=a\\b"),
        ] {
            assert_eq!(upload(&urls, &[host, header]), "/v2/a/b/tags/list", "{header:?}");
        }
        assert_eq!(upload(&urls, &[("host", "a?b")]), "/v2/a/b/tags/list");
        assert_eq!(upload(&urls, &[]), "/v2/a/b/tags/list");
    }

    proptest::proptest! {
        #[test]
        fn no_header_gets_into_a_location(
            value in "[ -~]{0,60}",
            name in proptest::sample::select(vec!["host", "forwarded", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port"]),
        ) {
            let urls = Urls::new(Locations::Asked, String::new());
            let location = upload(&urls, &[(name, &value)]);
            let origin = location.strip_suffix("/v2/a/b/tags/list").unwrap();
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            assert!(origin.is_empty() || config::is_host(host), "{location}");
        }
    }
}
