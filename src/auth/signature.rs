//! Algorithms that may sign a token, and public keys. Which key fits which algorithm is decided here, so that no token
//! can choose how its signature is read: no `none`, and no shared secrets.

use std::str::FromStr;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use data_encoding::BASE64URL_NOPAD;

/// Names of the algorithms, as `auth.token.signingalgorithms` and tokens have them.
pub(crate) const ALGORITHMS: [&str; 10] =
    ["EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"];

/// One of [`ALGORITHMS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Algorithm(&'static str);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// Big-endian, without zeros in front.
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point: 4, x, y.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

enum Scheme {
    Rsa(&'static RsaParameters),
    Ec(Curve, &'static EcdsaVerificationAlgorithm),
    Ed25519,
}

impl Algorithm {
    pub(super) fn name(self) -> &'static str {
        self.0
    }

    fn scheme(self) -> Option<Scheme> {
        Some(match self.0 {
            "EdDSA" => Scheme::Ed25519,
            "RS256" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Scheme::Ec(Curve::P256, &signature::ECDSA_P256_SHA256_FIXED),
            "ES384" => Scheme::Ec(Curve::P384, &signature::ECDSA_P384_SHA384_FIXED),
            "ES512" => Scheme::Ec(Curve::P521, &signature::ECDSA_P521_SHA512_FIXED),
            _ => return None,
        })
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        ALGORITHMS.into_iter().find(|name| *name == text).map(Self).ok_or(())
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::fmt::Debug for Algorithm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Curve {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    pub(super) fn width(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl PublicKey {
    /// Whether the signature is this key's, made in this way.
    pub(super) fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (algorithm.scheme(), self) {
            (Some(Scheme::Rsa(parameters)), Self::Rsa { modulus, exponent }) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(parameters, message, signature)
                    .is_ok()
            }
            (Some(Scheme::Ec(curve, scheme)), Self::Ec { curve: own, point }) if curve == *own => {
                UnparsedPublicKey::new(scheme, point).verify(message, signature).is_ok()
            }
            (Some(Scheme::Ed25519), Self::Ed25519(key)) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }

    /// RFC 7638, by which Distribution knows the keys of its certificates.
    pub(super) fn thumbprint(&self) -> String {
        let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let canonical = match self {
            Self::Rsa { modulus, exponent } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(exponent), encode(modulus))
            }
            Self::Ec { curve, point } => {
                let (x, y) =
                    point.get(1..).unwrap_or_default().split_at_checked(curve.width()).unwrap_or_default();
                format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, curve.name(), encode(x), encode(y))
            }
            Self::Ed25519(key) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(key)),
        };
        encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    }
}
