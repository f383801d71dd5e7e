//! What one root of a registry tree holds, read from its directories rather than from the index: repositories, their
//! links, and blobs. For work that must not trust what is derived.

use std::ops::ControlFlow;

use cid::Cid;

use crate::block::{Blocks, DAG_PB};
use crate::dag::directory::{self, Entry};
use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::layout::{BLOBS, REPOSITORIES};
use crate::name::RepositoryName;
use crate::tree::{self, MAX_DEPTH};

/// The tree below one root. Entries that mean nothing to a registry are passed over.
#[derive(Clone, Copy)]
pub struct Survey<'a> {
    blocks: &'a dyn Blocks,
    root: Cid,
}

impl std::fmt::Debug for Survey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survey").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<'a> Survey<'a> {
    pub fn new(blocks: &'a dyn Blocks, root: Cid) -> Self {
        Self { blocks, root }
    }

    /// Every repository that holds anything, one after the other: memory is that of the directories on one path.
    pub fn repositories<E: From<StoreError>>(
        &self,
        visit: &mut dyn FnMut(RepositoryName) -> Result<(), E>,
    ) -> Result<(), E> {
        let top = tree::lookup(self.blocks, &self.root, REPOSITORIES).map_err(StoreError::from)?;
        let Some(top) = top else { return Ok(()) };
        // Directories that are still to be read, with the names that lead there.
        let mut pending = vec![(String::new(), top.cid)];
        while let Some((name, cid)) = pending.pop() {
            let mut is_repository = false;
            for entry in self.entries(&cid)? {
                if entry.name.starts_with('_') {
                    is_repository = true;
                } else if entry.cid.codec() == DAG_PB && name.matches('/').count() < MAX_DEPTH {
                    let slash = if name.is_empty() { "" } else { "/" };
                    pending.push((format!("{name}{slash}{}", entry.name), entry.cid));
                }
            }
            if let Some(repository) = is_repository.then(|| name.parse().ok()).flatten() {
                visit(repository)?;
            }
        }
        Ok(())
    }

    /// The directories of the repository itself, without those of other repositories below it.
    pub(crate) fn parts(&self, repository: &RepositoryName) -> Result<Vec<Entry>, StoreError> {
        let dir = tree::lookup(self.blocks, &self.root, &format!("{REPOSITORIES}/{repository}"))?;
        let Some(dir) = dir else { return Ok(Vec::new()) };
        Ok(self.entries(&dir.cid)?.into_iter().filter(|entry| entry.name.starts_with('_')).collect())
    }

    /// Digests that the repository links as layers.
    pub fn layers(&self, repository: &RepositoryName) -> Result<Vec<Digest>, StoreError> {
        self.digests(&format!("{REPOSITORIES}/{repository}/_layers"))
    }

    /// Digests that the repository links as manifests.
    pub fn revisions(&self, repository: &RepositoryName) -> Result<Vec<Digest>, StoreError> {
        self.digests(&format!("{REPOSITORIES}/{repository}/_manifests/revisions"))
    }

    /// Blobs whose hexadecimal digest begins with this byte.
    pub fn blobs(&self, algorithm: Algorithm, fan_out: u8) -> Result<Vec<Digest>, StoreError> {
        self.of_algorithm(&format!("{BLOBS}/{algorithm}/{fan_out:02x}"), algorithm)
    }

    fn digests(&self, dir: &str) -> Result<Vec<Digest>, StoreError> {
        let mut all = Vec::new();
        for algorithm in Algorithm::ALL {
            all.extend(self.of_algorithm(&format!("{dir}/{algorithm}"), algorithm)?);
        }
        Ok(all)
    }

    fn of_algorithm(&self, dir: &str, algorithm: Algorithm) -> Result<Vec<Digest>, StoreError> {
        let Some(dir) = tree::lookup(self.blocks, &self.root, dir)? else { return Ok(Vec::new()) };
        let digest = |entry: Entry| format!("{algorithm}:{}", entry.name).parse().ok();
        Ok(self.entries(&dir.cid)?.into_iter().filter_map(digest).collect())
    }

    fn entries(&self, dir: &Cid) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        if directory::is_directory(self.blocks, dir)? {
            directory::for_each(self.blocks, dir, &mut |entry| {
                entries.push(entry);
                ControlFlow::Continue(())
            })?;
        }
        Ok(entries)
    }
}
