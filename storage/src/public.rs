//! The public tree: what everyone may have, where not everyone may have everything.
//!
//! A second root beside that of my tree, made of the same changes by the same fold: the public repositories with their
//! links, and the blobs that one of them links. Its blocks lie in packs of their own, so that "may a stranger have this
//! block" is "is it in there", or "is it a part of a blob that the public tree names". Journal, overlay, lists and all
//! who read my tree know nothing of it. It is derived: what is lost of it is made again from my tree, and until it is
//! whole for the rules of this run strangers get nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cid::Cid;
use serde_bytes::ByteBuf;

use crate::block::{Block, BlockError, Blocks, DAG_PB, MAX_BLOCK, RAW, cid_of, identity_data};
use crate::compact::{self, PastRoots};
use crate::dag::{directory, pb};
use crate::digest::Digest;
use crate::error::{OpenError, StoreError};
use crate::files::make_directory;
use crate::inner::{Inner, named_by, range};
use crate::journal::{CidBytes, PublicRoot, State};
use crate::layout::{self, BLOBS, Item, REPOSITORIES};
use crate::name::RepositoryName;
use crate::pack::Packs;
use crate::recent::{Recent, small_files};
use crate::survey::Survey;
use crate::tree::{self, Change};

/// Paths that are put into the tree together while it is made anew: some MiB of memory.
const BATCH: usize = 4096;
/// Bytes of blocks that are copied between two writes.
const BATCH_BYTES: usize = 256 * 1024;
/// Blobs of which is remembered whether the tree names them: the leaves of one are asked for one after the other.
const REMEMBERED: usize = 4096;

/// Which repositories are public.
#[derive(Clone)]
pub struct PublicRule {
    fingerprint: Vec<u8>,
    admits: Arc<dyn Fn(&RepositoryName) -> bool + Send + Sync>,
}

/// What the fold and the readers share of the public tree.
#[derive(Debug)]
pub(crate) struct PublicTree {
    rule: PublicRule,
    packs: Packs,
    pub(crate) recent: Mutex<Recent>,
    past: Mutex<PastRoots>,
    /// Bytes of the packs after the last compaction.
    live: Mutex<u64>,
    /// Whether the tree at this root names a blob.
    known: Mutex<(Option<Cid>, HashMap<Digest, bool>)>,
}

/// The blocks that strangers may have: all of them, or those of the public tree. Others are as if they were not here.
#[derive(Clone, Debug)]
pub struct Public(Arc<Inner>);

impl PublicRule {
    /// `fingerprint` is another one whenever `admits` may say something else.
    pub fn new(
        fingerprint: Vec<u8>,
        admits: impl Fn(&RepositoryName) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { fingerprint, admits: Arc::new(admits) }
    }

    /// Whether something at this path, below the directory of repositories, is public. Of a directory with
    /// repositories in it only the removal is.
    fn admits(&self, path: &str, change: &Change) -> bool {
        let Some(end) = path.find("/_") else { return matches!(change, Change::Remove) };
        let name = path.get(..end).and_then(|name| name.strip_prefix('/'));
        name.and_then(|name| name.parse().ok()).is_some_and(|name| (self.admits)(&name))
    }
}

impl fmt::Debug for PublicRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicRule").finish_non_exhaustive()
    }
}

impl PublicTree {
    pub(crate) fn open(dir: &Path, rule: PublicRule) -> Result<Self, OpenError> {
        make_directory(dir, 0o755).map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        Ok(Self {
            rule,
            packs: Packs::open(dir)?,
            recent: Mutex::default(),
            past: Mutex::default(),
            live: Mutex::new(0),
            known: Mutex::default(),
        })
    }

