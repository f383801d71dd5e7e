//! Who a request is from, and what the gate says to it. The gate itself is [`Auth`]; here stands what only HTTP knows.
//!
//! While nobody has set up authentication, a client of this machine may push. A web page that a browser shows, and a
//! proxy that passes the world on, can both reach a loopback port, so this holds only for a request that looks in every
//! way like one from this machine. What proxies say of a client is never taken for who it is.

use std::net::Ipv4Addr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderMap, ORIGIN, VIA};
use actix_web::http::uri::Authority;

use super::error::HttpError;
use super::server::Secure;
use super::tls::PeerCertificate;
use crate::auth::{
    Ask, Auth, Caller, Challenge, Credentials, Here, LoginError, Malformed, Place, Scheme, Stranger, Verdict,
};
use crate::registry::Sight;

/// Longest name of a host (RFC 1035), with a port behind it.
const MAX_HOST: usize = 255 + 6;

/// What the operator has set.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) auth: Auth,
    /// HTTP is bound to loopback addresses only.
    pub(crate) loopback: bool,
}

impl Access {
    /// Who the request is from. `ask` is what it will ask, so that who fails to log in hears how to.
    pub(crate) async fn identify(&self, request: &HttpRequest, ask: Ask<'_>) -> Result<Caller, HttpError> {
        let place = self.place(request);
        if self.auth.is_open() {
            return Ok(Caller::anonymous(place));
        }
        let certificate = request.conn_data::<PeerCertificate>().and_then(|name| name.0.as_deref());
        let login = |error| failed(request, error, &self.auth.challenge_after(error, ask));
        let credentials = credentials(request)?.transpose().map_err(login)?;
        self.auth.identify(credentials, certificate, place).await.map_err(login)
    }

    /// The gate.
    pub(crate) fn check(
        &self,
        request: &HttpRequest,
        caller: &Caller,
        ask: Ask<'_>,
    ) -> Result<(), HttpError> {
        match self.auth.may(caller, ask) {
            Verdict::Allowed => Ok(()),
            Verdict::NeedsLogin(challenge) => {
                Err(HttpError::NeedsLogin { challenge: challenge.header(here(request).as_ref()) })
            }
            Verdict::Forbidden(denied) => Err(denied.into()),
        }
    }

    /// The repositories from which the caller may take content.
    pub(crate) fn sight(&self, caller: &Caller) -> Sight {
        if self.auth.sees_all(caller) {
            return Sight::All;
        }
        let known = self.auth.shown(caller);
        let (auth, caller) = (self.auth.clone(), caller.clone());
        Sight::Only { sees: Arc::new(move |repository| auth.sees(&caller, repository)), known }
    }

    fn place(&self, request: &HttpRequest) -> Place {
        let headers = request.headers();
        let stranger = if !self.loopback {
            Stranger::NotLoopback
        } else if is_forwarded(headers) {
            Stranger::Proxied
        } else if headers.contains_key(ORIGIN) {
            Stranger::Origin
        } else if !host(request).is_some_and(is_loopback_name) {
            Stranger::Host
        } else {
            return Place::Here;
        };
        Place::Elsewhere(stranger)
    }
}

/// What the client brings, if anything. Two of them are none: a proxy and the registry might each read another.
pub(super) fn credentials(
    request: &HttpRequest,
) -> Result<Option<Result<Credentials, LoginError>>, HttpError> {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    match (headers.next(), headers.next()) {
        (None, _) => Ok(None),
        (Some(header), None) => {
            Ok(Some(Credentials::parse(header.as_bytes()).map_err(|Malformed| LoginError::Malformed)))
        }
        (Some(_), Some(_)) => Err(HttpError::SeveralCredentials),
    }
}

/// How the client says that it came here. Where it names no host that can stand in a URL, there is none.
fn here(request: &HttpRequest) -> Option<Here> {
    let host = host(request).filter(|host| is_host(host))?.to_owned();
    let mut schemes = request.headers().get_all("x-forwarded-proto");
    let forwarded =
        match (schemes.next().map(|scheme| scheme.as_bytes().to_ascii_lowercase()), schemes.next()) {
            (Some(scheme), None) if scheme == b"https" => Some(Scheme::Https),
            (Some(scheme), None) if scheme == b"http" => Some(Scheme::Http),
            _ => None,
        };
    Some(Here { host, secure: request.conn_data::<Secure>().is_some(), forwarded })
}

