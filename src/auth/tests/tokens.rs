//! Tokens of an issuer: made by openssl, with keys and certificates of its own making, and by no one who is trusted.

use std::fs;

use serde::Deserialize;
use std::collections::BTreeMap;

use super::super::jwt::Token;
use super::super::keys::{Bundle, KeySet};
use super::*;

/// All made by openssl 3.0: keys, self-signed certificates, a chain of three, and tokens signed with them.
#[derive(Deserialize)]
struct Vectors {
    bundle: String,
    jwks: Value,
    thumbprints: BTreeMap<String, String>,
    by_name: BTreeMap<String, String>,
    by_bundle: BTreeMap<String, String>,
    refused: BTreeMap<String, String>,
    cve_2025_24976: BTreeMap<String, String>,
    encryption_only: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

/// An issuer with these files, and the folder that they are in.
struct Setup {
    issuer: Issuer,
    dir: tempfile::TempDir,
}

fn setup(jwks: Option<&str>, bundle: Option<&str>, algorithms: &[&str]) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let Settings::Token(mut settings) = token(dir.path()) else { panic!("no token settings") };
    settings.jwks = jwks.map(|text| file("jwks", text));
    settings.bundle = bundle.map(|text| file("bundle", text));
    settings.algorithms = algorithms.iter().map(|name| name.parse().unwrap()).collect();
    Setup { issuer: Issuer::open(&settings).unwrap(), dir }
}

#[tokio::test]
async fn every_algorithm_is_verified_with_the_key_that_is_named() {
    let Vectors { jwks, by_name, encryption_only, .. } = vectors();
    let setup = setup(Some(&jwks.to_string()), None, &ALGORITHMS);
    assert_eq!(by_name.len(), ALGORITHMS.len());
    for (algorithm, token) in &by_name {
        let caller = setup.issuer.verify(token).await.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        assert_eq!(caller.identity, Identity::Bearer("alice".into()));
        let grants = caller.limits.unwrap();
        assert!(grants.allow("team/app", Action::Push) && !grants.allow("team/app", Action::Delete));
        // Any other byte, and it is nobody's.
        for place in [token.rfind('.').unwrap() + 3, token.find('.').unwrap() + 9] {
            let mut bytes = token.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(setup.issuer.verify(&changed).await.is_err(), "{algorithm} {place}");
        }
    }
    assert_eq!(setup.issuer.verify(&encryption_only).await.unwrap_err(), TokenError::Untrusted);
}

#[tokio::test]
async fn keys_of_the_bundle_are_known_by_their_names_and_chains() {
    let Vectors { bundle, by_bundle, refused, .. } = vectors();
    let setup = setup(None, Some(&bundle), &ALGORITHMS);
    for (what, token) in &by_bundle {
        assert!(setup.issuer.verify(token).await.is_ok(), "{what}");
    }
    for (what, token) in &refused {
        assert_eq!(setup.issuer.verify(token).await.err(), Some(TokenError::Untrusted), "{what}");
    }
}

#[tokio::test]
async fn cve_2025_24976_a_token_does_not_bring_its_own_key() {
    let Vectors { bundle, jwks, cve_2025_24976, .. } = vectors();
    let setup = setup(Some(&jwks.to_string()), Some(&bundle), &ALGORITHMS);
    assert!(!cve_2025_24976.is_empty());
    for (what, token) in &cve_2025_24976 {
        assert_eq!(setup.issuer.verify(token).await.err(), Some(TokenError::Untrusted), "{what}");
    }
}

#[tokio::test]
async fn only_algorithms_that_are_allowed_count() {
    let Vectors { jwks, by_name, .. } = vectors();
    let setup = setup(Some(&jwks.to_string()), None, &["ES256"]);
    for (algorithm, token) in &by_name {
        let verified = setup.issuer.verify(token).await;
        assert_eq!(verified.err(), (algorithm != "ES256").then_some(TokenError::Algorithm), "{algorithm}");
    }
}

#[tokio::test]
async fn no_token_chooses_how_its_signature_is_read() {
    let Vectors { jwks, by_name, .. } = vectors();
    let setup = setup(Some(&jwks.to_string()), None, &ALGORITHMS);
    let (_, rest) = by_name["RS256"].split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let modulus = BASE64URL_NOPAD.decode(jwks["keys"][0]["n"].as_str().unwrap().as_bytes()).unwrap();
    for alg in ["none", "None", "HS256", "HS512", "ES256", "ES384", "EdDSA", "PS256", "RS512", "rs256", ""] {
        let header = BASE64URL_NOPAD.encode(json!({"alg": alg, "kid": "rsa-key"}).to_string().as_bytes());
        let message = format!("{header}.{claims}");
        // The public key as if it were a shared secret.
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &modulus);
        let forged = BASE64URL_NOPAD.encode(hmac::sign(&secret, message.as_bytes()).as_ref());
        for signature in [signature, "", forged.as_str()] {
            assert!(setup.issuer.verify(&format!("{message}.{signature}")).await.is_err(), "{alg}");
        }
    }
}

