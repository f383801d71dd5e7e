//! Brings the directories of a followed root here, and then makes that root the one that is read.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use sampan_node::bitswap::SessionOptions;
use sampan_node::{Node, PeerId};
use sampan_storage::block::BlockError;
use sampan_storage::layout::{self, Item};
use sampan_storage::tree::{Diff, Difference, Progress};
use sampan_storage::{Adoption, Block, Cid, Store, fail};

use super::seek::{SeekError, Seeker};
use super::walks::{Place, Walks};
use super::{EAGER, blocking, nodes};

/// Bytes of directories asked for at once: they are small and many.
const WINDOW: usize = 4 * 1024 * 1024;
/// What a directory node is taken for in the window before it is here.
const NODE: u32 = 4 * 1024;
/// Without a block for this long nobody has it; the next record or peer begins again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Blocks written to the pack together.
const BATCH: usize = 64;
/// Fewer where they are large, as no honest directory is.
const BATCH_BYTES: usize = 1024 * 1024;

/// Tags, manifests and referrers of one tree: a registry of 100,000 tags, each with a manifest of its own, has 200,000. Each
/// takes some 250 bytes of memory while the lists are written, and costs its publisher nothing: the directories may all
/// be the same few blocks.
const MAX_LISTED: usize = 500_000;

/// What is to be read.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    /// Under which it is read: a name's, or a domain's.
    pub(super) name: String,
    pub(super) root: Cid,
    pub(super) sequence: u64,
    /// The record that says so; empty where the DNS does.
    pub(super) record: Bytes,
}

/// Returns when the root is current, or with the reason why it cannot be now. What has arrived is kept.
pub(super) async fn adopt(
    store: &Store,
    node: &Node,
    walks: &Walks,
    old: Option<Cid>,
    goal: Goal,
    nodes: Bytes,
    from: Option<PeerId>,
) -> anyhow::Result<()> {
    let Goal { name, root, sequence, record } = goal;
    let mut place = walks.enter().await?;
    let _whole = store.adopting().await;
    if !nodes.is_empty() {
        let store = store.clone();
        blocking(move || store.put_blocks(&nodes::decode(&nodes))).await??;
    }
    let listed = {
        let (store, name) = (store.clone(), name.clone());
        blocking(move || store.listed(&name)).await??
    };
    bring(store, node, &mut place, old, root, from, listed).await?;
    drop(place);
    let blocks = store.clone();
    blocking(move || blocks.sync_blocks()).await??;
    fail::point("adopt.pack.after");
    store.adopt(Adoption { name, before: old, root, sequence, record }).await?;
    fail::point("adopt.entry.after");
    Ok(())
}

/// Whether the tree itself is at fault, so that it is of no use to try it again.
pub(super) fn is_unfit(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(BlockError::Malformed { .. }))
}

/// What a tree has in its lists.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Before.
    listed: usize,
    added: usize,
    removed: usize,
}

impl Count {
    fn see(&mut self, difference: &Difference) {
        let is_listed = |item| matches!(item, Item::Tag(..) | Item::Revision(..) | Item::Referrer { .. });
        match (&difference.old, &difference.new) {
            (None, Some(_)) if layout::parse(&difference.path).is_some_and(is_listed) => self.added += 1,
            (Some(_), None) if layout::parse(&difference.path).is_some_and(is_listed) => self.removed += 1,
            _ => {}
        }
    }

    /// `whole`: there is nothing more to be seen, so that what goes is known as well as what comes.
    fn check(self, root: Cid, whole: bool) -> Result<(), BlockError> {
        let Self { listed, added, removed } = self;
        let all = if whole { (listed + added).saturating_sub(removed) } else { added };
        if all > MAX_LISTED && added > removed {
            let reason = "its tree has more than 500,000 tags, manifests and referrers";
            return Err(BlockError::Malformed { cid: root, reason });
        }
        Ok(())
    }
}

/// Asks for what is missing of a tree until all of it is here.
async fn bring(
    store: &Store,
    node: &Node,
    place: &mut Place,
    old: Option<Cid>,
    root: Cid,
    from: Option<PeerId>,
    listed: usize,
) -> anyhow::Result<()> {
    let mut diff = Diff::new(old, root, EAGER);
    let mut count = Count { listed, ..Count::default() };
    let mut seeker = None;
    loop {
        if place.is_over() {
            bail!("other trees are to come, too; this one goes on where it was");
        }
        let (blocks, room) = (store.clone(), place.room());
        let look = move || {
            let progress = diff.advance_within(room, &blocks, &mut |found| count.see(&found));
            (diff, count, progress)
        };
        let progress;
        (diff, count, progress) = place.look(look).await?;
        let progress = progress?;
        count.check(root, progress == Progress::Done)?;
        let missing = match progress {
            Progress::Done => return Ok(()),
            Progress::More => continue,
            Progress::Full => {
                // All that has come is here, so that it costs little to begin again.
                drop(diff);
                place.widen().await?;
                diff = Diff::new(old, root, EAGER);
                count = Count { listed, ..Count::default() };
                continue;
            }
            Progress::Missing(missing) => missing,
        };
        if seeker.is_none() {
            let options = SessionOptions {
                providers: from.into_iter().collect(),
                window_bytes: WINDOW,
                ..SessionOptions::default()
            };
            // Whoever has a tree provides its root.
            seeker = Some(Seeker::open(node, root, options).await?);
        }
        let Some(seeker) = seeker.as_mut() else { continue };
        let mut wanted: HashSet<Cid> = missing.iter().copied().collect();
        seeker.want(missing.into_iter().map(|cid| (cid, NODE)).collect()).await?;
        while !wanted.is_empty() {
            let (mut arrived, mut bytes) = (Vec::new(), 0);
            while arrived.len() < BATCH && bytes < BATCH_BYTES && !wanted.is_empty() {
                // Waits for the first of a batch only.
                let wait = if arrived.is_empty() { PATIENCE } else { Duration::ZERO };
                match seeker.next(wait).await {
                    Ok(block) => {
                        wanted.remove(block.cid());
                        bytes += block.data().len();
                        arrived.push(block);
                    }
                    Err(_) if !arrived.is_empty() => break,
                    Err(SeekError::Late) => bail!("no peer gave the tree's directories in time"),
                    Err(error) => return Err(error.into()),
                }
            }
            keep(store, node, arrived).await?;
        }
    }
}

async fn keep(store: &Store, node: &Node, blocks: Vec<Block>) -> anyhow::Result<()> {
    let cids = blocks.iter().map(|block| *block.cid()).collect();
    let store = store.clone();
    blocking(move || store.put_blocks(&blocks)).await??;
    // Others may wait for the same.
    node.bitswap().notify(cids).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_may_be_exchanged_for_another_but_not_grow_step_by_step_beyond_what_is_listed() {
        let root = sampan_storage::block::cid_of(sampan_storage::block::DAG_PB, b"root");
        let check =
            |listed, added, removed, whole| Count { listed, added, removed }.check(root, whole).is_ok();
        assert!(check(0, MAX_LISTED, 0, true) && check(MAX_LISTED, MAX_LISTED, 0, false));
        assert!(check(MAX_LISTED, MAX_LISTED, MAX_LISTED, true));
        assert!(!check(0, MAX_LISTED + 1, 0, false), "it need not be seen to its end");
        assert!(!check(MAX_LISTED, 1, 0, true));
        // One that has too many already may become smaller.
        assert!(check(MAX_LISTED * 2, 1, 2, true));
    }
}
