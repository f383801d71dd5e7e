//! Paths through any DAG: directories by name, DAG-CBOR by keys and places, and which blocks were read on the way.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cid::Cid;

use super::directory;
use crate::block::{BlockError, Blocks, DAG_PB};
use crate::cbor::{self, Below, DAG_CBOR};

/// Names in a path. What is deeper is not followed.
pub const MAX_PATH: usize = 64;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The block at the end.
    pub cid: Cid,
    /// The path ends inside that block, at one of its values.
    pub within: bool,
    /// The root, and where each name led to.
    pub roots: Vec<Cid>,
    /// Blocks that prove the way, without that at the end: shards of directories are among them.
    pub blocks: Vec<Cid>,
}

/// Follows names from a root. `None` where one of them leads nowhere; [`BlockError::Missing`] where a block is not
/// here that would tell.
pub fn resolve(blocks: &dyn Blocks, root: &Cid, names: &[String]) -> Result<Option<Resolved>, BlockError> {
    let seen = Seen { blocks, cids: Mutex::default() };
    let mut at = Resolved { cid: *root, within: false, roots: vec![*root], blocks: Vec::new() };
    let mut names = names.iter();
    if names.len() > MAX_PATH {
        return Ok(None);
    }
    while let Some(name) = names.next() {
        let cid = at.cid;
        let next = match cid.codec() {
            DAG_PB => directory::lookup(&seen, &cid, name)?.map(|entry| entry.cid),
            DAG_CBOR => {
                let block = seen.need(&cid)?;
                let mut step = cbor::step(&block, name);
                loop {
                    match step.map_err(|malformed| malformed.at(&cid))? {
                        Below::Link(link) => break Some(link),
                        Below::Nothing => break None,
                        Below::Value(value) => {
                            let Some(name) = names.next() else {
                                at.within = true;
                                at.blocks.extend(seen.without(&cid));
                                return Ok(Some(at));
                            };
                            step = cbor::step(value, name);
                        }
                    }
                }
            }
            _ => None,
        };
        let Some(next) = next else { return Ok(None) };
        at.cid = next;
        at.roots.push(next);
    }
    at.blocks.extend(seen.without(&at.cid));
    Ok(Some(at))
}

/// Remembers which blocks were read.
struct Seen<'a> {
    blocks: &'a dyn Blocks,
    cids: Mutex<Vec<Cid>>,
}

impl Seen<'_> {
    /// In their order, without the block at the end of the path.
    fn without(&self, end: &Cid) -> Vec<Cid> {
        let mut cids = self.cids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        cids.retain(|cid| cid != end);
        cids
    }
}

impl Blocks for Seen<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        let data = self.blocks.get(cid)?;
        if data.is_some() {
            self.cids.lock().unwrap_or_else(PoisonError::into_inner).push(*cid);
        }
        Ok(data)
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        self.blocks.size(cid)
    }
}
