//! Names that people use: domains of the DNS, beside names that are keys.

use std::fmt;
use std::str::FromStr;

use sampan_node::Name;
use serde::{Deserialize, Serialize};

/// Longest domain (RFC 1035), without the dot at its end and with room for `_dnslink.` before it.
const MAX_DOMAIN: usize = 253 - "_dnslink.".len();
/// Longest part between two dots (RFC 1035).
const MAX_LABEL: usize = 63;

/// A domain as the DNS compares them: in small letters, without a dot at the end. Others than ASCII are written in
/// Punycode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Domain(String);

/// What stands behind `/ipns/`: something that points elsewhere, and may come to point elsewhere again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Pointer {
    Name(Name),
    Domain(Domain),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a name: it looks like k51qzi5uqu5d… (62 characters) or example.org, with or without /ipns/ before it"
)]
pub(crate) struct ParsePointerError;

impl Domain {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = ParsePointerError;

    fn from_str(text: &str) -> Result<Self, ParsePointerError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(inside)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        // Without a dot it is a word, and with a number at its end an address.
        let is_domain = text.len() <= MAX_DOMAIN
            && text.contains('.')
            && text.split('.').all(is_label)
            && !last.bytes().all(|byte| byte.is_ascii_digit());
        is_domain.then(|| Self(text.to_ascii_lowercase())).ok_or(ParsePointerError)
    }
}

impl FromStr for Pointer {
    type Err = ParsePointerError;

    fn from_str(text: &str) -> Result<Self, ParsePointerError> {
        let text = text.strip_prefix("/ipns/").unwrap_or(text);
        match text.parse() {
            Ok(name) => Ok(Self::Name(name)),
            Err(_) => text.parse().map(Self::Domain),
        }
    }
}

impl TryFrom<String> for Pointer {
    type Error = ParsePointerError;

    fn try_from(text: String) -> Result<Self, ParsePointerError> {
        text.parse()
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.to_string()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Domain(domain) => domain.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_told_from_a_key_and_from_what_is_neither() {
        let key = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";
        assert!(matches!(key.parse(), Ok(Pointer::Name(_))));
        for (text, domain) in [
            ("example.org", "example.org"),
            ("/ipns/Docs.IPFS.tech.", "docs.ipfs.tech"),
            ("_dnslink.a-b.example", "_dnslink.a-b.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            let pointer: Pointer = text.parse().unwrap();
            assert!(matches!(pointer, Pointer::Domain(_)));
            assert_eq!(pointer.to_string(), domain);
        }
        let long = format!("{}.org", "a".repeat(64));
        let longer = format!("{}org", "abcdefg.".repeat(32));
        for bad in [
            "",
            ".",
            "localhost",
            "192.0.2.1",
            "a..b",
            "a/b.org",
            "-a.org",
            "a-.org",
            "bücher.example",
            &long,
            &longer,
        ] {
            assert_eq!(bad.parse::<Pointer>(), Err(ParsePointerError), "{bad:?}");
        }
    }
}
