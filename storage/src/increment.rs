//! What one root has over another, in the order in which it is carried: first the tree (directories, and files of at
//! most some bytes), then the larger blobs one after the other.
//!
//! Both sides of a carriage walk in the same order, so that whoever takes the blocks knows of each where it belongs and
//! keeps none that belongs nowhere. It holds a mark for each directory, and nothing of any blob.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cid::Cid;

use crate::block::{Block, BlockError, Blocks, DAG_PB, MemoryBlocks, RAW, identity_data};
use crate::dag::Malformed;
use crate::dag::directory::{Entry, Form, form};
use crate::dag::file::{Leaf, LeafForm, Leaves, Step, leaf_bytes, root_size};
use crate::dag::walk::links;
use crate::digest::Digest;
use crate::layout::{self, Item};
use crate::tree::Diff;

/// Blocks that wait at once on the way down a tree; as many as a comparison of two trees holds.
const MAX_PENDING: usize = 262_144;
/// Bytes of nodes above the leaves of one blob, which are in memory until it is whole: enough for 300 GiB in leaves of
/// 256 KiB.
const MAX_NODES: usize = 64 * 1024 * 1024;

/// What a root has over another. Blocks are read while it is walked.
#[derive(Clone, Debug)]
pub struct Increment {
    root: Cid,
    /// Directories that differ and small files that are new.
    tree: HashSet<Short>,
    /// Tops of all new blobs: they belong to the tree, what is below them does not.
    tops: HashSet<Short>,
    blobs: Vec<NewBlob>,
}

/// A blob that the root before did not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBlob {
    pub digest: Digest,
    pub entry: Entry,
    /// Bytes of the file, as its root says.
    pub size: u64,
}

/// A way through the tree's part.
#[derive(Debug)]
pub struct TreeWalk<'a> {
    /// With each whether it comes whatever the comparison said.
    pending: Vec<(Cid, bool)>,
    left: HashSet<Short>,
    tops: &'a HashSet<Short>,
}

/// Takes the blocks of the tree's part as they come, each at its place.
#[derive(Debug)]
pub struct TreeOrder {
    pending: Vec<Cid>,
}

/// A way through the blocks of one blob's file.
#[derive(Debug)]
pub struct BlobWalk {
    leaves: Leaves,
    /// Nodes that have come: each comes once. Leaves come as often as they stand in the file.
    seen: HashSet<Cid>,
}

/// One step of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    Node(Cid, Bytes),
    /// A raw leaf: where it stands in the file, not its bytes.
    Leaf(Leaf),
}

/// Takes the blocks of one blob's file as they come.
#[derive(Debug)]
pub struct BlobOrder {
    leaves: Leaves,
    nodes: MemoryBlocks,
    /// Bytes that nodes have had.
    weight: usize,
    awaited: Awaited,
}

/// Bytes of the file that a block has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset: u64,
    pub cid: Cid,
    pub block: Bytes,
    pub bytes: Bytes,
}

#[derive(Clone, Debug)]
enum Awaited {
    Node(Cid),
    Leaf(Leaf),
    Nothing,
}

/// The start of a hash: two that share it would both be carried.
type Short = [u8; 16];

impl Increment {
    /// Compares the directories of both roots, which must be here, and so must be the new files of at most `eager` bytes.
    pub fn find(blocks: &dyn Blocks, old: Option<Cid>, new: Cid, eager: u64) -> Result<Self, BlockError> {
        let reading = Reading { blocks, read: Mutex::default() };
        let mut blobs = Vec::new();
        let mut files = Vec::new();
        let mut failed = None;
        let missing = Diff::new(old, new, eager).advance(&reading, &mut |difference| {
            let Some(entry) = difference.new else { return };
            match (layout::parse(&difference.path), size(blocks, &entry)) {
                (Some(Item::Blob(digest)), Ok(size)) if size > eager => {
                    blobs.push(NewBlob { digest, entry, size });
                }
                (_, Ok(_)) => files.push(short(&entry.cid)),
                (_, Err(error)) => failed = Some(error),
            }
        })?;
        if let Some(cid) = missing.first() {
            return Err(BlockError::Missing(*cid));
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let mut tree = reading.read.into_inner().unwrap_or_else(PoisonError::into_inner);
        tree.extend(files);
        let tops = blobs.iter().map(|blob| short(&blob.entry.cid)).collect();
        blobs.sort_by_key(|blob| blob.digest);
        Ok(Self { root: new, tree, tops, blobs })
    }

    /// In the order of their digests.
    pub fn blobs(&self) -> &[NewBlob] {
        &self.blobs
    }

    /// Leaves out blobs.
    pub fn retain_blobs(&mut self, keep: impl FnMut(&NewBlob) -> bool) {
        self.blobs.retain(keep);
    }

    pub fn walk(&self) -> TreeWalk<'_> {
        TreeWalk { pending: vec![(self.root, false)], left: self.tree.clone(), tops: &self.tops }
    }
}

