//! Which nodes a root holds on to: what a garbage collection must keep.

use std::collections::HashSet;

use cid::Cid;

use crate::block::{BlockError, Blocks, DAG_PB, IDENTITY};
use crate::dag::directory::{Form, form};
use crate::dag::pb;

/// Visits the CID of each directory, of each shard and of each file's root below `root`, once, with the bytes of
/// all blocks below it as its link says (0 for the root itself). Blocks that make up a file are not visited.
///
/// Where `visit` answers false, nothing below is visited from there. A directory, or a dag-pb root of a file, that
/// is not here ends the walk with [`BlockError::Missing`]: what lies below it is not known.
pub fn reach(
    blocks: &dyn Blocks,
    root: &Cid,
    visit: &mut dyn FnMut(&Cid, u64) -> bool,
) -> Result<(), BlockError> {
    let mut seen = HashSet::new();
    let mut pending = vec![(*root, 0)];
    while let Some((cid, tsize)) = pending.pop() {
        let is_new = key(&cid).is_none_or(|key| seen.insert(key));
        if !is_new || !visit(&cid, tsize) || cid.codec() != DAG_PB {
            continue;
        }
        let block = blocks.need(&cid)?;
        if form(&cid, &block)? == Form::Other {
            continue;
        }
        // In a shard, links to entries and to shards below are followed alike.
        let mut push = || {
            for link in pb::View::parse(&block)?.links() {
                let link = link?;
                let below = link.cid()?;
                if key(&below).is_none_or(|key| !seen.contains(&key)) {
                    pending.push((below, link.tsize()));
                }
            }
            Ok(())
        };
        push().map_err(|malformed: crate::dag::Malformed| malformed.at(&cid))?;
    }
    Ok(())
}

/// What stands for a CID in the set: 17 bytes instead of a hundred, as a tree has millions of nodes. The codec is
/// part of it, as it decides whether anything lies below. An identity CID has no hash to cut; it nests a level or
/// two at most and is let through each time.
fn key(cid: &Cid) -> Option<([u8; 16], bool)> {
    let digest = cid.hash().digest().first_chunk()?;
    (cid.hash().code() != IDENTITY).then_some((*digest, cid.codec() == DAG_PB))
}
