//! What the threads of a store share: files, index, and the view that readers see.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use cid::Cid;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::watch;

use crate::arriving::Arriving;
use crate::bases::Bases;
use crate::blobs::{BlobFile, Blobs};
use crate::block::{
    Block, BlockError, Blocks, DAG_PB, MAX_BLOCK, MemoryBlocks, RAW, SHA2_256, SHA2_512, cid_of,
    identity_data, verify,
};
use crate::compact::PastRoots;
use crate::dag::file::{LeafForm, Leaves, Step, read_all};
use crate::dag::{directory, pb, unixfs};
use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::index::{Form, Holder, Index, Row, TreeKey};
use crate::journal::{CommitEntry, Entry, Position, State};
use crate::kept::Kept;
use crate::layout::{self, Item};
use crate::lens::Lens;
use crate::overlay::Overlay;
use crate::pack::Packs;
use crate::pins::Pins;
use crate::public::PublicTree;
use crate::recent::Recent;
use crate::running::Running;
use crate::space::Ballast;
use crate::tree::{Change, Diff, Difference, Progress};
use crate::upload::Uploads;
use crate::wrong::Wrong;

/// Directory nodes kept in memory: the upper levels of the trees that are read, which every look-up passes.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;
/// A directory of the largest size that is not sharded, and some.
const CACHE_BLOCK: usize = 512 * 1024;
const CACHE_ITEMS: usize = 1024;

pub(crate) struct Inner {
    pub(crate) packs: Packs,
    /// Where not everyone may have everything.
    pub(crate) public: Option<PublicTree>,
    pub(crate) index: Index,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) arriving: Arriving,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) view: RwLock<View>,
    /// Held while rows of the lists and the view change together, so that whoever builds the index anew can put
    /// in what a tree says just now.
    pub(crate) rows: Mutex<()>,
    pub(crate) ballast: Ballast,
    pub(crate) running: Running,
    pub(crate) folded: watch::Sender<u64>,
    pub(crate) past_roots: Mutex<PastRoots>,
    pub(crate) recent: Mutex<Recent>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) kept: Kept,
    pub(crate) wrong: Wrong,
    pub(crate) bases: Bases,
    /// Adoptions read, compaction writes: see [`crate::compact`].
    pub(crate) adoptions: Arc<tokio::sync::RwLock<()>>,
    /// Followed names in the order in which they are read, and how each is seen.
    pub(crate) order: RwLock<Vec<(String, Lens)>>,
    /// How often that has changed.
    pub(crate) orders: AtomicU64,
    pub(crate) cache: Cache<Vec<u8>, Bytes, Weight>,
    /// Held as long as the data directory is open.
    pub(crate) _lock: File,
}

/// My tree is `base` with `overlay` over it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) base: Cid,
    pub(crate) overlay: Overlay,
    pub(crate) position: Position,
    pub(crate) state: State,
}

#[derive(Clone, Debug)]
pub(crate) struct Weight;

impl Weighter<Vec<u8>, Bytes> for Weight {
    fn weight(&self, key: &Vec<u8>, value: &Bytes) -> u64 {
        (key.len() + value.len()) as u64
    }
}

pub(crate) fn cache() -> Cache<Vec<u8>, Bytes, Weight> {
    Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES, Weight)
}

impl View {
    pub(crate) fn new(state: State) -> Self {
        let base = state.root.map_or_else(directory::empty, |root| root.0);
        Self { base, overlay: Overlay::default(), position: state.covers, state }
    }

    /// What an entry of the journal changes here.
    pub(crate) fn apply(&mut self, position: Position, entry: &Entry) {
        self.position = position;
        self.state.apply(entry);
        match entry {
            Entry::Commit(commit) => self.overlay.apply(position, commit),
            Entry::Fold { root, covers, .. } => {
                self.base = root.0;
                self.overlay.forget(*covers);
            }
            _ => {}
        }
    }
}

impl Inner {
    pub(crate) fn state(&self) -> State {
        self.view.read().unwrap_or_else(PoisonError::into_inner).state.clone()
    }

    /// Whether my tree has nothing, and nothing on its way.
    pub(crate) fn is_empty(&self) -> bool {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        view.base == directory::empty() && view.overlay.len() == 0
    }

    /// Paths that are not folded yet.
    pub(crate) fn pending(&self) -> usize {
        self.view.read().unwrap_or_else(PoisonError::into_inner).overlay.len()
    }

    /// Tells whoever publishes that my tree has a new root.
    pub(crate) fn announce(&self, before: Cid, sequence: u64) {
        self.past_roots.lock().unwrap_or_else(PoisonError::into_inner).push(before);
        self.folded.send_replace(sequence);
    }

