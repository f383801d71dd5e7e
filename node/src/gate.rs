//! Whose connections are taken: by the address, and by the peer. It is asked before any stream is opened; and it closes
//! the connections of those that are cut off.

use std::collections::HashSet;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};

use crate::offences::Offences;
use crate::scope::Scope;

/// Which peers this node talks to.
#[derive(Clone, Debug, Default)]
pub struct Acquaintance {
    /// Only these; empty means everybody.
    pub allow: HashSet<PeerId>,
    /// Never these, whatever `allow` says.
    pub deny: HashSet<PeerId>,
}

/// Why a connection is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0} is not on this LAN, and the network is lan")]
    OutOfScope(Multiaddr),
    #[error("the configuration denies the peer {0}")]
    Denied(PeerId),
    #[error("the configuration allows certain peers, and {0} is not one of them")]
    NotAllowed(PeerId),
    #[error("{0} broke the protocols again and again, and stays out for a while")]
    ShutOut(PeerId),
}

/// Denies the connections that this node does not want.
#[derive(Debug)]
pub(crate) struct Gate {
    scope: Scope,
    acquaintance: Acquaintance,
    offences: Offences,
}

impl Acquaintance {
    fn check(&self, peer: &PeerId) -> Result<(), Refused> {
        if self.deny.contains(peer) {
            Err(Refused::Denied(*peer))
        } else if !self.allow.is_empty() && !self.allow.contains(peer) {
            Err(Refused::NotAllowed(*peer))
        } else {
            Ok(())
        }
    }
}

impl Gate {
    pub(crate) fn new(scope: Scope, acquaintance: Acquaintance, offences: Offences) -> Self {
        Self { scope, acquaintance, offences }
    }

    fn check_address(&self, remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        if self.scope.allows(remote) {
            Ok(())
        } else {
            Err(ConnectionDenied::new(Refused::OutOfScope(remote.clone())))
        }
    }

    fn check_peer(&self, peer: &PeerId) -> Result<(), ConnectionDenied> {
        if self.offences.is_shut_out(peer) {
            return Err(ConnectionDenied::new(Refused::ShutOut(*peer)));
        }
        self.acquaintance.check(peer).map_err(ConnectionDenied::new)
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.check_address(remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check_address(remote)?;
        self.check_peer(&peer)?;
        Ok(dummy::ConnectionHandler)
    }

    /// A peer that is not wanted is not even dialled.
    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        peer.map_or(Ok(()), |peer| self.check_peer(&peer))?;
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check_address(remote)?;
        self.check_peer(&peer)?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let connection = CloseConnection::All;
        self.offences.poll(context).map(|peer_id| ToSwarm::CloseConnection { peer_id, connection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_lists_everybody_is_welcome() {
        assert!(Acquaintance::default().check(&PeerId::random()).is_ok());
    }

    #[test]
    fn a_list_of_allowed_peers_shuts_out_all_others() {
        let friend = PeerId::random();
        let acquaintance = Acquaintance { allow: HashSet::from([friend]), ..Acquaintance::default() };
        assert!(acquaintance.check(&friend).is_ok());
        assert!(matches!(acquaintance.check(&PeerId::random()), Err(Refused::NotAllowed(_))));
    }

    #[test]
    fn who_is_denied_is_denied_even_where_allowed() {
        let peer = PeerId::random();
        let acquaintance = Acquaintance { allow: HashSet::from([peer]), deny: HashSet::from([peer]) };
        assert!(matches!(acquaintance.check(&peer), Err(Refused::Denied(_))));
    }
}