impl TreeWalk<'_> {
    /// The next block, each once; `None` at the end.
    pub fn next(&mut self, blocks: &dyn Blocks) -> Result<Option<(Cid, Bytes)>, BlockError> {
        while let Some((cid, whole)) = self.pending.pop() {
            if !self.left.remove(&short(&cid)) && !whole || identity_data(&cid).is_some() {
                continue;
            }
            let data = blocks.need(&cid)?;
            if cid.codec() == DAG_PB {
                let is_file = form(&cid, &data)? == Form::Other && !self.tops.contains(&short(&cid));
                let below = links(&cid, &data).map_err(|malformed| malformed.at(&cid))?;
                if self.pending.len() + below.len() > MAX_PENDING {
                    return Err(Malformed("the tree is too wide to be carried").at(&cid));
                }
                self.pending.extend(below.into_iter().rev().map(|cid| (cid, is_file)));
            }
            return Ok(Some((cid, data)));
        }
        Ok(None)
    }
}

impl TreeOrder {
    pub fn new(root: Cid) -> Self {
        Self { pending: vec![root] }
    }

    /// Finds the block's place. What stands before it and did not come is known from the root before, or is a blob.
    pub fn take(&mut self, block: &Block) -> Result<(), Malformed> {
        loop {
            match self.pending.pop() {
                Some(cid) if cid == *block.cid() => break,
                Some(_) => {}
                None => return Err(Malformed("it has no place in the tree that is carried")),
            }
        }
        let below = links(block.cid(), block.data())?;
        if self.pending.len() + below.len() > MAX_PENDING {
            return Err(Malformed("the tree is too wide to be carried"));
        }
        self.pending.extend(below.into_iter().rev());
        Ok(())
    }
}

impl BlobWalk {
    pub fn new(blob: &NewBlob) -> Self {
        Self { leaves: Leaves::new(blob.entry.cid, Some(blob.size)), seen: HashSet::new() }
    }

    /// The next blocks of the file; none at the end.
    pub fn next(&mut self, blocks: &dyn Blocks) -> Result<Vec<Carried>, BlockError> {
        loop {
            let logging = Logging { blocks, read: Mutex::default() };
            let step = self.leaves.next(&logging)?;
            let read = logging.read.into_inner().unwrap_or_else(PoisonError::into_inner);
            let is_new = |(cid, _): &(Cid, Bytes)| identity_data(cid).is_none() && self.seen.insert(*cid);
            let mut carried: Vec<_> =
                read.into_iter().filter(is_new).map(|(cid, data)| Carried::Node(cid, data)).collect();
            match step {
                Step::Leaf(leaf) if leaf.form == LeafForm::DagPb => drop(self.seen.remove(&leaf.cid)),
                Step::Leaf(leaf) if leaf.form == LeafForm::Raw && identity_data(&leaf.cid).is_none() => {
                    carried.push(Carried::Leaf(leaf));
                }
                Step::Leaf(_) => {}
                Step::Missing(cid) => return Err(BlockError::Missing(cid)),
                Step::End => return Ok(carried),
            }
            // A stretch that brings no block of its own is not the end.
            if !carried.is_empty() {
                return Ok(carried);
            }
        }
    }
}

impl BlobOrder {
    pub fn new(blob: &NewBlob) -> Result<Self, BlockError> {
        let mut order = Self {
            leaves: Leaves::new(blob.entry.cid, Some(blob.size)),
            nodes: MemoryBlocks::default(),
            weight: 0,
            awaited: Awaited::Nothing,
        };
        order.awaited = order.go_on(&mut |_| Ok::<_, BlockError>(()))?;
        Ok(order)
    }

