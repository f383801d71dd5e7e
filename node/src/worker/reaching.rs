//! Being reached by strangers: what they say of this node's addresses, and relays where they cannot call it.

use std::collections::BTreeSet;

use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{autonat, kad, relay};
use tokio::time::Instant;

use super::Worker;
use crate::handle::Reached;
use crate::reach::Reachability;
use crate::scope::{Locality, Scope};

impl Worker {
    pub(super) fn reached(&self) -> Reached {
        Reached { reachability: self.reach.reachability(), relays: self.reach.relays() }
    }

    pub(super) fn on_callback(&mut self, event: &autonat::v2::client::Event) {
        let autonat::v2::client::Event { tested_addr, server, result, .. } = event;
        match result {
            Ok(()) => tracing::debug!(address = %tested_addr, %server, "strangers can call"),
            Err(error) => {
                tracing::debug!(address = %tested_addr, %server, %error, "a call from outside did not come through");
                self.reach.call_failed();
            }
        }
        self.judge_reach();
    }

    /// After anything that may have changed what strangers can call.
    pub(super) fn judge_reach(&mut self) {
        let before = self.reach.reachability();
        let callable = |address: &&Multiaddr| !is_relayed(address) && Scope::Public.allows(address);
        self.reach.set_confirmed(self.swarm.external_addresses().any(|address| callable(&address)));
        for listener in self.reach.superfluous() {
            self.swarm.remove_listener(listener);
        }
        let now = self.reach.reachability();
        if before != now {
            tracing::info!(reachability = ?now, "what strangers can reach has changed");
            // Who cannot be called is of no use to others as a server.
            let mode = if now == Reachability::Public { kad::Mode::Server } else { kad::Mode::Client };
            if let Some(wan) = self.swarm.behaviour_mut().wan.as_mut() {
                wan.kad().set_mode(Some(mode));
            }
        }
    }

    /// Asks a connected relay for a reservation where one is needed.
    pub(super) fn reserve_due(&mut self, now: Instant) {
        if !self.network.is_public() || self.reach.next_due().is_none_or(|due| due > now) {
            return;
        }
        let relays = self.peers.speaking(&relay::HOP_PROTOCOL_NAME);
        let Some(peer) = self.reach.choose(&relays, now) else { return };
        let Some(address) = self.peers.dialled_at(&peer).filter(|address| !is_relayed(address)) else {
            // Who came to us from behind a port of his own cannot be told to others.
            self.reach.refused(peer, now);
            return;
        };
        let through = address.with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
        match self.swarm.listen_on(through) {
            Ok(listener) => self.reach.asked(listener, peer),
            Err(error) => {
                tracing::debug!(relay = %peer, %error, "a relay cannot be asked");
                self.reach.refused(peer, now);
            }
        }
    }

    /// What the DHTs hand out as this node's addresses. libp2p takes only confirmed ones, and on a LAN
    /// nobody confirms; without any, kubo drops our announcements. Those of this machine stand in only
    /// if there are no others, because kubo ignores them. In the public network strangers confirm those of
    /// the world.
    pub(super) fn refresh_external_addresses(&mut self) {
        let scope = self.network.scope();
        let public = self.network.is_public();
        let ours = |address: &&Multiaddr| {
            scope.allows(address)
                && !is_relayed(address)
                && !(public && Locality::of(address) == Locality::World)
        };
        let listening: Vec<Multiaddr> = self.swarm.listeners().filter(ours).cloned().collect();
        if let Some(responder) = &self.responder {
            responder.set_addresses(listening.clone());
        }
        let reachable = listening.iter().any(|address| Locality::of(address) != Locality::Loopback);
        let wanted = |address: &Multiaddr| !reachable || Locality::of(address) != Locality::Loopback;
        let wanted: BTreeSet<Multiaddr> = listening.into_iter().filter(wanted).collect();
        let before = std::mem::replace(&mut self.confirmed_here, wanted.clone());
        for address in before.difference(&wanted) {
            self.swarm.remove_external_address(address);
        }
        for address in wanted.difference(&before) {
            self.swarm.add_external_address(address.clone());
        }
        self.judge_reach();
    }
}

pub(super) fn on_relay(event: &relay::client::Event) {
    if let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal: false, .. } = event {
        tracing::info!(relay = %relay_peer_id, "strangers reach this node through a relay");
    }
}

pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| matches!(protocol, Protocol::P2pCircuit))
}
