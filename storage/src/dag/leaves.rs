//! Walks a file's DAG in byte order, whatever its shape: a work-list that goes on where it stopped.
//!
//! Inner nodes are read as they are reached; leaves are only named. Nothing here fetches: a node that is not
//! here is told to the caller, who brings it and asks again.

use bytes::Bytes;
use cid::Cid;

use super::file::{file_size, is_file};
use super::open;
use crate::block::{BlockError, Blocks, DAG_PB, IDENTITY, RAW};

/// Inner nodes above each other. A balanced file of 1 EiB has five; a trickle one a few more.
const MAX_DEPTH: u8 = 32;
/// Blocks that are waiting at once. A row of a file is 1,024 wide and each level adds one.
const MAX_PENDING: usize = 131_072;

/// Where the walk has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Leaf(Leaf),
    /// This node is needed to go on. Fetch it, then ask for the next step again.
    Missing(Cid),
    End,
}

/// A stretch of the file, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub offset: u64,
    pub len: u64,
    pub cid: Cid,
    pub form: LeafForm,
}

/// How the block's bytes relate to the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafForm {
    /// The block is the bytes. It need not be here to be stepped over.
    Raw,
    /// A dag-pb block without links; the bytes lie in its data.
    DagPb,
    /// A node with links carries these bytes as well, before those of its children.
    Inline(Bytes),
}

/// The work-list. After an error it is of no more use.
#[derive(Clone, Debug)]
pub struct Leaves {
    root: Cid,
    size: Option<u64>,
    /// Up to where the file has been stepped over.
    offset: u64,
    /// Nothing that ends here or before is of interest.
    from: u64,
    /// The next is the last.
    pending: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Item {
    cid: Cid,
    /// What the parent says; only the root has none.
    len: Option<u64>,
    depth: u8,
}

impl Leaves {
    /// `size` is the file's size where it is known from elsewhere, as from an OCI descriptor: a file of another
    /// size is malformed. A root that is one raw leaf need not be here when it is given.
    pub fn new(root: Cid, size: Option<u64>) -> Self {
        Self { root, size, offset: 0, from: 0, pending: vec![Item { cid: root, len: size, depth: 0 }] }
    }

    /// The file's size, known when its root has been read.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Steps over everything that ends at or before `offset`, without looking into it. Only forward.
    pub fn seek(&mut self, offset: u64) {
        self.from = self.from.max(offset);
    }

    /// The next leaf. Leaves of no bytes are passed over.
    pub fn next(&mut self, blocks: &dyn Blocks) -> Result<Step, BlockError> {
        while let Some(item) = self.pending.last() {
            if item.len.is_some_and(|len| item.depth > 0 && self.is_passed(len)) {
                self.offset = self.offset.saturating_add(item.len.unwrap_or_default());
                self.pending.pop();
                continue;
            }
            let (cid, len, depth) = (item.cid, item.len, item.depth);
            let leaf = match cid.codec() {
                RAW => match raw_len(blocks, &cid, len)? {
                    None => return Ok(Step::Missing(cid)),
                    Some(len) => {
                        self.size.get_or_insert(len);
                        self.pending.pop();
                        self.leaf(cid, len, LeafForm::Raw)
                    }
                },
                DAG_PB => match blocks.get(&cid)? {
                    None => return Ok(Step::Missing(cid)),
                    Some(block) => {
                        self.pending.pop();
                        self.enter(cid, len, depth, &block)?
                    }
                },
                _ => return Err(malformed(&cid, "a file is made of raw and dag-pb blocks only")),
            };
            if let Some(leaf) = leaf {
                return Ok(Step::Leaf(leaf));
            }
        }
        if self.size.is_some_and(|size| size != self.offset) {
            return Err(malformed(&self.root, "the file's leaves do not add up to its size"));
        }
        Ok(Step::End)
    }

    /// What comes next in byte order, at most `max`, as far as it is known now: so that many can be fetched at
    /// once. A dag-pb block among them may turn out to be a leaf or a node with more below it.
    pub fn pending(&self, max: usize) -> Vec<(Cid, u64)> {
        let mut offset = self.offset;
        let mut out = Vec::new();
        for item in self.pending.iter().rev() {
            let len = item.len.unwrap_or_default();
            offset = offset.saturating_add(len);
            if out.len() >= max {
                break;
            }
            if item.depth == 0 || (len > 0 && offset > self.from) {
                out.push((item.cid, len));
            }
        }
        out
    }

