//! The port through which the node learns what the program has that others look for.

use std::sync::{Mutex, PoisonError};

use cid::Cid;
use sampan_storage::Place;

/// What the DHTs are told that it is here. Asked off the network's task, so it may block for a moment.
pub trait Catalogue: Send + Sync {
    /// What `root` has over `before`, at most `limit`, the newest first; `root` itself need not be among it.
    fn news(&self, before: &Cid, root: &Cid, limit: usize) -> Vec<Cid>;

    /// All that is here, from after `after` on, at most `limit` on a page; with the page goes where the next begins.
    fn page(&self, after: Option<Place>, limit: usize) -> (Vec<Cid>, Option<Place>);
}

/// A catalogue in memory: the twin for tests.
#[derive(Debug, Default)]
pub struct MemoryCatalogue {
    all: Mutex<Vec<Cid>>,
}

impl MemoryCatalogue {
    pub fn put(&self, cid: Cid) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(cid);
    }
}

impl Catalogue for MemoryCatalogue {
    fn news(&self, _: &Cid, _: &Cid, _: usize) -> Vec<Cid> {
        Vec::new()
    }

    /// All on one page.
    fn page(&self, _: Option<Place>, limit: usize) -> (Vec<Cid>, Option<Place>) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        (all.iter().take(limit).copied().collect(), None)
    }
}