    /// What the next block must be; `None` when the file is whole.
    pub fn awaits(&self) -> Option<Cid> {
        match &self.awaited {
            Awaited::Node(cid) => Some(*cid),
            Awaited::Leaf(leaf) => Some(leaf.cid),
            Awaited::Nothing => None,
        }
    }

    /// Takes the block that is awaited, and gives the bytes that it and what follows from it bring, in their order.
    pub fn take<E: From<BlockError>>(
        &mut self,
        block: &Block,
        give: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        let (cid, data) = (*block.cid(), block.data().clone());
        if self.awaits() != Some(cid) {
            return Err(Malformed("it has no place in the blob that is carried").at(&cid).into());
        }
        match std::mem::replace(&mut self.awaited, Awaited::Nothing) {
            Awaited::Leaf(leaf) => {
                if data.len() as u64 != leaf.len {
                    return Err(Malformed("the leaf is not as long as its parent says").at(&cid).into());
                }
                give(Piece { offset: leaf.offset, cid, block: data.clone(), bytes: data })?;
            }
            Awaited::Node(_) | Awaited::Nothing => {
                self.weight = self.weight.saturating_add(data.len());
                if self.weight > MAX_NODES {
                    return Err(Malformed("the blob has more nodes than can be held").at(&cid).into());
                }
                self.nodes.put(block);
            }
        }
        self.awaited = self.go_on(give)?;
        Ok(())
    }

    /// The nodes above the leaves, when the file is whole.
    pub fn nodes(&self) -> Vec<Block> {
        self.nodes.take()
    }

    fn go_on<E: From<BlockError>>(
        &mut self,
        give: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<Awaited, E> {
        loop {
            let leaf = match self.leaves.next(&self.nodes)? {
                Step::End => return Ok(Awaited::Nothing),
                Step::Missing(cid) => return Ok(Awaited::Node(cid)),
                Step::Leaf(leaf) => leaf,
            };
            let (offset, cid) = (leaf.offset, leaf.cid);
            let (block, bytes) = match &leaf.form {
                LeafForm::Raw => match identity_data(&cid) {
                    Some(data) => (data.clone(), data),
                    None => return Ok(Awaited::Leaf(leaf)),
                },
                LeafForm::Inline(bytes) => (bytes.clone(), bytes.clone()),
                LeafForm::DagPb => {
                    let block = self.nodes.need(&cid)?;
                    self.nodes.remove(&cid);
                    self.weight = self.weight.saturating_sub(block.len());
                    let bytes = leaf_bytes(&cid, &block)?;
                    (block, bytes)
                }
            };
            give(Piece { offset, cid, block, bytes })?;
        }
    }
}

/// Marks the nodes that are read.
struct Reading<'a> {
    blocks: &'a dyn Blocks,
    read: Mutex<HashSet<Short>>,
}

impl Blocks for Reading<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        if cid.codec() == DAG_PB {
            self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(short(cid));
        }
        self.blocks.get(cid)
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        self.blocks.size(cid)
    }
}

/// Remembers the nodes that are read, in order.
struct Logging<'a> {
    blocks: &'a dyn Blocks,
    read: Mutex<Vec<(Cid, Bytes)>>,
}

impl Blocks for Logging<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        let data = self.blocks.get(cid)?;
        if let Some(data) = &data {
            self.read.lock().unwrap_or_else(PoisonError::into_inner).push((*cid, data.clone()));
        }
        Ok(data)
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        self.blocks.size(cid)
    }
}

/// What a comparison of trees takes a file's size for.
fn size(blocks: &dyn Blocks, entry: &Entry) -> Result<u64, BlockError> {
    if entry.cid.codec() == RAW {
        return Ok(entry.tsize);
    }
    match root_size(&entry.cid, &blocks.need(&entry.cid)?) {
        // One that nobody can read is as good as none.
        Err(BlockError::Malformed { .. }) => Ok(0),
        size => size,
    }
}

