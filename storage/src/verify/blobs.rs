//! Blobs: their bytes against their digests, their leaves against what the trees say, and the rows that say where
//! leaves lie against both.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use cid::Cid;
use rustix::fs::{Advice, fadvise};

use super::{Kind, Outcome, Stage, Verifier};
use crate::blobs::BlobFile;
use crate::block::{Blocks, MemoryBlocks, verify};
use crate::dag::file::{CHUNK, FileRoot, LeafForm, Leaves, Step};
use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::index::{Form, Holder};
use crate::inner::wrap;
use crate::layout;
use crate::stream::StreamHash;
use crate::tree;

/// Directories over which blobs are spread: 256 for each algorithm.
pub(super) const PLACES: u64 = 256 * Algorithm::ALL.len() as u64;

/// Where the leaves of one blob lie, by hash: equal ones have one row.
type Places = HashMap<Vec<u8>, HashSet<(u64, u64)>>;

impl Verifier<'_> {
    pub(super) fn blobs(&mut self) -> Result<(), StoreError> {
        self.begin(Stage::Blobs)?;
        let mut explained = 0;
        for place in 0..PLACES {
            self.percent = Some(place * 100 / PLACES);
            for file in self.files(place)? {
                match file {
                    Ok(blob) => explained += self.blob(&blob)?,
                    Err(path) => self.find(Kind::BlobName, path, Outcome::Left),
                }
            }
        }
        self.leaf_rows(explained)
    }

    /// What lies in one of the directories, in order: blobs, or the paths of what is none. Blobs that have gone since
    /// are passed over.
    pub(super) fn files(
        &mut self,
        place: u64,
    ) -> Result<impl Iterator<Item = Result<BlobFile, String>> + use<>, StoreError> {
        let algorithm = if place < 256 { Algorithm::Sha256 } else { Algorithm::Sha512 };
        let digits = format!("{:02x}", place % 256);
        let dir = self.inner.blobs.directory(algorithm, (place % 256) as u8);
        let mut names = Vec::new();
        for item in fs::read_dir(dir)? {
            names.push(item?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        self.tell()?;
        let blobs = std::sync::Arc::clone(&self.inner.blobs);
        Ok(names.into_iter().filter_map(move |name| {
            let digest = format!("{algorithm}:{name}").parse::<Digest>().ok();
            let Some(digest) = digest.filter(|_| name.starts_with(&digits)) else {
                return Some(Err(format!("blobs/{algorithm}/{digits}/{name}")));
            };
            match blobs.open_blob(&digest) {
                Ok(blob) => blob.map(Ok),
                Err(error) => {
                    tracing::warn!(%digest, %error, "a blob cannot be opened");
                    Some(Err(format!("blobs/{algorithm}/{digits}/{name}")))
                }
            }
        }))
    }

    /// Reads a blob to its end. `None` if it is not what its digest says, or cannot be read.
    pub(super) fn examine(&mut self, blob: &BlobFile) -> Result<Option<FileRoot>, StoreError> {
        // What lies on the disk counts, not what memory has of it; and what is read here is wanted by nobody else.
        let forget = || fadvise(blob.file(), 0, None, Advice::DontNeed);
        // It is advice: a file system that does not take it is read as it is.
        let _ = forget();
        let mut hash = StreamHash::new(blob.digest.algorithm());
        let mut buffer = vec![0; CHUNK];
        loop {
            match blob.file().read_at(&mut buffer, hash.len) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(buffer.get(..read).unwrap_or_default());
                    self.spend(read as u64)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    tracing::warn!(digest = %blob.digest, %error, "a blob cannot be read");
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let _ = forget();
        let right = hash.whole.clone().finish() == blob.digest;
        Ok(right.then(|| hash.root()))
    }

    /// Takes a blob that failed out of the way, and says so.
    pub(super) fn quarantine(&mut self, blob: &BlobFile) -> Result<bool, StoreError> {
        let moved = self.inner.blobs.quarantine(blob)?;
        if moved {
            self.find(Kind::BlobContent, blob.digest.to_string(), Outcome::Quarantined);
        }
        Ok(moved)
    }

    /// Checks one blob, and returns how many rows lead to leaves of it.
    fn blob(&mut self, blob: &BlobFile) -> Result<u64, StoreError> {
        self.report.blobs += 1;
        let Some(own) = self.examine(blob)? else {
            self.quarantine(blob)?;
            return Ok(0);
        };
        let (mine, others) = self.roots(&blob.digest)?;
        let mut places = Places::new();
        for root in mine.iter().chain(&others) {
            let sound = if *root == own.cid {
                self.own_leaves(&blob.digest, &own, &mut places)?
            } else {
                self.foreign_leaves(blob, root, &mut places)?
            };
            if !sound && mine == Some(*root) {
                self.find(Kind::BlobDag, blob.digest.to_string(), Outcome::Left);
            }
        }
        self.rows_of(&blob.digest, mine.iter().chain(&others), &places)
    }

    /// By which roots my tree and the followed ones have this blob; the latter without that of mine.
    fn roots(&self, digest: &Digest) -> Result<(Option<Cid>, HashSet<Cid>), StoreError> {
        let path = layout::blob(digest);
        let mine = crate::view::Tree::mine(std::sync::Arc::clone(self.inner)).lookup(&path)?;
        let mine = mine.map(|entry| entry.cid);
        let mut others = HashSet::new();
        for follow in self.inner.state().follows {
            let Some(good) = follow.good else { continue };
            // A part of that tree which cannot be read is found there.
            if let Ok(Some(entry)) = tree::lookup(self.inner.as_ref(), &good.root.0, &path) {
                others.insert(entry.cid);
            }
        }
        others.extend(self.inner.kept.files_over(digest));
        others.retain(|root| Some(*root) != mine);
        Ok((mine, others))
    }

    /// Leaves as we cut them: their hashes are known from the one pass. Nodes above them that are not here can be
    /// made again.
    fn own_leaves(
        &mut self,
        digest: &Digest,
        own: &FileRoot,
        places: &mut Places,
    ) -> Result<bool, StoreError> {
        let nodes = MemoryBlocks::default();
        let mut missing = Vec::new();
        for node in &own.nodes {
            nodes.put(node);
            if self.inner.get(node.cid())?.is_none_or(|data| data != *node.data()) {
                missing.push(node.clone());
            }
        }
        if !missing.is_empty() {
            let outcome = if self.options.repair {
                self.inner.packs.append(&missing)?;
                self.inner.packs.sync()?;
                Outcome::Repaired
            } else {
                Outcome::Left
            };
            self.find(Kind::BlobDag, digest.to_string(), outcome);
        }
        let mut leaves = Leaves::new(own.cid, Some(own.size));
        while let Step::Leaf(leaf) = leaves.next(&nodes)? {
            places.entry(leaf.cid.hash().to_bytes()).or_default().insert((leaf.offset, leaf.len));
        }
        Ok(true)
    }

    /// Leaves as someone else has cut them: each is read and compared.
    fn foreign_leaves(
        &mut self,
        blob: &BlobFile,
        root: &Cid,
        places: &mut Places,
    ) -> Result<bool, StoreError> {
        let mut leaves = Leaves::new(*root, Some(blob.size));
        loop {
            let leaf = match leaves.next(self.inner.as_ref()) {
                Ok(Step::Leaf(leaf)) => leaf,
                Ok(Step::End) => return Ok(true),
                Ok(Step::Missing(cid)) => {
                    self.want(&cid);
                    return Ok(false);
                }
                Err(error) => {
                    tracing::warn!(digest = %blob.digest, %error, "a tree says of a blob what it is not");
                    return Ok(false);
                }
            };
            let bytes = self.range(blob, leaf.offset, leaf.len)?;
            let right = match &leaf.form {
                LeafForm::Raw => verify(&leaf.cid, &bytes).is_ok(),
                LeafForm::Inline(inline) => *inline == bytes,
                LeafForm::DagPb => {
                    [Form::File, Form::RawNode].into_iter().any(|form| is_form(&leaf.cid, form, &bytes))
                }
            };
            if right {
                places.entry(leaf.cid.hash().to_bytes()).or_default().insert((leaf.offset, leaf.len));
            } else if leaf.form == LeafForm::Raw {
                return Ok(false);
            }
        }
    }

    /// How many rows lead to leaves of this blob; one that lacks is put there if it is to be repaired.
    fn rows_of<'r>(
        &mut self,
        digest: &Digest,
        mut roots: impl Iterator<Item = &'r Cid>,
        places: &Places,
    ) -> Result<u64, StoreError> {
        // A blob of one leaf is found by its name.
        if !self.inner.index.is_up() || places.len() < 2 && places.values().all(|at| at.len() < 2) {
            return Ok(0);
        }
        let mut found = self.count_rows(digest, places)?;
        if found < places.len() as u64 {
            // Rows are written behind the answer; what is missing still is missing.
            self.catch_up()?;
            found = self.count_rows(digest, places)?;
        }
        if found < places.len() as u64 {
            let mut outcome = Outcome::Left;
            if self.options.repair {
                roots.try_for_each(|root| self.inner.index_blob(digest, root))?;
                found = self.count_rows(digest, places)?;
                if found == places.len() as u64 {
                    outcome = Outcome::Repaired;
                }
            }
            self.find(Kind::IndexLeaf, digest.to_string(), outcome);
        }
        Ok(found)
    }

    fn count_rows(&self, digest: &Digest, places: &Places) -> Result<u64, StoreError> {
        let mut found = 0;
        for (hash, at) in places {
            let Ok(hash) = multihash::Multihash::from_bytes(hash) else { continue };
            let leads = |holder: &Holder| {
                holder.digest == *digest && at.contains(&(holder.offset, u64::from(holder.len)))
            };
            for holder in self.inner.index.holders(&hash) {
                if leads(&holder?) {
                    found += 1;
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Rows that lead elsewhere. Only where there are more rows than were found to be right, each is read.
    fn leaf_rows(&mut self, explained: u64) -> Result<(), StoreError> {
        let inner = self.inner;
        let mut here = 0;
        for row in inner.index.leaves() {
            let (_, holder) = row?;
            self.report.rows += 1;
            here += u64::from(inner.blobs.path(&holder.digest).exists());
            if self.report.rows.is_multiple_of(1024) {
                self.tell()?;
            }
        }
        if here <= explained {
            return Ok(());
        }
        for row in inner.index.leaves() {
            let (hash, holder) = row?;
            let Some(blob) = inner.blobs.open_blob(&holder.digest)? else { continue };
            let len = u64::from(holder.len);
            let inside = holder.offset.checked_add(len).is_some_and(|end| end <= blob.size);
            // The codec says nothing about the bytes.
            let cid = Cid::new_v1(crate::block::RAW, hash);
            if inside && is_form(&cid, holder.form, &self.range(&blob, holder.offset, len)?) {
                continue;
            }
            let mut outcome = Outcome::Left;
            if self.options.repair {
                inner.index.remove_leaf(&hash, &holder)?;
                if let (Some(root), _) = self.roots(&holder.digest)? {
                    inner.index_blob(&holder.digest, &root)?;
                }
                outcome = Outcome::Repaired;
            }
            self.find(Kind::IndexLeaf, holder.digest.to_string(), outcome);
        }
        Ok(())
    }

    /// Waits until the rows of what is committed now are written, or for a moment.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        const MOMENT: u32 = 25;
        let position = self.inner.view.read().unwrap_or_else(std::sync::PoisonError::into_inner).position;
        for _ in 0..MOMENT {
            if self.inner.index.applied()? >= position {
                break;
            }
            std::thread::sleep(super::NAP);
            self.tell()?;
        }
        Ok(())
    }

    fn range(&mut self, blob: &BlobFile, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        let read = blob.file().read_exact_at(&mut bytes, offset);
        self.spend(len)?;
        // Shorter than it was a moment ago: then it has other bytes too.
        Ok(read.map(|()| bytes.into()).unwrap_or_default())
    }
}

fn is_form(cid: &Cid, form: Form, bytes: &Bytes) -> bool {
    verify(cid, &wrap(form, bytes.clone())).is_ok()
}
