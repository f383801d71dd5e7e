//! One tree to read: mine with what is not folded yet, or a followed name's at its last good root.

use std::sync::{Arc, LazyLock, PoisonError};

use bytes::Bytes;
use cid::Cid;

use crate::block::Blocks;
use crate::block::RAW;
use crate::dag::directory::Entry;
use crate::dag::file::{read_all, root_size};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::index::{Row, TreeKey};
use crate::inner::Inner;
use crate::layout::{self, REPOSITORIES};
use crate::lens::Lens;
use crate::name::{RepositoryName, Tag};
use crate::overlay::Known;
use crate::tree;

/// My tree is read as it is.
static PLAIN: LazyLock<Lens> = LazyLock::new(Lens::default);

/// Rows that are looked at for one page of a tree of which not every repository is shown: about a second, and more
/// repositories than any registry has.
const MAX_WALKED: usize = 1_000_000;

#[derive(Clone, Debug)]
pub struct Tree {
    inner: Arc<Inner>,
    key: TreeKey,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Mine,
    Followed { name: Arc<str>, root: Cid, lens: Lens },
}

impl Tree {
    pub(crate) fn mine(inner: Arc<Inner>) -> Self {
        Self { inner, key: TreeKey::MINE, source: Source::Mine }
    }

    pub(crate) fn followed(inner: Arc<Inner>, name: &str, root: Cid, lens: Lens) -> Self {
        Self {
            inner,
            key: TreeKey::followed(name),
            source: Source::Followed { name: name.into(), root, lens },
        }
    }

    /// The followed name, or `None` for my tree.
    pub fn name(&self) -> Option<&str> {
        match &self.source {
            Source::Mine => None,
            Source::Followed { name, .. } => Some(name),
        }
    }

    /// The root that is read: what is not folded yet stands above it in my tree.
    pub fn root(&self) -> Cid {
        match &self.source {
            Source::Mine => self.inner.view.read().unwrap_or_else(PoisonError::into_inner).base,
            Source::Followed { root, .. } => *root,
        }
    }

    /// How the names of a followed tree are read here.
    pub fn lens(&self) -> &Lens {
        match &self.source {
            Source::Mine => &PLAIN,
            Source::Followed { lens, .. } => lens,
        }
    }

    /// Whether its writer and I write tags together. I am one of us.
    pub fn is_member(&self) -> bool {
        match &self.source {
            Source::Mine => true,
            Source::Followed { lens, .. } => lens.is_member(),
        }
    }

    /// What a path points to, by the names that are used here.
    pub fn lookup(&self, path: &str) -> Result<Option<Entry>, StoreError> {
        let root = match &self.source {
            Source::Followed { name, lens, .. } if lens.is_closed() => {
                return Err(StoreError::TooOld { name: name.to_string() });
            }
            Source::Followed { root, lens, .. } => match lens.path(path) {
                Some(path) => return Ok(tree::lookup(self.inner.as_ref(), root, &path)?),
                None => return Ok(None),
            },
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
            if self.has_below(&format!("{REPOSITORIES}/{repository}/{part}"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether writes of tags are counted in the repository.
    pub fn has_counters(&self, repository: &RepositoryName) -> Result<bool, StoreError> {
        self.has_below(&layout::counters(repository))
    }

    fn has_below(&self, path: &str) -> Result<bool, StoreError> {
        let put = matches!(self.source, Source::Mine) && {
            let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
            view.overlay.has_below(path)
        };
        Ok(put || self.lookup(path)?.is_some())
    }

    /// What lists show: nothing of a tree that is too old.
    fn listed(&self) -> Option<&Lens> {
        Some(self.lens()).filter(|lens| !lens.is_closed())
    }

    /// Tags of a repository in byte order, those after `after`.
    pub fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let Some(repository) = self.listed().and_then(|lens| lens.theirs(repository.as_str())) else {
            return Ok(Vec::new());
        };
        let row = Row::Tag(repository, after.unwrap_or_default());
        self.inner.index.after(self.key, row).take(limit).map(|row| Ok(row?.0)).collect()
    }

    /// The tags that point to a manifest.
    pub fn tags_of(&self, repository: &RepositoryName, digest: &Digest) -> Result<Vec<Tag>, StoreError> {
        let Some(repository) = self.listed().and_then(|lens| lens.theirs(repository.as_str())) else {
            return Ok(Vec::new());
        };
        let digest = digest.to_string();
        let mut tags = Vec::new();
        for row in self.inner.index.after(self.key, Row::Tag(repository, "")) {
            let (tag, value) = row?;
            if value == digest.as_bytes() {
                tags.extend(tag.parse::<Tag>());
            }
        }
        Ok(tags)
    }

    /// Repositories that hold a manifest, in byte order, those after `after`.
    pub fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let Some(lens) = self.listed() else { return Ok(Vec::new()) };
        let Some(after) = lens.after(after.unwrap_or_default()) else { return Ok(Vec::new()) };
        let rows = self.inner.index.after(self.key, Row::Repository(after)).take(MAX_WALKED);
        rows.filter_map(|row| row.map(|(name, _)| lens.ours(&name)).transpose()).take(limit).collect()
    }

    /// Manifests of a repository, in byte order of their digests, those after `after`.
    pub fn revisions(
        &self,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>, StoreError> {
        let Some(repository) = self.listed().and_then(|lens| lens.theirs(repository.as_str())) else {
            return Ok(Vec::new());
        };
        let rows = self.inner.index.revisions_after(self.key, repository, after).take(limit);
        rows.filter_map(|row| row.map(|(digest, _)| digest.parse().ok()).transpose()).collect()
    }

    /// Manifests that refer to `subject`, in byte order of their digests, those after `after`.
    pub fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<Digest>, StoreError> {
        let Some(repository) = self.listed().and_then(|lens| lens.theirs(repository.as_str())) else {
            return Ok(Vec::new());
        };
        let rows = self.inner.index.referrers_after(self.key, repository, subject, after).take(limit);
        rows.filter_map(|row| row.map(|(digest, _)| digest.parse().ok()).transpose()).collect()
    }
}
