//! Fuzz targets for what strangers bring to show who they are, and for the file of passwords.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target is there to panic"
)]

use std::time::{Duration, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD};

use super::credentials::{Credentials, is_user};
use super::htpasswd::Htpasswd;
use super::jwt::Token;

/// `Authorization`: what is read is the same when it is written and read again.
pub fn authorization(data: &[u8]) {
    let Ok(read) = Credentials::parse(data) else { return };
    match &read {
        Credentials::Basic { user, password } => {
            assert!(is_user(user) && !password.bytes().contains(&0));
            let pair = [user.as_bytes(), b":", password.bytes()].concat();
            let Ok(Credentials::Basic { user: again, password: same }) =
                Credentials::parse(format!("Basic {}", BASE64.encode(&pair)).as_bytes())
            else {
                panic!("not read again")
            };
            assert_eq!((again.as_str(), same.bytes()), (user.as_str(), password.bytes()));
        }
        Credentials::Bearer(token) => {
            assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(data.windows(token.len()).any(|part| part == token.as_bytes()));
        }
    }
}

/// Tokens: the parts are those of the text, and each holds for no longer than it says.
pub fn token(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(token) = Token::parse(text) else { return };
    assert_eq!(format!("{}.{}", token.message, BASE64URL_NOPAD.encode(&token.signature)), text);
    assert_eq!(token.message.matches('.').count(), 1);
    let Ok(claims) = token.claims() else { return };
    let (issuer, service) = ("issuer.example", "registry.example");
    let at = |seconds| claims.check(issuer, service, UNIX_EPOCH + Duration::from_secs(seconds));
    let (then, end) = (4_000_000_000, 5_000_000_000);
    if at(then).is_ok() {
        assert_eq!(claims.iss, issuer);
        assert!(claims.check("other", service, UNIX_EPOCH + Duration::from_secs(then)).is_err());
        assert!(claims.exp > 3_999_999_000.0);
    }
    if claims.exp < 4_999_999_000.0 {
        assert!(at(end).is_err(), "it has expired");
    }
}

/// Files of passwords: each line that counts is found by its user, and no user has two.
pub fn htpasswd(data: &[u8]) {
    let Ok(file) = Htpasswd::parse(data) else { return };
    let text = str::from_utf8(data).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let lines: Vec<_> = lines.into_iter().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(file.stand_in().is_some(), !lines.is_empty());
    for line in lines {
        let (user, hash) = line.split_once(':').unwrap();
        assert_eq!(file.get(user).map(|line| line.text.as_str()), Some(hash));
    }
}
