//! What an operator has pinned: DAGs that stay whatever becomes of the trees.
//!
//! Each pin is a file `pins/<root>`, whole or not there. It names the blob files in which leaves of the DAG lie, so
//! that a sweep knows them without a walk; all other blocks are in the packs, where compaction finds them from the
//! root down. Not to be confused with `pins`, which holds digests for the length of a push.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cid::Cid;
use tokio::sync::OwnedRwLockReadGuard;

use crate::block::{Block, BlockError, Blocks, RAW, SHA2_256, identity_data};
use crate::dag::walk::links;
use crate::digest::{Algorithm, Digest};
use crate::error::{OpenError, StoreError};
use crate::files::{sync_directory, write_whole};
use crate::inner::{Inner, named_by};
use crate::layout;
use crate::pins::Pin;
use crate::space::Reserve;
use crate::tree;

/// A pin is a thing that a person typed, or a tool of theirs; each is a file.
const MAX_PINS: usize = 10_000;
/// Blocks below one root, some 50 bytes each while it is pinned: 1 TiB in leaves of 1 MiB.
const MAX_BLOCKS: usize = 1024 * 1024;
/// Raw leaves above this become files of their own, named by their hash as any blob; smaller ones go to the packs.
const LARGE: usize = 128 * 1024;
/// The first line of a pin's file.
const HEAD: &str = "sampan pin 1";

#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("the block {0} is not here, and nothing is pinned without all that is below it")]
    Missing(Cid),
    #[error("there are {MAX_PINS} pins; remove some first")]
    TooManyPins,
    #[error("the DAG has more than {MAX_BLOCKS} blocks; pin parts of it")]
    TooLarge,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A blob file, and the root of a UnixFS file over it whose leaves are its rows in the index.
type Held = (Digest, Cid);

#[derive(Debug)]
pub(crate) struct Kept {
    dir: PathBuf,
    state: RwLock<State>,
    /// Held while a file is written or removed, so that readers wait for no disk.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    pins: BTreeMap<Cid, Vec<Held>>,
    /// How many pins hold each blob.
    digests: HashMap<Digest, usize>,
}

/// Blocks on their way to become pinned: none of them is collected while this lives.
#[derive(Debug)]
pub struct Keeping {
    inner: Arc<Inner>,
    reserve: Reserve,
    _whole: OwnedRwLockReadGuard<()>,
    /// Blob files that hold leaves, until the pin itself says so.
    held: HashSet<Held>,
    pins: Vec<Arc<Pin>>,
}

impl Kept {
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        let mut state = State::default();
        for item in fs::read_dir(dir).map_err(io)? {
            let path = item.map_err(io)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // What a crash left of one that was never there.
            if path.extension().is_some_and(|extension| extension == "new") {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(io)?;
            let damaged = || OpenError::Damaged { path: path.clone(), at: 0, reason: "it is no pin" };
            let root = name.parse().map_err(|_| damaged())?;
            state.insert(root, parse(&text).ok_or_else(damaged)?);
        }
        Ok(Self { dir: dir.to_owned(), state: RwLock::new(state), writing: Mutex::default() })
    }

    pub(crate) fn list(&self) -> Vec<Cid> {
        self.read(|state| state.pins.keys().copied().collect())
    }

    /// Whether leaves of a pinned DAG lie in this blob.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.read(|state| state.digests.contains_key(digest))
    }

    /// Every blob that is held, and the files over it.
    pub(crate) fn held(&self) -> HashSet<Held> {
        self.read(|state| state.pins.values().flatten().copied().collect())
    }

    /// The files over one blob.
    pub(crate) fn files_over(&self, digest: &Digest) -> Vec<Cid> {
        if !self.holds(digest) {
            return Vec::new();
        }
        self.held().into_iter().filter(|(held, _)| held == digest).map(|(_, root)| root).collect()
    }

    fn add(&self, root: Cid, held: Vec<Held>) -> Result<(), KeepError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |state: &State| state.pins.len() >= MAX_PINS && !state.pins.contains_key(&root);
        if self.read(full) {
            return Err(KeepError::TooManyPins);
        }
        let mut text = format!("{HEAD}\n");
        for (digest, cid) in &held {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{digest} {cid}");
        }
        write_whole(&self.dir.join(root.to_string()), text.as_bytes(), 0o644).map_err(StoreError::from)?;
        self.state.write().unwrap_or_else(PoisonError::into_inner).insert(root, held);
        Ok(())
    }

    /// Whether it was pinned.
    pub(crate) fn remove(&self, root: &Cid) -> io::Result<bool> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.read(|state| state.pins.contains_key(root)) {
            return Ok(false);
        }
        fs::remove_file(self.dir.join(root.to_string()))?;
        sync_directory(&self.dir)?;
        self.state.write().unwrap_or_else(PoisonError::into_inner).remove(root);
        Ok(true)
    }

    fn read<T>(&self, of: impl FnOnce(&State) -> T) -> T {
        of(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn insert(&mut self, root: Cid, held: Vec<Held>) {
        self.remove(&root);
        for (digest, _) in &held {
            *self.digests.entry(*digest).or_default() += 1;
        }
        self.pins.insert(root, held);
    }

    fn remove(&mut self, root: &Cid) {
        for (digest, _) in self.pins.remove(root).unwrap_or_default() {
            if let Some(count) = self.digests.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    self.digests.remove(&digest);
                }
            }
        }
    }
}

