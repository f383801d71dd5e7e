//! Tokens of an issuer elsewhere, verified as Distribution's `token` authentication does.

use std::sync::Arc;
use std::time::SystemTime;

use sampan_storage::RepositoryName;

use super::StartError;
use super::caller::{Caller, Identity};
use super::challenge::{Challenge, Realm};
use super::grants::Grants;
use super::jwt::{Token, TokenError};
use super::keys::{Bundle, KeySet, TrustedKey};
use super::settings::TokenSettings;
use super::shown::Shown;
use super::signature::Algorithm;
use super::watched::Watched;
use super::{LOOK_EVERY, read_error};

#[derive(Debug)]
pub(super) struct Issuer {
    realm: Realm,
    service: String,
    /// As it stands in tokens.
    name: String,
    algorithms: Vec<Algorithm>,
    keys: Option<Watched<KeySet>>,
    bundle: Option<Watched<Bundle>>,
    shown: Shown,
}

impl Issuer {
    pub(super) fn open(settings: &TokenSettings) -> Result<Self, StartError> {
        let keys = settings.jwks.as_ref().map(|path| {
            Watched::open(path, KeySet::parse, LOOK_EVERY).map_err(|error| read_error(path, error))
        });
        let bundle = settings.bundle.as_ref().map(|path| {
            Watched::open(path, Bundle::parse, LOOK_EVERY).map_err(|error| read_error(path, error))
        });
        Ok(Self {
            realm: settings.realm.clone(),
            service: settings.service.clone(),
            name: settings.issuer.clone(),
            algorithms: settings.algorithms.clone(),
            keys: keys.transpose()?,
            bundle: bundle.transpose()?,
            shown: Shown::default(),
        })
    }

    pub(super) async fn verify(&self, text: &str) -> Result<Caller, TokenError> {
        let token = Token::parse(text)?;
        let algorithm: Algorithm = token.header.alg.parse().map_err(|()| TokenError::Algorithm)?;
        if !self.algorithms.contains(&algorithm) {
            return Err(TokenError::Algorithm);
        }
        if !self.is_signed(&token, algorithm).await {
            return Err(TokenError::Untrusted);
        }
        let claims = token.claims()?;
        claims.check(&self.name, &self.service, SystemTime::now())?;
        let grants = Grants::of_access(claims.access.as_deref().unwrap_or_default());
        let holder = claims.sub.as_str().into();
        self.shown.note(&holder, &grants, claims.exp, SystemTime::now());
        Ok(Caller { identity: Identity::Bearer(holder), limits: Some(grants) })
    }

    /// Whether another token of the same holder has let it pull there a short while ago.
    pub(super) fn has_shown(&self, holder: &Arc<str>, repository: &str) -> bool {
        self.shown.may_pull(holder, repository, SystemTime::now())
    }

    pub(super) fn shown(&self, holder: &Arc<str>) -> Vec<RepositoryName> {
        self.shown.of(holder, SystemTime::now())
    }

    pub(super) fn challenge(&self, scope: Option<String>, error: Option<&'static str>) -> Challenge {
        Challenge::Bearer { realm: self.realm.clone(), service: self.service.clone(), scope, error }
    }

    /// A chain of certificates counts alone where there is one, as in Distribution; else the key is chosen by its name.
    async fn is_signed(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        let signed = |key: &TrustedKey| key.has_signed(algorithm, token.message.as_bytes(), &token.signature);
        let bundle = match &self.bundle {
            Some(file) => Some(file.current().await),
            None => None,
        };
        if let Some(chain) = &token.header.x5c {
            return bundle.and_then(|bundle| bundle.key_of_chain(chain)).is_some_and(|key| signed(&key));
        }
        let Some(id) = &token.header.kid else { return false };
        let set = match &self.keys {
            Some(file) => Some(file.current().await),
            None => None,
        };
        let keys =
            set.iter().flat_map(|set| set.keys()).chain(bundle.iter().flat_map(|bundle| bundle.keys()));
        keys.filter(|key| key.is_named(id)).any(signed)
    }
}
