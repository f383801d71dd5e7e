//! dag-pb and UnixFS: how files and directories become blocks, and blocks files and directories again.
//!
//! Pure functions over the [`Blocks`](crate::Blocks) port. What is written follows the profile
//! `unixfs-v1-2025` (IPIP-499), so that CIDs equal kubo's; what is read may be anything that UnixFS allows.

pub mod directory;
pub mod file;
mod hamt;
mod leaves;
mod merge;
mod murmur;
pub mod path;
pub mod pb;
pub(crate) mod shard;
pub mod unixfs;
pub mod walk;
mod wire;

#[cfg(test)]
mod vectors;

use bytes::Bytes;
use cid::Cid;

use crate::block::BlockError;

/// Bytes that are not what their codec says. Where the block's name is known it becomes a [`BlockError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl Malformed {
    pub fn at(self, cid: &Cid) -> BlockError {
        BlockError::Malformed { cid: *cid, reason: self.0 }
    }
}

/// A dag-pb block and the UnixFS message in it.
fn open(cid: &Cid, block: &Bytes) -> Result<(pb::Node, unixfs::Data), BlockError> {
    let node = pb::Node::decode(block).map_err(|malformed| malformed.at(cid))?;
    let data = unixfs::Data::of(node.data.as_ref()).map_err(|malformed| malformed.at(cid))?;
    Ok((node, data))
}