impl Keeping {
    /// `whole` keeps packs from being rewritten.
    pub(crate) fn new(inner: &Arc<Inner>, dir: &Path, whole: OwnedRwLockReadGuard<()>) -> Self {
        Self {
            inner: Arc::clone(inner),
            reserve: Reserve::new(dir),
            _whole: whole,
            held: HashSet::new(),
            pins: Vec::new(),
        }
    }

    /// Takes blocks that are verified. They are durable when a root above them is pinned.
    pub fn put(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        self.reserve.check()?;
        let mut small = Vec::new();
        for block in blocks {
            let digest = named_by(block.cid()).filter(|digest| {
                block.data().len() > LARGE
                    && block.cid().hash().code() == SHA2_256
                    && digest.algorithm() == Algorithm::Sha256
            });
            match digest {
                _ if identity_data(block.cid()).is_some() => {}
                Some(digest) if self.hold_whole(&digest, block.cid())? => {}
                Some(_) => {
                    let stored = self.inner.uploads.put(Algorithm::Sha256, block.data())?;
                    self.held.insert((stored.digest, *block.cid()));
                    self.pins.push(stored.pin);
                }
                None => small.push(block.clone()),
            }
        }
        Ok(self.inner.packs.append(&small)?)
    }

    /// Pins a root when all that is below it is here. `told` hears how many blocks have been looked at.
    pub fn pin(&mut self, root: &Cid, told: &mut dyn FnMut(usize)) -> Result<(), KeepError> {
        let mut seen = HashSet::new();
        let mut pending = vec![*root];
        let mut files = HashMap::new();
        while let Some(cid) = pending.pop() {
            let inline = identity_data(&cid);
            if inline.is_none() && !seen.insert(*cid.hash()) {
                continue;
            }
            if seen.len() > MAX_BLOCKS || pending.len() > MAX_BLOCKS {
                return Err(KeepError::TooLarge);
            }
            told(seen.len());
            let below = if cid.codec() == RAW {
                Vec::new()
            } else {
                let data = inline.clone().map_or_else(|| self.inner.get(&cid), |data| Ok(Some(data)));
                let data = data.map_err(StoreError::from)?.ok_or(KeepError::Missing(cid))?;
                links(&cid, &data).map_err(|malformed| StoreError::from(malformed.at(&cid)))?
            };
            if inline.is_none() {
                self.hold(&cid, below.is_empty(), &mut files)?;
            }
            pending.extend(below);
        }
        self.inner.packs.sync().map_err(StoreError::from)?;
        self.inner.kept.add(*root, self.held.iter().copied().collect())?;
        Ok(())
    }

    /// Sees to it that a block stays: in a pack, or in a blob file that is held.
    fn hold(
        &mut self,
        cid: &Cid,
        is_leaf: bool,
        files: &mut HashMap<Digest, Vec<Cid>>,
    ) -> Result<(), KeepError> {
        let inner = Arc::clone(&self.inner);
        if inner.packs.size(cid).map_err(StoreError::from)?.is_some() {
            return Ok(());
        }
        if let Some(digest) = named_by(cid)
            && self.hold_whole(&digest, cid)?
        {
            return Ok(());
        }
        if is_leaf {
            for holder in inner.index.holders(cid.hash()) {
                let digest = holder?.digest;
                let roots = match files.get(&digest) {
                    Some(roots) => roots,
                    None => files.entry(digest).or_insert(self.files_over(&digest)?),
                };
                if !roots.is_empty() {
                    self.held.extend(roots.iter().map(|root| (digest, *root)));
                    return Ok(());
                }
            }
        }
        let data = inner.get(cid).map_err(StoreError::from)?.ok_or(KeepError::Missing(*cid))?;
        Ok(self.put(&[Block::trusted(*cid, data)])?)
    }

    /// Whether the blob is here. From now on it stays.
    fn hold_whole(&mut self, digest: &Digest, cid: &Cid) -> Result<bool, StoreError> {
        if self.held.contains(&(*digest, *cid)) {
            return Ok(true);
        }
        // First, so that nothing takes it away behind the look.
        let pin = self.inner.pins.pin(vec![*digest]);
        let here = self.inner.blobs.open_blob(digest)?.is_some();
        if here {
            self.pins.push(Arc::new(pin));
            self.held.insert((*digest, *cid));
        }
        Ok(here)
    }

