//! Which keys a closed pack may hold: ten bits each, in memory, so that a block is looked for on the disk only in the
//! pack that has it.
//!
//! A Bloom filter in blocks of 32 bytes (the "split block" form of Parquet): one key sets a bit in each of eight words
//! of one block, so that a look touches one line of memory. Keys are hashes already and are not hashed again. Of keys
//! that are not there, one or two in a hundred look as if they were.

use super::Key;

/// 16 MiB of packs hold some 100,000 keys: 125 KiB.
const BITS_A_KEY: usize = 10;
const WORDS: usize = 8;
const BLOCK: usize = WORDS * 4;

#[derive(Debug)]
pub(super) struct Filter {
    blocks: Box<[[u32; WORDS]]>,
}

impl Filter {
    /// For so many keys, none of them in it yet.
    pub(super) fn new(keys: usize) -> Self {
        Self { blocks: vec![[0; WORDS]; blocks(keys)].into() }
    }

    /// Bytes of a filter for so many keys.
    pub(super) fn encoded_len(keys: usize) -> usize {
        blocks(keys) * BLOCK
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        let block = |bytes: &[u8; BLOCK]| {
            let mut block = [0; WORDS];
            block.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, from)| *to = word(from));
            block
        };
        Self { blocks: blocks.iter().map(block).collect() }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.blocks.iter().flatten().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    pub(super) fn insert(&mut self, key: &Key) {
        let (at, bits) = self.place(key);
        let Some(block) = self.blocks.get_mut(at) else { return };
        block.iter_mut().zip(bits).for_each(|(word, bit)| *word |= bit);
    }

    /// `false` means that it is not there.
    pub(super) fn may_hold(&self, key: &Key) -> bool {
        let (at, bits) = self.place(key);
        self.blocks.get(at).is_some_and(|block| block.iter().zip(bits).all(|(word, bit)| word & bit != 0))
    }

    fn place(&self, key: &Key) -> (usize, [u32; WORDS]) {
        let [a, b, c, d, _, _, _, _, bits @ ..] = *key;
        let block = (u64::from(u32::from_be_bytes([a, b, c, d])) * self.blocks.len() as u64) >> 32;
        (block as usize, bits.map(|byte| 1 << (byte & 31)))
    }
}

fn blocks(keys: usize) -> usize {
    keys.saturating_mul(BITS_A_KEY).div_ceil(BLOCK * 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Algorithm, Digest};

    fn key(number: u32) -> Key {
        let digest = Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        *digest.as_bytes().first_chunk().unwrap()
    }

    #[test]
    fn no_key_is_missed_and_few_are_taken_for_others() {
        for count in [0, 1, 30, 5000] {
            let mut filter = Filter::new(count as usize);
            (0..count).for_each(|number| filter.insert(&key(number)));
            let mut bytes = Vec::new();
            filter.encode(&mut bytes);
            assert_eq!(bytes.len(), Filter::encoded_len(count as usize));
            let filter = Filter::decode(&bytes);
            assert!((0..count).all(|number| filter.may_hold(&key(number))));
            let wrong = (count..count + 10_000).filter(|number| filter.may_hold(&key(*number))).count();
            assert!(wrong < 300, "{wrong} of 10,000");
        }
    }
}