#[tokio::test]
async fn claims_are_of_this_issuer_and_for_this_service() {
    let signer = Signer::new();
    let setup = setup(Some(&signer.jwks()), None, &ALGORITHMS);
    let header = json!({"alg": "ES256", "kid": "key"});
    let verify = async |change: fn(&mut Value)| {
        let mut claims = claims(&json!([]));
        change(&mut claims);
        setup.issuer.verify(&signer.sign_with(&header, &claims)).await.map(|_| ())
    };
    assert_eq!(verify(|_| ()).await, Ok(()));
    assert_eq!(verify(|claims| claims["access"] = Value::Null).await, Ok(()));
    assert_eq!(verify(|claims| claims["aud"] = json!(["other", "registry.example"])).await, Ok(()));
    assert_eq!(verify(|claims| claims["iss"] = json!("other")).await, Err(TokenError::Issuer));
    assert_eq!(verify(|claims| claims["aud"] = json!("other")).await, Err(TokenError::Audience));
    assert_eq!(verify(|claims| claims["exp"] = json!(1)).await, Err(TokenError::Expired));
    assert_eq!(verify(|claims| claims["exp"] = json!(-1.0)).await, Err(TokenError::Expired));
    assert_eq!(verify(|claims| claims["exp"] = json!("never")).await, Err(TokenError::Malformed));
    assert_eq!(verify(|claims| claims["nbf"] = json!(4_102_444_800_u64)).await, Err(TokenError::Early));
    assert_eq!(verify(|claims| claims["access"] = json!("all")).await, Err(TokenError::Malformed));
    // What our own tokens carry means nothing in others.
    assert_eq!(verify(|claims| claims["login"] = json!("x")).await, Ok(()));
}

#[tokio::test]
async fn keys_change_with_their_file() {
    let (one, other) = (Signer::new(), Signer::new());
    let setup = setup(Some(&one.jwks()), None, &ALGORITHMS);
    let (by_one, by_other) = (one.sign(&json!([])), other.sign(&json!([])));
    assert!(setup.issuer.verify(&by_one).await.is_ok());
    assert!(setup.issuer.verify(&by_other).await.is_err());
    fs::write(setup.dir.path().join("new"), other.jwks()).unwrap();
    fs::rename(setup.dir.path().join("new"), setup.dir.path().join("jwks")).unwrap();
    assert!(setup.issuer.verify(&by_one).await.is_err());
    assert!(setup.issuer.verify(&by_other).await.is_ok());
    fs::write(setup.dir.path().join("jwks"), "{}").unwrap();
    assert!(setup.issuer.verify(&by_other).await.is_ok());
}

#[test]
fn files_of_keys_are_told_what_is_wrong_with_them() {
    let set = |keys: Value| KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap_err();
    assert_eq!(set(json!([])), "has no key that signs");
    assert_eq!(
        set(json!([{"kty": "oct", "k": "AAAA"}])),
        "has a key, number 1, that is a shared secret; tokens are signed with private keys"
    );
    assert!(
        set(json!([{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}])).contains("curve secp256k1")
    );
    assert!(set(json!([{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}])).contains("wrong length"));
    assert!(set(json!([{"kty": "RSA", "n": "AQAB", "e": "AQAB"}])).contains("less than 2048 bits"));
    assert!(set(json!([{"kty": "RSA", "e": "AQAB"}])).contains("has no n that can be read"));
    assert!(set(json!([{"kty": "OKP", "crv": "Ed25519", "x": "AA"}])).contains("wrong length"));
    assert!(KeySet::parse(b"{}").unwrap_err().starts_with("is no JSON Web Key Set"));
    assert_eq!(Bundle::parse(b"").unwrap_err(), "has no certificate in PEM");
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(
        Bundle::parse(damaged.as_bytes()).unwrap_err(),
        "has a certificate, number 1, that cannot be read"
    );
}

#[test]
fn thumbprints_are_those_of_the_rfcs() {
    let key = |jwk: Value| KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    let Vectors { jwks, thumbprints, .. } = vectors();
    for (place, name) in ["rsa", "p256", "p384", "p521", "ed"].into_iter().enumerate() {
        let mut jwk = jwks["keys"][place].clone();
        jwk.as_object_mut().unwrap().remove("kid");
        assert!(key(jwk).keys()[0].is_named(&thumbprints[name]), "{name}");
    }
    // RFC 8037, A.3.
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let set = key(json!({"kty": "OKP", "crv": "Ed25519", "x": x}));
    assert!(set.keys()[0].is_named("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
}

#[test]
fn signatures_are_those_of_the_rfcs() {
    // RFC 7515, A.3.
    let jws = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let key = json!({
        "kty": "EC", "crv": "P-256", "kid": "a",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let set = KeySet::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
    let token = Token::parse(jws).unwrap();
    let signed = |algorithm: &str| {
        set.keys()[0].has_signed(algorithm.parse().unwrap(), token.message.as_bytes(), &token.signature)
    };
    assert!(signed("ES256"));
    assert!(ALGORITHMS.iter().filter(|name| **name != "ES256").all(|name| !signed(name)));
}

proptest::proptest! {
    #[test]
    fn any_file_of_keys_is_answered(text in ".{0,60}", x in "[A-Za-z0-9_-]{0,60}") {
        let _ = KeySet::parse(text.as_bytes());
        for jwk in [json!({"kty": "EC", "crv": "P-256", "x": x, "y": x}), json!({"kty": "RSA", "n": x, "e": x})] {
            let _ = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes());
        }
        let _ = Bundle::parse(text.as_bytes());
        let _ = Bundle::parse(format!("-----BEGIN CERTIFICATE-----\n{x}\n-----END CERTIFICATE-----\n").as_bytes());
    }
}
