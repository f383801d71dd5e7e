//! What one root has over another, as blocks: what a follower that has the old root lacks of the new one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cid::Cid;

use crate::block::{Block, BlockError, Blocks, DAG_PB};
use crate::dag::pb;
use crate::tree::Diff;

/// `None` if they are more than `limit` bytes.
pub(crate) fn blocks_between(
    blocks: &dyn Blocks,
    old: Option<Cid>,
    new: Cid,
    eager: u64,
    limit: usize,
) -> Result<Option<Vec<Block>>, BlockError> {
    let recording = Recording { blocks, limit: limit.saturating_mul(2), seen: Mutex::default() };
    let compared = Diff::new(old, new, eager).advance(&recording, &mut |_| {});
    let seen = recording.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    if seen.full {
        return Ok(None);
    }
    if let Some(cid) = compared?.first() {
        return Err(BlockError::Missing(*cid));
    }
    let mut loaded = seen.blocks;
    // Of both sides' nodes, those that hang together under the new root.
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut next = vec![new];
    while let Some(cid) = next.pop() {
        let Some(data) = loaded.remove(&cid) else { continue };
        if cid.codec() == DAG_PB
            && let Ok(node) = pb::Node::decode(&data)
        {
            next.extend(node.links.iter().map(|link| link.cid));
        }
        bytes += data.len();
        found.push(Block::trusted(cid, data));
    }
    Ok((bytes <= limit).then_some(found))
}

/// Remembers what was asked for.
struct Recording<'a> {
    blocks: &'a dyn Blocks,
    limit: usize,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    blocks: HashMap<Cid, Bytes>,
    bytes: usize,
    full: bool,
}

impl Blocks for Recording<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        let data = self.blocks.get(cid)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = &data {
            if seen.blocks.insert(*cid, data.clone()).is_none() {
                seen.bytes += data.len();
            }
            if seen.bytes > self.limit {
                seen.full = true;
                // Ends the comparison: it would only collect what is thrown away.
                return Err(BlockError::TooLarge(seen.bytes));
            }
        }
        Ok(data)
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        Ok(self.get(cid)?.map(|data| data.len()))
    }
}
