//! What the operator says of authentication, as types.

use std::path::PathBuf;

use super::challenge::Realm;
use super::rules::Rules;
use super::signature::Algorithm;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
    /// Passwords in a file, and rules that say who may do what.
    Htpasswd {
        realm: String,
        path: PathBuf,
        rules: Rules,
        /// Where this registry gives tokens itself, with the prefix of all its paths.
        token_path: String,
    },
    /// Tokens of an issuer, who says who may do what.
    Token(TokenSettings),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenSettings {
    pub(crate) realm: Realm,
    pub(crate) service: String,
    pub(crate) issuer: String,
    /// Not empty.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) jwks: Option<PathBuf>,
    /// Certificates in PEM.
    pub(crate) bundle: Option<PathBuf>,
}
