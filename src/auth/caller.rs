//! Who asks, as far as it is known and proved.

use std::fmt;
use std::sync::Arc;

use super::grants::Grants;

/// A client, and what the token in its hand confines it to.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(super) identity: Identity,
    /// `None`: all that the identity may do.
    pub(super) limits: Option<Grants>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Anonymous(Place),
    /// Has proved a password of the htpasswd file.
    User(Arc<str>),
    /// Has proved the key of a client certificate. The name is that of the certificate.
    Certificate(Arc<str>),
    /// Brings a token of the configured issuer, who alone knows what it may do.
    Bearer(Arc<str>),
}

/// Where an anonymous client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This machine, as far as a request can show it.
    Here,
    Elsewhere(Stranger),
}

/// Why a client is not taken for one of this machine. Each message says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
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

impl Caller {
    pub(crate) fn anonymous(place: Place) -> Self {
        Identity::Anonymous(place).into()
    }

    /// The same caller without its token's limits, for a list that the token lets it see.
    pub(crate) fn unlimited(self) -> Self {
        Self { limits: None, ..self }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.identity, Identity::Anonymous(_))
    }
}

impl From<Identity> for Caller {
    fn from(identity: Identity) -> Self {
        Self { identity, limits: None }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous(_) => formatter.write_str("an anonymous client"),
            Self::User(name) => write!(formatter, "user {name}"),
            Self::Certificate(name) => write!(formatter, "certificate {name}"),
            Self::Bearer(name) if name.is_empty() => formatter.write_str("the holder of this token"),
            Self::Bearer(name) => write!(formatter, "the holder of {name}'s token"),
        }
    }
}
