//! The port to the network: what peers have, and how it is asked.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use sampan_node::bitswap::SessionOptions;
use sampan_node::{Multiaddr, Name, Offered, PeerId};
use sampan_storage::{Block, Cid};
use tokio::time::{Instant, timeout, timeout_at};

/// Without the block for this long nobody gives it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes asked for and not yet taken.
const WINDOW: usize = 8 * 1024 * 1024;
/// What a block is taken for in the window.
const BLOCK: u32 = 256 * 1024;
/// Whoever asks for providers or a name over HTTP goes after 15 s (kubo); what has been found by now is told.
const LOOK_UP: Duration = Duration::from_secs(10);

/// What is asked of the network. Every wait is bounded.
pub(crate) trait Network: Send + Sync + fmt::Debug {
    /// Brings blocks, verified: the first of them if anybody gives it in time, and of the others what has come by
    /// then.
    fn bring(&self, wants: Vec<Cid>) -> BoxFuture<'_, Vec<Block>>;
    /// Who has a block, as the DHT says.
    fn providers(&self, cid: Cid) -> BoxFuture<'_, Vec<PeerId>>;
    /// The current record of a name, verified.
    fn resolve(&self, name: Name) -> BoxFuture<'_, Option<Bytes>>;
    /// Hands over a record that somebody brought.
    fn offer(&self, name: Name, record: Bytes) -> BoxFuture<'_, Offered>;
    /// This node.
    fn me(&self) -> PeerId;
    /// Where it listens, with or without its peer id at the end.
    fn addresses(&self) -> BoxFuture<'_, Vec<Multiaddr>>;
    /// Who is connected, and from where.
    fn peers(&self) -> BoxFuture<'_, Vec<(PeerId, Vec<Multiaddr>)>>;
}

/// The node's side of it.
#[derive(Clone, Debug)]
pub(crate) struct Node(pub(crate) sampan_node::Node);

impl Node {
    async fn fetch(&self, wants: Vec<Cid>, deadline: Instant) -> Vec<Block> {
        let (mut blocks, first) = (Vec::new(), wants.first().copied());
        let options = SessionOptions { window_bytes: WINDOW, ..SessionOptions::default() };
        let Ok(mut session) = self.0.bitswap().session(options).await else { return blocks };
        let count = wants.len();
        if session.want(wants.into_iter().map(|cid| (cid, BLOCK)).collect()).await.is_err() {
            return blocks;
        }
        while blocks.len() < count {
            // An error is said once for a want, which stays: a provider may yet be found.
            match timeout_at(deadline, session.next()).await {
                Ok(Some(Ok(block))) => {
                    let is_first = Some(*block.cid()) == first;
                    blocks.push(block);
                    if is_first {
                        break;
                    }
                }
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // What has arrived meanwhile comes along.
        while blocks.len() < count
            && let Some(Some(Ok(block))) = session.next().now_or_never()
        {
            blocks.push(block);
        }
        blocks
    }
}

impl Network for Node {
    fn bring(&self, wants: Vec<Cid>) -> BoxFuture<'_, Vec<Block>> {
        async move {
            let deadline = Instant::now() + PATIENCE;
            let Some(first) = wants.first().copied() else { return Vec::new() };
            let fetch = self.fetch(wants, deadline);
            tokio::pin!(fetch);
            // Peers that are found are dialled, and then asked by the same session.
            let search = self.0.find_providers(first);
            tokio::select! {
                blocks = &mut fetch => blocks,
                _ = search => fetch.await,
            }
        }
        .boxed()
    }

    fn providers(&self, cid: Cid) -> BoxFuture<'_, Vec<PeerId>> {
        async move { timeout(LOOK_UP, self.0.find_providers(cid)).await.unwrap_or_default() }.boxed()
    }

    fn resolve(&self, name: Name) -> BoxFuture<'_, Option<Bytes>> {
        async move {
            let found = timeout(LOOK_UP, self.0.resolve(name)).await.ok().flatten()?;
            Some(found.record.bytes().clone())
        }
        .boxed()
    }

    fn offer(&self, name: Name, record: Bytes) -> BoxFuture<'_, Offered> {
        self.0.offer(name, record).boxed()
    }

    fn me(&self) -> PeerId {
        self.0.peer_id()
    }

    fn addresses(&self) -> BoxFuture<'_, Vec<Multiaddr>> {
        self.0.addresses().boxed()
    }

    fn peers(&self) -> BoxFuture<'_, Vec<(PeerId, Vec<Multiaddr>)>> {
        async move { self.0.peers().await.into_iter().map(|peer| (peer.id, peer.addresses)).collect() }
            .boxed()
    }
}
