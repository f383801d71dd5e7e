//! One shard of a HAMT: where it stands in the trie, what is in its buckets, and its block.
//!
//! A name's hash chooses one bucket a level, from the highest bits on. A bucket holds one entry, or a shard with
//! two or more below it; its link is named by the bucket in upper-case hex, followed by the entry's name.

use std::collections::BTreeMap;

use bytes::Bytes;
use cid::Cid;

use super::directory::Entry;
use super::unixfs::{Data, Kind};
use super::{Malformed, murmur, open, pb};
use crate::block::{Block, BlockError, DAG_PB};

/// Multicodec of murmur3-x64-64, the only hash that UnixFS knows.
const MURMUR3: u64 = 0x22;

/// Buckets of a shard: a power of two. 256 is written; more than 1,024 is how a tiny block once ate gigabytes
/// (CVE-2023-23625).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fanout {
    bits: u32,
}

/// Where a shard stands: how many levels down, and which bits of the hash led there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    fanout: Fanout,
    depth: u32,
    prefix: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Shard {
    pub(crate) position: Position,
    pub(crate) slots: BTreeMap<usize, Slot>,
    /// The block that it was read from.
    origin: Option<Cid>,
}

#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Entry(Entry),
    /// A shard below that lies in its block.
    Stored {
        cid: Cid,
        tsize: u64,
    },
    /// A shard below that is being changed.
    Loaded(Box<Shard>),
}

impl Fanout {
    pub(crate) const WRITTEN: Self = Self { bits: 8 };
    const SMALLEST: u64 = 8;
    const LARGEST: u64 = 1024;

    pub(crate) fn of(data: &Data) -> Result<Self, Malformed> {
        if data.kind != Kind::HamtShard || data.hash_type != Some(MURMUR3) {
            return Err(Malformed("it is no shard over murmur3"));
        }
        let fanout = data.fanout.unwrap_or_default();
        if !fanout.is_power_of_two() || !(Self::SMALLEST..=Self::LARGEST).contains(&fanout) {
            return Err(Malformed("the shard's fanout is no power of two from 8 to 1024"));
        }
        Ok(Self { bits: fanout.trailing_zeros() })
    }

    pub(crate) fn size(self) -> usize {
        1 << self.bits
    }

    /// Hex digits that name a bucket.
    pub(super) fn digits(self) -> usize {
        self.bits.div_ceil(4) as usize
    }
}

impl Position {
    pub(crate) fn root(fanout: Fanout) -> Self {
        Self { fanout, depth: 0, prefix: 0 }
    }

    pub(crate) fn bucket(self, name: &str) -> usize {
        let hash = murmur::hash(name.as_bytes());
        let shift = u64::BITS - self.fanout.bits * (self.depth + 1);
        (hash >> shift) as usize & (self.fanout.size() - 1)
    }

    /// One level down; an error where the hash has no bits left.
    pub(crate) fn below(self, bucket: usize) -> Result<Self, Malformed> {
        if self.fanout.bits * (self.depth + 2) > u64::BITS {
            return Err(Malformed("the shards are deeper than their hash, or names share a whole hash"));
        }
        let prefix = self.prefix << self.fanout.bits | bucket as u64;
        Ok(Self { fanout: self.fanout, depth: self.depth + 1, prefix })
    }

    /// Whether a look-up for this name comes by here.
    fn is_on_path_of(self, name: &str) -> bool {
        let hash = murmur::hash(name.as_bytes());
        hash.checked_shr(u64::BITS - self.fanout.bits * self.depth).unwrap_or_default() == self.prefix
    }

    fn link_name(self, bucket: usize, name: &str) -> String {
        format!("{bucket:0width$X}{name}", width = self.fanout.digits())
    }
}

impl Shard {
    pub(crate) fn new(position: Position) -> Self {
        Self { position, slots: BTreeMap::new(), origin: None }
    }

