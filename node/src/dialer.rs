//! Which peers this node wants to be connected to, and when each is dialled next.
//!
//! Static peers are wanted for good, those found by mDNS as long as they announce themselves. The time
//! is handed in, so this can be tested without waiting.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol};
use tokio::time::Instant;

use crate::scope::Scope;

/// Peers that are kept in mind; a LAN that is larger is reached through some of them.
const MAX_TARGETS: usize = 256;
/// A host with many interfaces announces some ten addresses for each transport.
const MAX_ADDRESSES: usize = 32;
/// Between attempts at first, then doubled.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A LAN that was split must be whole again in seconds.
const LAN_PAUSE: Duration = Duration::from_secs(2);
const WORLD_PAUSE: Duration = Duration::from_mins(1);
/// Of two nodes that want each other, the one with the greater id waits, so that one connection is
/// made and not two.
const COURTESY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Dialer {
    local: PeerId,
    targets: HashMap<PeerId, Target>,
}

#[derive(Debug)]
struct Target {
    /// Those from the configuration; they never expire.
    fixed: Vec<Multiaddr>,
    /// Those that were announced.
    found: Vec<Multiaddr>,
    attempts: u32,
    /// `None` while connected, or while being dialled.
    next: Option<Instant>,
}

impl Dialer {
    pub(crate) fn new(local: PeerId) -> Self {
        Self { local, targets: HashMap::new() }
    }

    /// A peer from the configuration, to be dialled at once.
    pub(crate) fn keep(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        if let Some(target) = self.target(peer, now) {
            target.fixed.push(address);
        }
    }

    /// A peer that announced itself on the LAN.
    pub(crate) fn found(&mut self, peer: PeerId, address: Multiaddr, connected: bool, now: Instant) {
        let first = now + self.courtesy(&peer);
        let known = self.targets.contains_key(&peer);
        let Some(target) = self.target(peer, first) else { return };
        if !known && connected {
            target.next = None;
        }
        if !target.found.contains(&address) && target.found.len() < MAX_ADDRESSES {
            target.found.push(address);
        }
    }

    /// An announcement ran out.
    pub(crate) fn expired(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(target) = self.targets.get_mut(peer) {
            target.found.retain(|other| other != address);
            if target.found.is_empty() && target.fixed.is_empty() {
                self.targets.remove(peer);
            }
        }
    }

    pub(crate) fn connected(&mut self, peer: &PeerId) {
        if let Some(target) = self.targets.get_mut(peer) {
            target.attempts = 0;
            target.next = None;
        }
    }

    /// The last connection is gone.
    pub(crate) fn lost(&mut self, peer: &PeerId, now: Instant) {
        let pause = FIRST_PAUSE + self.courtesy(peer);
        if let Some(target) = self.targets.get_mut(peer) {
            target.next = Some(now + pause);
        }
    }

    /// An attempt came to nothing.
    pub(crate) fn failed(&mut self, peer: &PeerId, now: Instant) {
        if let Some(target) = self.targets.get_mut(peer)
            && target.next.is_none()
        {
            target.next = Some(now + target.pause());
        }
    }

    /// The peers to dial now, each with addresses. What becomes of it is reported by [`Self::connected`]
    /// or [`Self::failed`].
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let due = self.targets.iter_mut().filter(|(_, target)| target.next.is_some_and(|next| next <= now));
        due.map(|(peer, target)| {
            target.next = None;
            target.attempts = target.attempts.saturating_add(1);
            (*peer, target.addresses())
        })
        .collect()
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.targets.values().filter_map(|target| target.next).min()
    }

    fn target(&mut self, peer: PeerId, first: Instant) -> Option<&mut Target> {
        if peer == self.local || (!self.targets.contains_key(&peer) && self.targets.len() >= MAX_TARGETS) {
            return None;
        }
        Some(self.targets.entry(peer).or_insert_with(|| Target {
            fixed: Vec::new(),
            found: Vec::new(),
            attempts: 0,
            next: Some(first),
        }))
    }

    fn courtesy(&self, peer: &PeerId) -> Duration {
        if self.local > *peer { COURTESY } else { Duration::ZERO }
    }
}

