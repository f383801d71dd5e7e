//! IPNS records: made, read, checked and compared.
//!
//! Specification: <https://specs.ipfs.tech/ipns/ipns-record/>. Records are written as V1+V2, as kubo
//! does; what counts when one is read is the signed V2 data. Where records travel is not decided here.

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cid::Cid;
use libp2p::identity::PublicKey;
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::key::Keypair;
use crate::name::Name;

/// No larger record is looked at (IPNS record specification, "Record size limit").
pub const MAX_RECORD: usize = 10 * 1024;
/// How long a record is valid. A record that is carried by hand, or outlives its publisher, must not
/// arrive dead; kubo's 48 hours would.
pub const LIFETIME: Duration = Duration::from_hours(30 * 24);
/// How long a resolver may answer from memory.
pub const TTL: Duration = Duration::from_mins(1);

/// What the V2 signature covers before the data.
const SIGNATURE_V2_PREFIX: &[u8] = b"ipns-signature:";
/// What the V1 signature covers after value and validity: the validity type by name.
const VALIDITY_TYPE_EOL: &[u8] = b"EOL";
/// A CID in text form is shorter; longer text costs time to decode.
const MAX_CID_TEXT: usize = 256;

/// A record that is well formed. Whose it is, is known after [`Record::verify`].
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    bytes: Bytes,
    entry: Entry,
    data: Data,
    value: String,
    validity: OffsetDateTime,
}

/// A record that was signed with the key of `name`. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    name: Name,
    record: Arc<Record>,
}

/// What a new record says.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What the name points to, as a content path.
    pub value: String,
    /// One more than the last; whoever holds the key sees to that.
    pub sequence: u64,
    /// When the record ends.
    pub validity: SystemTime,
    pub ttl: Duration,
    /// Which installation writes with this key; empty for none.
    pub instance: Vec<u8>,
    /// For members only: whoever has the record gives it, and what it leads to, to nobody else.
    pub private: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("an IPNS record of {0} bytes is larger than the 10 KiB that are allowed")]
    TooLarge(usize),
    #[error("the IPNS record is malformed: {0}")]
    Malformed(&'static str),
    #[error("the IPNS record carries no V2 signature")]
    NotSigned,
    #[error("the public key in the IPNS record is not the key of the name")]
    ForeignKey,
    #[error("the name is the hash of a key, and the IPNS record does not carry that key")]
    KeyMissing,
    #[error("the signature of the IPNS record does not match the name")]
    BadSignature,
    #[error("the unsigned fields of the IPNS record differ from the signed data")]
    Inconsistent,
    #[error("the IPNS record has expired")]
    Expired,
}

impl Draft {
    /// A draft with the usual lifetime and TTL.
    pub fn new(root: Cid, sequence: u64, now: SystemTime) -> Self {
        Self::to_path(format!("/ipfs/{root}"), sequence, now)
    }

    /// The same for a name that has moved to another.
    pub fn to_name(name: &Name, sequence: u64, now: SystemTime) -> Self {
        Self::to_path(format!("/ipns/{name}"), sequence, now)
    }

    /// Not shorter than the record before it: a clock that is behind must not take life from a name.
    #[must_use]
    pub fn outliving(mut self, before: Option<&Record>) -> Self {
        if let Some(before) = before {
            self.validity = self.validity.max(before.validity());
        }
        self
    }

    /// The same for any content path.
    pub fn to_path(value: String, sequence: u64, now: SystemTime) -> Self {
        Self { value, sequence, validity: now + LIFETIME, ttl: TTL, instance: Vec::new(), private: false }
    }
}

