//! The wire: what a bitswap message says, in bytes and back.
//!
//! The outer fields are walked by hand, so that a frame of many tiny entries cannot grow to many times its
//! size in memory; what they hold is decoded by prost. Block bytes are slices of the frame, never copies.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use cid::Cid;
use prost::Message as _;
use sampan_storage::block::{DAG_PB, IDENTITY, MAX_BLOCK, SHA2_256};
use unsigned_varint::{decode, encode};

/// No frame is longer: boxo's `MessageSizeMax`, above which its reader resets the stream.
pub(super) const MAX_FRAME: usize = 4 * 1024 * 1024;

/// boxo ignores wants with longer CIDs (its server's `maxCidSize`).
const MAX_CID: usize = 168;

/// Entries, presences or blocks of one message above this are not looked at. boxo queues 1,024 per peer and
/// sends no more than that at once; the rest is room for others.
const MAX_ITEMS: usize = 4096;

/// A block up to this size is copied beside its header; a larger one stays a chunk of its own.
const COPY_BELOW: usize = 16 * 1024;

/// The protocols that are spoken, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// With HAVE and DONT_HAVE.
    V1_2,
    /// Blocks come with the prefix of their CID.
    V1_1,
    /// Blocks are bare and named by CIDv0.
    V1_0,
    /// The first protocol, on the wire as 1.0.0.
    Unversioned,
}

impl Version {
    pub const ALL: [Self; 4] = [Self::V1_2, Self::V1_1, Self::V1_0, Self::Unversioned];

    /// Whether HAVE and DONT_HAVE may be said and asked for.
    pub fn has_presences(self) -> bool {
        self == Self::V1_2
    }

    fn has_prefixes(self) -> bool {
        matches!(self, Self::V1_2 | Self::V1_1)
    }
}

impl AsRef<str> for Version {
    fn as_ref(&self) -> &str {
        match self {
            Self::V1_2 => "/ipfs/bitswap/1.2.0",
            Self::V1_1 => "/ipfs/bitswap/1.1.0",
            Self::V1_0 => "/ipfs/bitswap/1.0.0",
            Self::Unversioned => "/ipfs/bitswap",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WantKind {
    Block,
    Have,
}

/// One line of a wantlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cid: Cid,
    pub(super) priority: i32,
    pub(super) kind: WantKind,
    pub(super) cancel: bool,
    pub(super) send_dont_have: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Have,
    DontHave,
}

/// What a block's sender says of its CID; the hash itself is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) version: u64,
    pub(super) codec: u64,
    pub(super) hash_code: u64,
    pub(super) hash_len: u64,
}

impl Prefix {
    /// What a block without a prefix means (1.0.0).
    const V0: Self = Self { version: 0, codec: DAG_PB, hash_code: SHA2_256, hash_len: 32 };

    fn of(cid: &Cid) -> Self {
        let hash = cid.hash();
        let (version, codec) = (u64::from(cid.version()), cid.codec());
        Self { version, codec, hash_code: hash.code(), hash_len: u64::from(hash.size()) }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = decode::u64(bytes).ok()?;
        let (codec, rest) = decode::u64(rest).ok()?;
        let (hash_code, rest) = decode::u64(rest).ok()?;
        let (hash_len, rest) = decode::u64(rest).ok()?;
        rest.is_empty().then_some(Self { version, codec, hash_code, hash_len })
    }

    fn encode(self) -> Bytes {
        let mut bytes = BytesMut::new();
        for number in [self.version, self.codec, self.hash_code, self.hash_len] {
            put_varint(&mut bytes, number);
        }
        bytes.freeze()
    }
}

/// Bytes that came as a block, not hashed yet.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) prefix: Prefix,
    pub(super) data: Bytes,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrival({:?}, {} bytes)", self.prefix, self.data.len())
    }
}

/// A message as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// The wantlist replaces what was sent before.
    pub(super) full: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) blocks: Vec<Arrival>,
    pub(super) presences: Vec<(Cid, Presence)>,
    /// Parts that were skipped: unknown CIDs, blocks that are too large, more items than are looked at.
    pub(super) skipped: u64,
    /// Of these, blocks larger than any may be, which no honest peer sends.
    pub(super) too_large: u64,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a field ends after the message does")]
    Truncated,
    #[error("a number is no varint")]
    Varint,
    #[error("a field has a type that protobuf does not know")]
    WireType,
    #[error("a part is malformed: {0}")]
    Part(#[from] prost::DecodeError),
}