impl Target {
    /// TCP alone at first, since it is the faster one on a LAN; every second attempt tries all.
    fn addresses(&self) -> Vec<Multiaddr> {
        let all = self.fixed.iter().chain(&self.found);
        let tcp: Vec<Multiaddr> = all.clone().filter(|address| is_tcp(address)).cloned().collect();
        if tcp.is_empty() || self.attempts.is_multiple_of(2) { all.cloned().collect() } else { tcp }
    }

    fn pause(&self) -> Duration {
        let on_lan = self.fixed.iter().chain(&self.found).any(|address| Scope::Lan.allows(address));
        let longest = if on_lan { LAN_PAUSE } else { WORLD_PAUSE };
        let doublings = self.attempts.saturating_sub(1).min(16);
        FIRST_PAUSE.saturating_mul(1 << doublings).min(longest)
    }
}

fn is_tcp(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| matches!(protocol, Protocol::Tcp(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// Two ids, the smaller first.
    fn ids() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (a.min(b), a.max(b))
    }

    #[test]
    fn of_two_that_find_each_other_one_dials_first() {
        let (small, great) = ids();
        let now = Instant::now();
        let lan = address("/ip4/192.168.1.5/tcp/4001");
        let (mut first, mut second) = (Dialer::new(small), Dialer::new(great));
        first.found(great, lan.clone(), false, now);
        second.found(small, lan.clone(), false, now);
        assert_eq!(first.due(now), [(great, vec![lan])]);
        assert!(second.due(now).is_empty());
        second.connected(&small);
        assert_eq!(second.next_due(), None, "the other's connection is enough");
    }

    #[test]
    fn a_lost_peer_of_the_lan_is_tried_every_two_seconds() {
        let (local, peer) = ids();
        let mut now = Instant::now();
        let mut dialer = Dialer::new(local);
        dialer.found(peer, address("/ip4/192.168.1.5/tcp/4001"), true, now);
        assert_eq!(dialer.next_due(), None);
        dialer.lost(&peer, now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let next = dialer.next_due().unwrap();
            pauses.push((next - now).as_millis());
            now = next;
            assert_eq!(dialer.due(now).len(), 1);
            dialer.failed(&peer, now);
        }
        assert_eq!(pauses, [250, 250, 500, 1000, 2000, 2000, 2000]);
    }

    #[test]
    fn tcp_is_tried_before_quic() {
        let (local, peer) = ids();
        let now = Instant::now();
        let (tcp, quic) =
            (address("/ip4/192.168.1.5/tcp/4001"), address("/ip4/192.168.1.5/udp/4001/quic-v1"));
        let mut dialer = Dialer::new(local);
        dialer.found(peer, quic.clone(), false, now);
        dialer.found(peer, tcp.clone(), false, now);
        assert_eq!(dialer.due(now), [(peer, vec![tcp.clone()])]);
        dialer.failed(&peer, now);
        assert_eq!(dialer.due(now + LAN_PAUSE), [(peer, vec![quic, tcp])]);
    }

    #[test]
    fn an_expired_peer_is_forgotten_and_a_static_one_is_not() {
        let (local, peer) = ids();
        let now = Instant::now();
        let announced = address("/ip4/192.168.1.5/tcp/4001");
        let mut dialer = Dialer::new(local);
        dialer.found(peer, announced.clone(), false, now);
        dialer.expired(&peer, &announced);
        assert_eq!(dialer.next_due(), None);
        dialer.keep(peer, address("/ip4/10.0.0.1/tcp/4001"), now);
        dialer.found(peer, announced.clone(), false, now);
        dialer.expired(&peer, &announced);
        assert_eq!(dialer.next_due(), Some(now));
    }

    #[test]
    fn targets_are_bounded_and_never_oneself() {
        let local = PeerId::random();
        let now = Instant::now();
        let mut dialer = Dialer::new(local);
        dialer.found(local, address("/ip4/127.0.0.1/tcp/1"), false, now);
        assert!(dialer.targets.is_empty());
        for _ in 0..2 * MAX_TARGETS {
            dialer.found(PeerId::random(), address("/ip4/10.0.0.1/tcp/1"), false, now);
        }
        assert_eq!(dialer.targets.len(), MAX_TARGETS);
    }
}