    /// A dag-pb block: a leaf, or a node whose children go on the list.
    fn enter(
        &mut self,
        cid: Cid,
        len: Option<u64>,
        depth: u8,
        block: &Bytes,
    ) -> Result<Option<Leaf>, BlockError> {
        let (node, data) = open(&cid, block)?;
        if !is_file(data.kind) {
            return Err(malformed(&cid, "it is no file"));
        }
        if node.links.len() != data.blocksizes.len() {
            return Err(malformed(&cid, "the file node has not as many blocksizes as links"));
        }
        let size = file_size(&data).map_err(|malformed| malformed.at(&cid))?;
        if len.is_some_and(|len| len != size) {
            return Err(malformed(&cid, "the block is not as long as its parent says"));
        }
        self.size.get_or_insert(size);
        let inline = data.data.unwrap_or_default();
        if node.links.is_empty() {
            return Ok(self.leaf(cid, inline.len() as u64, LeafForm::DagPb));
        }
        if depth >= MAX_DEPTH {
            return Err(malformed(&cid, "the file is too deep"));
        }
        if self.pending.len() + node.links.len() > MAX_PENDING {
            return Err(malformed(&cid, "the file is too wide"));
        }
        let children = node.links.iter().zip(&data.blocksizes).rev();
        self.pending.extend(children.map(|(link, len)| Item {
            cid: link.cid,
            len: Some(*len),
            depth: depth + 1,
        }));
        Ok(self.leaf(cid, inline.len() as u64, LeafForm::Inline(inline)))
    }

    /// Steps over `len` bytes, and says so where they are of interest.
    fn leaf(&mut self, cid: Cid, len: u64, form: LeafForm) -> Option<Leaf> {
        let passed = self.is_passed(len);
        let offset = self.offset;
        self.offset = offset.saturating_add(len);
        (!passed).then_some(Leaf { offset, len, cid, form })
    }

