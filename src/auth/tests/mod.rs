//! The gate as its rooms meet in it, and what other rooms need to test with it.

mod gate;
mod tokens;

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::*;

/// `alice` with the password "open sesame" and `bob` with "open barley", by `htpasswd -nbB -C 4` and `argon2`.
pub(crate) const USERS: &str = "\
alice:$2y$04$0ZX901egekCLYh9umFYdTOg4oJTYkP4d3fT4jTCDtkoXNlw/wBvMG
bob:$argon2id$v=19$m=256,t=1,p=1$c2FsdHNhbHQ$DckQH0urBuZ8KInjaQV2up1jVBYIBEqvNMyOCcPB/dY
";

pub(crate) fn htpasswd(path: &Path, rules: Rules) -> Settings {
    Settings::Htpasswd {
        realm: "Sampan".to_owned(),
        path: path.to_owned(),
        rules,
        token_path: TOKEN_PATH.to_owned(),
    }
}

/// A gate with users and their passwords, at which anonymous clients may do nothing.
pub(crate) fn passwords() -> Auth {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("htpasswd");
    std::fs::write(&path, USERS).unwrap();
    Auth::start(&htpasswd(&path, Rules::plain(Actions::default()))).unwrap()
}

/// An issuer of tokens whose keys are in `path`.
pub(crate) fn token(path: &Path) -> Settings {
    Settings::Token(TokenSettings {
        realm: Realm::Url("https://auth.example/token".to_owned()),
        service: "registry.example".to_owned(),
        issuer: "issuer.example".to_owned(),
        algorithms: ALGORITHMS.iter().map(|name| name.parse().unwrap()).collect(),
        jwks: Some(path.to_owned()),
        bundle: None,
    })
}

pub(crate) fn basic(user: &str, password: &str) -> Credentials {
    let value = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
    Credentials::parse(format!("Basic {value}").as_bytes()).unwrap()
}

/// Signs tokens that hold until the year 2100.
pub(crate) struct Signer(EcdsaKeyPair);

impl Signer {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn jwks(&self) -> String {
        let point = self.0.public_key().as_ref();
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "key", "x": x, "y": y}]}).to_string()
    }

    pub(crate) fn sign(&self, access: &Value) -> String {
        self.sign_with(&json!({"alg": "ES256", "kid": "key"}), &claims(access))
    }

    fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

fn claims(access: &Value) -> Value {
    json!({"iss": "issuer.example", "aud": "registry.example", "sub": "carol", "exp": 4_102_444_800_u64, "access": access})
}