impl Record {
    /// Signs a record with `key`, for the name of that key.
    pub fn sign(key: &Keypair, draft: &Draft) -> Result<Verified, RecordError> {
        let validity = format_validity(draft.validity)?;
        let value = draft.value.clone();
        let data = Data {
            ttl: u64::try_from(draft.ttl.as_nanos()).unwrap_or(u64::MAX),
            value: ByteBuf::from(value.clone()),
            sequence: draft.sequence,
            validity: ByteBuf::from(validity.clone()),
            validity_type: 0,
            private: draft.private.then_some(true),
            instance: (!draft.instance.is_empty()).then(|| ByteBuf::from(draft.instance.clone())),
        };
        let encoded = serde_ipld_dagcbor::to_vec(&data).map_err(|_| RecordError::Malformed("its data"))?;
        let entry = Entry {
            signature_v1: Some(
                key.sign(&[value.as_bytes(), validity.as_bytes(), VALIDITY_TYPE_EOL].concat()).into(),
            ),
            signature_v2: Some(key.sign(&[SIGNATURE_V2_PREFIX, &encoded].concat()).into()),
            value: Some(value.into()),
            validity_type: Some(0),
            validity: Some(validity.into()),
            sequence: Some(data.sequence),
            ttl: Some(data.ttl),
            public_key: None,
            data: Some(encoded.into()),
        };
        // Decoded again, so that what is published is what others can read.
        Self::decode(entry.encode_to_vec())?.verify_signature(&key.name())
    }

    /// Reads a record without believing it yet.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, RecordError> {
        let bytes = bytes.into();
        if bytes.len() > MAX_RECORD {
            return Err(RecordError::TooLarge(bytes.len()));
        }
        let entry = Entry::decode(bytes.clone()).map_err(|_| RecordError::Malformed("it is no protobuf"))?;
        let encoded = entry.data.as_deref().unwrap_or_default();
        if entry.signature_v2.as_ref().is_none_or(Bytes::is_empty) || encoded.is_empty() {
            return Err(RecordError::NotSigned);
        }
        let data: Data = serde_ipld_dagcbor::from_slice(encoded)
            .map_err(|_| RecordError::Malformed("its data is not the DAG-CBOR map it should be"))?;
        if data.validity_type != 0 {
            return Err(RecordError::Malformed("its validity type is not EOL"));
        }
        // Go reads these as int64; a record that only some can read would split the network.
        if i64::try_from(data.sequence).is_err() || i64::try_from(data.ttl).is_err() {
            return Err(RecordError::Malformed("a number in it is out of range"));
        }
        let value = String::from_utf8(data.value.to_vec())
            .map_err(|_| RecordError::Malformed("its value is not text"))?;
        let validity = parse_validity(&data.validity)?;
        Ok(Self { bytes, entry, data, value, validity })
    }

    /// Checks signature and consistency, and that the record has not expired at `now`.
    pub fn verify(self, name: &Name, now: SystemTime) -> Result<Verified, RecordError> {
        let verified = self.verify_signature(name)?;
        if verified.is_expired(now) { Err(RecordError::Expired) } else { Ok(verified) }
    }

    /// Checks all but the expiry, for those who may pass on and show what is stale.
    pub fn verify_signature(self, name: &Name) -> Result<Verified, RecordError> {
        let key = self.public_key(name)?;
        let encoded = self.entry.data.as_deref().unwrap_or_default();
        let signature = self.entry.signature_v2.as_deref().unwrap_or_default();
        if !key.verify(&[SIGNATURE_V2_PREFIX, encoded].concat(), signature) {
            return Err(RecordError::BadSignature);
        }
        if !self.unsigned_fields_agree() {
            return Err(RecordError::Inconsistent);
        }
        Ok(Verified { name: *name, record: Arc::new(self) })
    }

    /// The record as it travels.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The content path, usually `/ipfs/<cid>`.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The root, if the value is `/ipfs/<cid>` and nothing behind it.
    pub fn cid(&self) -> Option<Cid> {
        let text = self.value.strip_prefix("/ipfs/")?;
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.len() > MAX_CID_TEXT || text.contains('/') {
            return None;
        }
        text.parse().ok()
    }

    /// The name that this one has moved to, if the value is `/ipns/<name>` and nothing behind it.
    pub fn target(&self) -> Option<Name> {
        self.value.starts_with("/ipns/").then(|| self.value.parse().ok()).flatten()
    }

    pub fn sequence(&self) -> u64 {
        self.data.sequence
    }

    /// When the record ends.
    pub fn validity(&self) -> SystemTime {
        self.validity.into()
    }

    pub fn ttl(&self) -> Duration {
        Duration::from_nanos(self.data.ttl)
    }

    /// Whether it is for members only.
    pub fn is_private(&self) -> bool {
        self.data.private == Some(true)
    }

    /// Which installation signed this, if it said so.
    pub fn instance(&self) -> Option<&[u8]> {
        self.data.instance.as_ref().map(|id| id.as_slice())
    }

    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.validity() <= now
    }

    /// The key from the record if it carries one, else from the name.
    fn public_key(&self, name: &Name) -> Result<PublicKey, RecordError> {
        let peer = name.peer_id();
        if let Some(embedded) = self.entry.public_key.as_ref().filter(|key| !key.is_empty()) {
            let key = PublicKey::try_decode_protobuf(embedded)
                .map_err(|_| RecordError::Malformed("its public key cannot be read"))?;
            return if key.to_peer_id() == peer { Ok(key) } else { Err(RecordError::ForeignKey) };
        }
        let hash = peer.as_ref();
        if hash.code() != sampan_storage::block::IDENTITY {
            return Err(RecordError::KeyMissing);
        }
        PublicKey::try_decode_protobuf(hash.digest()).map_err(|_| RecordError::KeyMissing)
    }

    /// Fields outside the signed data, left for old readers, must say the same if any is there.
    fn unsigned_fields_agree(&self) -> bool {
        let entry = &self.entry;
        if entry.value.is_none() && entry.signature_v1.is_none() {
            return true;
        }
        entry.value.as_deref().unwrap_or_default() == self.data.value.as_slice()
            && entry.validity.as_deref().unwrap_or_default() == self.data.validity.as_slice()
            && entry.validity_type.unwrap_or_default() == 0
            && entry.sequence.unwrap_or_default() == self.data.sequence
            && entry.ttl.unwrap_or_default() == self.data.ttl
    }
}