impl Message {
    /// Reads one message without its length. Never fails for what is only unknown: that is skipped.
    pub(super) fn decode(frame: Bytes) -> Result<Self, MessageError> {
        let mut message = Self::default();
        let mut fields = Fields(frame);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(list)) => message.decode_wantlist(list)?,
                (2, Value::Bytes(data)) => message.add_block(Some(Prefix::V0), data),
                (3, Value::Bytes(part)) => {
                    let WireBlock { prefix, data } = WireBlock::decode(part)?;
                    message.add_block(Prefix::decode(&prefix), data);
                }
                (4, Value::Bytes(part)) => {
                    let wire = WirePresence::decode(part)?;
                    message.add_presence(&wire);
                }
                // pendingBytes (5) tells nothing that is used; the rest is of versions to come.
                _ => {}
            }
        }
        Ok(message)
    }

    fn decode_wantlist(&mut self, list: Bytes) -> Result<(), MessageError> {
        let mut fields = Fields(list);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(part)) => {
                    let wire = WireEntry::decode(part)?;
                    self.add_entry(&wire);
                }
                (2, Value::Number(full)) => self.full = full != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, wire: &WireEntry) {
        let kind = match wire.want_type {
            0 => Some(WantKind::Block),
            1 => Some(WantKind::Have),
            _ => None,
        };
        match (parse_cid(&wire.cid), kind) {
            (Some(cid), Some(kind)) if self.entries.len() < MAX_ITEMS => {
                let WireEntry { priority, cancel, send_dont_have, .. } = *wire;
                self.entries.push(Entry { cid, priority, kind, cancel, send_dont_have });
            }
            _ => self.skipped += 1,
        }
    }

    fn add_block(&mut self, prefix: Option<Prefix>, data: Bytes) {
        match prefix {
            Some(prefix) if data.len() <= MAX_BLOCK && self.blocks.len() < MAX_ITEMS => {
                self.blocks.push(Arrival { prefix, data });
            }
            _ => {
                self.skipped += 1;
                self.too_large += u64::from(data.len() > MAX_BLOCK);
            }
        }
    }

    fn add_presence(&mut self, wire: &WirePresence) {
        let presence = match wire.kind {
            0 => Some(Presence::Have),
            1 => Some(Presence::DontHave),
            _ => None,
        };
        match (parse_cid(&wire.cid), presence) {
            (Some(cid), Some(presence)) if self.presences.len() < MAX_ITEMS => {
                self.presences.push((cid, presence));
            }
            _ => self.skipped += 1,
        }
    }
}

/// A message to be sent. What the peer's version cannot say is left out when it is encoded.
#[derive(Clone, Default)]
pub(super) struct Outgoing {
    pub(super) full: bool,
    pub(super) entries: Vec<Entry>,
    pub(super) blocks: Vec<(Cid, Bytes)>,
    pub(super) presences: Vec<(Cid, Presence)>,
}

impl Outgoing {
    pub(super) fn asks_for_blocks(&self) -> bool {
        self.entries.iter().any(|entry| !entry.cancel && entry.kind == WantKind::Block)
    }

