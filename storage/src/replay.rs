//! Brings view and index to what blobs, packs and journal say, at start.
//!
//! The index usually lacks nothing, or the last second before an unclean stop. Where it lacks more, it is built
//! anew: trees are walked, and blobs are not read at all.

use cid::Cid;

use crate::dag::directory;
use crate::error::{OpenError, StoreError};
use crate::index::TreeKey;
use crate::inner::{Inner, View, pass_over};
use crate::journal::{Entry, Position, Replay, State};
use crate::layout::{self, Item};

/// Applies the journal. `inner` has an empty view and an open index.
pub(crate) fn replay(inner: &Inner, replay: &Replay, next: Position) -> Result<(), OpenError> {
    let mut view = View::new(replay.before.clone());
    for (position, entry) in &replay.entries {
        view.apply(*position, entry);
    }
    // Commits that a later fold covers are in the tree; the view forgot them when it came to that fold.
    view.overlay.forget(replay.state.covers);
    *inner.view.write().unwrap_or_else(std::sync::PoisonError::into_inner) = view;
    match index(inner, replay, next) {
        // It has given up, on a full disk for instance. All else works without it, and the keeper does all of this as
        // soon as it can.
        Err(_) if !inner.index.is_up() => Ok(()),
        indexed => Ok(indexed?),
    }
}

fn index(inner: &Inner, replay: &Replay, next: Position) -> Result<(), StoreError> {
    let first = replay.entries.first().map_or(next, |(position, _)| *position);
    let applied = inner.index.applied()?;
    let anew = applied == 0 || applied + 1 < first || applied >= next;
    if anew {
        if next > 2 {
            tracing::info!("building the index anew");
        }
        inner.index.clear()?;
    }
    if !inner.index.is_up() {
        return Ok(());
    }
    if anew {
        walk_trees(inner, &replay.state)?;
    }
    let from = if anew { replay.state.covers } else { applied };
    let mut state = replay.before.clone();
    for (position, entry) in &replay.entries {
        if *position > from {
            index_entry(inner, &state, *position, entry, anew)?;
        }
        state.apply(entry);
    }
    inner.index.set_applied(next - 1)?;
    if anew {
        inner.index.checkpoint()?;
    }
    Ok(())
}

fn index_entry(
    inner: &Inner,
    before: &State,
    position: Position,
    entry: &Entry,
    anew: bool,
) -> Result<(), StoreError> {
    let was_empty = before.root.is_none_or(|root| root.0 == directory::empty());
    match entry {
        // The first root of my tree, with nothing on its way beside it: it may have come whole, without a commit.
        Entry::Fold { root, covers, .. } if !anew && was_empty && covers + 1 == position => {
            inner.list_mine(root.0)
        }
        Entry::Commit(commit) => {
            inner.list_commit(commit)?;
            inner.index_leaves(commit)
        }
        // Trees that were walked from nothing are at their last root already.
        Entry::Adopt { name, root, .. } if !anew => {
            let old = before.follow(name).and_then(|follow| follow.good.as_ref()).map(|good| good.root.0);
            inner.list_followed(name, old, root.0)
        }
        Entry::Unfollow { name } => inner.index.drop_tree(TreeKey::followed(name)),
        _ => Ok(()),
    }
}

/// Lists and leaves of every tree, from its root down.
fn walk_trees(inner: &Inner, state: &State) -> Result<(), StoreError> {
    if let Some(root) = state.root {
        walk_tree(inner, TreeKey::MINE, root.0)?;
    }
    for follow in &state.follows {
        if let Some(good) = &follow.good {
            pass_over(&follow.name, walk_tree(inner, TreeKey::followed(&follow.name), good.root.0))?;
        }
    }
    for (digest, root) in inner.kept.held() {
        if let Err(error) = inner.index_blob(&digest, &root) {
            tracing::warn!(%digest, %error, "the leaves of a pinned blob could not be indexed");
        }
    }
    Ok(())
}

fn walk_tree(inner: &Inner, tree: TreeKey, root: Cid) -> Result<(), StoreError> {
    inner.each_difference(None, root, |difference| {
        let Some(entry) = &difference.new else { return Ok(()) };
        inner.list_put(tree, &difference.path, || inner.link_content(&entry.cid))?;
        if let Some(Item::Blob(digest)) = layout::parse(&difference.path)
            && let Err(error) = inner.index_blob(&digest, &entry.cid)
        {
            tracing::warn!(%digest, %error, "the leaves of a blob could not be indexed");
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::journal::Journal;
    use crate::tests::{now, push, repository};

    #[test]
    fn an_index_that_fails_at_start_keeps_nothing_else_from_working() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let image = push(&store, "v1", 1, 10);
        now(store.fold()).unwrap();
        let (journal, entries) = Journal::open(&dir.path().join("journal")).unwrap();
        // It is begun anew, and its file cannot be synced.
        store.inner().index.clear().unwrap();
        std::fs::remove_file(dir.path().join("db/db")).unwrap();
        replay(store.inner(), &entries, journal.next()).unwrap();
        let blob = store.mine().lookup(&layout::blob(&image.manifest.digest)).unwrap().unwrap();
        assert_eq!(blob.cid, image.manifest.root.cid);
        assert!(store.mine().lookup(&layout::tag(&repository(), &"v1".parse().unwrap())).unwrap().is_some());
    }
}