    /// By which roots the trees and other pins have this blob. It stays from now on, if it is here.
    fn files_over(&mut self, digest: &Digest) -> Result<Vec<Cid>, StoreError> {
        let pin = self.inner.pins.pin(vec![*digest]);
        if self.inner.blobs.open_blob(digest)?.is_none() {
            return Ok(Vec::new());
        }
        self.pins.push(Arc::new(pin));
        let path = layout::blob(digest);
        let mine = crate::view::Tree::mine(Arc::clone(&self.inner)).lookup(&path)?;
        let mut roots: Vec<Cid> = mine.map(|entry| entry.cid).into_iter().collect();
        for good in self.inner.state().follows.into_iter().filter_map(|follow| follow.good) {
            match tree::lookup(self.inner.as_ref(), &good.root.0, &path) {
                Ok(entry) => roots.extend(entry.map(|entry| entry.cid)),
                Err(BlockError::Missing(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        roots.extend(self.inner.kept.files_over(digest));
        Ok(roots)
    }
}

fn parse(text: &str) -> Option<Vec<Held>> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    let held = |line: &str| {
        let (digest, cid) = line.split_once(' ')?;
        Some((digest.parse().ok()?, cid.parse().ok()?))
    };
    lines.map(held).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::dag::file::{FileBuilder, from_bytes};
    use crate::tests::{bytes, now, push};
    use crate::{Commit, Store, Sweep};

    fn keep(store: &Store, root: &Cid) -> Result<(), KeepError> {
        now(store.keep()).pin(root, &mut |_| {})
    }

    fn sweep(store: &Store) -> usize {
        let since = std::time::Instant::now() + std::time::Duration::from_mins(1);
        let mut swept = 0;
        let mut visit = |file: Option<crate::Swept>| {
            swept += usize::from(file.is_some());
            true
        };
        store.sweep(Sweep { since, dry_run: false }, &mut visit).unwrap();
        swept
    }

    fn read(store: &Store, root: &Cid) -> Result<Bytes, BlockError> {
        crate::dag::file::read_all(store, root, u64::MAX)
    }

    #[test]
    fn a_pinned_layer_outlives_its_tree_and_its_index() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let image = push(&store, "v1", 1, 2_500_000);
        let root = image.layer.root.cid;
        let digest = image.layer.digest;
        drop(image);
        keep(&store, &root).unwrap();
        let mut commit = Commit::new();
        commit.remove("docker".to_owned());
        now(store.commit(commit)).unwrap();
        now(store.fold()).unwrap();
        // The manifest goes, the layer stays.
        assert_eq!(sweep(&store), 1);
        store.compact().unwrap();
        assert_eq!(read(&store, &root).unwrap(), bytes(1, 2_500_000));
        store.close().unwrap();
        std::fs::remove_dir_all(dir.path().join("db")).unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.kept(), [root]);
        assert_eq!(read(&store, &root).unwrap(), bytes(1, 2_500_000));
        assert!(store.blob(&digest).unwrap().is_some());
        assert!(store.release(&root).unwrap());
        assert_eq!(sweep(&store), 1);
    }

    #[test]
    fn small_leaves_in_packs_outlive_a_compaction_and_go_with_their_pin() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let leaves: Vec<Block> = (0..9_u8).map(|at| Block::new(RAW, Bytes::from(vec![at; 1000]))).collect();
        let mut builder = FileBuilder::new();
        for leaf in &leaves {
            builder.push_leaf(*leaf.cid(), 1000);
        }
        let file = builder.finish();
        let mut keeping = now(store.keep());
        keeping.put(&[leaves, file.nodes].concat()).unwrap();
        keeping.pin(&file.cid, &mut |_| {}).unwrap();
        assert!(!store.compact().unwrap(), "nothing is rewritten meanwhile");
        drop(keeping);
        assert!(store.compact().unwrap());
        assert_eq!(read(&store, &file.cid).unwrap().len(), 9000);
        store.release(&file.cid).unwrap();
        assert!(store.compact().unwrap());
        assert!(read(&store, &file.cid).is_err());
    }

    #[test]
    fn what_is_not_whole_is_not_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (file, leaves) = from_bytes(&bytes(3, 2_500_000));
        let mut keeping = now(store.keep());
        keeping.put(&file.nodes).unwrap();
        keeping.put(&leaves[..2]).unwrap();
        let error = keeping.pin(&file.cid, &mut |_| {}).unwrap_err();
        assert!(matches!(error, KeepError::Missing(cid) if cid == *leaves[2].cid()), "{error}");
        assert!(store.kept().is_empty());
        let identity: Cid = "bafkqaaa".parse().unwrap();
        drop(keeping);
        keep(&store, &identity).unwrap();
        assert_eq!(store.kept(), [identity]);
    }

    #[test]
    fn a_file_that_is_no_pin_is_named_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path()).unwrap().close().unwrap();
        std::fs::write(dir.path().join("pins/bafkqaaa"), "something else").unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("pins/bafkqaaa") && error.contains("it is no pin"), "{error}");
        std::fs::write(dir.path().join("pins/bafkqaaa"), format!("{HEAD}\n")).unwrap();
        std::fs::write(dir.path().join("pins/bafkqaaa.new"), "half").unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().kept().len(), 1);
    }
}
