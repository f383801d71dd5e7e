//! What a client is told that has to log in: the value of `WWW-Authenticate`.

/// How to log in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// RFC 7617.
    Basic { realm: String },
    /// Distribution's token authentication.
    Bearer { realm: Realm, service: String, scope: Option<String>, error: Option<&'static str> },
}

/// Where tokens are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Realm {
    Url(String),
    /// A path on the host that was asked. Distribution's `autoredirect`: there is a proxy in front, which speaks TLS.
    Redirect(String),
    /// A path of ours on the host that was asked; the other challenge is for requests that name no host.
    Own {
        path: String,
        basic: String,
    },
}

/// How the client came here, by its own words: good for an address that it is sent to, never for who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Here {
    /// Host, with a port where there is one.
    pub(crate) host: String,
    /// The connection is TLS.
    pub(crate) secure: bool,
    /// What a proxy says of its own connection.
    pub(crate) forwarded: Option<Scheme>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Challenge {
    /// The header's value for this client.
    pub(crate) fn header(&self, here: Option<&Here>) -> String {
        let (realm, service, scope, error) = match self {
            Self::Basic { realm } => return basic(realm),
            Self::Bearer { realm, service, scope, error } => (realm, service, scope, error),
        };
        let realm = match (realm, here) {
            (Realm::Url(url), _) => url.clone(),
            (Realm::Own { path, .. }, Some(here)) => {
                here.url(if here.secure { Scheme::Https } else { Scheme::Http }, path)
            }
            (Realm::Own { basic: realm, .. }, None) => return basic(realm),
            (Realm::Redirect(path), Some(here)) => here.url(Scheme::Https, path),
            (Realm::Redirect(path), None) => path.clone(),
        };
        let scope = scope.as_ref().map(|scope| format!(",scope={}", quoted(scope))).unwrap_or_default();
        let error = error.as_ref().map(|error| format!(",error={}", quoted(error))).unwrap_or_default();
        format!("Bearer realm={},service={}{scope}{error}", quoted(&realm), quoted(service))
    }
}

impl Here {
    /// A proxy knows better which scheme the client used.
    fn url(&self, scheme: Scheme, path: &str) -> String {
        let scheme = match self.forwarded.unwrap_or(scheme) {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}{path}", self.host)
    }
}

fn basic(realm: &str) -> String {
    format!("Basic realm={}, charset=\"UTF-8\"", quoted(realm))
}

/// A quoted string of RFC 9110; what cannot stand in a header is left out.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars().filter(|letter| (' '..='~').contains(letter)) {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(secure: bool, forwarded: Option<Scheme>) -> Here {
        Here { host: "registry.example:5000".to_owned(), secure, forwarded }
    }

    fn bearer(realm: Realm, scope: Option<&str>, error: Option<&'static str>) -> Challenge {
        Challenge::Bearer {
            realm,
            service: "registry.example".to_owned(),
            scope: scope.map(str::to_owned),
            error,
        }
    }

    #[test]
    fn challenges_have_the_form_that_clients_read() {
        let url = Realm::Url("https://auth.example/token".to_owned());
        assert_eq!(
            bearer(url, Some("repository:a/b:pull,push"), Some("insufficient_scope")).header(None),
            "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"repository:a/b:pull,push\",error=\"insufficient_scope\""
        );
        let basic = Challenge::Basic { realm: "a \"b\"\r\n\\".to_owned() };
        assert_eq!(basic.header(None), "Basic realm=\"a \\\"b\\\"\\\\\", charset=\"UTF-8\"");
    }

    #[test]
    fn the_realm_is_on_the_host_that_was_asked() {
        let own =
            bearer(Realm::Own { path: "/auth/token".to_owned(), basic: "Sampan".to_owned() }, None, None);
        let realm = |challenge: &Challenge, here: &Here| {
            challenge.header(Some(here)).split('"').nth(1).map(str::to_owned)
        };
        let told = |url: &str| Some(url.to_owned());
        assert_eq!(realm(&own, &here(false, None)), told("http://registry.example:5000/auth/token"));
        assert_eq!(realm(&own, &here(true, None)), told("https://registry.example:5000/auth/token"));
        assert_eq!(
            realm(&own, &here(false, Some(Scheme::Https))),
            told("https://registry.example:5000/auth/token")
        );
        assert!(own.header(None).starts_with("Basic realm=\"Sampan\""));
        let redirect = bearer(Realm::Redirect("/auth/token".to_owned()), None, None);
        assert_eq!(realm(&redirect, &here(false, None)), told("https://registry.example:5000/auth/token"));
        assert_eq!(
            realm(&redirect, &here(false, Some(Scheme::Http))),
            told("http://registry.example:5000/auth/token")
        );
    }
}
