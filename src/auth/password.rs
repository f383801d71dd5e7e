//! One hashed password of an htpasswd file: bcrypt or argon2, and nothing weaker.

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};

/// Costs that one look at a password may have, so that a file cannot stop the lane: some seconds on a small board.
const MAX_BCRYPT_COST: u32 = 16;
/// KiB of argon2: RFC 9106's second choice.
const MAX_ARGON2_MEMORY: u32 = 64 * 1024;
const MAX_ARGON2_PASSES: u32 = 16;

#[derive(Clone, Debug)]
pub(super) enum Hash {
    Bcrypt(String),
    Argon2(Box<PasswordHash>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HashError {
    #[error("has a password in {0}, which is not taken, because it is guessed too fast")]
    Weak(&'static str),
    #[error(
        "has a password hash that costs more than is allowed: at most {MAX_BCRYPT_COST} for bcrypt, 64 MiB and {MAX_ARGON2_PASSES} passes for argon2"
    )]
    Costly,
    #[error("has a password hash that is damaged")]
    Damaged,
}

impl Hash {
    pub(super) fn parse(text: &str) -> Result<Self, HashError> {
        if let Some(rest) = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix)) {
            let cost = rest.split_once('$').and_then(|(cost, _)| cost.parse::<u32>().ok());
            if cost.is_some_and(|cost| cost > MAX_BCRYPT_COST) {
                return Err(HashError::Costly);
            }
            let sound = text.parse::<bcrypt::HashParts>().is_ok();
            return sound.then(|| Self::Bcrypt(text.to_owned())).ok_or(HashError::Damaged);
        }
        if text.starts_with("$argon2id$") || text.starts_with("$argon2i$") {
            let hash = PasswordHash::new(text).map_err(|_| HashError::Damaged)?;
            let params = Params::try_from(&hash).map_err(|_| HashError::Damaged)?;
            if params.m_cost() > MAX_ARGON2_MEMORY || params.t_cost() > MAX_ARGON2_PASSES {
                return Err(HashError::Costly);
            }
            let whole = hash.salt.is_some() && hash.hash.is_some();
            return whole.then(|| Self::Argon2(Box::new(hash))).ok_or(HashError::Damaged);
        }
        Err(HashError::Weak(match text {
            _ if text.starts_with("$apr1$") || text.starts_with("$1$") => "MD5",
            _ if text.starts_with("{SHA}") || text.starts_with("{SSHA}") => "SHA-1",
            _ if text.starts_with("$5$") || text.starts_with("$6$") => "SHA-2",
            _ if text.starts_with("$argon2d$") => "argon2d",
            _ if text.starts_with('$') => "a form that is not known",
            _ => "crypt's old form or in plain text",
        }))
    }

    /// Slow on purpose: some milliseconds to some seconds of one core.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => Argon2::default().verify_password(password, hash.as_ref()).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &[u8] = b"open sesame";

    /// Made by `htpasswd -nbB`, by glibc's crypt and by the program `argon2`.
    const GOOD: [&str; 6] = [
        "$2y$04$0ZX901egekCLYh9umFYdTOg4oJTYkP4d3fT4jTCDtkoXNlw/wBvMG",
        "$2y$05$hjO8SM8UMccI4Mb3PkueYObounZbgZz3d1a/STIPpiWUBR/Qx5daG",
        "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW",
        "$2a$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW",
        "$argon2id$v=19$m=256,t=1,p=1$c2FsdHNhbHQ$0nXr9mPT3+3htN5y3T4+3xHAZKgr3JLt4TCQIM2d2w8",
        "$argon2i$v=19$m=256,t=2,p=1$c2FsdHNhbHQ$RGgW17XgfazZolL7avlvlfPfVeGm91Oy+p3bmsk3aPs",
    ];

    #[test]
    fn hashes_of_other_programs_are_verified() {
        for hash in GOOD {
            let hash = Hash::parse(hash).unwrap();
            assert!(hash.is_of(PASSWORD), "{hash:?}");
            for wrong in [b"open sesamE".as_slice(), b"", b"open sesame ", b"open sesame\n"] {
                assert!(!hash.is_of(wrong), "{hash:?}");
            }
        }
    }

    #[test]
    fn weak_hashes_are_called_by_their_name() {
        // Made by `htpasswd` with -m, -s, -d, -2, -5 and -p, and by `argon2 -d`.
        for (hash, name) in [
            ("$apr1$XtHn26VQ$pNuKEQ0yjXEk6.ZY7NjEy0", "MD5"),
            ("{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=", "SHA-1"),
            ("m9ejrMSvHtXZo", "crypt's old form or in plain text"),
            ("$5$8AHJucN23irM3c7u$bhaavB25ztfV8L4W6jUNxoKx.OCqU/waRBisETPhjQB", "SHA-2"),
            (
                "$6$t7t6s6aXimTyIPme$aUc8yuheKE5gLpcYN6cMtTd0a7os6Hk8FD3L7cDV9oisUDyr6Ll3Q4Ot2Er1Pl.FMapRRjQ6PxUn.C8atuoAp.",
                "SHA-2",
            ),
            ("plain", "crypt's old form or in plain text"),
            (
                "$argon2d$v=19$m=256,t=2,p=1$c2FsdHNhbHQ$rvA8ThJ6W0E/un7O3MFKtbivyRQJqn6EqwVmurOr3H4",
                "argon2d",
            ),
            ("$2x$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW", "a form that is not known"),
        ] {
            assert_eq!(Hash::parse(hash).unwrap_err(), HashError::Weak(name), "{hash}");
        }
    }

    #[test]
    fn damaged_and_costly_hashes_are_refused() {
        for bad in [
            "$2y$05$short",
            "$2y$xx$hjO8SM8UMccI4Mb3PkueYObounZbgZz3d1a/STIPpiWUBR/Qx5daG",
            "$argon2id$",
            "$argon2id$v=19$m=256,t=1,p=1$c2FsdHNhbHQ",
        ] {
            assert_eq!(Hash::parse(bad).unwrap_err(), HashError::Damaged, "{bad}");
        }
        for costly in [
            GOOD[0].replace("$04$", "$17$"),
            GOOD[0].replace("$04$", "$31$"),
            GOOD[4].replace("m=256", "m=65537"),
            GOOD[4].replace("t=1", "t=17"),
        ] {
            assert_eq!(Hash::parse(&costly).unwrap_err(), HashError::Costly, "{costly}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,80}", tail in "[$./A-Za-z0-9=,+]{0,80}") {
            for text in [text, format!("$2y${tail}"), format!("$argon2id${tail}")] {
                let _ = Hash::parse(&text);
            }
        }
    }
}
