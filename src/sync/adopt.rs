//! Brings the directories of a followed root here, and then makes that root the one that is read.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use sampan_node::bitswap::SessionOptions;
use sampan_node::{Node, PeerId};
use sampan_storage::block::BlockError;
use sampan_storage::tree::{Diff, Progress};
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
    bring(store, node, &mut place, old, root, from).await?;
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

/// Asks for what is missing of a tree until all of it is here.
async fn bring(
    store: &Store,
    node: &Node,
    place: &mut Place,
    old: Option<Cid>,
    root: Cid,
    from: Option<PeerId>,
) -> anyhow::Result<()> {
    let mut diff = Diff::new(old, root, EAGER);
    let mut seeker = None;
    loop {
        if place.is_over() {
            bail!("other trees are to come, too; this one goes on where it was");
        }
        let (blocks, room) = (store.clone(), place.room());
        let look = move || {
            let progress = diff.advance_within(room, &blocks, &mut |_| {});
            (diff, progress)
        };
        let progress;
        (diff, progress) = place.look(look).await?;
        let missing = match progress? {
            Progress::Done => return Ok(()),
            Progress::More => continue,
            Progress::Full => {
                // All that has come is here, so that it costs little to begin again.
                drop(diff);
                place.widen().await?;
                diff = Diff::new(old, root, EAGER);
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