    /// The frame, length first, as chunks to be written one after the other. Empty where this version has no
    /// way to say any of it.
    pub(super) fn encode(self, version: Version) -> Vec<Bytes> {
        let mut chunks = Chunks::default();
        if self.full || !self.entries.is_empty() {
            let mut list = BytesMut::new();
            for entry in &self.entries {
                let wire = WireEntry::from(entry).encode_to_vec();
                put_bytes_key(&mut list, 1, wire.len());
                list.put_slice(&wire);
            }
            if self.full {
                list.put_slice(&[2 << 3, 1]);
            }
            put_bytes_key(&mut chunks.open, 1, list.len());
            chunks.push(list.freeze());
        }
        for (cid, data) in self.blocks {
            if version.has_prefixes() {
                let head =
                    WireBlock { prefix: Prefix::of(&cid).encode(), data: Bytes::new() }.encode_to_vec();
                let mut data_key = BytesMut::new();
                put_bytes_key(&mut data_key, 2, data.len());
                put_bytes_key(&mut chunks.open, 3, head.len() + data_key.len() + data.len());
                chunks.open.put_slice(&head);
                chunks.open.put_slice(&data_key);
            } else {
                put_bytes_key(&mut chunks.open, 2, data.len());
            }
            chunks.push(data);
        }
        if version.has_presences() {
            for (cid, presence) in &self.presences {
                let wire = WirePresence {
                    cid: cid.to_bytes().into(),
                    kind: i32::from(*presence == Presence::DontHave),
                };
                let wire = wire.encode_to_vec();
                put_bytes_key(&mut chunks.open, 4, wire.len());
                chunks.open.put_slice(&wire);
            }
        }
        chunks.into_frame()
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("full", &self.full)
            .field("entries", &self.entries.len())
            .field("blocks", &self.blocks.len())
            .field("presences", &self.presences.len())
            .finish()
    }
}

/// Chunks of a frame: small parts share one, large blocks stand alone.
#[derive(Default)]
struct Chunks {
    closed: Vec<Bytes>,
    open: BytesMut,
}

impl Chunks {
    fn push(&mut self, data: Bytes) {
        if data.len() <= COPY_BELOW {
            self.open.put_slice(&data);
            return;
        }
        self.closed.push(self.open.split().freeze());
        self.closed.push(data);
    }

