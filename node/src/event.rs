//! What the node tells the program, and the bounded way there.
//!
//! The network's task never waits for the program: what cannot be delivered at once is kept, newest
//! record of each name only, and what does not fit is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use libp2p::PeerId;
use tokio::sync::mpsc;

use crate::ipns::{RecordError, Verified};
use crate::name::Name;
use crate::names::Via;

/// Events that wait for the program to look.
const QUEUE: usize = 64;
/// Events kept back when the queue is full; records replace older ones of their name.
const KEPT_BACK: usize = 512;

#[derive(Clone, Debug)]
pub enum Event {
    /// A record of a name that is followed or published here, newer than what was known; or the same
    /// again, with nodes or from another peer that has it. Its signature matches the name.
    Record {
        record: Verified,
        /// A CAR of nodes below the record's root, not verified, and possibly empty.
        nodes: Bytes,
        /// Who sent it, the first to ask for blocks; `None` if it came out of the DHT.
        from: Option<PeerId>,
        via: Via,
        /// It is past its end by this machine's clock. Only other Sampans pass such records on.
        expired: bool,
    },
    /// The registries that a member knows of, its own among them.
    Registries { names: Vec<Name>, from: PeerId },
    /// A record of such a name that is not taken.
    RecordRefused { name: Name, reason: Refusal, from: Option<PeerId> },
    /// The first connection to this peer.
    PeerConnected { peer: PeerId },
    /// The last connection to this peer is gone.
    PeerDisconnected { peer: PeerId },
}

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Invalid(#[from] RecordError),
    #[error("the record is older than the one that is known")]
    Older,
    #[error("nobody here follows or publishes the name")]
    NotFollowed,
}

/// The program's end of the node's events.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` when the node has stopped.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// How often what happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub records_taken: u64,
    /// Broken, foreign or expired.
    pub records_invalid: u64,
    pub records_older: u64,
    pub records_not_followed: u64,
    /// The program did not look for too long.
    pub events_dropped: u64,
    /// CIDs that a DHT was told of.
    pub announced: u64,
}

/// [`Stats`], being counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    records_taken: AtomicU64,
    records_invalid: AtomicU64,
    records_older: AtomicU64,
    records_not_followed: AtomicU64,
    events_dropped: AtomicU64,
    announced: AtomicU64,
}

impl Counters {
    pub(crate) fn taken(&self) {
        self.records_taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, reason: &Refusal) {
        let counter = match reason {
            Refusal::Invalid(_) => &self.records_invalid,
            Refusal::Older => &self.records_older,
            Refusal::NotFollowed => &self.records_not_followed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            records_taken: self.records_taken.load(Ordering::Relaxed),
            records_invalid: self.records_invalid.load(Ordering::Relaxed),
            records_older: self.records_older.load(Ordering::Relaxed),
            records_not_followed: self.records_not_followed.load(Ordering::Relaxed),
            events_dropped: self.events_dropped.load(Ordering::Relaxed),
            announced: self.announced.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn announced(&self) {
        self.announced.fetch_add(1, Ordering::Relaxed);
    }

    fn dropped(&self) {
        self.events_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The node's end: keeps back what the program has no room for.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<Event>,
    kept: VecDeque<Event>,
}

impl Outbox {
    pub(crate) fn new() -> (Self, Events) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender, kept: VecDeque::new() }, Events(receiver))
    }

    pub(crate) fn push(&mut self, event: Event, counters: &Counters) {
        let event = if self.kept.is_empty() {
            match self.sender.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => event,
            }
        } else {
            event
        };
        if let Event::Record { record, .. } = &event {
            let name = *record.name();
            let before = self.kept.len();
            self.kept.retain(|kept| !matches!(kept, Event::Record { record, .. } if *record.name() == name));
            if self.kept.len() < before {
                counters.dropped();
            }
        }
        if self.kept.len() >= KEPT_BACK {
            self.kept.pop_front();
            counters.dropped();
        }
        self.kept.push_back(event);
    }

    pub(crate) fn is_behind(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Hands over one event that was kept back, as soon as there is room.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn deliver(&mut self) {
        match self.sender.reserve().await {
            Ok(permit) => {
                if let Some(event) = self.kept.pop_front() {
                    permit.send(event);
                }
            }
            Err(_) => self.kept.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::ipns::{Draft, Record};
    use crate::key::Keypair;

    fn record(key: &Keypair, sequence: u64) -> Event {
        let record =
            Record::sign(key, &Draft::new("bafkqaaa".parse().unwrap(), sequence, UNIX_EPOCH)).unwrap();
        Event::Record { record, nodes: Bytes::new(), from: None, via: Via::Dht, expired: false }
    }

    #[tokio::test]
    async fn a_program_that_does_not_look_gets_the_newest_record_of_each_name() {
        let counters = Counters::default();
        let (mut outbox, mut events) = Outbox::new();
        let (one, two) = (Keypair::generate(), Keypair::generate());
        for sequence in 1..=200 {
            outbox.push(record(&one, sequence), &counters);
            outbox.push(record(&two, sequence), &counters);
        }
        assert_eq!(outbox.kept.len(), 2);
        assert!(counters.read().events_dropped > 0);
        let mut last = Vec::new();
        while outbox.is_behind() {
            assert!(matches!(events.next().await, Some(Event::Record { .. })));
            outbox.deliver().await;
        }
        while let Ok(Event::Record { record, .. }) = events.0.try_recv() {
            last.push((*record.name(), record.sequence()));
        }
        assert_eq!(last[last.len() - 2..], [(one.name(), 200), (two.name(), 200)]);
    }

    #[tokio::test]
    async fn what_is_kept_back_is_bounded() {
        let counters = Counters::default();
        let (mut outbox, _events) = Outbox::new();
        for _ in 0..2 * (QUEUE + KEPT_BACK) {
            outbox.push(Event::PeerConnected { peer: PeerId::random() }, &counters);
        }
        assert_eq!(outbox.kept.len(), KEPT_BACK);
        assert_eq!(counters.read().events_dropped, (QUEUE + KEPT_BACK) as u64);
    }
}
