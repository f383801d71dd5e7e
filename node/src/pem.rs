//! Ed25519 private keys as PEM: PKCS#8 in the clear, as `ipfs key export --format=pem-pkcs8-cleartext` and OpenSSL
//! write them (RFC 8410). Encrypted files are not read.

use multibase::Base;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// Behind the outer length and the version: the algorithm 1.3.101.112, and a seed of 32 bytes.
const ALGORITHM: [u8; 11] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Version 1: nothing follows the seed.
const V1_HEAD: [u8; 5] = [0x30, 0x2e, 0x02, 0x01, 0x00];
/// Base64 of a line (RFC 7468).
const LINE: usize = 64;

/// What a PEM file was found to hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pem<'a> {
    /// The seed, and what follows it: in version 2 the public key may.
    Ed25519 {
        seed: [u8; 32],
        rest: &'a [u8],
    },
    OtherKey,
}

/// The DER bytes between the lines of a PEM file.
pub(crate) fn unwrap(text: &str) -> Option<Vec<u8>> {
    let (_, body) = text.split_once(BEGIN)?;
    let (body, _) = body.split_once(END)?;
    let body: String = body.split_whitespace().collect();
    Base::Base64Pad.decode(body).ok()
}

/// Reads the DER bytes of a PKCS#8 private key.
pub(crate) fn read(der: &[u8]) -> Option<Pem<'_>> {
    // Other keys are longer than 127 bytes and have a long length.
    let [0x30, length, 0x02, 0x01, 0 | 1, rest @ ..] = der else {
        return der.starts_with(&[0x30]).then_some(Pem::OtherKey);
    };
    if usize::from(*length) + 2 != der.len() {
        return None;
    }
    let Some(rest) = rest.strip_prefix(&ALGORITHM) else { return Some(Pem::OtherKey) };
    let (seed, rest) = rest.split_first_chunk()?;
    Some(Pem::Ed25519 { seed: *seed, rest })
}

pub(crate) fn write(seed: &[u8; 32]) -> String {
    let der = [V1_HEAD.as_slice(), &ALGORITHM, seed].concat();
    let mut text = format!("{BEGIN}\n");
    let body = Base::Base64Pad.encode(der);
    // Base64 is ASCII: a character is a byte.
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push('\n');
    text.push_str(END);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8410, section 10.3.
    const RFC: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";

    #[test]
    fn the_example_of_the_rfc_is_read_and_written() {
        let der = unwrap(RFC).unwrap();
        let Some(Pem::Ed25519 { seed, rest: [] }) = read(&der) else { panic!("{der:?}") };
        assert_eq!((seed[0], seed[31]), (0xd4, 0x42));
        assert_eq!(write(&seed), RFC);
    }

    #[test]
    fn what_is_cut_off_or_of_another_kind_is_no_ed25519_key() {
        let der = unwrap(RFC).unwrap();
        for length in 5..der.len() {
            assert_eq!(read(&der[..length]), None, "{length}");
        }
        assert_eq!(read(&[0x30, 0x82, 0x04, 0xbe, 2, 1, 0]), Some(Pem::OtherKey));
        assert_eq!(unwrap("-----BEGIN PRIVATE KEY-----\nMC4C"), None);
    }
}
