//! Files as UnixFS: built as the profile `unixfs-v1-2025` says, read in any shape.
//!
//! The builder never holds a file's bytes: it is told each leaf's CID and length, and makes the nodes above.

use bytes::Bytes;
use cid::Cid;

pub use super::leaves::{Leaf, LeafForm, Leaves, Step};
use super::unixfs::{Data, Kind};
use super::{open, pb};
use crate::block::{Block, BlockError, Blocks, DAG_PB, RAW, cid_of};

/// Bytes of a leaf (IPIP-499, `unixfs-v1-2025`). Only the last leaf of a file is shorter.
pub const CHUNK: usize = 1024 * 1024;
/// Links of an inner node (same profile).
pub const WIDTH: usize = 1024;

/// A file that is whole: its name and the nodes above its leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRoot {
    pub cid: Cid,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of all its blocks, what a directory writes beside its link.
    pub tsize: u64,
    /// Inner nodes, children before parents; none where one leaf is the whole file.
    pub nodes: Vec<Block>,
}

/// Makes a balanced DAG over leaves that are told in order. It holds at most one row of links per level.
#[derive(Clone, Debug)]
pub struct FileBuilder {
    width: usize,
    /// From the leaves upward; a row is closed into a node when one more child comes.
    rows: Vec<Vec<Child>>,
    nodes: Vec<Block>,
}

#[derive(Clone, Debug)]
struct Child {
    cid: Cid,
    size: u64,
    tsize: u64,
}

impl FileBuilder {
    pub fn new() -> Self {
        Self::with_width(WIDTH)
    }

    fn with_width(width: usize) -> Self {
        Self { width, rows: Vec::new(), nodes: Vec::new() }
    }

    /// The next raw leaf: its CID and how many bytes it has.
    pub fn push_leaf(&mut self, cid: Cid, len: u64) {
        self.push(0, Child { cid, size: len, tsize: len });
    }

    /// A file without a leaf is the empty one.
    pub fn finish(mut self) -> FileRoot {
        let mut level = 0;
        loop {
            let row = self.rows.get_mut(level).map(std::mem::take).unwrap_or_default();
            let top = level + 1 >= self.rows.len();
            match row.as_slice() {
                [] => return FileRoot { cid: cid_of(RAW, &[]), size: 0, tsize: 0, nodes: self.nodes },
                [root] if top => {
                    return FileRoot { cid: root.cid, size: root.size, tsize: root.tsize, nodes: self.nodes };
                }
                children => {
                    let child = close(children, &mut self.nodes);
                    self.push(level + 1, child);
                }
            }
            level += 1;
        }
    }

    fn push(&mut self, level: usize, child: Child) {
        if self.rows.len() <= level {
            self.rows.push(Vec::new());
        }
        let full = match self.rows.get_mut(level) {
            Some(row) if row.len() >= self.width => std::mem::take(row),
            _ => Vec::new(),
        };
        if !full.is_empty() {
            let node = close(&full, &mut self.nodes);
            self.push(level + 1, node);
        }
        if let Some(row) = self.rows.get_mut(level) {
            row.push(child);
        }
    }
}

impl Default for FileBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// A small file at once: its root, and its leaves.
pub fn from_bytes(data: &[u8]) -> (FileRoot, Vec<Block>) {
    from_chunks(FileBuilder::new(), data, CHUNK)
}

fn from_chunks(mut builder: FileBuilder, data: &[u8], chunk: usize) -> (FileRoot, Vec<Block>) {
    let mut leaves = Vec::new();
    for chunk in data.chunks(chunk) {
        let leaf = Block::new(RAW, Bytes::copy_from_slice(chunk));
        builder.push_leaf(*leaf.cid(), chunk.len() as u64);
        leaves.push(leaf);
    }
    if leaves.is_empty() {
        leaves.push(Block::new(RAW, Bytes::new()));
    }
    (builder.finish(), leaves)
}

/// The bytes of the file that a leaf's block carries.
pub fn leaf_bytes(cid: &Cid, block: &Bytes) -> Result<Bytes, BlockError> {
    match cid.codec() {
        RAW => Ok(block.clone()),
        DAG_PB => match open(cid, block)? {
            (node, data) if node.links.is_empty() && is_file(data.kind) => Ok(data.data.unwrap_or_default()),
            _ => Err(BlockError::Malformed { cid: *cid, reason: "it is no leaf of a file" }),
        },
        _ => Err(BlockError::Malformed { cid: *cid, reason: "a file is made of raw and dag-pb blocks only" }),
    }
}

/// The file's size as its root says it; the walk over its leaves proves it.
pub fn root_size(cid: &Cid, block: &Bytes) -> Result<u64, BlockError> {
    if cid.codec() != DAG_PB {
        return leaf_bytes(cid, block).map(|data| data.len() as u64);
    }
    let (_, data) = open(cid, block)?;
    if !is_file(data.kind) {
        return Err(BlockError::Malformed { cid: *cid, reason: "it is no file" });
    }
    file_size(&data).map_err(|malformed| malformed.at(cid))
}

