//! Makes my tree what another root says: a tree that was published elsewhere under my name, or an earlier one of mine.
//! It goes through the journal as every change does, in an order in which each state between is whole: content first,
//! then what names it, then tags, then what is to go.

use anyhow::ensure;
use sampan_storage::layout::{self, Item};
use sampan_storage::tree::{Diff, Difference};
use sampan_storage::{Cid, Commit, Store};
use serde::{Deserialize, Serialize};

use super::{EAGER, blocking};

/// Changes of one commit: an entry of the journal of some hundred KiB.
const CHANGES: usize = 1000;

/// What becomes of that which my tree has and the other has not, or has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// It goes: my tree will be the other.
    Gives,
    /// It stays, also where both have a tag: mine keeps what it has acknowledged, and gets what it lacks.
    Stays,
}

/// What was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) tags: u64,
    pub(crate) manifests: u64,
    pub(crate) blobs: u64,
    pub(crate) removed: u64,
    /// Tags that both had, with different manifests.
    pub(crate) differing: u64,
}

/// One after the other.
const STAGES: [Stage; 4] = [Stage::Content, Stage::Links, Stage::Tags, Stage::Removals];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Content,
    Links,
    Tags,
    Removals,
}

/// The directories of `root` are here.
///
/// # Cancel safety
///
/// What was committed stays. The same call goes on from there.
pub(crate) async fn take(store: &Store, root: Cid, own: Own) -> anyhow::Result<Taken> {
    store.fold().await?;
    let mine = store.root();
    let mut taken = Taken::default();
    for stage in STAGES {
        if stage == Stage::Removals && own == Own::Stays {
            continue;
        }
        let store = store.clone();
        taken = blocking(move || apply(&store, mine, root, stage, own, taken)).await??;
    }
    store.fold().await?;
    Ok(taken)
}

fn apply(
    store: &Store,
    mine: Cid,
    root: Cid,
    stage: Stage,
    own: Own,
    mut taken: Taken,
) -> anyhow::Result<Taken> {
    let mut diff = Diff::new(Some(mine), root, EAGER);
    let (mut commit, mut changes, mut failed) = (Commit::new(), 0, None);
    let mut see = |difference: Difference| {
        let Difference { path, old, new } = difference;
        let item = layout::parse(&path);
        let due = match (&new, &item) {
            (None, _) => Stage::Removals,
            (Some(_), Some(Item::Blob(_))) => Stage::Content,
            (Some(_), Some(Item::Tag(..))) => Stage::Tags,
            (Some(_), _) => Stage::Links,
        };
        if due != stage || failed.is_some() {
            return;
        }
        let differs = old.is_some() && new.is_some();
        if differs && matches!(item, Some(Item::Tag(..))) {
            taken.differing += 1;
        }
        if differs && own == Own::Stays {
            return;
        }
        if let Some(entry) = new {
            match item {
                Some(Item::Tag(..)) => taken.tags += 1,
                Some(Item::Revision(..)) => taken.manifests += 1,
                Some(Item::Blob(_)) => taken.blobs += 1,
                _ => {}
            }
            commit.put_entry(path, &entry);
        } else {
            taken.removed += 1;
            commit.remove(path);
        }
        changes += 1;
        if changes >= CHANGES {
            changes = 0;
            failed = store.commit_blocking(std::mem::take(&mut commit)).err();
        }
    };
    let missing = diff.advance(store, &mut see)?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    ensure!(missing.is_empty(), "directories of {root} are not here any more");
    if !commit.is_empty() {
        store.commit_blocking(commit)?;
    }
    Ok(taken)
}
