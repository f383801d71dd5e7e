//! The handle through which the program uses the node. Cheap to clone; all methods are safe to cancel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use futures::future::{join, join_all};
use libp2p::PeerId;
use libp2p::multiaddr::Multiaddr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::bitswap;
use crate::clock::Wall;
use crate::command::Command;
use crate::config::peer_of;
use crate::event::{Counters, Refusal, Stats};
use crate::ipns::{Record, RecordError, Verified, select};
use crate::name::Name;
use crate::names::{MAX_NAMES, Via};
use crate::peers::Peer;
use crate::reach::Reachability;
use crate::routers::Routers;

/// The node's own steps of stopping have shorter deadlines; this one is for a task that is stuck.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Peers of a router's answer that are dialled; a block is fetched from a few.
const MAX_ROUTED: usize = 8;
/// Addresses of one of them that are tried.
const MAX_ADDRESSES: usize = 8;
/// One address is tried for so long.
const DIAL: Duration = Duration::from_secs(3);

/// A running node.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) peer_id: PeerId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) bitswap: bitswap::Client,
    pub(crate) counters: Arc<Counters>,
    pub(crate) routers: Option<Arc<dyn Routers>>,
    pub(crate) wall: Wall,
}

/// A record that somebody has of a name. It is verified and has not expired.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub record: Verified,
    pub via: Via,
}

/// What became of a record at once. The DHT follows in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Connected followers that are being sent the record.
    pub followers: usize,
    /// It went out over pubsub to at least one peer.
    pub pubsub: bool,
}

/// How strangers come to this node, in the public network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub reachability: Reachability,
    /// Peers that relay connections to this node.
    pub relays: Vec<PeerId>,
}

/// What became of a record that somebody brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is the newest of a name that is published or followed here.
    Taken,
    /// Nobody here follows or publishes the name.
    NotFollowed,
    Refused(Refusal),
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("the record cannot be published: {0}")]
    Record(#[from] RecordError),
    #[error("a newer record of the name is known already; raise the sequence above it")]
    Older,
    #[error("too many names are published or followed; the node carries {}", MAX_NAMES)]
    TooMany,
    #[error("the node has stopped")]
    Stopped,
}

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("too many names are published or followed; the node carries {}", MAX_NAMES)]
    TooMany,
    #[error("the node has stopped")]
    Stopped,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the peer cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("too many connections are being made")]
    Busy,
    #[error("the node has stopped")]
    Stopped,
}

impl Node {
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// What records are dated by.
    pub fn wall(&self) -> &Wall {
        &self.wall
    }

    /// Fetches blocks from peers.
    pub fn bitswap(&self) -> bitswap::Client {
        self.bitswap.clone()
    }

    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Where this node listens, with its peer id at the end; addresses of this machine only come last.
    pub async fn addresses(&self) -> Vec<Multiaddr> {
        self.call(|reply| Command::Addresses { reply }).await.unwrap_or_default()
    }

    /// Whether strangers reach this node, and how. `None` once it has stopped.
    pub async fn reached(&self) -> Option<Reached> {
        self.call(|reply| Command::Reached { reply }).await
    }

    /// The peers that are connected.
    pub async fn peers(&self) -> Vec<Peer> {
        self.call(|reply| Command::Peers { reply }).await.unwrap_or_default()
    }

    /// Connected peers that follow the same name, as far as they asked for it here.
    pub async fn followers(&self, name: Name) -> Vec<PeerId> {
        self.call(|reply| Command::Followers { name, reply }).await.unwrap_or_default()
    }

    /// Sends a record, signed for `name`, to the connected followers and over pubsub, then puts it into
    /// the DHT in the background. `nodes` is a CAR of what changed below its root, or empty. The record
    /// must be durable by now. One that has expired goes to followers only, and a private one to members among them.
    pub async fn publish(&self, name: Name, record: Bytes, nodes: Bytes) -> Result<Published, PublishError> {
        let record = Record::decode(record)?.verify_signature(&name)?;
        // Routers are strangers.
        let bytes = (!record.is_private()).then(|| record.bytes().clone());
        let published = self.call(|reply| Command::Publish { record, nodes, reply }).await;
        if let (Some(Ok(_)), Some(routers), Some(bytes)) = (&published, &self.routers, bytes) {
            routers.put(name, bytes);
        }
        published.unwrap_or(Err(PublishError::Stopped))
    }