/// A whole file of at most `limit` bytes. A larger one is refused before its leaves are read.
pub fn read_all(blocks: &dyn Blocks, cid: &Cid, limit: u64) -> Result<Bytes, BlockError> {
    let mut leaves = Leaves::new(*cid, None);
    let mut whole = Vec::new();
    loop {
        let step = leaves.next(blocks)?;
        if leaves.size().is_some_and(|size| size > limit) {
            return Err(BlockError::Malformed {
                cid: *cid,
                reason: "the file is larger than is allowed here",
            });
        }
        let leaf = match step {
            Step::End => return Ok(whole.into()),
            Step::Missing(cid) => return Err(BlockError::Missing(cid)),
            Step::Leaf(leaf) => leaf,
        };
        let bytes = match leaf.form {
            LeafForm::Inline(bytes) => bytes,
            LeafForm::Raw | LeafForm::DagPb => leaf_bytes(&leaf.cid, &blocks.need(&leaf.cid)?)?,
        };
        if bytes.len() as u64 != leaf.len {
            return Err(BlockError::Malformed {
                cid: leaf.cid,
                reason: "the leaf is not as long as its parent says",
            });
        }
        if leaf.len == leaves.size().unwrap_or_default() {
            return Ok(bytes);
        }
        whole.extend_from_slice(&bytes);
    }
}

pub(super) fn is_file(kind: Kind) -> bool {
    matches!(kind, Kind::File | Kind::Raw)
}

/// The size that a file node's parts add up to, which must be what it says.
pub(super) fn file_size(data: &Data) -> Result<u64, super::Malformed> {
    let inline = data.data.as_ref().map_or(0, |data| data.len() as u64);
    let sum = data.blocksizes.iter().try_fold(inline, |sum, size| sum.checked_add(*size));
    match sum {
        None => Err(super::Malformed("the file's size does not fit 64 bits")),
        Some(sum) if data.filesize.is_some_and(|said| said != sum) => {
            Err(super::Malformed("the file's parts do not add up to its size"))
        }
        Some(sum) => Ok(sum),
    }
}

fn close(children: &[Child], nodes: &mut Vec<Block>) -> Child {
    let size = children.iter().map(|child| child.size).sum();
    let blocksizes = children.iter().map(|child| child.size).collect();
    let data = Data { filesize: Some(size), blocksizes, ..Data::new(Kind::File) };
    let link = |child: &Child| pb::Link { cid: child.cid, name: String::new(), tsize: child.tsize };
    let node = pb::Node { links: children.iter().map(link).collect(), data: Some(data.encode()) };
    let block = Block::new(DAG_PB, node.encode());
    let child = Child { cid: *block.cid(), size, tsize: node.cumulative(block.data().len()) };
    nodes.push(block);
    child
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::MemoryBlocks;
    use crate::dag::directory;

    fn stored(root: &FileRoot, leaves: &[Block]) -> MemoryBlocks {
        let blocks = MemoryBlocks::default();
        root.nodes.iter().chain(leaves).for_each(|block| blocks.put(block));
        blocks
    }

    #[test]
    fn the_empty_file_is_the_empty_raw_leaf() {
        let (root, leaves) = from_bytes(b"");
        assert_eq!(root.cid.to_string(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        assert_eq!((root.size, root.tsize, root.nodes.len()), (0, 0, 0));
        assert_eq!(read_all(&stored(&root, &leaves), &root.cid, 0).unwrap(), Bytes::new());
        assert_eq!(FileBuilder::new().finish(), root);
    }

    #[test]
    fn all_leaves_lie_at_the_same_depth() {
        let (root, leaves) = from_chunks(FileBuilder::with_width(2), b"abcde", 1);
        let blocks = stored(&root, &leaves);
        // Five leaves under pairs: ((ab)(cd)) and ((e)), each a child of the root.
        let depth = |mut cid: Cid, last: bool| {
            let mut depth = 0;
            while cid.codec() == DAG_PB {
                let node = pb::Node::decode(&blocks.need(&cid).unwrap()).unwrap();
                cid = if last { node.links.last().unwrap().cid } else { node.links[0].cid };
                depth += 1;
            }
            depth
        };
        assert_eq!((depth(root.cid, false), depth(root.cid, true)), (3, 3));
        assert_eq!(root.nodes.len(), 6);
    }

    #[test]
    fn a_larger_file_than_allowed_is_refused_before_it_is_read() {
        let (root, _) = from_chunks(FileBuilder::new(), &[7; 100], 10);
        let blocks = stored(&root, &[]);
        assert!(matches!(read_all(&blocks, &root.cid, 99), Err(BlockError::Malformed { .. })));
        assert!(matches!(read_all(&blocks, &root.cid, 100), Err(BlockError::Missing(_))));
    }

    #[test]
    fn a_directory_is_no_file() {
        let (cid, block) = (directory::empty(), directory::empty_block());
        assert!(root_size(&cid, &block).is_err());
        assert!(leaf_bytes(&cid, &block).is_err());
    }

    proptest! {
        #[test]
        fn files_come_back(data in prop::collection::vec(any::<u8>(), 0..600), chunk in 1_usize..40, width in 2_usize..6) {
            let (root, leaves) = from_chunks(FileBuilder::with_width(width), &data, chunk);
            let blocks = stored(&root, &leaves);
            prop_assert_eq!(root.size, data.len() as u64);
            prop_assert_eq!(read_all(&blocks, &root.cid, root.size).unwrap(), data.clone());
            let stored: usize = leaves.iter().chain(&root.nodes).map(|block| block.data().len()).sum();
            prop_assert_eq!(root.tsize, stored as u64);
            prop_assert_eq!(root_size(&root.cid, &blocks.need(&root.cid).unwrap()).unwrap(), root.size);
        }
    }
}
