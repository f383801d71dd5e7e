//! Whether strangers can reach this node, and through whom they do where they cannot.
//!
//! AutoNAT asks others to call back. What comes of it is judged here, and here it is kept which relays were asked for
//! a reservation. The calls themselves are the worker's.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::transport::ListenerId;
use tokio::time::Instant;

/// One may go away while the other holds.
const MAX_RELAYS: usize = 2;
/// From one attempt to the next.
const RETRY: Duration = Duration::from_secs(10);
/// A relay that refused or left is not asked again before that.
const GRUDGE: Duration = Duration::from_mins(10);
/// Peers that are connected are far fewer.
const MAX_GRUDGES: usize = 256;

/// What is known about being reached from anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reachability {
    #[default]
    Unknown,
    /// An address of this node was called and answered.
    Public,
    /// Others called and did not come through. One call is enough: each address is tried once, there may be no other,
    /// and an error costs two reservations that are let go of when the next call comes through.
    Private,
}

/// When others relay connections to this node. Only in the public network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relaying {
    /// Where strangers cannot reach it.
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug)]
pub(crate) struct Reach {
    relaying: Relaying,
    confirmed: bool,
    failed: bool,
    /// Reservations asked for or held.
    relays: HashMap<ListenerId, Relay>,
    grudges: HashMap<PeerId, Instant>,
    next: Instant,
}

#[derive(Debug)]
struct Relay {
    peer: PeerId,
    holds: bool,
}

impl Reach {
    pub(crate) fn new(relaying: Relaying, now: Instant) -> Self {
        Self {
            relaying,
            confirmed: false,
            failed: false,
            relays: HashMap::new(),
            grudges: HashMap::new(),
            next: now,
        }
    }

    pub(crate) fn reachability(&self) -> Reachability {
        match (self.confirmed, self.failed) {
            (true, _) => Reachability::Public,
            (false, true) => Reachability::Private,
            (false, false) => Reachability::Unknown,
        }
    }

    /// Whether there is an address now that strangers can call.
    pub(crate) fn set_confirmed(&mut self, confirmed: bool) {
        self.confirmed = confirmed;
        if confirmed {
            self.failed = false;
        }
    }

    pub(crate) fn call_failed(&mut self) {
        self.failed = true;
    }

    /// Which of these peers, all of them relays, is to be asked for a reservation now.
    pub(crate) fn choose(&mut self, relays: &[PeerId], now: Instant) -> Option<PeerId> {
        if self.next > now || !self.wants_relay() {
            return None;
        }
        self.next = now + RETRY;
        self.grudges.retain(|_, until| *until > now);
        let held: HashSet<PeerId> = self.relays.values().map(|relay| relay.peer).collect();
        relays.iter().find(|peer| !held.contains(peer) && !self.grudges.contains_key(peer)).copied()
    }

    pub(crate) fn asked(&mut self, listener: ListenerId, peer: PeerId) {
        self.relays.insert(listener, Relay { peer, holds: false });
    }

    /// A reservation was granted.
    pub(crate) fn holds(&mut self, listener: ListenerId) {
        if let Some(relay) = self.relays.get_mut(&listener) {
            relay.holds = true;
        }
    }

    /// A relay said no, or is gone.
    pub(crate) fn refused(&mut self, peer: PeerId, now: Instant) {
        if self.grudges.len() < MAX_GRUDGES {
            self.grudges.insert(peer, now + GRUDGE);
        }
    }

    /// Returns whether the listener was that of a relay.
    pub(crate) fn closed(&mut self, listener: ListenerId, now: Instant) -> bool {
        let Some(relay) = self.relays.remove(&listener) else { return false };
        self.refused(relay.peer, now);
        true
    }

    /// Those that are not needed, since strangers come by themselves.
    pub(crate) fn superfluous(&self) -> Vec<ListenerId> {
        if self.relaying == Relaying::Auto && self.confirmed {
            self.relays.keys().copied().collect()
        } else {
            Vec::new()
        }
    }

    /// Through whom strangers come.
    pub(crate) fn relays(&self) -> Vec<PeerId> {
        let mut relays: Vec<PeerId> =
            self.relays.values().filter(|relay| relay.holds).map(|relay| relay.peer).collect();
        relays.sort();
        relays
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.wants_relay().then_some(self.next)
    }

    fn wants_relay(&self) -> bool {
        let wanted = match self.relaying {
            Relaying::Auto => self.reachability() == Reachability::Private,
            Relaying::Always => true,
            Relaying::Never => false,
        };
        wanted && self.relays.len() < MAX_RELAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(relaying: Relaying) -> (Reach, Instant) {
        let now = Instant::now();
        (Reach::new(relaying, now), now)
    }

    fn private() -> (Reach, Instant) {
        let (mut reach, now) = reach(Relaying::Auto);
        reach.call_failed();
        (reach, now)
    }

    #[test]
    fn a_failure_makes_a_node_private_and_a_success_public() {
        let (mut reach, _) = reach(Relaying::Auto);
        assert_eq!(reach.reachability(), Reachability::Unknown);
        reach.call_failed();
        assert_eq!(reach.reachability(), Reachability::Private);
        reach.set_confirmed(true);
        assert_eq!(reach.reachability(), Reachability::Public);
        reach.set_confirmed(false);
        assert_eq!(reach.reachability(), Reachability::Unknown);
    }

    #[test]
    fn relays_are_asked_only_where_they_are_needed() {
        let relay = [PeerId::random()];
        let (mut unknown, now) = reach(Relaying::Auto);
        assert_eq!((unknown.choose(&relay, now), unknown.next_due()), (None, None));
        let (mut private, now) = private();
        assert_eq!(private.choose(&relay, now), Some(relay[0]));
        let (mut always, now) = reach(Relaying::Always);
        assert_eq!(always.choose(&relay, now), Some(relay[0]));
        let (mut never, now) = reach(Relaying::Never);
        never.call_failed();
        assert_eq!(never.choose(&relay, now), None);
    }

    #[test]
    fn two_relays_are_enough_and_they_are_two() {
        let (mut reach, mut now) = private();
        let relays = [PeerId::random(), PeerId::random(), PeerId::random()];
        for expected in [Some(relays[0]), Some(relays[1]), None] {
            let chosen = reach.choose(&relays, now);
            assert_eq!(chosen, expected);
            if let Some(peer) = chosen {
                reach.asked(ListenerId::next(), peer);
            }
            now += RETRY;
        }
    }

    #[test]
    fn a_relay_that_refused_is_left_alone_for_a_while() {
        let (mut reach, now) = private();
        let relay = [PeerId::random()];
        let listener = ListenerId::next();
        assert_eq!(reach.choose(&relay, now), Some(relay[0]));
        reach.asked(listener, relay[0]);
        assert_eq!(reach.relays(), []);
        assert!(reach.closed(listener, now));
        assert!(!reach.closed(listener, now));
        assert_eq!(reach.choose(&relay, now + RETRY), None);
        assert_eq!(reach.choose(&relay, now + GRUDGE), Some(relay[0]));
    }

    #[test]
    fn who_becomes_reachable_lets_go_of_relays() {
        let (mut reach, now) = private();
        let (relay, listener) = (PeerId::random(), ListenerId::next());
        assert_eq!(reach.choose(&[relay], now), Some(relay));
        reach.asked(listener, relay);
        reach.holds(listener);
        assert_eq!(reach.relays(), [relay]);
        assert_eq!(reach.superfluous(), []);
        reach.set_confirmed(true);
        assert_eq!(reach.superfluous(), [listener]);
    }
}