    /// Watches a name: its records arrive as events until [`Node::unfollow`]. May be a name that is
    /// published here, to hear of another writer.
    pub async fn follow(&self, name: Name) -> Result<(), FollowError> {
        self.call(|reply| Command::Follow { name, reply }).await.unwrap_or(Err(FollowError::Stopped))
    }

    pub async fn unfollow(&self, name: Name) {
        // A node that has stopped follows nothing.
        let _ = self.commands.send(Command::Unfollow { name }).await;
    }

    /// Asks connected peers, the DHT and the delegated routers for the current record of a name, with a deadline.
    pub async fn resolve(&self, name: Name) -> Option<Found> {
        let network = self.call(|reply| Command::Resolve { name, reply });
        let (network, routed) = join(network, self.ask_routers(name)).await;
        let found = network.flatten().into_iter().chain(routed);
        found.max_by(|a, b| select(&a.record, &b.record))
    }

    /// Asks the delegated routers alone.
    pub async fn ask_routers(&self, name: Name) -> Option<Found> {
        let bytes = self.routers.as_ref()?.record(name).await?;
        let record =
            Record::decode(bytes).and_then(|record| record.verify(&name, self.wall.judging_time())).ok()?;
        Some(Found { record, via: Via::Http })
    }

    /// Hands over a record that came by another way than this node's. Of a name that is followed it is judged
    /// and told as any other. A node that has stopped follows nothing.
    pub async fn offer(&self, name: Name, record: Bytes) -> Offered {
        self.offer_by(name, record, Via::Http).await
    }

    /// The same for one that was carried here by hand: it is taken and passed on to followers even if it has expired.
    pub async fn carry(&self, name: Name, record: Bytes) -> Offered {
        self.offer_by(name, record, Via::Hand).await
    }

    async fn offer_by(&self, name: Name, record: Bytes, via: Via) -> Offered {
        self.call(|reply| Command::Offer { name, record, via, reply }).await.unwrap_or(Offered::NotFollowed)
    }

    /// Announces in the DHTs that this node has `root`, which is what `name` points to now, and what is new in it.
    /// Calls that follow each other closely are announced once. Nothing is announced where nobody is served.
    pub async fn provide(&self, name: Name, root: Cid) {
        // A node that has stopped provides nothing.
        let _ = self.commands.send(Command::Provide { name, root }).await;
    }

    /// Asks the DHT and the delegated routers who has a block, with a deadline. Those found are being dialled.
    pub async fn find_providers(&self, cid: Cid) -> Vec<PeerId> {
        let network = self.call(|reply| Command::FindProviders { cid, reply });
        let routed = async {
            match &self.routers {
                Some(routers) => self.reach(routers.providers(cid).await).await,
                None => Vec::new(),
            }
        };
        let (network, routed) = join(network, routed).await;
        let mut found = network.unwrap_or_default();
        found.extend(routed);
        found.sort();
        found.dedup();
        found
    }

    /// Connects to some of those whose addresses a router has given, each by the first address that answers.
    async fn reach(&self, addresses: Vec<Multiaddr>) -> Vec<PeerId> {
        let mut peers: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        for address in addresses {
            let Some(peer) = peer_of(&address).filter(|peer| *peer != self.peer_id) else { continue };
            if peers.len() < MAX_ROUTED || peers.contains_key(&peer) {
                peers.entry(peer).or_default().push(address);
            }
        }
        let dials = peers.into_iter().map(|(peer, addresses)| async move {
            for address in addresses.into_iter().take(MAX_ADDRESSES) {
                match timeout(DIAL, self.connect(address)).await {
                    Ok(Ok(_)) => return Some(peer),
                    Ok(Err(error)) => tracing::trace!(%peer, %error, "a provider of a router is not reached"),
                    Err(_) => {}
                }
            }
            None
        });
        join_all(dials).await.into_iter().flatten().collect()
    }

    /// Connects to a peer, by an address that may end in `/p2p/<peer id>`.
    pub async fn connect(&self, address: Multiaddr) -> Result<PeerId, ConnectError> {
        self.call(|reply| Command::Connect { address, reply }).await.unwrap_or(Err(ConnectError::Stopped))
    }

    /// Closes connections and listeners, and returns when the ports are free again or a deadline is over.
    /// Other handles find the node stopped.
    pub async fn shutdown(&self) {
        if timeout(STOP_DEADLINE, self.call(|reply| Command::Shutdown { reply })).await.is_err() {
            tracing::warn!("the node did not stop in time");
        }
    }

    async fn call<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
