//! What recent folds added, for followers that have the root before: kept, because to compare two roots costs as
//! much as to fold.

use std::collections::VecDeque;

use cid::Cid;

use crate::block::{Block, RAW};
use crate::inner::Inner;
use crate::layout::{self, Item};

/// Manifests and configs up to this size travel with the directories that name them.
const SMALL_FILE: u64 = 16 * 1024;
/// Some folds of large directories, or many of small ones.
const MAX_BYTES: usize = 1024 * 1024;

/// Oldest first, without a gap.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    folds: VecDeque<(Cid, Vec<Block>)>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn push(&mut self, before: Cid, blocks: Vec<Block>) {
        self.bytes += weight(&blocks);
        self.folds.push_back((before, blocks));
        while self.bytes > MAX_BYTES
            && let Some((_, blocks)) = self.folds.pop_front()
        {
            self.bytes -= weight(&blocks);
        }
    }

    /// Everything that was added since this root, if that is still known and at most `limit` bytes.
    pub(crate) fn since(&self, root: &Cid, limit: usize) -> Option<Vec<Block>> {
        let at = self.folds.iter().rposition(|(before, _)| before == root)?;
        let folds = || self.folds.range(at..).map(|(_, blocks)| blocks);
        (folds().map(|blocks| weight(blocks)).sum::<usize>() <= limit)
            .then(|| folds().flatten().cloned().collect())
    }
}

/// Blocks of the manifests and configs among the changed paths.
pub(crate) fn small_files<'a>(inner: &Inner, paths: impl Iterator<Item = &'a String>) -> Vec<Block> {
    let small = |path: &String| {
        let Some(Item::Blob(digest)) = layout::parse(path) else { return None };
        let blob = inner.blobs.open_blob(&digest).ok()??;
        Some(Block::new(RAW, blob.read_all(SMALL_FILE).ok()?))
    };
    paths.filter_map(small).collect()
}

fn weight(blocks: &[Block]) -> usize {
    blocks.iter().map(|block| block.data().len()).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::block::cid_of;

    #[test]
    fn what_was_added_since_a_root_is_all_that_came_after_it() {
        let root = |number: u8| cid_of(RAW, &[number]);
        let block = |number: u8| Block::new(RAW, Bytes::from(vec![number; 100_000]));
        let mut recent = Recent::default();
        for number in 0..20 {
            recent.push(root(number), vec![block(number)]);
        }
        assert_eq!(recent.since(&root(18), MAX_BYTES).unwrap(), [block(18), block(19)]);
        assert_eq!(recent.since(&root(18), 150_000), None, "more than the limit");
        assert_eq!(recent.since(&root(1), MAX_BYTES), None, "forgotten");
        assert_eq!(recent.since(&root(99), MAX_BYTES), None, "never known");
    }
}
