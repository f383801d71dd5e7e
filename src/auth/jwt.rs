//! JSON Web Tokens in their compact form (RFC 7519): read into their parts, with what they claim. Who signed them is
//! judged elsewhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::grants::Access;

/// Clocks of two machines differ by so much at most; Distribution's own leeway.
const LEEWAY: Duration = Duration::from_mins(1);

/// A token that has been read, and whose signature nobody has looked at yet.
pub(super) struct Token<'a> {
    pub(super) header: Header,
    /// What is signed.
    pub(super) message: &'a str,
    pub(super) signature: Vec<u8>,
    claims: Vec<u8>,
}

/// A key in the header (`jwk`, `jku`, `x5u`) is not read at all: it would be the token's own.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Header {
    pub(super) alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kid: Option<String>,
    /// A chain of certificates, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) x5c: Option<Vec<String>>,
    /// Extensions that must be understood. There are none that are.
    #[serde(skip_serializing_if = "Option::is_none")]
    crit: Option<Value>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) aud: Audience,
    pub(super) exp: f64,
    pub(super) nbf: Option<f64>,
    pub(super) access: Option<Vec<Access>>,
    /// Our own tokens only: which password they stand for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<String>,
}

/// One name or a list of them.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Why a token does not count. The client hears it, so it says nothing that a client does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is no JSON Web Token")]
    Malformed,
    #[error("the token is signed in a way that is not allowed here")]
    Algorithm,
    #[error("the token is signed by nobody who is trusted here")]
    Untrusted,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another service")]
    Audience,
    #[error("the token has expired; get a new one")]
    Expired,
    #[error("the token does not count yet; look at the clocks of both machines")]
    Early,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenError> {
        let read = || {
            let (message, signature) = text.rsplit_once('.')?;
            let (header, claims) = message.split_once('.')?;
            let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).ok();
            let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
            Some(Self { header, message, signature: decode(signature)?, claims: decode(claims)? })
        };
        read().filter(|token| token.header.crit.is_none()).ok_or(TokenError::Malformed)
    }

    /// Of a token whose signature is right.
    pub(super) fn claims(&self) -> Result<Claims, TokenError> {
        serde_json::from_slice(&self.claims).map_err(|_| TokenError::Malformed)
    }
}

impl Header {
    pub(super) fn new(alg: &str) -> Self {
        Self { alg: alg.to_owned(), kid: None, x5c: None, crit: None }
    }
}

impl Claims {
    /// Whether they are of this issuer, for this service, and hold now.
    pub(super) fn check(&self, issuer: &str, service: &str, now: SystemTime) -> Result<(), TokenError> {
        if self.iss != issuer {
            return Err(TokenError::Issuer);
        }
        if !self.aud.has(service) {
            return Err(TokenError::Audience);
        }
        let (now, leeway) = (seconds(now), LEEWAY.as_secs_f64());
        // Written so that a number that is none never holds.
        let holds = now < self.exp + leeway;
        if !holds {
            return Err(TokenError::Expired);
        }
        let begun = self.nbf.is_none_or(|from| from - leeway <= now);
        if !begun {
            return Err(TokenError::Early);
        }
        Ok(())
    }
}

impl Audience {
    fn has(&self, service: &str) -> bool {
        match self {
            Self::One(name) => name == service,
            Self::Several(names) => names.iter().any(|name| name == service),
        }
    }
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// Seconds since 1970, as claims have them.
pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Two of a token's parts, as they are signed.
pub(super) fn encode(header: &Header, claims: &Claims) -> Option<String> {
    let part = |json: serde_json::Result<Vec<u8>>| json.ok().map(|json| BASE64URL_NOPAD.encode(&json));
    Some(format!("{}.{}", part(serde_json::to_vec(header))?, part(serde_json::to_vec(claims))?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).unwrap()
    }

    fn check(change: impl Fn(&mut Value), now: u64) -> Result<(), TokenError> {
        let mut value = json!({"iss": "i", "aud": "s", "exp": 2000, "nbf": 1000});
        change(&mut value);
        claims(value).check("i", "s", UNIX_EPOCH + Duration::from_secs(now))
    }

    #[test]
    fn claims_hold_for_one_issuer_one_service_and_a_time() {
        assert_eq!(check(|_| (), 1500), Ok(()));
        assert_eq!(check(|claims| claims["aud"] = json!(["x", "s"]), 1500), Ok(()));
        assert_eq!(check(|claims| claims["aud"] = json!(["x"]), 1500), Err(TokenError::Audience));
        assert_eq!(check(|claims| claims["aud"] = json!([]), 1500), Err(TokenError::Audience));
        assert_eq!(check(|claims| claims["iss"] = json!("j"), 1500), Err(TokenError::Issuer));
        for missing in ["iss", "aud", "exp"] {
            assert!(
                check(|claims| drop(claims.as_object_mut().unwrap().remove(missing)), 1500).is_err(),
                "{missing}"
            );
        }
        assert_eq!(check(|claims| drop(claims.as_object_mut().unwrap().remove("nbf")), 1500), Ok(()));
        // Within the leeway, and beyond it.
        assert_eq!(check(|_| (), 2059), Ok(()));
        assert_eq!(check(|_| (), 2060), Err(TokenError::Expired));
        assert_eq!(check(|_| (), 940), Ok(()));
        assert_eq!(check(|_| (), 939), Err(TokenError::Early));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let (header, body) = (part(r#"{"alg":"RS256"}"#), part("{}"));
        assert!(Token::parse(&format!("{header}.{body}.")).is_ok());
        for bad in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{header}.{body}"),
            format!("{header}.{body}.{body}.{body}"),
            format!("{header}=.{body}."),
            format!("{}.{body}.", part("{}")),
            format!("{}.{body}.", part(r#"{"alg":"RS256","crit":["exp"],"exp":1}"#)),
            format!("{}.{body}.", part(r#"{"alg":"RS256","alg":"ES256"}"#)),
        ] {
            assert_eq!(Token::parse(&bad).err(), Some(TokenError::Malformed), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in "[a-zA-Z0-9._-]{0,60}", header in ".{0,40}", body in ".{0,40}") {
            let _ = Token::parse(&text);
            let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
            let token = format!("{}.{}.", part(&header), part(&body));
            let _ = Token::parse(&token).map(|token| token.claims().is_ok());
            let good = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&body));
            let _ = Token::parse(&good).map(|token| token.claims().is_ok());
        }
    }
}
