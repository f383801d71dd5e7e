//! One tree to read: mine with what is not folded yet, or a followed name's at its last good root.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cid::Cid;

use crate::block::Blocks;
use crate::block::RAW;
use crate::dag::directory::Entry;
use crate::dag::file::{read_all, root_size};
use crate::error::StoreError;
use crate::index::TreeKey;
use crate::inner::Inner;
use crate::layout::REPOSITORIES;
use crate::name::RepositoryName;
use crate::overlay::Known;
use crate::tree;

#[derive(Clone, Debug)]
pub struct Tree {
    inner: Arc<Inner>,
    key: TreeKey,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Mine,
    Followed { name: Arc<str>, root: Cid },
}

impl Tree {
    pub(crate) fn mine(inner: Arc<Inner>) -> Self {
        Self { inner, key: TreeKey::MINE, source: Source::Mine }
    }

    pub(crate) fn followed(inner: Arc<Inner>, name: &str, root: Cid) -> Self {
        Self { inner, key: TreeKey::followed(name), source: Source::Followed { name: name.into(), root } }
    }

    pub fn key(&self) -> &TreeKey {
        &self.key
    }

    /// The followed name, or `None` for my tree.
    pub fn name(&self) -> Option<&str> {
        match &self.source {
            Source::Mine => None,
            Source::Followed { name, .. } => Some(name),
        }
    }

    /// What a path points to.
    pub fn lookup(&self, path: &str) -> Result<Option<Entry>, StoreError> {
        let root = match &self.source {
            Source::Followed { root, .. } => *root,
            Source::Mine => {
                let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
                match view.overlay.lookup(path) {
                    Known::Put(target) => {
                        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                        return Ok(Some(Entry { name, cid: target.cid.0, tsize: target.tsize }));
                    }
                    Known::Removed => return Ok(None),
                    Known::Nothing => view.base,
                }
            }
        };
        Ok(tree::lookup(self.inner.as_ref(), &root, path)?)
    }

    /// The whole of a small file.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Bytes>, StoreError> {
        self.lookup(path)?.map(|entry| self.read_entry(&entry, limit)).transpose()
    }

    pub fn read_entry(&self, entry: &Entry, limit: u64) -> Result<Bytes, StoreError> {
        Ok(read_all(self.inner.as_ref(), &entry.cid, limit)?)
    }

    /// Length of a file in bytes, read from its root node.
    pub fn size(&self, entry: &Entry) -> Result<u64, StoreError> {
        if entry.cid.codec() == RAW {
            return Ok(entry.tsize);
        }
        Ok(root_size(&entry.cid, &self.inner.need(&entry.cid)?)?)
    }

    /// Whether the repository holds anything: a layer, a manifest or a tag.
    pub fn has_repository(&self, repository: &RepositoryName) -> Result<bool, StoreError> {
        for part in ["_layers", "_manifests"] {
            let path = format!("{REPOSITORIES}/{repository}/{part}");
            let put = matches!(self.source, Source::Mine) && {
                let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
                view.overlay.has_below(&path)
            };
            if put || self.lookup(&path)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
