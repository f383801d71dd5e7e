//! The handle through which the program uses the node. Cheap to clone; all methods are safe to cancel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use libp2p::multiaddr::Multiaddr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::bitswap;
use crate::command::Command;
use crate::event::{Counters, Refusal, Stats};
use crate::ipns::{Record, RecordError};
use crate::name::Name;
use crate::names::MAX_NAMES;
use crate::peers::Peer;
use crate::reach::Reachability;

/// The node's own steps of stopping have shorter deadlines; this one is for a task that is stuck.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// A running node.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) peer_id: PeerId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) bitswap: bitswap::Client,
    pub(crate) counters: Arc<Counters>,
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

    /// Sends a record, signed for `name`, to the connected followers and over pubsub, then puts it into
    /// the DHT in the background. `nodes` is a CAR of what changed below its root, or empty. The record
    /// must be durable by now. One that has expired goes to followers only.
    pub async fn publish(&self, name: Name, record: Bytes, nodes: Bytes) -> Result<Published, PublishError> {
        let record = Record::decode(record)?.verify_signature(&name)?;
        self.call(|reply| Command::Publish { record, nodes, reply })
            .await
            .unwrap_or(Err(PublishError::Stopped))
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

    /// Asks connected peers and the DHT for the current record of a name, with a deadline. The answer is
    /// verified and has not expired.
    pub async fn resolve(&self, name: Name) -> Option<Bytes> {
        self.call(|reply| Command::Resolve { name, reply }).await.flatten()
    }

    /// Hands over a record that came by another way than this node's. Of a name that is followed it is judged
    /// and told as any other. A node that has stopped follows nothing.
    pub async fn offer(&self, name: Name, record: Bytes) -> Offered {
        self.call(|reply| Command::Offer { name, record, reply }).await.unwrap_or(Offered::NotFollowed)
    }

    /// Announces in the DHTs that this node has `root`, which is what `name` points to now, and what is new in it.
    /// Calls that follow each other closely are announced once. Nothing is announced where nobody is served.
    pub async fn provide(&self, name: Name, root: Cid) {
        // A node that has stopped provides nothing.
        let _ = self.commands.send(Command::Provide { name, root }).await;
    }

    /// Asks the DHT who has a block, with a deadline. Those found are being dialled.
    pub async fn find_providers(&self, cid: Cid) -> Vec<PeerId> {
        self.call(|reply| Command::FindProviders { cid, reply }).await.unwrap_or_default()
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
