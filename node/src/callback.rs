//! AutoNAT: other peers are asked to call addresses at which this node may be reached.
//!
//! libp2p's client tries every address that anybody says he saw, and forgets none. Here their number is bounded, and
//! of the LAN none is tried: a stranger who cannot call it says nothing about this node.

use std::collections::HashSet;
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::autonat::v2::client;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};

use crate::scope::Scope;

/// A node has a few addresses for each transport; the rest is what peers invent.
const MAX_CANDIDATES: usize = 64;

#[derive(Default)]
pub(crate) struct Callback {
    client: client::Behaviour,
    candidates: HashSet<Multiaddr>,
}

impl Callback {
    fn admits(&mut self, address: &Multiaddr) -> bool {
        let relayed = address.iter().any(|protocol| matches!(protocol, Protocol::P2pCircuit));
        if relayed || !Scope::Public.allows(address) {
            return false;
        }
        let known = self.candidates.contains(address);
        if !known && self.candidates.len() < MAX_CANDIDATES {
            return self.candidates.insert(address.clone());
        }
        known
    }
}

impl NetworkBehaviour for Callback {
    type ConnectionHandler = <client::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = client::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.client.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.client.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::NewExternalAddrCandidate(candidate) = &event
            && !self.admits(candidate.addr)
        {
            return;
        }
        self.client.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.client.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.client.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_world_are_tried_and_not_without_end() {
        let mut callback = Callback::default();
        let mut admits = |address: &str| callback.admits(&address.parse().unwrap());
        assert!(!admits("/ip4/192.168.1.2/tcp/4001"));
        assert!(!admits(
            "/ip4/1.1.1.1/tcp/4001/p2p/12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS/p2p-circuit"
        ));
        let admitted = (1..1000).filter(|port| admits(&format!("/ip4/1.1.1.1/tcp/{port}"))).count();
        assert_eq!(admitted, MAX_CANDIDATES);
        assert!(admits("/ip4/1.1.1.1/tcp/1"), "one that is known");
    }
}