fn short(cid: &Cid) -> Short {
    let mut start = Short::default();
    start.iter_mut().zip(cid.hash().digest()).for_each(|(place, byte)| *place = *byte);
    start
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dag::file::read_all;
    use crate::dag::pb::{Link, Node};
    use crate::dag::unixfs::{Data, Kind};
    use crate::digest::Algorithm;
    use crate::tests::{now, push};
    use crate::{Commit, Store, tree};

    const EAGER: u64 = 16 * 1024;

    fn lately(store: &Store) -> Cid {
        now(store.fold()).unwrap();
        store.root()
    }

    /// Carries what `new` has over `old` to blocks that have the tree of `old`.
    fn carry(store: &Store, old: Option<Cid>, new: Cid, there: &MemoryBlocks) -> (Increment, Vec<Block>) {
        let increment = Increment::find(store, old, new, EAGER).unwrap();
        let (mut walk, mut order) = (increment.walk(), TreeOrder::new(new));
        let mut carried = Vec::new();
        while let Some((cid, data)) = walk.next(store).unwrap() {
            let block = Block::verified(cid, data).unwrap();
            order.take(&block).unwrap();
            there.put(&block);
            carried.push(block);
        }
        // The far side finds the same blobs without asking.
        assert_eq!(Increment::find(there, old, new, EAGER).unwrap().blobs(), increment.blobs());
        (increment, carried)
    }

    #[test]
    fn an_increment_over_a_root_makes_the_next_one_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let there = MemoryBlocks::default();
        let mut before = None;
        let mut sizes = Vec::new();
        for (seed, tag) in [(1, "v1"), (2, "v2"), (3, "v3")] {
            let image = push(&store, tag, seed, 1_500_000);
            let root = lately(&store);
            let (increment, carried) = carry(&store, before, root, &there);
            assert_eq!(
                increment.blobs().iter().map(|blob| blob.digest).collect::<Vec<_>>(),
                [image.layer.digest]
            );
            let mut cids: Vec<Cid> = carried.iter().map(|block| *block.cid()).collect();
            sizes.push(cids.len());
            cids.sort();
            cids.dedup();
            assert_eq!(cids.len(), carried.len(), "each once");
            before = Some(root);
        }
        let root = before.unwrap();
        let (_, nothing) = carry(&store, Some(root), root, &there);
        assert!(nothing.is_empty());
        let whole = Diff::new(None, root, EAGER).advance(&there, &mut |_| {}).unwrap();
        assert!(whole.is_empty());
        // What goes does not come back, and what is only moved is not carried again.
        let mut commit = Commit::new();
        commit.remove("docker/registry/v2/repositories/foo/bar/_manifests/tags/v1".to_owned());
        now(store.commit(commit)).unwrap();
        let (increment, _) = carry(&store, Some(root), lately(&store), &there);
        assert!(increment.blobs().is_empty());
    }

    #[test]
    fn an_increment_can_begin_at_a_root_that_is_kept_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut roots = Vec::new();
        for seed in 1..=3 {
            push(&store, "v1", seed, 100_000);
            roots.push(lately(&store));
        }
        store.keep_base(roots[1]).unwrap();
        // What was current lately stays for a while, but not over a restart.
        store.close().unwrap();
        let store = Store::open(dir.path()).unwrap();
        push(&store, "v1", 4, 100_000);
        let root = lately(&store);
        store.close().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.compact().unwrap());
        let forgotten = Increment::find(&store, Some(roots[0]), root, EAGER);
        assert!(matches!(forgotten, Err(BlockError::Missing(_))), "{forgotten:?}");
        let found = Increment::find(&store, Some(roots[1]), root, EAGER).unwrap();
        assert_eq!(found.blobs().len(), 2);
    }

    #[test]
    fn a_block_out_of_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        push(&store, "v1", 1, 1_500_000);
        let root = lately(&store);
        let (increment, carried) = carry(&store, None, root, &MemoryBlocks::default());
        let mut order = TreeOrder::new(root);
        order.take(&carried[0]).unwrap();
        order.take(&carried[2]).unwrap_err();
        let mut order = TreeOrder::new(root);
        for block in &carried {
            order.take(block).unwrap();
        }
        let stray = Block::new(RAW, Bytes::from_static(b"stray"));
        order.take(&stray).unwrap_err();
        let blob = &increment.blobs()[0];
        let mut order = BlobOrder::new(blob).unwrap();
        assert_eq!(order.awaits(), Some(blob.entry.cid));
        assert!(order.take(&stray, &mut |_| Ok::<_, BlockError>(())).is_err());
    }

    /// A file of any shape, as a recipe.
    #[derive(Clone, Debug)]
    enum Shape {
        Raw(Vec<u8>),
        Leaf(Vec<u8>),
        Node(Vec<u8>, Vec<Shape>),
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        let data = || prop::collection::vec(0_u8..3, 0..4);
        let leaf = prop_oneof![data().prop_map(Shape::Raw), data().prop_map(Shape::Leaf)];
        leaf.prop_recursive(4, 40, 5, move |below| {
            (data(), prop::collection::vec(below, 1..5)).prop_map(|(data, below)| Shape::Node(data, below))
        })
    }

    /// Returns the CID and the length.
    fn build(shape: &Shape, blocks: &MemoryBlocks) -> (Cid, u64) {
        let put = |codec, data: Bytes| {
            let block = Block::new(codec, data);
            blocks.put(&block);
            *block.cid()
        };
        match shape {
            Shape::Raw(data) => (put(RAW, data.clone().into()), data.len() as u64),
            Shape::Leaf(data) => {
                let len = data.len() as u64;
                let unixfs =
                    Data { data: Some(data.clone().into()), filesize: Some(len), ..Data::new(Kind::File) };
                let node = Node { links: Vec::new(), data: Some(unixfs.encode()) };
                (put(DAG_PB, node.encode()), len)
            }
            Shape::Node(data, below) => {
                let below: Vec<(Cid, u64)> = below.iter().map(|shape| build(shape, blocks)).collect();
                let blocksizes: Vec<u64> = below.iter().map(|(_, len)| *len).collect();
                let len = data.len() as u64 + blocksizes.iter().sum::<u64>();
                let unixfs = Data {
                    data: Some(data.clone().into()),
                    filesize: Some(len),
                    blocksizes,
                    ..Data::new(Kind::File)
                };
                let links = below.iter().map(|(cid, _)| Link { cid: *cid, name: String::new(), tsize: 0 });
                let node = Node { links: links.collect(), data: Some(unixfs.encode()) };
                (put(DAG_PB, node.encode()), len)
            }
        }
    }

    #[test]
    fn a_file_that_repeats_what_it_carries_itself_costs_no_stack() {
        let blocks = MemoryBlocks::default();
        let mut shape = Shape::Node(vec![1], vec![Shape::Raw(Vec::new())]);
        for _ in 0..4 {
            shape = Shape::Node(Vec::new(), vec![shape; 20]);
        }
        let (cid, size) = build(&shape, &blocks);
        let entry = tree::Entry { name: "data".to_owned(), cid, tsize: size };
        let blob = NewBlob { digest: Digest::of(Algorithm::Sha256, b""), entry, size };
        let mut walk = BlobWalk::new(&blob);
        let mut nodes = 0;
        loop {
            match walk.next(&blocks).unwrap().len() {
                0 => break,
                more => nodes += more,
            }
        }
        assert_eq!((nodes, size), (5, 160_000), "each node once");
    }

    proptest! {
        #[test]
        fn a_file_of_any_shape_arrives_in_the_order_in_which_it_left(shape in shapes()) {
            let blocks = MemoryBlocks::default();
            let (cid, size) = build(&shape, &blocks);
            let entry = tree::Entry { name: "data".to_owned(), cid, tsize: size };
            let blob = NewBlob { digest: Digest::of(Algorithm::Sha256, b""), entry, size };
            let (mut walk, mut order) = (BlobWalk::new(&blob), BlobOrder::new(&blob).unwrap());
            let mut arrived = Vec::new();
            loop {
                let carried = walk.next(&blocks).unwrap();
                if carried.is_empty() {
                    break;
                }
                for carried in carried {
                    let cid = match carried {
                        Carried::Node(cid, _) => cid,
                        Carried::Leaf(leaf) => leaf.cid,
                    };
                    let block = Block::verified(cid, blocks.need(&cid).unwrap()).unwrap();
                    let mut keep = |piece: Piece| {
                        assert_eq!(piece.offset, arrived.len() as u64);
                        arrived.extend_from_slice(&piece.bytes);
                        Ok::<_, BlockError>(())
                    };
                    order.take(&block, &mut keep).unwrap();
                }
            }
            prop_assert_eq!(order.awaits(), None);
            prop_assert_eq!(arrived, read_all(&blocks, &cid, u64::MAX).unwrap());
        }
    }
}