    /// The root that was made by the rules of this run.
    pub(crate) fn current<'a>(&self, state: &'a State) -> Option<&'a PublicRoot> {
        state.public.as_ref().filter(|public| *public.rules == *self.rule.fingerprint)
    }

    pub(crate) fn block(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        Ok(self.packs.get(cid)?)
    }

    /// Whether this root lies here. One whose packs are gone is made again.
    pub(crate) fn has(&self, root: &Cid) -> bool {
        *root == directory::empty() || self.packs.size(root).is_ok_and(|size| size.is_some())
    }

    pub(crate) fn pack_bytes(&self) -> u64 {
        self.packs.total()
    }

    /// Takes what is public of the changes that have made my tree's root `mine`. Durable when this returns.
    pub(crate) fn advance(
        &self,
        inner: &Inner,
        before: &PublicRoot,
        mine: &Cid,
        changes: &BTreeMap<String, Change>,
    ) -> Result<PublicRoot, StoreError> {
        let selected = self.select(inner, &before.root.0, mine, changes)?;
        let mut blocks = Vec::new();
        let root = put(inner, &before.root.0, &selected, &mut |block| {
            blocks.push(block);
            Ok(())
        })?;
        if root == before.root.0 {
            return Ok(before.clone());
        }
        self.packs.append(&blocks)?;
        self.packs.sync()?;
        blocks.extend(small_files(inner, selected.keys()));
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).push(before.root.0, blocks);
        self.past.lock().unwrap_or_else(PoisonError::into_inner).push(before.root.0);
        // Of its own: how much is pushed into other repositories is nobody's business.
        Ok(PublicRoot { root: CidBytes(root), sequence: before.sequence + 1, rules: before.rules.clone() })
    }

    /// Makes the tree from my tree's root `mine` alone, and lets go of all packs from before. Nobody may be served
    /// meanwhile. Durable when this returns.
    pub(crate) fn renew(&self, inner: &Inner, mine: &Cid, sequence: u64) -> Result<PublicRoot, StoreError> {
        tracing::info!("dividing what everyone may pull from the rest");
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
        *self.past.lock().unwrap_or_else(PoisonError::into_inner) = PastRoots::default();
        let old = self.packs.begin_rewrite()?;
        let made = self.make(inner, mine);
        self.packs.end_rewrite();
        let root = made?;
        self.packs.sync()?;
        for pack in old {
            self.packs.remove(pack)?;
        }
        let rules = ByteBuf::from(self.rule.fingerprint.clone());
        Ok(PublicRoot { root: CidBytes(root), sequence, rules })
    }

    /// Lets go of blocks that no root needs any more, where they are the larger part.
    pub(crate) fn compact(&self, inner: &Inner) -> Result<(), StoreError> {
        // Whoever walks a root needs all of it.
        let Ok(_nobody_walks) = inner.adoptions.try_write() else { return Ok(()) };
        let state = inner.state();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = self.current(&state) else { return Ok(()) };
        if self.packs.total() < compact::due(*live) {
            return Ok(());
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner).roots();
        past.extend(inner.bases.list());
        compact::compact_public(inner, &self.packs, current.root.0, &past)?;
        *live = self.packs.total();
        Ok(())
    }

    fn make(&self, inner: &Inner, mine: &Cid) -> Result<Cid, StoreError> {
        let survey = Survey::new(inner, *mine);
        let mut root = directory::empty();
        let mut batch = BTreeMap::new();
        survey.repositories(&mut |repository| {
            if !(self.rule.admits)(&repository) {
                return Ok::<_, StoreError>(());
            }
            for part in survey.parts(&repository)? {
                let path = format!("{REPOSITORIES}/{repository}/{}", part.name);
                batch.insert(path, Change::Put { cid: part.cid, tsize: part.tsize });
            }
            for digest in survey.layers(&repository)?.into_iter().chain(survey.revisions(&repository)?) {
                let path = layout::blob(&digest);
                if let Some(blob) = tree::lookup(inner, mine, &path)? {
                    batch.insert(path, Change::Put { cid: blob.cid, tsize: blob.tsize });
                }
                if batch.len() >= BATCH {
                    root = self.copy(inner, &root, &std::mem::take(&mut batch))?;
                }
            }
            Ok(())
        })?;
        self.copy(inner, &root, &batch)
    }

    fn copy(&self, inner: &Inner, root: &Cid, changes: &BTreeMap<String, Change>) -> Result<Cid, StoreError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let root = put(inner, root, changes, &mut |block| {
            bytes += block.data().len();
            batch.push(block);
            if bytes > BATCH_BYTES {
                self.packs.append(&std::mem::take(&mut batch))?;
                bytes = 0;
            }
            Ok(())
        })?;
        self.packs.append(&batch)?;
        Ok(root)
    }

    /// The changes that are public. A link brings its blob along; a blob of which nothing was said stays out.
    fn select(
        &self,
        inner: &Inner,
        root: &Cid,
        mine: &Cid,
        changes: &BTreeMap<String, Change>,
    ) -> Result<BTreeMap<String, Change>, StoreError> {
        let mut selected = BTreeMap::new();
        let mut linked = BTreeSet::new();
        for (path, change) in changes {
            let put = matches!(change, Change::Put { .. });
            let is_public = if let Some(below) = path.strip_prefix(REPOSITORIES) {
                self.rule.admits(below, change)
            } else {
                // A blob that is put again replaces the one that is there.
                !put || (path.starts_with(BLOBS) && tree::lookup(inner, root, path)?.is_some())
            };
            if !is_public {
                continue;
            }
            selected.insert(path.clone(), *change);
            if put && let Some(Item::Layer(_, digest) | Item::Revision(_, digest)) = layout::parse(path) {
                linked.insert(layout::blob(&digest));
            }
        }
        for path in linked {
            if let Some(blob) = tree::lookup(inner, mine, &path)? {
                selected.insert(path, Change::Put { cid: blob.cid, tsize: blob.tsize });
            }
        }
        Ok(selected)
    }

    /// Whether the tree names a blob.
    fn names(&self, inner: &Inner, root: &Cid, digest: &Digest) -> Result<bool, BlockError> {
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.0 != Some(*root) || known.1.len() >= REMEMBERED {
                *known = (Some(*root), HashMap::new());
            } else if let Some(named) = known.1.get(digest) {
                return Ok(*named);
            }
        }
        let named = tree::lookup(inner, root, &layout::blob(digest))?.is_some();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 == Some(*root) {
            known.1.insert(*digest, named);
        }
        Ok(named)
    }
}