impl Verified {
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl Deref for Verified {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// Which of two records of one name holds: `Greater` if it is `a`. Higher sequence, then later end,
/// then the bytes. Both have V2 signatures, which every [`Record`] has.
pub fn select(a: &Record, b: &Record) -> Ordering {
    a.sequence()
        .cmp(&b.sequence())
        .then_with(|| a.validity.cmp(&b.validity))
        .then_with(|| a.bytes.cmp(&b.bytes))
}

/// `IpnsEntry` of the specification.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "bytes", optional, tag = "1")]
    value: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    signature_v1: Option<Bytes>,
    #[prost(int32, optional, tag = "3")]
    validity_type: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    validity: Option<Bytes>,
    #[prost(uint64, optional, tag = "5")]
    sequence: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    ttl: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    public_key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    signature_v2: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    data: Option<Bytes>,
}

/// The signed map. Keys are written in DAG-CBOR order (length, then bytes); unknown ones are ignored,
/// by kubo as well, which is what makes room for `_sampan_instance`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Data {
    #[serde(rename = "TTL")]
    ttl: u64,
    #[serde(rename = "Value")]
    value: ByteBuf,
    #[serde(rename = "Sequence")]
    sequence: u64,
    #[serde(rename = "Validity")]
    validity: ByteBuf,
    #[serde(rename = "ValidityType")]
    validity_type: u64,
    #[serde(rename = "_sampan_private", default, skip_serializing_if = "Option::is_none")]
    private: Option<bool>,
    #[serde(rename = "_sampan_instance", default, skip_serializing_if = "Option::is_none")]
    instance: Option<ByteBuf>,
}

