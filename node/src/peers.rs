//! The peers that are connected now, and what they said of themselves.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::swarm::ConnectionId;
use libp2p::{PeerId, StreamProtocol};

use crate::name::Name;
use crate::names::MAX_NAMES;
use crate::{fetch, follow};

/// Text that a peer chose is cut to this before it is kept and shown.
const MAX_AGENT: usize = 128;
/// Protocols listed of one peer; kubo has about 20.
const MAX_PROTOCOLS: usize = 64;

/// A connected peer, as the status shows it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub id: PeerId,
    /// The remote address of each connection.
    pub addresses: Vec<Multiaddr>,
    /// Its name and version, once it has introduced itself.
    pub agent: Option<String>,
    pub protocols: Vec<String>,
    /// Of the oldest connection.
    pub direction: Direction,
    /// The last round trip.
    pub latency: Option<Duration>,
    /// The names that it asked to be told of.
    pub follows: Vec<Name>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

#[derive(Debug, Default)]
pub(crate) struct Peers(HashMap<PeerId, State>);

#[derive(Debug, Default)]
struct State {
    connections: Vec<(ConnectionId, ConnectedPoint)>,
    agent: Option<String>,
    protocols: Vec<StreamProtocol>,
    latency: Option<Duration>,
    follows: BTreeSet<Name>,
}

impl State {
    fn speaks(&self, protocol: &StreamProtocol) -> bool {
        self.protocols.contains(protocol)
    }
}

impl Peers {
    pub(crate) fn connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: ConnectedPoint) {
        self.0.entry(peer).or_default().connections.push((connection, endpoint));
    }

    /// With the last connection, all that was known of the peer goes.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, connection: ConnectionId) {
        let Some(state) = self.0.get_mut(peer) else { return };
        state.connections.retain(|(other, _)| *other != connection);
        if state.connections.is_empty() {
            self.0.remove(peer);
        }
    }

    /// Returns whether the peer turns out to be a Sampan, which was not known before.
    pub(crate) fn introduced(&mut self, peer: &PeerId, agent: &str, protocols: Vec<StreamProtocol>) -> bool {
        let Some(state) = self.0.get_mut(peer) else { return false };
        let was_sampan = state.speaks(&follow::PROTOCOL);
        state.agent = Some(agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect());
        state.protocols = protocols;
        // Those that matter here come first in case a peer lists very many.
        state.protocols.sort_by_key(|protocol| ![follow::PROTOCOL, fetch::PROTOCOL].contains(protocol));
        state.protocols.truncate(MAX_PROTOCOLS);
        !was_sampan && state.speaks(&follow::PROTOCOL)
    }

    pub(crate) fn measured(&mut self, peer: &PeerId, latency: Duration) {
        if let Some(state) = self.0.get_mut(peer) {
            state.latency = Some(latency);
        }
    }

    /// Remembers that a peer wants to be told of a name, as long as it is connected.
    pub(crate) fn wants(&mut self, peer: &PeerId, name: Name) {
        if let Some(state) = self.0.get_mut(peer)
            && state.follows.len() < MAX_NAMES
        {
            state.follows.insert(name);
        }
    }

    pub(crate) fn followers(&self, name: &Name) -> Vec<PeerId> {
        self.0.iter().filter(|(_, state)| state.follows.contains(name)).map(|(peer, _)| *peer).collect()
    }

    pub(crate) fn sampans(&self) -> Vec<PeerId> {
        self.speaking(&follow::PROTOCOL)
    }

    pub(crate) fn speaking(&self, protocol: &StreamProtocol) -> Vec<PeerId> {
        self.0.iter().filter(|(_, state)| state.speaks(protocol)).map(|(peer, _)| *peer).collect()
    }

    /// Where this node called the peer, if the connection is of its own making.
    pub(crate) fn dialled_at(&self, peer: &PeerId) -> Option<Multiaddr> {
        let connections = &self.0.get(peer)?.connections;
        let dialled = connections.iter().map(|(_, end)| end).find(|end| end.is_dialer())?;
        Some(without_peer(dialled.get_remote_address()))
    }

    /// Whether any connected peer speaks it.
    pub(crate) fn speaks(&self, protocol: &StreamProtocol) -> bool {
        self.0.values().any(|state| state.speaks(protocol))
    }

    pub(crate) fn is_sampan(&self, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|state| state.speaks(&follow::PROTOCOL))
    }

    pub(crate) fn list(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self.0.iter().map(|(id, state)| state.show(*id)).collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }
}

impl State {
    fn show(&self, id: PeerId) -> Peer {
        let oldest = self.connections.first().map(|(_, endpoint)| endpoint);
        let inbound = oldest.is_some_and(ConnectedPoint::is_listener);
        let mut protocols: Vec<String> = self.protocols.iter().map(ToString::to_string).collect();
        protocols.sort();
        Peer {
            id,
            addresses: self
                .connections
                .iter()
                .map(|(_, end)| without_peer(end.get_remote_address()))
                .collect(),
            agent: self.agent.clone(),
            protocols,
            direction: if inbound { Direction::Inbound } else { Direction::Outbound },
            latency: self.latency,
            follows: self.follows.iter().copied().collect(),
        }
    }
}

/// The remote address of a connection that this node dialled ends in the peer id, of others it does not.
fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|protocol| !matches!(protocol, Protocol::P2p(_))).collect()
}
