//! What my tree has and this disk has lost, brought back from peers: whoever follows my name may have a copy.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use sampan_node::bitswap::SessionOptions;
use sampan_node::{Name, Node};
use sampan_storage::{Cid, Digest, Store, layout};
use tokio::time::timeout;

use super::{Fetcher, blocking};
use crate::registry::{Origin, RemoteBlob};

/// Bytes of blocks asked for at once; they are directories and links.
const WINDOW: usize = 4 * 1024 * 1024;
/// What such a block is taken for in the window.
const BLOCK: u32 = 4 * 1024;
/// Without a block for this long nobody has it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Blobs fetched at a time.
const FETCHES: usize = 4;
/// After so many blobs in a row that nobody had, the others are not asked for.
const VAIN: usize = 16;

#[derive(Clone, Debug)]
pub(crate) struct Healer {
    store: Store,
    node: Node,
    fetcher: Fetcher,
    name: Name,
}

impl Healer {
    pub(crate) fn new(store: Store, node: Node, fetcher: Fetcher, name: Name) -> Self {
        Self { store, node, fetcher, name }
    }

    /// Fetches blobs of my tree, and returns those that are here again.
    pub(crate) async fn blobs(&self, lost: Vec<Digest>) -> Vec<Digest> {
        let fetches = lost.into_iter().map(|digest| async move {
            match self.blob(digest).await {
                Ok(()) => {
                    tracing::info!(%digest, "a blob that was lost has come back from a peer");
                    Some(digest)
                }
                Err(error) => {
                    tracing::warn!(%digest, %error, "a blob that was lost is not to be had; push it again");
                    None
                }
            }
        });
        let mut fetches = stream::iter(fetches).buffered(FETCHES);
        let (mut healed, mut vain) = (Vec::new(), 0);
        while let Some(digest) = fetches.next().await {
            vain = if digest.is_some() { 0 } else { vain + 1 };
            healed.extend(digest);
            if vain >= VAIN {
                break;
            }
        }
        healed
    }

    async fn blob(&self, digest: Digest) -> anyhow::Result<()> {
        let (store, path) = (self.store.clone(), layout::blob(&digest));
        let entry = blocking(move || store.mine().lookup(&path)).await??;
        let entry = entry.ok_or_else(|| anyhow::anyhow!("the tree does not have it any more"))?;
        let size = || {
            let (store, entry) = (self.store.clone(), entry.clone());
            blocking(move || store.mine().size(&entry))
        };
        let mut known = size().await?;
        if known.is_err() {
            // The node at its top has gone too.
            self.blocks(vec![entry.cid]).await?;
            known = size().await?;
        }
        let size = known?;
        let want = RemoteBlob { tree: self.name.to_string(), digest, entry, size };
        self.fetcher.fetch(want).await?;
        Ok(())
    }

    /// Fetches blocks of my tree, and returns how many are here again.
    pub(crate) async fn blocks(&self, lost: Vec<Cid>) -> anyhow::Result<usize> {
        let options = SessionOptions { window_bytes: WINDOW, ..SessionOptions::default() };
        let mut session = self.node.bitswap().session(options).await?;
        let mut wanted: HashSet<Cid> = lost.iter().copied().collect();
        session.want(lost.into_iter().map(|cid| (cid, BLOCK)).collect()).await?;
        let mut healed = 0;
        while !wanted.is_empty() {
            // An error says that no peer has it, a deadline that none says so.
            let Ok(Some(Ok(block))) = timeout(PATIENCE, session.next()).await else { break };
            wanted.remove(block.cid());
            healed += 1;
            let store = self.store.clone();
            blocking(move || store.put_blocks(&[block])).await??;
        }
        let store = self.store.clone();
        blocking(move || store.sync_blocks()).await??;
        Ok(healed)
    }
}