/// The one `Host` header, or the authority of HTTP/2. Two hosts are none.
fn host(request: &HttpRequest) -> Option<&str> {
    let mut hosts = request.headers().get_all(HOST);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => request.uri().authority().map(Authority::as_str),
        (Some(_), Some(_)) => None,
    }
}

/// A name or an address, with or without a port; nothing that would end the host of a URL.
fn is_host(host: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(letter)
}

/// An attempt to log in that failed, and how to do it right.
pub(super) fn failed(request: &HttpRequest, error: LoginError, challenge: &Challenge) -> HttpError {
    HttpError::Login { error, challenge: challenge.header(here(request).as_ref()) }
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
    use crate::auth::{Action, Denied};

    fn request(headers: &[(&str, &str)]) -> HttpRequest {
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        request.to_http_request()
    }

    fn push(access: &Access, headers: &[(&str, &str)]) -> Result<(), Denied> {
        let caller = Caller::anonymous(access.place(&request(headers)));
        match access.auth.may(&caller, Ask::Repository(&"a".parse().unwrap(), Action::Push)) {
            Verdict::Allowed => Ok(()),
            Verdict::Forbidden(denied) => Err(denied),
            Verdict::NeedsLogin(challenge) => panic!("{challenge:?}"),
        }
    }

    fn visit(headers: &[(&str, &str)]) -> Result<(), Denied> {
        push(&Access { auth: Auth::open(false), loopback: true }, headers)
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
            assert_eq!(visit(&[("host", host)]), Err(Stranger::Host.into()), "{host}");
        }
        assert_eq!(visit(&[]), Err(Stranger::Host.into()));
        assert_eq!(visit(&[("host", "localhost"), ("host", "example.org")]), Err(Stranger::Host.into()));
    }

    #[test]
    fn web_pages_and_proxies_may_not() {
        let host = ("host", "localhost:5000");
        assert_eq!(visit(&[host, ("origin", "http://localhost:5000")]), Err(Stranger::Origin.into()));
        assert_eq!(visit(&[host, ("origin", "null")]), Err(Stranger::Origin.into()));
        for header in [
            "forwarded",
            "via",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "X-Forwarded-Anything",
        ] {
            assert_eq!(visit(&[host, (header, "x")]), Err(Stranger::Proxied.into()), "{header}");
        }
    }

    #[test]
    fn the_operator_decides() {
        let stranger = [("host", "example.org"), ("origin", "null"), ("forwarded", "x")];
        let everyone = Access { auth: Auth::open(true), loopback: false };
        assert_eq!(push(&everyone, &stranger), Ok(()));
        let other = Access { auth: Auth::open(false), loopback: false };
        assert_eq!(push(&other, &[("host", "localhost")]), Err(Stranger::NotLoopback.into()));
    }

    #[test]
    fn a_client_is_sent_to_a_host_that_can_stand_in_a_url() {
        let host = |headers: &[(&str, &str)]| here(&request(headers)).map(|here| here.host);
        for good in ["example.org", "example.org:5000", "[::1]:5000", "192.0.2.1"] {
            assert_eq!(host(&[("host", good)]).as_deref(), Some(good));
        }
        let long = "a".repeat(300);
        for bad in ["", "a/b", "a\"b", "user@a", "a b", "a?b", "a#b", "a\\b", &long] {
            assert_eq!(host(&[("host", bad)]), None, "{bad}");
        }
        assert_eq!(host(&[("host", "a"), ("host", "b")]), None);
        let scheme = |headers: &[(&str, &str)]| {
            let host = [("host", "a")];
            here(&request(&[&host, headers].concat())).unwrap().forwarded
        };
        assert_eq!(scheme(&[("x-forwarded-proto", "HTTPS")]), Some(Scheme::Https));
        assert_eq!(scheme(&[("x-forwarded-proto", "http")]), Some(Scheme::Http));
        assert_eq!(scheme(&[("x-forwarded-proto", "javascript")]), None);
        assert_eq!(scheme(&[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")]), None);
        // Only the scheme is taken from a proxy.
        assert_eq!(host(&[("host", "a"), ("x-forwarded-host", "b")]).as_deref(), Some("a"));
    }
}
