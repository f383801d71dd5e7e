//! Repository names, tags and references as the distribution spec writes them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::digest::{Digest, DigestError};

/// Clients cap `host/name` at 255 characters (distribution-spec, "Pulling manifests").
pub const MAX_REPOSITORY: usize = 255;
/// Length of a tag (distribution-spec, "Pulling manifests").
pub const MAX_TAG: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "a repository name is lower-case letters and digits, parted by single `.`, `_`, `__`, dashes or `/`, at most 255 characters"
    )]
    Repository,
    #[error(
        "a tag is letters, digits, `_`, `.` and `-`, does not start with `.` or `-`, at most 128 characters"
    )]
    Tag,
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/…)*`, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !alphanumeric(bytes.first()) || !alphanumeric(bytes.last()) {
        return false;
    }
    // Between letters and digits stands one separator: `.`, `_`, `__` or any number of dashes.
    bytes
        .split(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_REPOSITORY || !text.split('/').all(is_component) {
            return Err(NameError::Repository);
        }
        Ok(Self(text.into()))
    }
}

/// A tag, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let starts_well = text.bytes().next().is_some_and(word);
        if !starts_well || text.len() > MAX_TAG || !text.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
            return Err(NameError::Tag);
        }
        Ok(Self(text.into()))
    }
}

/// What stands behind `/manifests/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = NameError;

    /// A tag has no colon, a digest has one.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
text!(RepositoryName);
text!(Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_grammar() {
        for good in
            ["a", "foo/bar", "a.b", "a_b", "a__b", "a---b", "library/debian", "a/b/c/d/e/f/g/h/i", "0/1"]
        {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "..", "../a", "a/_x", "ä",
            "a b",
        ] {
            assert_eq!(bad.parse::<RepositoryName>(), Err(NameError::Repository), "{bad}");
        }
        assert!("a".repeat(256).parse::<RepositoryName>().is_err());
    }

    #[test]
    fn tags_follow_the_grammar() {
        for good in ["v1", "_x", "1.0.0-rc.1", "A"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a/b", "a b", "ä"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
        assert!("a".repeat(129).parse::<Tag>().is_err());
    }

    #[test]
    fn a_reference_is_a_digest_where_it_has_a_colon() {
        assert!(matches!("v1".parse(), Ok(Reference::Tag(_))));
        assert!(matches!("sha256:x".parse::<Reference>(), Err(NameError::Digest(_))));
    }
}
