//! Keys that may sign tokens: those of a JWKS file and of a bundle of certificates, and no others. What a token says of
//! its key only chooses among them (CVE-2025-24976); a chain of certificates must end at the bundle.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::Deserialize;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::signature::{Algorithm, Curve, PublicKey};

/// Certificates of one chain; real ones have two or three.
const MAX_CHAIN: usize = 8;
/// Bits of an RSA key that may sign; shorter ones are no longer safe.
const MIN_RSA_BITS: usize = 2048;

/// A key under the names by which a token may mean it.
#[derive(Debug)]
pub(super) struct TrustedKey {
    ids: Vec<String>,
    key: PublicKey,
    /// The only algorithm that it is for, where its file says so.
    algorithm: Option<String>,
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug)]
pub(super) struct KeySet(Vec<TrustedKey>);

/// Certificates that are trusted by themselves, and to sign others.
#[derive(Debug)]
pub(super) struct Bundle {
    keys: Vec<TrustedKey>,
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl TrustedKey {
    pub(super) fn is_named(&self, id: &str) -> bool {
        self.ids.iter().any(|known| known == id)
    }

    pub(super) fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let fits = self.algorithm.as_ref().is_none_or(|only| only == algorithm.name());
        fits && self.key.has_signed(algorithm, message, signature)
    }
}

impl KeySet {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let set: Set =
            serde_json::from_slice(bytes).map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
        let mut keys = Vec::new();
        for (place, jwk) in set.keys.into_iter().enumerate() {
            if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
                continue;
            }
            let key = jwk
                .public_key()
                .map_err(|problem| format!("has a key, number {}, that {problem}", place + 1))?;
            // A token names its key; one without a name of its own is known by its thumbprint.
            let ids = vec![jwk.kid.filter(|id| !id.is_empty()).unwrap_or_else(|| key.thumbprint())];
            keys.push(TrustedKey { ids, key, algorithm: jwk.alg });
        }
        if keys.is_empty() {
            return Err("has no key that signs".to_owned());
        }
        Ok(Self(keys))
    }

    pub(super) fn keys(&self) -> &[TrustedKey] {
        &self.0
    }
}

impl Jwk {
    fn public_key(&self) -> Result<PublicKey, String> {
        let number = |name: &str, field: &Option<String>| {
            let bytes = field.as_ref().and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
            bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| format!("has no {name} that can be read"))
        };
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => rsa(&number("n", &self.n)?, &number("e", &self.e)?),
            ("EC", Some(name)) => {
                let curve =
                    [Curve::P256, Curve::P384, Curve::P521].into_iter().find(|curve| curve.name() == name);
                let curve =
                    curve.ok_or_else(|| format!("is of the curve {}, which is not taken", shown(name)))?;
                let (x, y) = (number("x", &self.x)?, number("y", &self.y)?);
                if x.len() != curve.width() || y.len() != curve.width() {
                    return Err("has coordinates of the wrong length".to_owned());
                }
                Ok(PublicKey::Ec { curve, point: [vec![4], x, y].concat() })
            }
            ("OKP", Some("Ed25519")) => ed25519(&number("x", &self.x)?),
            ("oct", _) => Err("is a shared secret; tokens are signed with private keys".to_owned()),
            (kind, _) => Err(format!("is of the type {}, which is not taken", shown(kind))),
        }
    }
}

impl Bundle {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut bundle = Self { keys: Vec::new(), certificates: Vec::new(), anchors: Vec::new() };
        for (place, certificate) in CertificateDer::pem_slice_iter(bytes).enumerate() {
            let bad = |problem: &str| format!("has a certificate, number {}, that {problem}", place + 1);
            let certificate = certificate.map_err(|_| bad("is no PEM"))?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate);
            let anchor = anchor.map_err(|_| bad("cannot be read"))?.to_owned();
            let key = public_key(&certificate).map_err(|problem| bad(&problem))?;
            bundle.anchors.push(anchor);
            bundle.keys.push(key);
            bundle.certificates.push(certificate);
        }
        if bundle.keys.is_empty() {
            return Err("has no certificate in PEM".to_owned());
        }
        Ok(bundle)
    }

    pub(super) fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// The key of a chain's first certificate, where the chain ends at the bundle and holds now.
    pub(super) fn key_of_chain(&self, chain: &[String]) -> Option<TrustedKey> {
        if chain.len() > MAX_CHAIN {
            return None;
        }
        let decode = |text: &String| BASE64.decode(text.as_bytes()).ok().map(CertificateDer::from);
        let chain: Vec<CertificateDer<'static>> = chain.iter().map(decode).collect::<Option<_>>()?;
        let (leaf, others) = chain.split_first()?;
        let trusted = if self.certificates.contains(leaf) {
            let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
            parsed.validity().is_valid()
        } else {
            let certificate = EndEntityCert::try_from(leaf).ok()?;
            let algorithms =
                rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
            let now = UnixTime::now();
            certificate.verify_for_usage(algorithms, &self.anchors, others, now, AnyUsage, None, None).is_ok()
        };
        trusted.then(|| public_key(leaf).ok())?
    }
}

/// Certificates that sign tokens are made for all kinds of uses.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn public_key(certificate: &CertificateDer<'_>) -> Result<TrustedKey, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "cannot be read".to_owned())?;
    let info = parsed.public_key();
    let key = key_of_info(info)?;
    Ok(TrustedKey { ids: vec![key.thumbprint(), fingerprint(info.raw)], key, algorithm: None })
}

fn key_of_info(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, String> {
    let algorithm = &info.algorithm.algorithm;
    let bits = info.subject_public_key.data.as_ref();
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return match info.parsed() {
            Ok(Parsed::RSA(key)) => rsa(key.modulus, key.exponent),
            _ => Err("has a damaged key".to_owned()),
        };
    }
    if *algorithm == OID_SIG_ED25519 {
        return ed25519(bits);
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let name = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let curves =
            [(OID_EC_P256, Curve::P256), (OID_NIST_EC_P384, Curve::P384), (OID_NIST_EC_P521, Curve::P521)];
        let curve =
            name.and_then(|name| curves.into_iter().find(|(id, _)| *id == name)).map(|(_, curve)| curve);
        let curve = curve.ok_or_else(|| "has a key on a curve that is not taken".to_owned())?;
        let whole = bits.first() == Some(&4) && bits.len() == 1 + 2 * curve.width();
        let key = PublicKey::Ec { curve, point: bits.to_vec() };
        return whole.then_some(key).ok_or_else(|| "has a compressed or damaged key".to_owned());
    }
    Err("has a key that is not RSA, ECDSA or Ed25519".to_owned())
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, String> {
    let number = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    let (modulus, exponent) = (number(modulus), number(exponent));
    if modulus.len() * 8 < MIN_RSA_BITS {
        return Err(format!("has an RSA key of less than {MIN_RSA_BITS} bits"));
    }
    Ok(PublicKey::Rsa { modulus, exponent })
}

fn ed25519(key: &[u8]) -> Result<PublicKey, String> {
    if key.len() != 32 {
        return Err("has an Ed25519 key of the wrong length".to_owned());
    }
    Ok(PublicKey::Ed25519(key.to_vec()))
}

/// The older name of a key, by which token servers before Distribution 3 call it (libtrust).
fn fingerprint(info: &[u8]) -> String {
    let hash = digest(&SHA256, info);
    let text = BASE32_NOPAD.encode(hash.as_ref().get(..30).unwrap_or_default());
    let letters: Vec<char> = text.chars().collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    groups.join(":")
}

fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(32).collect()
}
