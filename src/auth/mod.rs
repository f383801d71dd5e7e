//! Who may do what: one gate for every way in. It knows callers, repositories and actions; it knows no HTTP, no peers
//! and no disk but the files that the operator names.
//!
//! A request first becomes a [`Caller`] ([`Auth::identify`]), which may wait; what the caller may do is then decided
//! by [`Auth::may`] alone, without waiting. What is not allowed is denied.

mod action;
mod caller;
mod challenge;
mod credentials;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod grants;
mod htpasswd;
mod issuer;
mod jwt;
mod keys;
mod lane;
mod login;
mod password;
mod rules;
mod seal;
mod service;
mod settings;
mod shown;
mod signature;
#[cfg(test)]
pub(crate) mod tests;
mod watched;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use sampan_storage::{Digest, PublicRule, RepositoryName};

use caller::Identity;
use grants::{Grants, scope_of, scope_of_catalog};
use htpasswd::Htpasswd;
use issuer::Issuer;
use login::Logins;
use seal::Seal;
use service::Service;
use watched::{FileError, Watched};

pub(crate) use action::{Action, Actions};
pub(crate) use caller::{Caller, Place, Stranger};
pub(crate) use challenge::{Challenge, Here, Realm, Scheme};
pub(crate) use credentials::{Credentials, Malformed};
pub(crate) use jwt::TokenError;
pub(crate) use lane::Lane;
pub(crate) use rules::Rules;
pub(crate) use service::{Grant, TOKEN_PATH};
pub(crate) use settings::{Settings, TokenSettings};
pub(crate) use signature::{ALGORITHMS, Algorithm};

/// Files are looked at no more often than this, and then only when somebody asks.
const LOOK_EVERY: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(1) };

/// The one gate. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Auth(Arc<Mode>);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, and it lies in an Arc")]
enum Mode {
    /// No authentication is configured.
    Open {
        /// Everyone may push, not this machine alone.
        push: bool,
    },
    Passwords {
        realm: String,
        logins: Logins,
        rules: Rules,
        /// Gives tokens where anonymous clients may pull something.
        service: Option<Service>,
        seal: Seal,
    },
    Tokens(Issuer),
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask<'a> {
    /// Whether this is a registry, and whether one is logged in: `/v2/`.
    Door,
    /// The list of repositories.
    Catalog,
    /// What the registry is doing: whom it follows, who its peers are, where it has its data.
    Status,
    Repository(&'a RepositoryName, Action),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// Another caller, or this one with another token, might.
    NeedsLogin(Challenge),
    Forbidden(Denied),
}

/// Why a caller who is known may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error(transparent)]
    Stranger(#[from] Stranger),
    #[error("{who} may not {} in {repository}; whoever keeps this registry can add a rule", .action.name())]
    Rights { who: String, action: Action, repository: RepositoryName },
    #[error(
        "{who} may not pull everything, which is what a status is told for; whoever keeps this registry can add a rule"
    )]
    Status { who: String },
}

/// Why what a client brought does not show who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginError {
    #[error(
        "the Authorization header cannot be read; it has the form Basic <base64 of user:password> or Bearer <token>"
    )]
    Malformed,
    #[error("there is no such user with this password")]
    Wrong,
    #[error("this registry takes {0}, and nothing else")]
    Scheme(&'static str),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("too many passwords wait to be looked at; try again")]
    Busy,
}

/// Why authentication cannot be set up. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("there is no htpasswd file {0}; make one with: htpasswd -Bc {0} USER")]
    NoPasswords(String),
    #[error("{path} {error}")]
    File { path: String, error: FileError },
    #[error("the threads that look at passwords do not start: {0}")]
    Threads(#[from] std::io::Error),
    #[error("the system gives no random numbers")]
    Random,
}

impl Auth {
    /// Without authentication: everyone pulls, and this machine pushes, or everyone.
    pub(crate) fn open(push: bool) -> Self {
        Self(Arc::new(Mode::Open { push }))
    }

    /// Reads what the settings name.
    pub(crate) fn start(settings: &Settings) -> Result<Self, StartError> {
        Self::with(settings, Lane::for_this_machine()?)
    }

