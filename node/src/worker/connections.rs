//! Listening, dialling, and who is connected.

use libp2p::identify;
use libp2p::mdns;
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::ping;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{PeerId, StreamProtocol};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Worker;
use super::reaching::is_relayed;
use crate::answers::{Task, Whom};
use crate::behaviour::BehaviourEvent;
use crate::config::peer_of;
use crate::dht::{LAN_PROTOCOL, WAN_PROTOCOL};
use crate::event::Event;
use crate::handle::ConnectError;
use crate::scope::Locality;

/// Callers that wait for a connection at once.
const MAX_CONNECTING: usize = 64;

type Connected = oneshot::Sender<Result<PeerId, ConnectError>>;

impl Worker {
    /// Where others reach this node: LAN before world before this machine, TCP before QUIC, relays last.
    pub(super) fn addresses(&self) -> Vec<Multiaddr> {
        let peer = *self.swarm.local_peer_id();
        let mut addresses: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        addresses.extend(self.swarm.external_addresses().cloned());
        let whole = addresses.into_iter().filter_map(|address| address.with_p2p(peer).ok());
        let mut addresses: Vec<Multiaddr> = whole.collect();
        addresses.sort_by_key(|address| {
            let locality = Locality::of(address);
            let udp = address.iter().any(|protocol| matches!(protocol, Protocol::Udp(_)));
            (is_relayed(address), locality == Locality::Loopback, locality, udp, address.to_string())
        });
        addresses.dedup();
        addresses
    }

    pub(super) fn connect(&mut self, address: Multiaddr, reply: Connected) {
        let options = match peer_of(&address) {
            Some(peer) if self.swarm.is_connected(&peer) => {
                let _ = reply.send(Ok(peer));
                return;
            }
            Some(peer) => {
                DialOpts::peer_id(peer).addresses(vec![address]).condition(PeerCondition::Always).build()
            }
            None => DialOpts::unknown_peer_id().address(address).build(),
        };
        self.connecting.retain(|_, reply| !reply.is_closed());
        if self.connecting.len() >= MAX_CONNECTING {
            let _ = reply.send(Err(ConnectError::Busy));
            return;
        }
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.connecting.insert(connection, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(ConnectError::Unreachable(Box::new(error))));
            }
        }
    }

    pub(super) fn dial_due(&mut self, now: Instant) {
        for (peer, addresses) in self.dialer.due(now) {
            if self.swarm.is_connected(&peer) {
                self.dialer.connected(&peer);
                continue;
            }
            // Another part may be dialling the same peer; then its attempt counts for this one.
            let condition = PeerCondition::DisconnectedAndNotDialing;
            let options = DialOpts::peer_id(peer).addresses(addresses).condition(condition).build();
            if let Err(error) = self.swarm.dial(options) {
                tracing::trace!(%peer, %error, "not dialled");
                self.dialer.failed(&peer, now);
            }
        }
    }

    pub(super) fn on_connection_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, endpoint, num_established, ..
            } => {
                self.peers.connected(peer_id, connection_id, endpoint);
                self.dialer.connected(&peer_id);
                if let Some(reply) = self.connecting.remove(&connection_id) {
                    let _ = reply.send(Ok(peer_id));
                }
                if num_established.get() == 1 {
                    tracing::debug!(peer = %peer_id, "connected");
                    self.outbox.push(Event::PeerConnected { peer: peer_id }, &self.counters);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.peers.disconnected(&peer_id, connection_id);
                if !self.swarm.is_connected(&peer_id) {
                    tracing::debug!(peer = %peer_id, ?cause, "disconnected");
                    self.dialer.lost(&peer_id, Instant::now());
                    self.names.forget_peer(&peer_id);
                    self.outbox.push(Event::PeerDisconnected { peer: peer_id }, &self.counters);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_failed(peer_id, &error);
                if let Some(reply) = self.connecting.remove(&connection_id) {
                    let _ = reply.send(Err(ConnectError::Unreachable(Box::new(error))));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "a connection was not taken");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                tracing::debug!(%address, "listening");
                if is_relayed(&address) {
                    self.reach.holds(listener_id);
                }
                self.refresh_external_addresses();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                tracing::debug!(%address, "no longer listening");
                self.refresh_external_addresses();
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.listeners.remove(&listener_id);
                if self.reach.closed(listener_id, Instant::now()) {
                    tracing::debug!(?addresses, ?reason, "a relay is no longer used");
                } else if let Err(error) = reason {
                    tracing::warn!(?addresses, %error, "a listener stopped");
                }
                self.refresh_external_addresses();
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                self.judge_reach();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listener has trouble"),
            // Nothing is to be done about the others, nor about those that a later libp2p adds.
            _ => {}
        }
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        let speaks = |protocol: &StreamProtocol| info.protocols.contains(protocol);
        let in_lan =
            speaks(&LAN_PROTOCOL) && self.swarm.behaviour_mut().lan.add_peer(&peer_id, &info.listen_addrs);
        if speaks(&WAN_PROTOCOL)
            && let Some(wan) = self.swarm.behaviour_mut().wan.as_mut()
        {
            wan.add_peer(&peer_id, &info.listen_addrs);
        }
        if in_lan {
            self.share_with_new_dht_peer(peer_id);
        }
        if self.peers.introduced(&peer_id, &info.agent_version, info.protocols) {
            let names = self.names.followed();
            if !names.is_empty() {
                self.answers.ask(Task::Own { names, peers: Whom::One(peer_id) });
            }
            self.ask_for_registries(&peer_id);
        }
    }

    pub(super) fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(latency) => self.peers.measured(&event.peer, latency),
            Err(ping::Failure::Unsupported) => {}
            Err(failure @ (ping::Failure::Timeout | ping::Failure::Other { .. })) => {
                tracing::debug!(peer = %event.peer, %failure, "closing a connection that does not answer");
                self.swarm.close_connection(event.connection);
            }
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let now = Instant::now();
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, address) in found {
                    let connected = self.swarm.is_connected(&peer);
                    self.dialer.found(peer, address, connected, now);
                }
            }
            mdns::Event::Expired(expired) => {
                for (peer, address) in expired {
                    self.dialer.expired(&peer, &address);
                }
            }
        }
    }

    fn on_dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        let Some(peer) = peer else { return };
        tracing::debug!(%peer, %error, "cannot connect");
        if !self.swarm.is_connected(&peer) {
            self.dialer.failed(&peer, Instant::now());
        }
    }
}
