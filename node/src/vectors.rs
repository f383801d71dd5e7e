//! Keys and records that kubo 0.44 wrote (`ipfs key gen`, `key export` in both forms, `name publish`, `routing get`),
//! read here. The records are valid until 2126.

use std::time::{Duration, UNIX_EPOCH};

use crate::ipns::{Record, RecordError};
use crate::key::{KeyFault, Keypair};
use crate::name::Name;

/// September 2026.
const NOW: Duration = Duration::from_secs(1_790_000_000);

const ED25519: &str = "k51qzi5uqu5dm954iknrt362guwl2ak2zbg0khg3tolvu3ia4yc4rfglu1kssw";
const RSA: &str = "k2k4r8k8tsm9nos2wzwswvzwci7aerfyy6wz7cpnxhcikayfvoc963sh";
const ED25519_RECORD: &[u8] = include_bytes!("../tests/fixtures/kubo-ed25519.ipns-record");
const RSA_RECORD: &[u8] = include_bytes!("../tests/fixtures/kubo-rsa.ipns-record");

#[test]
fn both_forms_of_a_key_file_are_the_same_key_and_are_written_again_as_they_were() {
    let protobuf = include_bytes!("../tests/fixtures/kubo-ed25519.key");
    let pem = include_bytes!("../tests/fixtures/kubo-ed25519.pem");
    for file in [protobuf.as_slice(), pem] {
        let key = Keypair::from_file(file).unwrap();
        assert_eq!(key.name(), ED25519.parse().unwrap());
        assert_eq!(key.to_protobuf(), protobuf);
        assert_eq!(key.to_pem().as_bytes(), pem);
    }
}

#[test]
fn rsa_keys_are_told_from_what_is_no_key() {
    let protobuf = include_bytes!("../tests/fixtures/kubo-rsa.key");
    let pem = include_bytes!("../tests/fixtures/kubo-rsa.pem");
    for file in [protobuf.as_slice(), pem] {
        assert_eq!(Keypair::from_file(file).unwrap_err(), KeyFault::NotEd25519);
    }
}

#[test]
fn records_of_ed25519_and_rsa_names_are_verified_and_those_of_each_other_are_not() {
    let now = UNIX_EPOCH + NOW;
    let (ed25519, rsa): (Name, Name) = (ED25519.parse().unwrap(), RSA.parse().unwrap());
    for (name, bytes) in [(ed25519, ED25519_RECORD), (rsa, RSA_RECORD)] {
        let record = Record::decode(bytes).unwrap().verify(&name, now).unwrap();
        assert_eq!((record.value(), record.sequence()), ("/ipfs/bafkqaaa", 1));
        assert_eq!(record.ttl(), Duration::from_mins(5));
        let broken: Vec<u8> = bytes.iter().rev().skip(1).rev().copied().chain([1]).collect();
        let broken = Record::decode(broken).and_then(|record| record.verify_signature(&name));
        assert!(broken.is_err(), "{broken:?}");
    }
    let foreign = |bytes: &'static [u8], name| Record::decode(bytes).unwrap().verify(name, now).unwrap_err();
    assert_eq!(foreign(RSA_RECORD, &ed25519), RecordError::ForeignKey);
    assert_eq!(foreign(ED25519_RECORD, &rsa), RecordError::KeyMissing);
}
