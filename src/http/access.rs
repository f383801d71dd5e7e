//! Who may push while nobody has set up authentication.
//!
//! A web page that a browser shows, and a proxy that passes the world on, can both reach a loopback port. So anonymous
//! push holds only for a request that looks in every way like one from this machine; everyone else needs the
//! operator's word for it.

use std::net::Ipv4Addr;

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HOST, HeaderMap, ORIGIN, VIA};
use actix_web::http::uri::Authority;

/// What the operator has set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Access {
    /// Anyone may push (`--anonymous push`).
    pub(crate) anonymous_push: bool,
    /// HTTP is bound to loopback addresses only.
    pub(crate) loopback: bool,
    /// Some authentication is configured.
    pub(crate) authentication: bool,
}

/// Why an anonymous client may not push. Each message says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("this registry has authentication set up and takes no anonymous push: log in first")]
    Authentication,
    #[error(
        "anonymous push is for this machine alone, and HTTP listens on other addresses too: set up authentication, or start with --anonymous push to let everyone push who reaches it"
    )]
    NotLoopback,
    #[error(
        "anonymous push is for this machine alone, under the name localhost, 127.0.0.1 or [::1], and this request names another host: use one of these, set up authentication, or start with --anonymous push"
    )]
    Host,
    #[error(
        "anonymous push is not for web pages, and this request has an Origin header: set up authentication, or start with --anonymous push"
    )]
    Origin,
    #[error(
        "anonymous push is for this machine alone, and this request came through a proxy: set up authentication, or start with --anonymous push"
    )]
    Proxied,
}

/// What a request says of where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visitor<'a> {
    /// The one `Host` header, or the authority of HTTP/2.
    pub(crate) host: Option<&'a str>,
    pub(crate) origin: bool,
    /// It has any header that proxies add.
    pub(crate) forwarded: bool,
}

impl Access {
    /// Whether an anonymous client may change anything, or look into an upload.
    pub(crate) fn may_push(self, visitor: &Visitor<'_>) -> Result<(), Denied> {
        if self.anonymous_push {
            return Ok(());
        }
        let denied = if self.authentication {
            Denied::Authentication
        } else if !self.loopback {
            Denied::NotLoopback
        } else if visitor.forwarded {
            Denied::Proxied
        } else if visitor.origin {
            Denied::Origin
        } else if !visitor.host.is_some_and(is_loopback_name) {
            Denied::Host
        } else {
            return Ok(());
        };
        Err(denied)
    }
}

impl<'a> Visitor<'a> {
    pub(crate) fn of(request: &'a HttpRequest) -> Self {
        let headers = request.headers();
        let mut hosts = headers.get_all(HOST);
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, _) => request.uri().authority().map(Authority::as_str),
            // Two hosts are none.
            (Some(_), Some(_)) => None,
        };
        Self { host, origin: headers.contains_key(ORIGIN), forwarded: is_forwarded(headers) }
    }
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    let plain =
        headers.contains_key(FORWARDED) || headers.contains_key(VIA) || headers.contains_key("x-real-ip");
    plain || headers.keys().any(|name| name.as_str().starts_with("x-forwarded-"))
}

/// `localhost`, an address of 127.0.0.0/8 or `[::1]`, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = host.strip_prefix("[::1]") {
        return rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const LOCAL: Access = Access { anonymous_push: false, loopback: true, authentication: false };

    fn visit(headers: &[(&str, &str)]) -> Result<(), Denied> {
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        LOCAL.may_push(&Visitor::of(&request.to_http_request()))
    }

    #[test]
    fn this_machine_under_its_own_name_may_push() {
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "127.9.8.7", "[::1]", "[::1]:80"] {
            assert_eq!(visit(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn other_names_may_not() {
        for host in [
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "127.1",
            "0.0.0.0",
            "192.168.1.2",
            "localhost:",
            "localhost:80:80",
            "localhost@evil",
            "[::2]",
            "[::1]x",
            "[::1]:",
            "2130706433",
            "",
        ] {
            assert_eq!(visit(&[("host", host)]), Err(Denied::Host), "{host}");
        }
        assert_eq!(visit(&[]), Err(Denied::Host));
        assert_eq!(visit(&[("host", "localhost"), ("host", "example.org")]), Err(Denied::Host));
    }

    #[test]
    fn web_pages_and_proxies_may_not() {
        let host = ("host", "localhost:5000");
        assert_eq!(visit(&[host, ("origin", "http://localhost:5000")]), Err(Denied::Origin));
        assert_eq!(visit(&[host, ("origin", "null")]), Err(Denied::Origin));
        for header in [
            "forwarded",
            "via",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "X-Forwarded-Anything",
        ] {
            assert_eq!(visit(&[host, (header, "x")]), Err(Denied::Proxied), "{header}");
        }
    }

    #[test]
    fn the_operator_decides() {
        let stranger = Visitor { host: Some("example.org"), origin: true, forwarded: true };
        let local = Visitor { host: Some("localhost"), ..Visitor::default() };
        let everyone = Access { anonymous_push: true, loopback: false, authentication: true };
        assert_eq!(everyone.may_push(&stranger), Ok(()));
        assert_eq!(Access { loopback: false, ..LOCAL }.may_push(&local), Err(Denied::NotLoopback));
        assert_eq!(Access { authentication: true, ..LOCAL }.may_push(&local), Err(Denied::Authentication));
    }
}
