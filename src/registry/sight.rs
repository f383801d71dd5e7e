//! What a request may take from other repositories than its own. Bytes are kept once for all repositories, so whoever
//! can name a digest could otherwise link it into a repository of theirs and read it there.

use std::fmt;
use std::sync::Arc;

use sampan_storage::{Digest, RepositoryName, Store, StoreError, Tree};

use super::blobs::is_visible;
use super::lists::repositories_after;

/// Repositories that one request looks into for content that it links. What lies beyond is uploaded again.
const MAX_SEARCHED: usize = 4096;

/// The repositories that a caller sees.
#[derive(Clone)]
pub(crate) enum Sight {
    All,
    Only {
        sees: Arc<dyn Fn(&RepositoryName) -> bool + Send + Sync>,
        /// Some that are seen and need not be in the list, because nobody has pushed a manifest there yet.
        known: Vec<RepositoryName>,
    },
}

/// The looks into repositories that one request has left.
#[derive(Debug)]
pub(super) struct Search {
    sight: Sight,
    left: usize,
}

impl Sight {
    pub(crate) fn sees(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::All => true,
            Self::Only { sees, .. } => sees(repository),
        }
    }

    pub(super) fn search(&self) -> Search {
        Search { sight: self.clone(), left: MAX_SEARCHED }
    }
}

impl Search {
    /// Whether this content may be linked into the repository: it is shown there by some tree, or by another
    /// repository that is seen.
    pub(super) fn may_link(
        &mut self,
        store: &Store,
        trees: &[Tree],
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        Ok(matches!(self.sight, Sight::All)
            || is_visible(trees, repository, digest)?
            || self.is_shown(store, trees, digest)?)
    }

    fn is_shown(&mut self, store: &Store, trees: &[Tree], digest: &Digest) -> Result<bool, StoreError> {
        // A tree that cannot be asked shows nothing now: its content is uploaded instead.
        let shows = |repository: &RepositoryName| is_visible(trees, repository, digest).unwrap_or_default();
        if let Sight::Only { known, .. } = &self.sight
            && known.iter().take(self.left).any(shows)
        {
            return Ok(true);
        }
        let mut after = None;
        while self.left > 0 {
            let page = repositories_after(store, after.as_deref(), self.left)?;
            for name in &page.items {
                self.left = self.left.saturating_sub(1);
                if name.parse().is_ok_and(|repository| self.sight.sees(&repository) && shows(&repository)) {
                    return Ok(true);
                }
            }
            if !page.more {
                break;
            }
            after = page.items.last().cloned();
        }
        Ok(false)
    }
}

impl fmt::Debug for Sight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::All => "All",
            Self::Only { .. } => "Only",
        })
    }
}
