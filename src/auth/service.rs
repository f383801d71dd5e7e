//! Tokens of our own. Docker asks `/v2/` once how to log in, and where anonymous clients may pull, only a token lets
//! it come both with and without a password. They are good for minutes and for this process: the key is in memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sampan_storage::RepositoryName;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::action::Action;
use super::caller::{Caller, Identity, Place};
use super::challenge::{Challenge, Realm};
use super::grants::Grants;
use super::htpasswd::Line;
use super::jwt::{self, Audience, Claims, Header, Token, TokenError};
use super::login::Logins;
use super::rules::Rules;

/// Where tokens are given.
pub(crate) const TOKEN_PATH: &str = "/auth/token";

/// How long a token is good. Distribution's spec wants a minute at least.
const LIFETIME: Duration = Duration::from_mins(5);
/// The name of the service, and of the issuer, which are the same.
const SERVICE: &str = "sampan";
const ALGORITHM: &str = "HS256";

#[derive(Debug)]
pub(super) struct Service {
    key: hmac::Key,
    realm: String,
    /// Of the URL at which tokens are asked for.
    path: String,
}

/// The answer of the service, in the form of Distribution's token specification.
#[derive(Debug, Serialize)]
pub(crate) struct Grant {
    token: String,
    /// The same again, for clients that know OAuth 2.
    access_token: String,
    expires_in: u64,
    issued_at: String,
}

impl Service {
    pub(super) fn new(key: hmac::Key, realm: String, path: String) -> Self {
        Self { key, realm, path }
    }

    /// A token for the user, or for an anonymous client, with those of the scopes that the rules allow.
    pub(super) fn issue(&self, user: Option<&Line>, asked: Grants, rules: &Rules) -> Option<Grant> {
        let identity = identity(user.map(|line| &line.user));
        let catalog = rules.allow_somewhere(&identity, Action::Pull);
        let may = |name: &str, action| {
            name.parse::<RepositoryName>().is_ok() && rules.allow(&identity, name, action)
        };
        let granted = asked.confine(may, catalog);
        let now = SystemTime::now();
        let claims = Claims {
            iss: SERVICE.to_owned(),
            sub: user.map(|line| line.user.to_string()).unwrap_or_default(),
            aud: Audience::One(SERVICE.to_owned()),
            exp: jwt::seconds(now + LIFETIME).floor(),
            nbf: None,
            access: Some(granted.to_access()),
            login: user.map(|line| self.mark(line)),
        };
        let message = jwt::encode(&Header::new(ALGORITHM), &claims)?;
        let signature = hmac::sign(&self.key, message.as_bytes());
        let token = format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()));
        let issued_at = OffsetDateTime::from(now).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()?;
        Some(Grant { access_token: token.clone(), token, expires_in: LIFETIME.as_secs(), issued_at })
    }

    /// Who holds the token. A user who is gone, or has another password, is nobody any more.
    pub(super) async fn verify(&self, text: &str, logins: &Logins) -> Result<Caller, TokenError> {
        let token = Token::parse(text)?;
        if token.header.alg != ALGORITHM {
            return Err(TokenError::Algorithm);
        }
        hmac::verify(&self.key, token.message.as_bytes(), &token.signature)
            .map_err(|_| TokenError::Untrusted)?;
        let claims = token.claims()?;
        claims.check(SERVICE, SERVICE, SystemTime::now())?;
        let user = match &claims.login {
            None => None,
            Some(mark) => {
                let line = logins.line(&claims.sub).await.filter(|line| self.mark(line) == *mark);
                Some(Arc::clone(&line.ok_or(TokenError::Expired)?.user))
            }
        };
        let limits = Some(Grants::of_access(claims.access.as_deref().unwrap_or_default()));
        Ok(Caller { identity: identity(user.as_ref()), limits })
    }

    pub(super) fn challenge(&self, scope: Option<String>, error: Option<&'static str>) -> Challenge {
        let realm = Realm::Own { path: self.path.clone(), basic: self.realm.clone() };
        Challenge::Bearer { realm, service: SERVICE.to_owned(), scope, error }
    }

    /// Changes with the password, and says nothing about it.
    fn mark(&self, line: &Line) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        // No message of a token begins so.
        context.update(b"\0login\0");
        context.update(line.text.as_bytes());
        HEXLOWER.encode(context.sign().as_ref().get(..16).unwrap_or_default())
    }
}

fn identity(user: Option<&Arc<str>>) -> Identity {
    let here = || Identity::Anonymous(Place::Here);
    user.map_or_else(here, |name| Identity::User(Arc::clone(name)))
}
