//! The keeper: a thread that builds the index anew while the store runs.
//!
//! It begins an empty index and puts in, path by path, what each tree says at that moment; the committer goes on to
//! write its own changes into the same index meanwhile. The two agree because rows and view change together, under
//! one lock. Until the last row is in, lists are refused.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use cid::Cid;

use crate::error::StoreError;
use crate::index::TreeKey;
use crate::inner::{Inner, pass_over};
use crate::layout::{self, Item};
use crate::lens::Lens;
use crate::view::Tree;

/// After a failed attempt, on a full disk for instance.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until the index is closed, or the store is gone.
pub(crate) fn run(inner: &Weak<Inner>, failures: &Receiver<()>) {
    while failures.recv().is_ok() {
        loop {
            let Some(inner) = inner.upgrade() else { return };
            if inner.index.is_up() {
                break;
            }
            let began = Instant::now();
            match rebuild(&inner) {
                Ok(()) => {
                    tracing::info!(took = ?began.elapsed(), "the index is whole again");
                    break;
                }
                Err(StoreError::Closed) => return,
                Err(error) => {
                    inner.ballast.relieve();
                    tracing::warn!(%error, "the index could not be built anew; trying again");
                }
            }
            drop(inner);
            if let Err(RecvTimeoutError::Disconnected) = failures.recv_timeout(RETRY) {
                return;
            }
        }
    }
}

fn rebuild(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let (root, position, pending, follows) = {
        let _rows = inner.rows.lock().unwrap_or_else(PoisonError::into_inner);
        inner.index.begin_anew()?;
        // From here on the committer writes its rows itself.
        let view = inner.view.read().unwrap_or_else(PoisonError::into_inner);
        (view.base, view.position, view.overlay.puts(), view.state.follows.clone())
    };
    for (path, cid) in pending {
        put(inner, None, &path, &cid)?;
    }
    walk(inner, None, root)?;
    for follow in &follows {
        if let Some(good) = &follow.good {
            pass_over(&follow.name, walk(inner, Some(&follow.name), good.root.0))?;
        }
    }
    for (digest, root) in inner.kept.held() {
        inner.index_blob(&digest, &root)?;
    }
    inner.index.end_filling(position)
}

fn walk(inner: &Arc<Inner>, name: Option<&str>, root: Cid) -> Result<(), StoreError> {
    inner.each_difference(None, root, |difference| match difference.new {
        Some(entry) => put(inner, name, &difference.path, &entry.cid),
        None => Ok(()),
    })
}

fn put(inner: &Arc<Inner>, name: Option<&str>, path: &str, cid: &Cid) -> Result<(), StoreError> {
    if inner.index.is_closing() {
        return Err(StoreError::Closed);
    }
    match layout::parse(path) {
        Some(Item::Blob(digest)) => inner.index_blob(&digest, cid),
        Some(Item::Tag(..) | Item::Revision(..) | Item::Referrer { .. }) => relist(inner, name, path),
        Some(Item::Layer(..)) | None => Ok(()),
    }
}

/// Makes the row of a path what the tree says now.
pub(crate) fn relist(inner: &Arc<Inner>, name: Option<&str>, path: &str) -> Result<(), StoreError> {
    let _rows = inner.rows.lock().unwrap_or_else(PoisonError::into_inner);
    let (key, tree) = match name {
        None => (TreeKey::MINE, Some(Tree::mine(Arc::clone(inner)))),
        Some(name) => {
            let good = inner.state().follow(name).and_then(|follow| follow.good.clone());
            let tree = good.map(|good| Tree::followed(Arc::clone(inner), name, good.root.0, Lens::default()));
            (TreeKey::followed(name), tree)
        }
    };
    match tree.map(|tree| tree.lookup(path)).transpose()?.flatten() {
        Some(entry) => inner.list_put(key, path, || inner.link_content(&entry.cid)),
        None => inner.list_remove(key, path),
    }
}