    /// Each entry must stand where its hash says. So a shard that is linked twice is found out at the second
    /// link, and a hostile trie costs no more than the entries that it really has.
    pub(crate) fn decode(position: Position, cid: &Cid, block: &Bytes) -> Result<Self, BlockError> {
        let (node, data) = open(cid, block)?;
        let mut shard = Self::from_node(position, node, &data).map_err(|malformed| malformed.at(cid))?;
        shard.origin = Some(*cid);
        Ok(shard)
    }

    fn from_node(position: Position, node: pb::Node, data: &Data) -> Result<Self, Malformed> {
        if Fanout::of(data)? != position.fanout {
            return Err(Malformed("the shard has another fanout than the one above it"));
        }
        if node.links.is_empty() && position.depth > 0 {
            return Err(Malformed("a shard below the first is empty"));
        }
        let mut shard = Self::new(position);
        for link in node.links {
            let (bucket, name) = parse_name(position.fanout, &link.name)?;
            let slot = if name.is_empty() {
                Slot::Stored { cid: link.cid, tsize: link.tsize }
            } else if position.is_on_path_of(name) && position.bucket(name) == bucket {
                Slot::Entry(Entry { name: name.to_owned(), cid: link.cid, tsize: link.tsize })
            } else {
                return Err(Malformed("an entry stands in the wrong bucket"));
            };
            if shard.slots.insert(bucket, slot).is_some() {
                return Err(Malformed("a bucket has two links"));
            }
        }
        let field = data.data.as_deref().unwrap_or_default();
        if shard.bitfield() != without_leading_zeros(field) {
            return Err(Malformed("the shard's bitfield does not match its links"));
        }
        Ok(shard)
    }

    /// Makes the blocks of all shards that were loaded and changed, children before parents. Returns the name and
    /// the cumulative size of this one.
    pub(crate) fn encode(&self, out: &mut Vec<Block>) -> (Cid, u64) {
        let mut node = pb::Node::default();
        for (bucket, slot) in &self.slots {
            let (name, cid, tsize) = match slot {
                Slot::Entry(entry) => (entry.name.as_str(), entry.cid, entry.tsize),
                Slot::Stored { cid, tsize } => ("", *cid, *tsize),
                Slot::Loaded(shard) => {
                    let (cid, tsize) = shard.encode(out);
                    ("", cid, tsize)
                }
            };
            node.links.push(pb::Link { cid, name: self.position.link_name(*bucket, name), tsize });
        }
        let data = Data {
            data: Some(self.bitfield().into()),
            hash_type: Some(MURMUR3),
            fanout: Some(self.position.fanout.size() as u64),
            ..Data::new(Kind::HamtShard)
        };
        node.data = Some(data.encode());
        let block = Block::new(DAG_PB, node.encode());
        let tsize = node.cumulative(block.data().len());
        match self.origin {
            Some(origin) if origin.hash() == block.cid().hash() => (origin, tsize),
            _ => {
                let cid = *block.cid();
                out.push(block);
                (cid, tsize)
            }
        }
    }

    /// One bit a bucket, the last byte's lowest bit for bucket 0, without zero bytes in front.
    fn bitfield(&self) -> Vec<u8> {
        let mut bytes = vec![0_u8; self.slots.keys().next_back().map_or(0, |highest| highest / 8 + 1)];
        for bucket in self.slots.keys() {
            if let Some(byte) = bytes.iter_mut().rev().nth(bucket / 8) {
                *byte |= 1 << (bucket % 8);
            }
        }
        bytes
    }
}