    /// Whether the public tree is to be made anew, or to be given up.
    pub(crate) fn is_public_due(&self) -> bool {
        let state = self.state();
        match &self.public {
            Some(tree) => tree.current(&state).is_none_or(|public| !tree.has(&public.root.0)),
            None => state.public.is_some(),
        }
    }

    /// Root, the position covered by a fold of the changes that follow, and their blocks.
    pub(crate) fn fold_input(&self) -> (Cid, Position, BTreeMap<String, Change>, Vec<Block>) {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let (changes, blocks) = view.overlay.snapshot();
        (view.base, view.position, changes, blocks)
    }

    /// Makes a durable entry visible.
    pub(crate) fn apply(&self, position: Position, entry: &Entry) -> Result<(), StoreError> {
        let _rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = match entry {
            Entry::Commit(commit) => self.list_commit(commit),
            // Rows of followed trees are written in the background: see [`crate::listings`].
            _ => Ok(()),
        };
        self.view.write().unwrap_or_else(PoisonError::into_inner).apply(position, entry);
        listed
    }

    /// The index is derived: what failed here is made good by building it anew.
    pub(crate) fn index_failed(&self, error: &StoreError) {
        self.index.give_up(error);
    }

    pub(crate) fn list_commit(&self, commit: &CommitEntry) -> Result<(), StoreError> {
        for (path, target) in &commit.changes {
            match target {
                Some(target) => {
                    let own = commit.blocks.iter().find(|(cid, _)| *cid == target.cid);
                    let content = || match own {
                        Some((_, data)) => Ok(Some(Bytes::copy_from_slice(data))),
                        None => self.link_content(&target.cid.0),
                    };
                    self.list_put(TreeKey::MINE, path, content)?;
                }
                None => self.list_remove(TreeKey::MINE, path)?,
            }
        }
        Ok(())
    }

    /// Rows of all that my tree has at this root.
    pub(crate) fn list_mine(&self, root: Cid) -> Result<(), StoreError> {
        self.each_difference(None, root, |difference| {
            let Some(entry) = &difference.new else { return Ok(()) };
            {
                let _rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
                self.list_put(TreeKey::MINE, &difference.path, || self.link_content(&entry.cid))?;
            }
            match layout::parse(&difference.path) {
                Some(Item::Blob(digest)) => self.index_blob(&digest, &entry.cid),
                _ => Ok(()),
            }
        })
    }

    /// The root that a followed name is read at.
    pub(crate) fn good_root(&self, name: &str) -> Option<Cid> {
        self.state().follow(name)?.good.as_ref().map(|good| good.root.0)
    }

    /// Rows of a followed tree after it has moved to another root, all of whose directories are here. They are written
    /// as they are found: a registry has a million files.
    pub(crate) fn list_difference(&self, name: &str, old: Option<Cid>, new: Cid) -> Result<(), StoreError> {
        let tree = TreeKey::followed(name);
        let _rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        self.each_difference(old, new, |difference| match &difference.new {
            Some(entry) => self.list_put(tree, &difference.path, || self.link_content(&entry.cid)),
            None => self.list_remove(tree, &difference.path),
        })
    }

    /// The same, and where the tree cannot be walked its lists end there: it may have grown too large step by step, and
    /// what others publish is no reason to be without an index.
    pub(crate) fn list_followed(&self, name: &str, old: Option<Cid>, new: Cid) -> Result<(), StoreError> {
        pass_over(name, self.list_difference(name, old, new))
    }

    /// Goes through what differs between two roots that are here, to the first error.
    pub(crate) fn each_difference(
        &self,
        old: Option<Cid>,
        new: Cid,
        mut each: impl FnMut(Difference) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut diff = Diff::new(old, new, 0);
        let mut outcome = Ok(());
        loop {
            let progress = diff.advance_within(usize::MAX, self, &mut |difference| {
                if outcome.is_ok() {
                    outcome = each(difference);
                }
            })?;
            outcome?;
            outcome = Ok(());
            match progress {
                Progress::Done => return Ok(()),
                Progress::More | Progress::Full => {}
                Progress::Missing(missing) => {
                    return missing.first().map_or(Ok(()), |cid| Err(BlockError::Missing(*cid).into()));
                }
            }
        }
    }

