//! The header `Authorization`, read strictly: what a client brings, not whether it is right.

use std::fmt;

use data_encoding::BASE64;

/// Longest header that is read. Tokens with many grants are some kilobytes.
const MAX_HEADER: usize = 32 * 1024;
/// Longest name and password together.
const MAX_BASIC: usize = 1024;

/// What a client brings to show who it is.
pub(crate) enum Credentials {
    Basic { user: String, password: Password },
    Bearer(String),
}

/// Never shown.
pub(crate) struct Password(Vec<u8>);

/// The header is there and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Credentials {
    /// Of the value of one header.
    pub(crate) fn parse(header: &[u8]) -> Result<Self, Malformed> {
        let text =
            std::str::from_utf8(header).ok().filter(|text| text.len() <= MAX_HEADER).ok_or(Malformed)?;
        let (scheme, value) = text.split_once(' ').ok_or(Malformed)?;
        let value = value.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("bearer") {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
            let sound = !value.is_empty() && value.bytes().all(letter);
            return sound.then(|| Self::Bearer(value.to_owned())).ok_or(Malformed);
        }
        if !scheme.eq_ignore_ascii_case("basic") || value.len() > BASE64.encode_len(MAX_BASIC) {
            return Err(Malformed);
        }
        let decoded = BASE64.decode(value.as_bytes()).map_err(|_| Malformed)?;
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Malformed)?;
        let (user, password) = decoded.split_at_checked(colon).ok_or(Malformed)?;
        let user = std::str::from_utf8(user).ok().filter(|user| is_user(user)).ok_or(Malformed)?;
        let password = password.get(1..).unwrap_or_default();
        // Programs that hash C strings would stop there and take the beginning for the whole.
        if password.contains(&0) {
            return Err(Malformed);
        }
        Ok(Self::Basic { user: user.to_owned(), password: Password(password.to_vec()) })
    }
}

impl Password {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a user can have this name.
pub(super) fn is_user(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.contains(':') && !name.chars().any(char::is_control)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => {
                formatter.debug_struct("Basic").field("user", user).finish_non_exhaustive()
            }
            Self::Bearer(_) => formatter.write_str("Bearer"),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

#[cfg(test)]
impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn basic(text: &[u8]) -> Result<(String, Vec<u8>), Malformed> {
        match Credentials::parse(format!("Basic {}", BASE64.encode(text)).as_bytes())? {
            Credentials::Basic { user, password } => Ok((user, password.0)),
            Credentials::Bearer(_) => panic!("no password"),
        }
    }

    #[test]
    fn passwords_and_tokens_are_read() {
        // RFC 7617's own.
        let Ok(Credentials::Basic { user, password }) =
            Credentials::parse(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        else {
            panic!("not read")
        };
        assert_eq!((user.as_str(), password.bytes()), ("Aladdin", b"open sesame".as_slice()));
        assert_eq!(basic(b"a:b:c"), Ok(("a".to_owned(), b"b:c".to_vec())));
        assert_eq!(basic(b"a:"), Ok(("a".to_owned(), Vec::new())));
        assert_eq!(basic(b"a:\xff"), Ok(("a".to_owned(), vec![0xff])));
        assert!(
            matches!(Credentials::parse(b"bEARER a.b-_~+/="), Ok(Credentials::Bearer(token)) if token == "a.b-_~+/=")
        );
        assert!(Credentials::parse(b"basic YTpi").is_ok());
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Bearer ",
            "Bearer",
            "Digest a",
            "Basic YTpi YTpi",
            "Basic YTpi=",
            "Basic YTp",
            "Basic !",
            "Bearer a b",
            "Bearer \u{e4}",
            "YTpi",
            "Basic\tYTpi",
        ] {
            assert!(Credentials::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in [b"ab".as_slice(), b":b", b"a\n:b", b"\xff:b", b"a:b\0c", &[b'a'; 2000]] {
            assert_eq!(basic(bad), Err(Malformed), "{bad:?}");
        }
        assert!(Credentials::parse(format!("Bearer {}", "a".repeat(MAX_HEADER)).as_bytes()).is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        for header in ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Bearer sesame"] {
            let shown = format!("{:?}", Credentials::parse(header.as_bytes()));
            assert!(!shown.contains("sesame"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_answered(header: Vec<u8>, value in ".*") {
            let _ = Credentials::parse(&header);
            let _ = Credentials::parse(format!("Basic {value}").as_bytes());
        }
    }
}