fn format_validity(validity: SystemTime) -> Result<String, RecordError> {
    let out_of_range = RecordError::Malformed("its validity is out of range");
    let nanos =
        validity.duration_since(UNIX_EPOCH).ok().and_then(|since| i128::try_from(since.as_nanos()).ok());
    nanos
        .and_then(|nanos| OffsetDateTime::from_unix_timestamp_nanos(nanos).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .ok_or(out_of_range)
}

fn parse_validity(validity: &[u8]) -> Result<OffsetDateTime, RecordError> {
    let malformed = RecordError::Malformed("its validity is not an RFC 3339 time");
    let text = str::from_utf8(validity).map_err(|_| malformed.clone())?;
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the first implementation published through kubo 0.44; see the fixture's README.
    const SEED: &[u8] = include_bytes!("../tests/fixtures/tree.ipns-record");
    const SEED_NAME: &str = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";
    const SEED_ROOT: &str = "QmcHyeFRftsLEqQXqqsvnwxeKPrPBratV5MC8jqbBgGbPT";

    fn time(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn root() -> Cid {
        SEED_ROOT.parse().unwrap()
    }

    fn draft(sequence: u64) -> Draft {
        Draft::new(root(), sequence, time(1_800_000_000))
    }

    /// Changes the outer protobuf and keeps the signatures.
    fn tampered(record: &Record, change: impl FnOnce(&mut Entry)) -> Record {
        let mut entry = record.entry.clone();
        change(&mut entry);
        Record::decode(entry.encode_to_vec()).unwrap()
    }

    #[test]
    fn a_record_of_kubo_is_read() {
        let name: Name = SEED_NAME.parse().unwrap();
        let record = Record::decode(SEED).unwrap().verify(&name, time(1_790_000_000)).unwrap();
        assert_eq!(record.value(), format!("/ipfs/{SEED_ROOT}"));
        assert_eq!(record.cid(), Some(root()));
        assert_eq!(record.sequence(), 2);
        assert_eq!(record.ttl(), Duration::from_mins(5));
        let end = time(1_827_064_500) + Duration::from_nanos(664_564_977);
        assert_eq!(record.validity(), end);
        assert_eq!(record.instance(), None);
        assert_eq!(record.name(), &name);
    }

    #[test]
    fn the_encoding_is_that_of_kubo_byte_for_byte() {
        let record = Record::decode(SEED).unwrap();
        assert_eq!(record.entry.encode_to_vec(), SEED);
        assert_eq!(serde_ipld_dagcbor::to_vec(&record.data).unwrap(), record.entry.data.unwrap());
        let validity = format_validity(record.validity.into()).unwrap();
        assert_eq!(validity.as_bytes(), record.data.validity.as_slice());
    }

    #[test]
    fn a_clock_that_is_behind_takes_no_life_from_a_name() {
        let key = Keypair::generate();
        let before = Record::sign(&key, &draft(1)).unwrap();
        let late = Draft::new(root(), 2, time(0)).outliving(Some(&before));
        assert_eq!(late.validity, before.validity());
        let early = Draft::new(root(), 2, time(1_900_000_000)).outliving(Some(&before));
        assert_eq!(early.validity, time(1_900_000_000) + LIFETIME);
    }

    #[test]
    fn a_name_that_has_moved_says_whereto_and_has_no_root() {
        let (key, next) = (Keypair::generate(), Keypair::generate().name());
        let moved = Record::sign(&key, &Draft::to_name(&next, 3, time(1_800_000_000))).unwrap();
        assert_eq!((moved.target(), moved.cid()), (Some(next), None));
        assert_eq!(Record::sign(&key, &draft(4)).unwrap().target(), None);
    }

    #[test]
    fn what_is_signed_can_be_verified() {
        let key = Keypair::generate();
        let mut draft = draft(7);
        draft.instance = b"0123456789abcdef".to_vec();
        let signed = Record::sign(&key, &draft).unwrap();
        let read = Record::decode(signed.bytes().clone()).unwrap();
        let read = read.verify(&key.name(), time(1_800_000_001)).unwrap();
        assert_eq!(read.cid(), Some(root()));
        assert_eq!(read.sequence(), 7);
        assert_eq!(read.ttl(), TTL);
        assert_eq!(read.validity(), draft.validity);
        assert_eq!(read.instance(), Some(b"0123456789abcdef".as_slice()));
        let data = read.entry.data.clone().unwrap();
        let keys: Vec<usize> = ["TTL", "Value", "Sequence", "Validity", "ValidityType", "_sampan_instance"]
            .iter()
            .map(|key| data.windows(key.len()).position(|window| window == key.as_bytes()).unwrap())
            .collect();
        assert!(keys.is_sorted(), "DAG-CBOR orders keys by length, then bytes");
    }

    #[test]
    fn a_foreign_name_is_refused() {
        let signed = Record::sign(&Keypair::generate(), &draft(1)).unwrap();
        let other = Keypair::generate();
        assert_eq!(Record::clone(&signed).verify_signature(&other.name()), Err(RecordError::BadSignature));
        let embedded = tampered(&signed, |entry| {
            entry.public_key = Some(other.to_libp2p().public().encode_protobuf().into());
        });
        assert_eq!(embedded.verify_signature(signed.name()), Err(RecordError::ForeignKey));
    }

    #[test]
    fn a_hashed_name_needs_the_key_in_the_record() {
        let signed = Record::sign(&Keypair::generate(), &draft(1)).unwrap();
        let name: Name = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC".parse().unwrap();
        assert_eq!(Record::clone(&signed).verify_signature(&name), Err(RecordError::KeyMissing));
    }

    #[test]
    fn an_expired_record_is_told_apart() {
        let key = Keypair::generate();
        let signed = Record::sign(&key, &draft(1)).unwrap();
        let late = signed.validity();
        assert_eq!(Record::clone(&signed).verify(&key.name(), late), Err(RecordError::Expired));
        assert!(Record::clone(&signed).verify_signature(&key.name()).unwrap().is_expired(late));
    }

    #[test]
    fn tampering_is_found() {
        let key = Keypair::generate();
        let name = key.name();
        let signed = Record::sign(&key, &draft(3)).unwrap();
        let refused = |change: fn(&mut Entry)| tampered(&signed, change).verify_signature(&name).unwrap_err();
        assert_eq!(refused(|entry| entry.sequence = Some(4)), RecordError::Inconsistent);
        assert_eq!(refused(|entry| entry.value = None), RecordError::Inconsistent);
        assert_eq!(refused(|entry| entry.ttl = Some(1)), RecordError::Inconsistent);
        assert_eq!(
            refused(|entry| entry.validity = Some("2040-01-01T00:00:00Z".into())),
            RecordError::Inconsistent
        );
        assert_eq!(refused(|entry| entry.signature_v2 = Some(vec![0; 64].into())), RecordError::BadSignature);
        let v2_only = tampered(&signed, |entry| {
            let keep = (entry.signature_v2.take(), entry.data.take());
            *entry = Entry { signature_v2: keep.0, data: keep.1, ..Entry::default() };
        });
        assert!(v2_only.verify_signature(&name).is_ok(), "a record without V1 fields is valid");
        let unsigned = Entry { signature_v2: None, ..signed.entry.clone() };
        assert_eq!(Record::decode(unsigned.encode_to_vec()), Err(RecordError::NotSigned));
    }

    #[test]
    fn an_oversize_record_is_not_parsed() {
        assert_eq!(Record::decode(vec![0; MAX_RECORD + 1]), Err(RecordError::TooLarge(MAX_RECORD + 1)));
    }

    #[test]
    fn deeply_nested_data_is_refused() {
        let nested = Entry {
            signature_v2: Some(vec![0; 64].into()),
            data: Some([[0xa1, 0x61, 0x61].as_slice(), &[0x81; 9000]].concat().into()),
            ..Entry::default()
        };
        assert!(matches!(Record::decode(nested.encode_to_vec()), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn the_newer_record_is_selected() {
        let key = Keypair::generate();
        let old = Record::sign(&key, &draft(1)).unwrap();
        let new = Record::sign(&key, &draft(2)).unwrap();
        assert_eq!(select(&new, &old), Ordering::Greater);
        let longer = Draft { validity: draft(1).validity + Duration::from_secs(1), ..draft(1) };
        let longer = Record::sign(&key, &longer).unwrap();
        assert_eq!(select(&old, &longer), Ordering::Less);
        assert_eq!(select(&old, &old), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let name: Name = SEED_NAME.parse().unwrap();
            if let Ok(record) = Record::decode(bytes) {
                let _ = record.verify_signature(&name);
            }
        }

        #[test]
        fn a_changed_byte_of_a_real_record_never_passes_as_another(at in 0..SEED.len(), to in any::<u8>()) {
            let name: Name = SEED_NAME.parse().unwrap();
            let mut bytes = SEED.to_vec();
            bytes[at] = to;
            if let Ok(verified) = Record::decode(bytes).and_then(|record| record.verify_signature(&name)) {
                prop_assert_eq!(verified.value(), format!("/ipfs/{}", SEED_ROOT));
                prop_assert_eq!(verified.sequence(), 2);
            }
        }
    }
}
