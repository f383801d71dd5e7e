//! An htpasswd file: `user:hash`, one line each.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::credentials::is_user;
use super::password::{Hash, HashError};

/// The users of one file as it was read.
#[derive(Debug, Default)]
pub(super) struct Htpasswd {
    users: BTreeMap<Arc<str>, Arc<Line>>,
    first: Option<Arc<Line>>,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) user: Arc<str>,
    /// The hash as it is written, to know whether it is still the same.
    pub(super) text: String,
    pub(super) hash: Hash,
}

/// The number of the line counts from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HtpasswdError {
    #[error("is no text")]
    Text,
    #[error("line {line} is not USER:HASH")]
    Form { line: usize },
    #[error("line {line} names a user again that stands above")]
    Twice { line: usize },
    #[error("line {line} {error}; make a good one with: htpasswd -B FILE {user}")]
    Hash { line: usize, user: String, error: HashError },
}

impl Htpasswd {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, HtpasswdError> {
        let text = std::str::from_utf8(bytes).map_err(|_| HtpasswdError::Text)?;
        let mut file = Self::default();
        for (line, text) in text.lines().enumerate().map(|(place, text)| (place + 1, text.trim_end())) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (user, hash) =
                text.split_once(':').filter(|(user, _)| is_user(user)).ok_or(HtpasswdError::Form { line })?;
            let parsed = Hash::parse(hash).map_err(|error| HtpasswdError::Hash {
                line,
                user: user.to_owned(),
                error,
            })?;
            let user: Arc<str> = user.into();
            let entry = Arc::new(Line { user: Arc::clone(&user), text: hash.to_owned(), hash: parsed });
            file.first.get_or_insert_with(|| Arc::clone(&entry));
            if file.users.insert(user, entry).is_some() {
                return Err(HtpasswdError::Twice { line });
            }
        }
        Ok(file)
    }

    pub(super) fn get(&self, user: &str) -> Option<&Arc<Line>> {
        self.users.get(user)
    }

    /// What a password is compared with where there is no such user, so that this takes as long.
    pub(super) fn stand_in(&self) -> Option<&Arc<Line>> {
        self.first.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$04$0ZX901egekCLYh9umFYdTOg4oJTYkP4d3fT4jTCDtkoXNlw/wBvMG";

    #[test]
    fn users_are_read_and_remarks_are_not() {
        let file =
            Htpasswd::parse(format!("# users\n\nalice:{HASH}\r\nbob smith:{HASH}\n").as_bytes()).unwrap();
        assert_eq!(file.len(), 2);
        assert_eq!(file.get("alice").unwrap().text, HASH);
        assert!(
            file.get("bob smith").is_some() && file.get("carol").is_none() && file.get("# users").is_none()
        );
        assert_eq!(file.stand_in().unwrap().user, "alice".into());
        assert!(Htpasswd::parse(b"").unwrap().stand_in().is_none());
    }

    #[test]
    fn a_wrong_line_is_named_with_what_to_do() {
        let problem = |text: &str| Htpasswd::parse(text.as_bytes()).unwrap_err().to_string();
        let weak = problem(&format!("alice:{HASH}\nbob:$apr1$XtHn26VQ$pNuKEQ0yjXEk6.ZY7NjEy0\n"));
        assert_eq!(
            weak,
            "line 2 has a password in MD5, which is not taken, because it is guessed too fast; make a good one with: htpasswd -B FILE bob"
        );
        assert_eq!(problem("alice\n"), "line 1 is not USER:HASH");
        assert_eq!(problem(&format!(":{HASH}")), "line 1 is not USER:HASH");
        assert_eq!(problem(&format!("a:{HASH}\n\na:{HASH}")), "line 3 names a user again that stands above");
        assert_eq!(Htpasswd::parse(b"a:\xff").unwrap_err(), HtpasswdError::Text);
        // The hash itself is not told.
        assert!(!problem("bob:plain").contains("plain;"));
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_answered(bytes: Vec<u8>, text in "([a-z]{0,3}:?.{0,9}\n){0,5}") {
            let _ = Htpasswd::parse(&bytes);
            let _ = Htpasswd::parse(text.as_bytes());
        }
    }
}
