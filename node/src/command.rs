//! What a handle asks of the network's task. A reply whose receiver was dropped cancels the work.

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use libp2p::multiaddr::Multiaddr;
use tokio::sync::oneshot;

use crate::handle::{ConnectError, FollowError, Found, Offered, PublishError, Published, Reached};
use crate::ipns::Verified;
use crate::name::Name;
use crate::names::Via;
use crate::peers::Peer;

#[derive(Debug)]
pub(crate) enum Command {
    Addresses { reply: oneshot::Sender<Vec<Multiaddr>> },
    Reached { reply: oneshot::Sender<Reached> },
    Peers { reply: oneshot::Sender<Vec<Peer>> },
    Publish { record: Verified, nodes: Bytes, reply: oneshot::Sender<Result<Published, PublishError>> },
    Follow { name: Name, reply: oneshot::Sender<Result<(), FollowError>> },
    Unfollow { name: Name },
    Followers { name: Name, reply: oneshot::Sender<Vec<PeerId>> },
    Resolve { name: Name, reply: oneshot::Sender<Option<Found>> },
    Offer { name: Name, record: Bytes, via: Via, reply: oneshot::Sender<Offered> },
    Provide { name: Name, root: Cid },
    FindProviders { cid: Cid, reply: oneshot::Sender<Vec<PeerId>> },
    Connect { address: Multiaddr, reply: oneshot::Sender<Result<PeerId, ConnectError>> },
    Shutdown { reply: oneshot::Sender<()> },
}