/// The root after the changes. Every block that it needs goes to `visit`.
fn put(
    inner: &Inner,
    root: &Cid,
    changes: &BTreeMap<String, Change>,
    visit: &mut dyn FnMut(Block) -> Result<(), StoreError>,
) -> Result<Cid, StoreError> {
    for (path, change) in changes {
        if let Change::Put { cid, .. } = change {
            below(inner, *cid, path.starts_with(REPOSITORIES), visit)?;
        }
    }
    let applied = tree::apply(inner, root, changes)?;
    applied.blocks.into_iter().try_for_each(visit)?;
    Ok(applied.root)
}

/// Nodes of a DAG of my tree, and the small files among them where it is no blob's. What a blob's file has of it is
/// found there.
fn below(
    inner: &Inner,
    cid: Cid,
    links: bool,
    visit: &mut dyn FnMut(Block) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut pending = vec![cid];
    while let Some(cid) = pending.pop() {
        if cid.codec() != DAG_PB {
            if links && let Some(data) = inner.get(&cid)? {
                visit(Block::trusted(cid, data))?;
            }
            continue;
        }
        // A leaf of a blob that is a node is built around its bytes.
        let Some(data) = (if links { inner.get(&cid)? } else { inner.packs.get(&cid)? }) else { continue };
        let node = pb::Node::decode(&data).map_err(|malformed| malformed.at(&cid))?;
        pending.extend(node.links.iter().map(|link| link.cid));
        visit(Block::trusted(cid, data))?;
    }
    Ok(())
}

impl Public {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// Root and sequence of what strangers may have; `None` until it is made.
    pub fn root(&self) -> Option<(Cid, u64)> {
        let state = self.0.state();
        match &self.0.public {
            Some(tree) => tree.current(&state).map(|public| (public.root.0, public.sequence)),
            None => Some((state.root.map_or_else(directory::empty, |root| root.0), state.sequence)),
        }
    }

    /// The root of the public tree, for each block that is asked for.
    fn current(&self, tree: &PublicTree) -> Option<Cid> {
        let view = self.0.view.read().unwrap_or_else(PoisonError::into_inner);
        tree.current(&view.state).map(|public| public.root.0)
    }

    /// A part of a blob that the public tree names, from one of the blobs that have it.
    fn leaf(&self, tree: &PublicTree, root: &Cid, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        let inner = self.0.as_ref();
        if let Some(digest) = named_by(cid)
            && tree.names(inner, root, &digest)?
            && let Some(blob) = inner.blobs.open_blob(&digest)?
            && blob.size <= MAX_BLOCK as u64
        {
            return Ok(Some(range(&blob, 0, blob.size)?));
        }
        for holder in inner.index.holders(cid.hash()) {
            let holder = holder?;
            if tree.names(inner, root, &holder.digest)?
                && let Some(data) = inner.read(&holder)?
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl Blocks for Public {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        let Some(tree) = &self.0.public else { return self.0.get(cid) };
        if let Some(data) = identity_data(cid) {
            return Ok(Some(data));
        }
        if let Some(root) = self.current(tree) {
            if let Some(data) = tree.packs.get(cid)? {
                return Ok(Some(data));
            }
            if let Some(data) = self.leaf(tree, &root, cid)? {
                return Ok(Some(data));
            }
        }
        // What has no bytes of its own says nothing of what is here.
        let empty = [(directory::empty(), directory::empty_block()), (cid_of(RAW, b""), Bytes::new())];
        Ok(empty.into_iter().find(|(known, _)| known.hash() == cid.hash()).map(|(_, data)| data))
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        match &self.0.public {
            None => self.0.size(cid),
            Some(tree) if self.current(tree).is_some() => match tree.packs.size(cid)? {
                Some(size) => Ok(Some(size)),
                None => Ok(self.get(cid)?.map(|data| data.len())),
            },
            Some(_) => Ok(self.get(cid)?.map(|data| data.len())),
        }
    }
}

#[cfg(test)]
mod tests;
