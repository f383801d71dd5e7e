//! The port through which the node learns what the program has that others look for.

use std::sync::{Mutex, PoisonError};

use cid::Cid;
use sampan_storage::{Page, Place};

/// What the DHTs are told that it is here: nothing that a stranger may not have. Asked off the network's task, so it
/// may block for a moment.
pub trait Catalogue: Send + Sync {
    /// `root`, and then what it has over `before`, at most `limit`.
    fn news(&self, before: Option<&Cid>, root: &Cid, limit: usize) -> Vec<Cid>;

    /// All that is here, from after `after` on, at most `limit` on a page; with the page goes where the next begins.
    /// `None` where that cannot be said now: it is asked again.
    fn page(&self, after: Option<Place>, limit: usize) -> Option<Page>;
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
    fn news(&self, _: Option<&Cid>, root: &Cid, _: usize) -> Vec<Cid> {
        vec![*root]
    }

    /// All on one page.
    fn page(&self, _: Option<Place>, limit: usize) -> Option<Page> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Page { cids: all.iter().take(limit).copied().collect(), next: None })
    }
}
