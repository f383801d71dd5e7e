//! Blocks as the small CAR that travels with a record.

use bytes::Bytes;
use sampan_storage::{Block, car};

use super::MAX_NODES;

/// Framing of a section: its length and CID, generously.
const SECTION: usize = 48;

pub(super) fn encode(blocks: &[Block]) -> Bytes {
    let mut out = car::header(&[]);
    for block in blocks {
        car::write_section(&mut out, block.cid(), block.data());
    }
    out.into()
}

/// Bytes of blocks that fit when they are many and small.
pub(super) fn limit() -> usize {
    MAX_NODES - SECTION * (MAX_NODES / 512)
}

/// The blocks that match their CIDs, up to the first that does not: a peer that sends one sends more.
pub(super) fn decode(nodes: &Bytes) -> Vec<Block> {
    let mut blocks = Vec::new();
    let Ok(mut reader) = car::Reader::new(nodes.as_ref()) else { return blocks };
    while let Ok(Some(section)) = reader.next_section() {
        match Block::verified(section.cid, section.data) {
            Ok(block) => blocks.push(block),
            Err(_) => break,
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_storage::block::RAW;

    #[test]
    fn blocks_travel_and_what_does_not_match_ends_the_journey() {
        let blocks = [b"a", b"b", b"c"].map(|data| Block::new(RAW, Bytes::from_static(data)));
        let encoded = encode(&blocks);
        assert_eq!(decode(&encoded), blocks);
        let mut broken = encoded.to_vec();
        let at = broken.len() - 1;
        broken[at] ^= 1;
        assert_eq!(decode(&broken.into()), blocks[..2]);
        assert!(decode(&Bytes::from_static(b"nonsense")).is_empty());
    }
}
