//! Peers that break a protocol as no honest peer does: garbage, frames that are too long, forged records. Whoever does
//! it again and again is cut off, and stays out for a while.
//!
//! Only counted here; the gate closes the connections.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// One may be a fault of a transport or of a new version; so many within [`WINDOW`] are meant.
const LIMIT: u32 = 8;
const WINDOW: Duration = Duration::from_mins(1);
/// How long it stays out. A peer that was repaired comes back by itself.
const SHUT_OUT: Duration = Duration::from_mins(5);
/// Peers that are remembered. A new key costs an attacker nothing, so that the oldest goes for it.
const MAX_PEERS: usize = 1024;

/// The ledger. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Offences(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    peers: HashMap<PeerId, Record>,
    /// To be cut off; each is in `peers`, which bounds it.
    condemned: VecDeque<PeerId>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Record {
    count: u32,
    since: Instant,
    shut_out_until: Option<Instant>,
}

impl Offences {
    pub(crate) fn note(&self, peer: PeerId) {
        self.note_at(peer, Instant::now());
    }

    pub(crate) fn is_shut_out(&self, peer: &PeerId) -> bool {
        self.is_shut_out_at(peer, Instant::now())
    }

    /// The next peer whose connections are to be closed.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<PeerId> {
        let mut ledger = self.lock();
        if let Some(peer) = ledger.condemned.pop_front() {
            return Poll::Ready(peer);
        }
        ledger.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn note_at(&self, peer: PeerId, now: Instant) {
        let mut ledger = self.lock();
        ledger.make_room(&peer);
        let fresh = || Record { count: 0, since: now, shut_out_until: None };
        let record = ledger.peers.entry(peer).or_insert_with(fresh);
        if record.shut_out_until.is_some_and(|until| now < until) {
            return;
        }
        if now.saturating_duration_since(record.since) >= WINDOW {
            *record = fresh();
        }
        record.count += 1;
        if record.count >= LIMIT {
            *record = Record { shut_out_until: Some(now + SHUT_OUT), ..fresh() };
            tracing::info!(%peer, "a peer breaks the protocols again and again, and is cut off");
            ledger.condemned.push_back(peer);
            if let Some(waker) = ledger.waker.take() {
                waker.wake();
            }
        }
    }

    fn is_shut_out_at(&self, peer: &PeerId, now: Instant) -> bool {
        self.lock().peers.get(peer).and_then(|record| record.shut_out_until).is_some_and(|until| now < until)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn make_room(&mut self, newcomer: &PeerId) {
        if self.peers.len() < MAX_PEERS || self.peers.contains_key(newcomer) {
            return;
        }
        let oldest = self.peers.iter().min_by_key(|(_, record)| record.since).map(|(peer, _)| *peer);
        if let Some(oldest) = oldest {
            self.peers.remove(&oldest);
            self.condemned.retain(|peer| *peer != oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_does_it_again_and_again_is_cut_off_for_a_while() {
        let (offences, peer, now) = (Offences::default(), PeerId::random(), Instant::now());
        for _ in 1..LIMIT {
            offences.note_at(peer, now);
        }
        assert!(!offences.is_shut_out_at(&peer, now));
        assert_eq!(poll_fn(|context| offences.poll(context)).now_or_never(), None);
        offences.note_at(peer, now);
        assert_eq!(poll_fn(|context| offences.poll(context)).await, peer);
        assert!(offences.is_shut_out_at(&peer, now));
        assert!(!offences.is_shut_out_at(&peer, now + SHUT_OUT));
    }

    #[test]
    fn a_fault_now_and_then_is_forgotten() {
        let (offences, peer, now) = (Offences::default(), PeerId::random(), Instant::now());
        for times in 0..4 * LIMIT {
            offences.note_at(peer, now + WINDOW * times / 4);
        }
        assert!(!offences.is_shut_out_at(&peer, now + WINDOW * LIMIT));
    }

    #[test]
    fn keys_without_end_take_no_memory_without_end() {
        let offences = Offences::default();
        let now = Instant::now();
        for _ in 0..2 * MAX_PEERS {
            let peer = PeerId::random();
            for _ in 0..LIMIT {
                offences.note_at(peer, now);
            }
        }
        let ledger = offences.lock();
        assert_eq!((ledger.peers.len(), ledger.condemned.len()), (MAX_PEERS, MAX_PEERS));
    }
}