/// Finds the link that a look-up for `name` follows next, without decoding the others.
pub(super) fn follow(
    position: Position,
    view: &pb::View<'_>,
    name: &str,
) -> Result<Option<(Slot, Position)>, Malformed> {
    let bucket = position.bucket(name);
    let prefix = position.link_name(bucket, "");
    for link in view.links() {
        let link = link?;
        let Some(rest) = link.name().strip_prefix(prefix.as_bytes()) else { continue };
        let (cid, tsize) = (link.cid()?, link.tsize());
        return Ok(if rest.is_empty() {
            Some((Slot::Stored { cid, tsize }, position.below(bucket)?))
        } else if rest == name.as_bytes() {
            Some((Slot::Entry(Entry { name: name.to_owned(), cid, tsize }), position))
        } else {
            None
        });
    }
    Ok(None)
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn parse_name(fanout: Fanout, name: &str) -> Result<(usize, &str), Malformed> {
    let (digits, rest) =
        name.split_at_checked(fanout.digits()).ok_or(Malformed("a shard's link names no bucket"))?;
    let is_upper_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    match usize::from_str_radix(digits, 16) {
        Ok(bucket) if is_upper_hex && bucket < fanout.size() => Ok((bucket, rest)),
        _ => Err(Malformed("a shard's link names no bucket")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::{RAW, cid_of};

    fn block(fanout: u64, bitfield: &'static [u8], links: &[&str]) -> (Cid, Bytes) {
        let data = Data {
            data: Some(Bytes::from_static(bitfield)),
            hash_type: Some(MURMUR3),
            fanout: Some(fanout),
            ..Data::new(Kind::HamtShard)
        };
        let link = |name: &&str| pb::Link { cid: cid_of(RAW, b""), name: (*name).to_owned(), tsize: 0 };
        let node = pb::Node { links: links.iter().map(link).collect(), data: Some(data.encode()) };
        Block::new(DAG_PB, node.encode()).into_parts()
    }

    fn decode((cid, block): (Cid, Bytes)) -> Result<Shard, BlockError> {
        Shard::decode(Position::root(Fanout::WRITTEN), &cid, &block)
    }

    #[test]
    fn a_shard_is_read_and_written_alike() {
        // The hash of "hello" begins with cb.
        let (cid, bytes) = block(
            256,
            &[0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            &["01", "CBhello"],
        );
        let shard = decode((cid, bytes)).unwrap();
        let mut out = Vec::new();
        assert_eq!(shard.encode(&mut out).0, cid);
        assert!(out.is_empty(), "what has not changed is not written");
    }

    #[test]
    fn bitfields_and_buckets_that_do_not_match_are_refused() {
        assert!(decode(block(256, &[1], &["00"])).is_ok());
        assert!(decode(block(256, &[0, 0, 1], &["00"])).is_ok(), "zeros in front are harmless");
        assert!(decode(block(256, &[3], &["00"])).is_err());
        assert!(decode(block(256, &[2], &["00"])).is_err());
        assert!(decode(block(256, &[1], &["00hello"])).is_err());
        assert!(decode(block(256, &[1], &["00", "00"])).is_err());
        for name in ["", "0", "0g", "+1", "cb", "é"] {
            assert!(decode(block(256, &[1], &[name])).is_err(), "{name}");
        }
    }

    #[test]
    fn fanouts_are_bounded() {
        let fanout = |fanout| {
            let (cid, bytes) = block(fanout, &[], &[]);
            Fanout::of(&open(&cid, &bytes).unwrap().1)
        };
        for good in [8, 16, 256, 1024] {
            assert!(fanout(good).is_ok(), "{good}");
        }
        for bad in [0, 1, 4, 12, 255, 2048, 1 << 40, u64::MAX] {
            assert!(fanout(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_hash_ends_the_depth() {
        for (bits, levels) in [(3, 21), (8, 8), (10, 6)] {
            let mut position = Position::root(Fanout { bits });
            for _ in 1..levels {
                position = position.below(position.bucket("hello")).unwrap();
                assert!(position.is_on_path_of("hello") && !position.is_on_path_of("other"));
            }
            assert!(position.below(0).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bitfield: Vec<u8>, name in ".{0,4}", fanout in 0_u32..64) {
            let data = Data {
                data: Some(bitfield.into()),
                hash_type: Some(MURMUR3),
                fanout: Some(1 << fanout),
                ..Data::new(Kind::HamtShard)
            };
            let links = vec![pb::Link { cid: cid_of(RAW, b""), name, tsize: u64::MAX }];
            let block = pb::Node { links, data: Some(data.encode()) }.encode();
            let _ = decode((cid_of(DAG_PB, &block), block));
        }
    }
}
