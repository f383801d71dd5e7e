//! Brings the directories of a followed root here, and then makes that root the one that is read.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use sampan_node::bitswap::SessionOptions;
use sampan_node::{Node, PeerId};
use sampan_storage::tree::Diff;
use sampan_storage::{Adoption, Block, Cid, Store, fail};

use super::seek::{SeekError, Seeker};
use super::{EAGER, blocking, nodes};

/// Bytes of directories asked for at once: they are small and many.
const WINDOW: usize = 4 * 1024 * 1024;
/// What a directory node is taken for in the window before it is here.
const NODE: u32 = 4 * 1024;
/// Without a block for this long nobody has it; the next record or peer begins again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Blocks written to the pack together.
const BATCH: usize = 64;

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
    old: Option<Cid>,
    goal: Goal,
    nodes: Bytes,
    from: Option<PeerId>,
) -> anyhow::Result<()> {
    let Goal { name, root, sequence, record } = goal;
    let _whole = store.adopting().await;
    if !nodes.is_empty() {
        let store = store.clone();
        blocking(move || store.put_blocks(&nodes::decode(&nodes))).await??;
    }
    let mut diff = Diff::new(old, root, EAGER);
    let mut differences = Vec::new();
    let mut seeker = None;
    loop {
        let (missing, found);
        let blocks = store.clone();
        (diff, missing, found) = blocking(move || {
            let mut found = Vec::new();
            let missing = diff.advance(&blocks, &mut |difference| found.push(difference));
            (diff, missing, found)
        })
        .await?;
        differences.extend(found);
        let missing = missing?;
        if missing.is_empty() {
            break;
        }
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
            let mut arrived = Vec::new();
            while arrived.len() < BATCH && !wanted.is_empty() {
                // Waits for the first of a batch only.
                let wait = if arrived.is_empty() { PATIENCE } else { Duration::ZERO };
                match seeker.next(wait).await {
                    Ok(block) => {
                        wanted.remove(block.cid());
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
    let blocks = store.clone();
    blocking(move || blocks.sync_blocks()).await??;
    fail::point("adopt.pack.after");
    store.adopt(Adoption { name, root, sequence, record, differences }).await?;
    fail::point("adopt.entry.after");
    Ok(())
}

async fn keep(store: &Store, node: &Node, blocks: Vec<Block>) -> anyhow::Result<()> {
    let cids = blocks.iter().map(|block| *block.cid()).collect();
    let store = store.clone();
    blocking(move || store.put_blocks(&blocks)).await??;
    // Others may wait for the same.
    node.bitswap().notify(cids).await;
    Ok(())
}