    pub(crate) fn with(settings: &Settings, lane: Lane) -> Result<Self, StartError> {
        let mode = match settings {
            Settings::Token(token) => Mode::Tokens(Issuer::open(token)?),
            Settings::Htpasswd { realm, path, rules, token_path } => {
                let file = Watched::open(path, parse_htpasswd, LOOK_EVERY).map_err(|error| match error {
                    FileError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        StartError::NoPasswords(path.display().to_string())
                    }
                    other => read_error(path, other),
                })?;
                let mixed = rules.allow_somewhere(&Identity::Anonymous(Place::Here), Action::Pull);
                let service = |key| Service::new(key, realm.clone(), token_path.clone());
                let service = mixed.then(random_key).transpose()?.map(service);
                let logins = Logins::new(file, lane, random_key()?);
                Mode::Passwords {
                    realm: realm.clone(),
                    logins,
                    rules: rules.clone(),
                    service,
                    seal: Seal::new()?,
                }
            }
        };
        Ok(Self(Arc::new(mode)))
    }

    /// Whether no authentication is configured.
    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.0, Mode::Open { .. })
    }

    /// Who may fetch without saying who they are: peers, and clients of the gateway. They ask for blocks, which have
    /// no names yet that a rule could be about: everyone, where everyone may pull everything, or nobody.
    pub(crate) fn gives_to_peers(&self) -> bool {
        self.sees_all(&Caller::anonymous(Place::Elsewhere(Stranger::NotLoopback)))
    }

    /// What of the registry peers and clients of the gateway may have, where that is not all: the repositories that an
    /// anonymous client elsewhere may pull. What a token's issuer would allow it alone knows.
    pub(crate) fn public_rule(&self) -> Option<PublicRule> {
        if self.gives_to_peers() {
            return None;
        }
        let anonymous = Identity::Anonymous(Place::Elsewhere(Stranger::NotLoopback));
        let patterns = match &*self.0 {
            Mode::Passwords { rules, .. } => rules.patterns(&anonymous, Action::Pull),
            Mode::Open { .. } | Mode::Tokens(_) => BTreeSet::new(),
        };
        // A version, because what a pattern matches may change with the program.
        let said = patterns.iter().fold(String::from("1"), |said, pattern| format!("{said}\n{pattern}"));
        let fingerprint = Digest::of(sampan_storage::Algorithm::Sha256, said.as_bytes()).to_string();
        let auth = self.clone();
        Some(PublicRule::new(fingerprint.into_bytes(), move |repository| match &*auth.0 {
            Mode::Passwords { rules, .. } => rules.allow(&anonymous, repository.as_str(), Action::Pull),
            Mode::Open { .. } | Mode::Tokens(_) => false,
        }))
    }

    /// Who has brought this. Where nothing is configured, nothing that is brought counts. A certificate counts where a
    /// rule names it, and where nothing else was brought.
    pub(crate) async fn identify(
        &self,
        credentials: Option<Credentials>,
        certificate: Option<&str>,
        place: Place,
    ) -> Result<Caller, LoginError> {
        let Some(credentials) = credentials else {
            let holder = |name: &str| Identity::Certificate(name.into());
            return Ok(match (&*self.0, certificate.map(holder)) {
                (Mode::Passwords { rules, .. }, Some(holder)) if rules.name(&holder) => holder.into(),
                _ => Caller::anonymous(place),
            });
        };
        match (&*self.0, credentials) {
            (Mode::Open { .. }, _) => Ok(Caller::anonymous(place)),
            (Mode::Passwords { logins, .. }, Credentials::Basic { user, password }) => {
                let line = logins.check(&user, password).await?;
                Ok(Identity::User(Arc::clone(&line.user)).into())
            }
            (Mode::Passwords { logins, service: Some(service), .. }, Credentials::Bearer(token)) => {
                Ok(service.verify(&token, logins).await?)
            }
            (Mode::Passwords { service: None, .. }, Credentials::Bearer(_)) => {
                Err(LoginError::Scheme("Basic"))
            }
            (Mode::Tokens(issuer), Credentials::Bearer(token)) => Ok(issuer.verify(&token).await?),
            (Mode::Tokens(_), Credentials::Basic { .. }) => Err(LoginError::Scheme("Bearer")),
        }
    }

    /// The one question: may this caller do this?
    pub(crate) fn may(&self, caller: &Caller, ask: Ask<'_>) -> Verdict {
        let identity = &caller.identity;
        let allowed = match (&*self.0, ask) {
            (Mode::Open { push }, Ask::Repository(_, Action::Push | Action::Delete)) => {
                return match identity {
                    Identity::Anonymous(Place::Elsewhere(stranger)) if !push => {
                        Verdict::Forbidden(Denied::Stranger(*stranger))
                    }
                    _ => Verdict::Allowed,
                };
            }
            (Mode::Open { .. }, _) => return Verdict::Allowed,
            // Who has not come with anything is told how to log in, so that Docker remembers it (moby/moby#12972).
            (_, Ask::Door) => !caller.is_anonymous() || caller.limits.is_some(),
            (Mode::Passwords { rules, .. }, Ask::Catalog) => {
                !caller.is_anonymous() || rules.allow_somewhere(identity, Action::Pull)
            }
            // Names of all that is here may be read from it.
            (Mode::Passwords { rules, .. }, Ask::Status) => {
                !caller.is_anonymous() && rules.allow_everywhere(identity, Action::Pull)
            }
            (Mode::Passwords { rules, .. }, Ask::Repository(name, action)) => {
                rules.allow(identity, name.as_str(), action)
            }
            // What the issuer has granted stands in the limits.
            (Mode::Tokens(_), _) => matches!(identity, Identity::Bearer(_)),
        };
        let covered = caller.limits.as_ref().is_none_or(|limits| match ask {
            Ask::Door => true,
            Ask::Catalog | Ask::Status => limits.allow_catalog(),
            Ask::Repository(name, action) => limits.allow(name.as_str(), action),
        });
        match ask {
            _ if allowed && covered => Verdict::Allowed,
            Ask::Repository(name, action) if !allowed && !caller.is_anonymous() => {
                let (who, repository) = (identity.to_string(), name.clone());
                Verdict::Forbidden(Denied::Rights { who, action, repository })
            }
            Ask::Status if !allowed && !caller.is_anonymous() => {
                Verdict::Forbidden(Denied::Status { who: identity.to_string() })
            }
            _ => {
                let error = caller.limits.is_some().then_some("insufficient_scope");
                Verdict::NeedsLogin(self.challenge(ask, error))
            }
        }
    }

    /// Whether the caller may pull here: what lists, mounts and links across repositories show.
    pub(crate) fn sees(&self, caller: &Caller, repository: &RepositoryName) -> bool {
        if let (Mode::Tokens(issuer), Identity::Bearer(holder)) = (&*self.0, &caller.identity)
            && issuer.has_shown(holder, repository.as_str())
        {
            return true;
        }
        self.may(caller, Ask::Repository(repository, Action::Pull)) == Verdict::Allowed
    }

    /// Repositories that the holder of a token has pulled from or pushed to a short while ago.
    pub(crate) fn shown(&self, caller: &Caller) -> Vec<RepositoryName> {
        match (&*self.0, &caller.identity) {
            (Mode::Tokens(issuer), Identity::Bearer(holder)) => issuer.shown(holder),
            _ => Vec::new(),
        }
    }

    /// Whether the caller may pull everywhere, so that nobody needs to look.
    pub(crate) fn sees_all(&self, caller: &Caller) -> bool {
        caller.limits.is_none()
            && match &*self.0 {
                Mode::Open { .. } => true,
                Mode::Passwords { rules, .. } => rules.allow_everywhere(&caller.identity, Action::Pull),
                Mode::Tokens(_) => matches!(caller.identity, Identity::Bearer(_)),
            }
    }

    /// A name that the caller does not see, for a link that it gets. What is not hidden stays as it is.
    pub(crate) fn hide(&self, name: &str) -> String {
        match &*self.0 {
            Mode::Passwords { seal, .. } => seal.close(name),
            Mode::Open { .. } | Mode::Tokens(_) => name.to_owned(),
        }
    }

    /// The name that was hidden; `None` where it was hidden by another process.
    pub(crate) fn reveal(&self, text: &str) -> Option<String> {
        match &*self.0 {
            Mode::Passwords { seal, .. } if seal::is_sealed(text) => seal.open(text),
            _ => Some(text.to_owned()),
        }
    }

    /// How to log in after an attempt that failed.
    pub(crate) fn challenge_after(&self, error: LoginError, ask: Ask<'_>) -> Challenge {
        self.challenge(ask, matches!(error, LoginError::Token(_)).then_some("invalid_token"))
    }

    /// A token of our own, for a user or an anonymous client; `None` where this registry gives none.
    pub(crate) async fn token(
        &self,
        credentials: Option<Credentials>,
        scopes: &[&str],
    ) -> Option<Result<Grant, LoginError>> {
        let Mode::Passwords { logins, rules, service: Some(service), .. } = &*self.0 else { return None };
        let line = match credentials {
            None => None,
            Some(Credentials::Bearer(_)) => return Some(Err(LoginError::Scheme("Basic"))),
            Some(Credentials::Basic { user, password }) => match logins.check(&user, password).await {
                Ok(line) => Some(line),
                Err(error) => return Some(Err(error)),
            },
        };
        let asked = Grants::of_scopes(scopes.iter().copied());
        service.issue(line.as_deref(), asked, rules).map(Ok)
    }

    /// How to give a password where tokens are given.
    pub(crate) fn basic_challenge(&self) -> Challenge {
        let realm = match &*self.0 {
            Mode::Passwords { realm, .. } => realm.clone(),
            Mode::Open { .. } | Mode::Tokens(_) => String::new(),
        };
        Challenge::Basic { realm }
    }

    fn challenge(&self, ask: Ask<'_>, error: Option<&'static str>) -> Challenge {
        let scope = match ask {
            Ask::Door => None,
            Ask::Catalog | Ask::Status => Some(scope_of_catalog()),
            Ask::Repository(name, action) => Some(scope_of(name.as_str(), action)),
        };
        match &*self.0 {
            Mode::Passwords { service: Some(service), .. } => service.challenge(scope, error),
            Mode::Tokens(issuer) => issuer.challenge(scope, error),
            Mode::Passwords { .. } | Mode::Open { .. } => self.basic_challenge(),
        }
    }
}

fn parse_htpasswd(bytes: &[u8]) -> Result<Htpasswd, String> {
    let file = Htpasswd::parse(bytes).map_err(|error| error.to_string())?;
    if file.len() == 0 {
        tracing::warn!("the htpasswd file has no users; add one with: htpasswd -B FILE USER");
    }
    Ok(file)
}

fn read_error(path: &Path, error: FileError) -> StartError {
    StartError::File { path: path.display().to_string(), error }
}

/// A key that ends with the process.
fn random_key() -> Result<hmac::Key, StartError> {
    hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| StartError::Random)
}