    /// A stretch of no bytes is passed wherever it stands: whatever lies below adds nothing, and a hostile file
    /// could hide an endless tree of such.
    fn is_passed(&self, len: u64) -> bool {
        len == 0 || self.offset.saturating_add(len) <= self.from
    }
}

/// A raw block's length, from its parent or itself; `None` where it is needed and not here.
fn raw_len(blocks: &dyn Blocks, cid: &Cid, said: Option<u64>) -> Result<Option<u64>, BlockError> {
    let own = match said {
        _ if cid.hash().code() == IDENTITY => Some(cid.hash().digest().len()),
        Some(len) => return Ok(Some(len)),
        None => blocks.size(cid)?,
    };
    let own = own.map(|len| len as u64);
    match (own, said) {
        (Some(own), Some(said)) if own != said => {
            Err(malformed(cid, "the leaf is not as long as its parent says"))
        }
        _ => Ok(own),
    }
}

fn malformed(cid: &Cid, reason: &'static str) -> BlockError {
    BlockError::Malformed { cid: *cid, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, MemoryBlocks};
    use crate::dag::file::{from_bytes, read_all};
    use crate::dag::pb::{Link, Node};
    use crate::dag::unixfs::{Data, Kind};

    fn raw(bytes: &'static [u8]) -> Block {
        Block::new(RAW, Bytes::from_static(bytes))
    }

    fn node(inline: Option<&'static [u8]>, children: &[(&Block, u64)]) -> Block {
        let blocksizes: Vec<u64> = children.iter().map(|(_, len)| *len).collect();
        let inline_len = inline.map_or(0, |data| data.len() as u64);
        let filesize = blocksizes.iter().fold(inline_len, |sum, len| sum.wrapping_add(*len));
        let data = inline.map(Bytes::from_static);
        let data = Data { data, filesize: Some(filesize), blocksizes, ..Data::new(Kind::File) };
        let link = |(block, _): &(&Block, u64)| Link { cid: *block.cid(), name: String::new(), tsize: 0 };
        let node = Node { links: children.iter().map(link).collect(), data: Some(data.encode()) };
        Block::new(DAG_PB, node.encode())
    }

    fn store(all: &[&Block]) -> MemoryBlocks {
        let blocks = MemoryBlocks::default();
        for block in all {
            blocks.put(block);
        }
        blocks
    }

    #[test]
    fn nodes_with_data_and_children_are_read_in_order() {
        let (one, two, none) = (raw(b"one"), node(Some(b"two"), &[]), raw(b""));
        let inner = node(Some(b"-"), &[(&two, 3), (&none, 0)]);
        let root = node(Some(b"zero"), &[(&one, 3), (&none, 0), (&inner, 4)]);
        let blocks = store(&[&one, &two, &none, &inner, &root]);
        assert_eq!(read_all(&blocks, root.cid(), 100).unwrap(), "zeroone-two");

        let mut leaves = Leaves::new(*root.cid(), Some(11));
        let Step::Leaf(leaf) = leaves.next(&blocks).unwrap() else { panic!("no leaf") };
        assert_eq!((leaf.offset, leaf.len, leaf.form), (0, 4, LeafForm::Inline(Bytes::from_static(b"zero"))));
        assert_eq!(leaves.pending(9), [(*one.cid(), 3), (*inner.cid(), 4)]);
        assert_eq!(leaves.pending(1), [(*one.cid(), 3)]);
    }

    #[test]
    fn raw_leaves_need_not_be_here_but_nodes_must() {
        let (one, two) = (raw(b"one"), raw(b"three"));
        let inner = node(None, &[(&two, 5)]);
        let root = node(None, &[(&one, 3), (&inner, 5)]);
        let blocks = store(&[&root]);
        let mut leaves = Leaves::new(*root.cid(), None);
        assert!(matches!(leaves.next(&blocks).unwrap(), Step::Leaf(leaf) if leaf.cid == *one.cid()));
        assert_eq!(leaves.next(&blocks).unwrap(), Step::Missing(*inner.cid()));
        assert_eq!(leaves.next(&blocks).unwrap(), Step::Missing(*inner.cid()));
        blocks.put(&inner);
        let last = Leaf { offset: 3, len: 5, cid: *two.cid(), form: LeafForm::Raw };
        assert_eq!(leaves.next(&blocks).unwrap(), Step::Leaf(last));
        assert_eq!(leaves.next(&blocks).unwrap(), Step::End);
        assert_eq!(leaves.next(&blocks).unwrap(), Step::End);
    }

    #[test]
    fn a_seek_looks_into_nothing_before_it() {
        let (one, two) = (raw(b"one"), raw(b"three"));
        let inner = node(None, &[(&one, 3)]);
        let root = node(None, &[(&inner, 3), (&two, 5)]);
        let mut leaves = Leaves::new(*root.cid(), None);
        leaves.seek(4);
        let blocks = store(&[&root]);
        assert!(
            matches!(leaves.next(&blocks).unwrap(), Step::Leaf(leaf) if leaf.offset == 3 && leaf.cid == *two.cid())
        );
        assert_eq!(leaves.next(&blocks).unwrap(), Step::End);
    }

    #[test]
    fn a_raw_root_needs_to_be_here_only_where_its_size_is_not_known() {
        let (root, _) = from_bytes(b"hello");
        let blocks = MemoryBlocks::default();
        assert_eq!(Leaves::new(root.cid, None).next(&blocks).unwrap(), Step::Missing(root.cid));
        let leaf = Leaf { offset: 0, len: 5, cid: root.cid, form: LeafForm::Raw };
        assert_eq!(Leaves::new(root.cid, Some(5)).next(&blocks).unwrap(), Step::Leaf(leaf));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let leaf = node(Some(b"two"), &[]);
        let root = node(None, &[(&leaf, 4)]);
        assert!(read_all(&store(&[&leaf, &root]), root.cid(), 100).is_err());

        let short = raw(b"x");
        let root = node(None, &[(&short, 2)]);
        assert!(read_all(&store(&[&short, &root]), root.cid(), 100).is_err());

        let root = node(None, &[(&leaf, u64::MAX), (&leaf, 3)]);
        assert!(Leaves::new(*root.cid(), None).next(&store(&[&root])).is_err());

        let root = node(None, &[(&leaf, 3)]);
        let blocks = store(&[&leaf, &root]);
        assert!(Leaves::new(*root.cid(), Some(4)).next(&blocks).is_err());
        assert!(Leaves::new(*root.cid(), Some(3)).next(&blocks).is_ok());

        let identity: Cid = "bafkqaaa".parse().unwrap();
        assert!(Leaves::new(identity, Some(1)).next(&MemoryBlocks::default()).is_err());
        assert_eq!(Leaves::new(identity, None).next(&MemoryBlocks::default()).unwrap(), Step::End);
    }

    #[test]
    fn a_file_that_is_too_deep_or_grows_without_bytes_ends() {
        let mut block = raw(b"x");
        let blocks = store(&[&block]);
        for _ in 0..=MAX_DEPTH {
            block = node(None, &[(&block, 1)]);
            blocks.put(&block);
        }
        assert!(matches!(read_all(&blocks, block.cid(), 100), Err(BlockError::Malformed { .. })));

        let mut block = raw(b"");
        for _ in 0..MAX_DEPTH {
            block = node(None, &[(&block, 0), (&block, 0), (&block, 0)]);
            blocks.put(&block);
        }
        assert_eq!(read_all(&blocks, block.cid(), 100).unwrap(), Bytes::new());
    }
}