    /// What a link file says, whatever its form as a DAG; `None` where it is not here, or is no link.
    pub(crate) fn link_content(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        match read_all(self, cid, layout::MAX_LINK) {
            Ok(content) => Ok(Some(content)),
            Err(BlockError::Missing(_) | BlockError::Malformed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn list_put(
        &self,
        tree: TreeKey,
        path: &str,
        content: impl FnOnce() -> Result<Option<Bytes>, BlockError>,
    ) -> Result<(), StoreError> {
        match layout::parse(path) {
            Some(Item::Tag(repository, tag)) => {
                let digest = content()?.and_then(|content| layout::parse_link(&content));
                let value = digest.map(|digest| digest.to_string()).unwrap_or_default();
                self.index.put_row(tree, Row::Tag(repository.as_str(), tag.as_str()), value.as_bytes())
            }
            Some(Item::Revision(repository, digest)) => {
                self.index.put_row(tree, Row::Revision(repository.as_str(), &digest), b"")?;
                self.index.put_row(tree, Row::Repository(repository.as_str()), b"")
            }
            Some(Item::Referrer { repository, subject, referrer }) => {
                self.index.put_row(tree, Row::Referrer(repository.as_str(), &subject, &referrer), b"")
            }
            Some(Item::Blob(_) | Item::Layer(..)) | None => Ok(()),
        }
    }

    /// A commit removes a link or the directory that holds it, nothing higher.
    pub(crate) fn list_remove(&self, tree: TreeKey, path: &str) -> Result<(), StoreError> {
        let below =
            ["", "/link", "/current/link"].iter().find_map(|tail| layout::parse(&format!("{path}{tail}")));
        match below {
            Some(Item::Tag(repository, tag)) => {
                self.index.remove_row(tree, Row::Tag(repository.as_str(), tag.as_str()))
            }
            Some(Item::Revision(repository, digest)) => {
                let row = Row::Revision(repository.as_str(), &digest);
                self.index.remove_row(tree, row)?;
                if !self.index.has_siblings(tree, row)? {
                    self.index.remove_row(tree, Row::Repository(repository.as_str()))?;
                }
                Ok(())
            }
            Some(Item::Referrer { repository, subject, referrer }) => {
                self.index.remove_row(tree, Row::Referrer(repository.as_str(), &subject, &referrer))
            }
            Some(Item::Blob(_) | Item::Layer(..)) | None => Ok(()),
        }
    }

    /// Rows for the leaves of every blob that a commit put into the tree.
    pub(crate) fn index_leaves(&self, commit: &CommitEntry) -> Result<(), StoreError> {
        for (path, target) in &commit.changes {
            if let (Some(Item::Blob(digest)), Some(target)) = (layout::parse(path), target) {
                self.index_blob(&digest, &target.cid.0)?;
            }
        }
        Ok(())
    }

    /// Rows for the leaves of one blob, if the whole blob is on this disk. Leaves that are dag-pb nodes are built
    /// around their bytes and compared; where that does not give their CID, they lie in a pack.
    pub(crate) fn index_blob(&self, digest: &Digest, root: &Cid) -> Result<(), StoreError> {
        if named_by(root) == Some(*digest) {
            // Its one leaf is found by its name.
            return Ok(());
        }
        let Some(blob) = self.blobs.open_blob(digest)? else { return Ok(()) };
        let mut rows = Vec::new();
        let mut end = 0;
        let mut leaves = Leaves::new(*root, Some(blob.size));
        loop {
            // Holds at most one node: the leaf that is looked at.
            let rebuilt = MemoryBlocks::default();
            let mut step = leaves.next(self)?;
            let mut form = None;
            if let Step::Missing(cid) = step {
                let Some((built, block)) = rebuild(&blob, end, &cid, &leaves)? else { break };
                form = Some(built);
                rebuilt.put(&block);
                step = leaves.next(&rebuilt)?;
            }
            match step {
                Step::Leaf(leaf) => {
                    end = leaf.offset + leaf.len;
                    // A node that lies elsewhere too, in another blob for instance, is found here as well.
                    let form = match (leaf.form, form) {
                        (LeafForm::Raw, _) => Some(Form::Raw),
                        (LeafForm::DagPb, Some(form)) => Some(form),
                        (LeafForm::DagPb, None) => {
                            form_of(&leaf.cid, &range(&blob, leaf.offset, leaf.len)?).map(|(form, _)| form)
                        }
                        (LeafForm::Inline(_), _) => None,
                    };
                    if let (Some(form), Ok(len)) = (form, u32::try_from(leaf.len)) {
                        rows.push((leaf.cid, Holder { digest: *digest, offset: leaf.offset, len, form }));
                    }
                }
                Step::Missing(_) | Step::End => break,
            }
        }
        self.index.put_blocks(&rows)
    }

    pub(crate) fn read(&self, holder: &Holder) -> io::Result<Option<Bytes>> {
        let Holder { digest, offset, len, form } = *holder;
        let Some(blob) = self.blobs.open_blob(&digest)? else { return Ok(None) };
        if offset.checked_add(u64::from(len)).is_none_or(|end| end > blob.size) {
            return Ok(None);
        }
        Ok(Some(wrap(form, range(&blob, offset, u64::from(len))?)))
    }
}

/// The blob whose whole is this leaf: of a raw block the hash is the blob's digest too.
pub(crate) fn named_by(cid: &Cid) -> Option<Digest> {
    let hash = cid.hash();
    let algorithm = match hash.code() {
        SHA2_256 => Algorithm::Sha256,
        SHA2_512 => Algorithm::Sha512,
        _ => return None,
    };
    (cid.codec() == RAW).then(|| Digest::from_bytes(algorithm, hash.digest()))?
}

impl Blocks for Inner {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        if let Some(data) = identity_data(cid) {
            return Ok(Some(data));
        }
        let key = cid.hash().to_bytes();
        if let Some(data) = self.cache.get(&key) {
            return Ok(Some(data));
        }
        let pending = self.view.read().unwrap_or_else(PoisonError::into_inner).overlay.block(cid);
        if pending.is_some() {
            return Ok(pending);
        }
        let mut packed = self.packs.get(cid)?;
        if packed.is_none()
            && let Some(public) = &self.public
        {
            packed = public.block(cid)?;
        }
        if let Some(data) = packed {
            if cid.codec() == DAG_PB && data.len() <= CACHE_BLOCK {
                self.cache.insert(key, data.clone());
            }
            return Ok(Some(data));
        }
        if let Some(digest) = named_by(cid)
            && let Some(blob) = self.blobs.open_blob(&digest)?
            && blob.size <= MAX_BLOCK as u64
        {
            return Ok(Some(range(&blob, 0, blob.size)?));
        }
        for holder in self.index.holders(cid.hash()) {
            if let Some(data) = self.read(&holder?)? {
                return Ok(Some(data));
            }
        }
        if let Some(data) = self.arriving.get(cid)? {
            return Ok(Some(data));
        }
        // What has no bytes of its own needs no place: the empty directory, where every tree begins, and the
        // empty file.
        let empty = [(directory::empty(), directory::empty_block()), (cid_of(RAW, b""), Bytes::new())];
        Ok(empty.into_iter().find(|(known, _)| known.hash() == cid.hash()).map(|(_, data)| data))
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        if let Some(size) = self.packs.size(cid)? {
            return Ok(Some(size));
        }
        for holder in self.index.holders(cid.hash()) {
            let Holder { digest, len, form, .. } = holder?;
            if form == Form::Raw && self.blobs.path(&digest).exists() {
                return Ok(Some(len as usize));
            }
        }
        if let Some(len) = self.arriving.size(cid) {
            return Ok(Some(len));
        }
        Ok(self.get(cid)?.map(|data| data.len()))
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("view", &self.view).finish_non_exhaustive()
    }
}

/// What is wrong with the tree of a followed name is told, and is no error.
pub(crate) fn pass_over(name: &str, walked: Result<(), StoreError>) -> Result<(), StoreError> {
    match walked {
        Err(StoreError::Block(error))
            if matches!(*error, BlockError::Missing(_) | BlockError::Malformed { .. }) =>
        {
            tracing::warn!(name, %error, "the tree of a followed name is not listed whole");
            Ok(())
        }
        walked => walked,
    }
}

/// The dag-pb leaf at `offset` of the blob, built from its bytes: which form has this CID, if any.
fn rebuild(
    blob: &BlobFile,
    offset: u64,
    cid: &Cid,
    leaves: &Leaves,
) -> Result<Option<(Form, Block)>, StoreError> {
    let next = leaves.pending(1).into_iter().next().filter(|(next, _)| next == cid);
    let fits = |len: u64| offset.checked_add(len).is_some_and(|end| end <= blob.size);
    let Some((_, len)) = next.filter(|(_, len)| *len <= crate::block::MAX_BLOCK as u64 && fits(*len)) else {
        return Ok(None);
    };
    Ok(form_of(cid, &range(blob, offset, len)?))
}

/// How these bytes of a file become the dag-pb leaf with this CID.
pub(crate) fn form_of(cid: &Cid, bytes: &Bytes) -> Option<(Form, Block)> {
    let build = |form| {
        let node = wrap(form, bytes.clone());
        verify(cid, &node).ok().map(|()| (form, Block::trusted(*cid, node)))
    };
    build(Form::RawNode).or_else(|| build(Form::File))
}

pub(crate) fn wrap(form: Form, bytes: Bytes) -> Bytes {
    let kind = match form {
        Form::Raw => return bytes,
        Form::File => unixfs::Kind::File,
        Form::RawNode => unixfs::Kind::Raw,
    };
    let filesize = Some(bytes.len() as u64);
    let data = unixfs::Data { data: Some(bytes), filesize, ..unixfs::Data::new(kind) };
    pb::Node { links: Vec::new(), data: Some(data.encode()) }.encode()
}

pub(crate) fn range(blob: &BlobFile, offset: u64, len: u64) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let mut data = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    blob.file().read_exact_at(&mut data, offset)?;
    Ok(data.into())
}
