//! Bytes become blocks: the CID is made from the prefix and the hash of what really came.

use bytes::Bytes;
use cid::Cid;
use sampan_storage::block::{DAG_PB, SHA2_256, SHA2_512, cid_from_sha256, cid_of};
use sampan_storage::{Algorithm, Block, Digest};

use super::message::{Arrival, Prefix};

/// A message with fewer bytes of blocks than this is hashed where it is: moving it to another thread and back
/// costs more than the 10 to 50 µs that the hash takes.
pub(super) const INLINE_BELOW: usize = 16 * 1024;

/// A block up to this size is copied out of its frame, so that keeping a directory node does not keep the
/// megabytes that came along with it.
const COPY_BELOW: usize = 16 * 1024;

/// The blocks of a message under the CIDs that their senders mean. What has no name here is left out.
pub(super) fn blocks(arrivals: Vec<Arrival>) -> Vec<Block> {
    arrivals.into_iter().filter_map(block).collect()
}

fn block(arrival: Arrival) -> Option<Block> {
    let Arrival { prefix, data } = arrival;
    let data = if data.len() <= COPY_BELOW { Bytes::copy_from_slice(&data) } else { data };
    let Prefix { version, codec, hash_code, hash_len } = prefix;
    match (version, hash_code, hash_len) {
        (1, SHA2_256, 32) => Some(Block::new(codec, data)),
        (1, SHA2_512, 64) => {
            let cid = cid_from_sha256(codec, &Digest::of(Algorithm::Sha512, &data));
            Block::verified(cid, data).ok()
        }
        (0, SHA2_256, 32) if codec == DAG_PB => {
            let cid = Cid::new_v0(*cid_of(DAG_PB, &data).hash()).ok()?;
            Block::verified(cid, data).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sampan_storage::block::RAW;

    use super::*;

    fn named(version: u64, codec: u64, hash_code: u64, hash_len: u64) -> Option<String> {
        let prefix = Prefix { version, codec, hash_code, hash_len };
        let data = Bytes::from_static(b"hello world\n");
        block(Arrival { prefix, data }).map(|block| block.cid().to_string())
    }

    #[test]
    fn the_prefix_decides_the_name() {
        let raw = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
        assert_eq!(named(1, RAW, SHA2_256, 32).as_deref(), Some(raw));
        let v0 = named(0, DAG_PB, SHA2_256, 32).unwrap();
        assert!(v0.starts_with("Qm"), "{v0}");
        assert!(named(1, RAW, SHA2_512, 64).is_some());
    }

    #[test]
    fn what_cannot_be_checked_has_no_name() {
        for (version, codec, hash_code, hash_len) in [
            (2, RAW, SHA2_256, 32),
            (0, RAW, SHA2_256, 32),
            (1, RAW, SHA2_256, 20),
            (1, RAW, 0, 12),
            (1, RAW, 0x1e, 32),
        ] {
            assert_eq!(named(version, codec, hash_code, hash_len), None);
        }
    }
}