    fn into_frame(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.closed.push(self.open.freeze());
        }
        if self.closed.is_empty() {
            return self.closed;
        }
        let length: usize = self.closed.iter().map(Bytes::len).sum();
        let mut header = BytesMut::new();
        put_varint(&mut header, length as u64);
        // The first chunk is small: everything before the first large block.
        if let Some(first) = self.closed.first_mut() {
            header.put_slice(first);
            *first = header.freeze();
        }
        self.closed
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEntry {
    #[prost(bytes = "bytes", tag = "1")]
    cid: Bytes,
    #[prost(int32, tag = "2")]
    priority: i32,
    #[prost(bool, tag = "3")]
    cancel: bool,
    #[prost(int32, tag = "4")]
    want_type: i32,
    #[prost(bool, tag = "5")]
    send_dont_have: bool,
}

impl From<&Entry> for WireEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            cid: entry.cid.to_bytes().into(),
            priority: entry.priority,
            cancel: entry.cancel,
            want_type: i32::from(entry.kind == WantKind::Have),
            send_dont_have: entry.send_dont_have,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireBlock {
    #[prost(bytes = "bytes", tag = "1")]
    prefix: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WirePresence {
    #[prost(bytes = "bytes", tag = "1")]
    cid: Bytes,
    #[prost(int32, tag = "2")]
    kind: i32,
}

/// The fields of a protobuf message, one after the other.
struct Fields(Bytes);

enum Value {
    Number(u64),
    Bytes(Bytes),
    Fixed,
}

impl Fields {
    fn next(&mut self) -> Result<Option<(u64, Value)>, MessageError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| MessageError::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(MessageError::WireType),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn number(&mut self) -> Result<u64, MessageError> {
        let (number, rest) = decode::u64(&self.0).map_err(|_| MessageError::Varint)?;
        let used = self.0.len() - rest.len();
        self.take(used)?;
        Ok(number)
    }

    fn take(&mut self, length: usize) -> Result<Bytes, MessageError> {
        if length > self.0.len() { Err(MessageError::Truncated) } else { Ok(self.0.split_to(length)) }
    }
}

/// `None` for what cannot be a block's name here: too long, unknown, or the bytes themselves.
fn parse_cid(bytes: &[u8]) -> Option<Cid> {
    if bytes.len() > MAX_CID {
        return None;
    }
    Cid::try_from(bytes).ok().filter(|cid| cid.hash().code() != IDENTITY)
}

fn put_bytes_key(to: &mut BytesMut, field: u8, length: usize) {
    to.put_u8(field << 3 | 2);
    put_varint(to, length as u64);
}

fn put_varint(to: &mut BytesMut, number: u64) {
    to.put_slice(encode::u64(number, &mut encode::u64_buffer()));
}

/// Reads a message, and writes what it says again: the same is read.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(data: &[u8]) {
    let Ok(message) = Message::decode(Bytes::copy_from_slice(data)) else { return };
    let Message { full, entries, blocks, presences, .. } = message.clone();
    assert!([entries.len(), blocks.len(), presences.len()].iter().all(|items| *items <= MAX_ITEMS));
    assert!(blocks.iter().all(|block| block.data.len() <= MAX_BLOCK));
    let blocks = super::verify::blocks(blocks);
    for block in &blocks {
        assert!(sampan_storage::block::verify(block.cid(), block.data()).is_ok());
    }
    let blocks: Vec<(Cid, Bytes)> = blocks.into_iter().map(sampan_storage::Block::into_parts).collect();
    for version in Version::ALL {
        let (entries, presences) = (entries.clone(), presences.clone());
        let sent = Outgoing { full, entries, blocks: blocks.clone(), presences };
        let frame = sent.encode(version).concat();
        let Ok((length, body)) = decode::usize(&frame) else {
            assert!(frame.is_empty());
            continue;
        };
        assert_eq!(length, body.len());
        let read = Message::decode(Bytes::copy_from_slice(body));
        let read = read.expect("what is written can be read");
        assert_eq!((read.full, &read.entries), (message.full, &message.entries));
        assert_eq!(read.blocks.len(), blocks.len());
        assert!(!version.has_presences() || read.presences == message.presences);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sampan_storage::block::{RAW, cid_of};

    use super::*;

    const HELLO: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";

    fn unhex(hex: &str) -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    fn frame(message: Outgoing, version: Version) -> Vec<u8> {
        message.encode(version).concat()
    }

    /// Checks the length and reads what follows it.
    fn read(frame: &[u8]) -> Message {
        let (length, body) = decode::usize(frame).unwrap();
        assert_eq!(length, body.len());
        Message::decode(Bytes::copy_from_slice(body)).unwrap()
    }

    fn want(cid: Cid) -> Entry {
        Entry { cid, priority: 1, kind: WantKind::Block, cancel: false, send_dont_have: true }
    }

    #[test]
    fn a_want_has_the_bytes_that_kubo_sends() {
        let bytes = unhex(
            "2e0a2c0a2a0a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a44710012801",
        );
        let entry = want(HELLO.parse().unwrap());
        assert_eq!(frame(Outgoing { entries: vec![entry], ..Outgoing::default() }, Version::V1_2), bytes);
        assert_eq!(read(&bytes), Message { entries: vec![entry], ..Message::default() });
    }

    #[test]
    fn a_block_has_the_bytes_that_kubo_sends() {
        let bytes = unhex("161a140a0401551220120c68656c6c6f20776f726c640a");
        let data = Bytes::from_static(b"hello world\n");
        let blocks = vec![(HELLO.parse().unwrap(), data.clone())];
        assert_eq!(frame(Outgoing { blocks, ..Outgoing::default() }, Version::V1_2), bytes);
        let prefix = Prefix { version: 1, codec: RAW, hash_code: SHA2_256, hash_len: 32 };
        assert_eq!(read(&bytes).blocks, [Arrival { prefix, data }]);
    }

    #[test]
    fn dont_have_has_the_bytes_that_kubo_sends() {
        let bytes =
            unhex("2a22280a2401551220a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a4471001");
        let presences = vec![(HELLO.parse().unwrap(), Presence::DontHave)];
        assert_eq!(
            frame(Outgoing { presences: presences.clone(), ..Outgoing::default() }, Version::V1_2),
            bytes
        );
        assert_eq!(read(&bytes).presences, presences);
    }

    #[test]
    fn older_versions_say_no_presences_and_the_oldest_no_prefix() {
        let cid = cid_of(RAW, b"x");
        let message = || Outgoing {
            blocks: vec![(cid, Bytes::from_static(b"x"))],
            presences: vec![(cid, Presence::Have)],
            ..Outgoing::default()
        };
        let newer = read(&frame(message(), Version::V1_1));
        assert_eq!((newer.blocks[0].prefix.version, newer.presences.len()), (1, 0));
        assert_eq!(frame(message(), Version::V1_0), [3, 0x12, 1, b'x']);
        let presences = Outgoing { presences: vec![(cid, Presence::Have)], ..Outgoing::default() };
        assert!(presences.encode(Version::V1_1).is_empty());
    }

    #[test]
    fn a_cid_v0_is_a_bare_multihash() {
        let cid: Cid = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn".parse().unwrap();
        let bytes = frame(Outgoing { entries: vec![want(cid)], ..Outgoing::default() }, Version::V1_2);
        assert_eq!(read(&bytes).entries[0].cid, cid);
        assert_eq!(Prefix::of(&cid), Prefix::V0);
        assert_eq!(Prefix::decode(&Prefix::V0.encode()), Some(Prefix::V0));
    }

    #[test]
    fn a_full_wantlist_may_be_empty() {
        let bytes = frame(Outgoing { full: true, ..Outgoing::default() }, Version::V1_2);
        assert!(read(&bytes).full);
    }

    #[test]
    fn unknown_cids_and_huge_blocks_are_skipped() {
        let identity: Cid = "bafkqaaa".parse().unwrap();
        let entries = vec![want(identity), want(HELLO.parse().unwrap())];
        let blocks = vec![(cid_of(RAW, b""), Bytes::from(vec![0; MAX_BLOCK + 1]))];
        let message = read(&frame(Outgoing { entries, blocks, ..Outgoing::default() }, Version::V1_2));
        assert_eq!((message.entries.len(), message.blocks.len(), message.skipped), (1, 0, 2));
    }

    #[test]
    fn many_empty_entries_do_not_grow() {
        let many = vec![want(HELLO.parse().unwrap()); MAX_ITEMS + 5];
        let message = read(&frame(Outgoing { entries: many, ..Outgoing::default() }, Version::V1_2));
        assert_eq!((message.entries.len(), message.skipped), (MAX_ITEMS, 5));
    }

    #[test]
    fn large_blocks_are_not_copied() {
        let data = Bytes::from(vec![7; COPY_BELOW + 1]);
        let message = Outgoing { blocks: vec![(cid_of(RAW, &data), data.clone())], ..Outgoing::default() };
        assert!(message.encode(Version::V1_2).iter().any(|chunk| chunk.as_ptr() == data.as_ptr()));
    }

    fn cids() -> impl Strategy<Value = Cid> {
        any::<[u8; 4]>().prop_map(|seed| cid_of(RAW, &seed))
    }

    fn entries() -> impl Strategy<Value = Entry> {
        (cids(), any::<i32>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(cid, priority, have, cancel, send_dont_have)| {
                let kind = if have { WantKind::Have } else { WantKind::Block };
                Entry { cid, priority, kind, cancel, send_dont_have }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(
            full: bool,
            entries in prop::collection::vec(entries(), 0..20),
            data in prop::collection::vec((any::<u8>(), 0_usize..40_000), 0..4),
            presences in prop::collection::vec((cids(), any::<bool>()), 0..20),
        ) {
            let presence = |(cid, have)| (cid, if have { Presence::Have } else { Presence::DontHave });
            let presences: Vec<_> = presences.into_iter().map(presence).collect();
            let blocks: Vec<_> = data.into_iter().map(|(byte, size)| (cid_of(RAW, &[byte]), Bytes::from(vec![byte; size]))).collect();
            let sent = Outgoing { full, entries, blocks, presences };
            let bytes = frame(sent.clone(), Version::V1_2);
            if bytes.is_empty() {
                prop_assert!(!sent.full && sent.entries.is_empty() && sent.blocks.is_empty() && sent.presences.is_empty());
                return Ok(());
            }
            let got = read(&bytes);
            prop_assert_eq!(got.full, sent.full);
            prop_assert_eq!(got.entries, sent.entries);
            prop_assert_eq!(got.presences, sent.presences);
            let got: Vec<_> = got.blocks.into_iter().map(|block| block.data).collect();
            prop_assert_eq!(got, sent.blocks.into_iter().map(|(_, data)| data).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Message::decode(Bytes::from(bytes));
        }
    }
}
