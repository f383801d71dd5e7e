//! A session as its wants see it: what waits, what is open, what was delivered, and which peers it counts on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cid::Cid;
use libp2p::PeerId;
use sampan_storage::Block;
use tokio::sync::mpsc;

use super::client::{Delivery, Opened, SessionError, Shared};
use super::turns::Turns;

/// Wants that one session has open; more wait in its queue. A peer is told of as many at most.
const MAX_OPEN: usize = 1024;

/// After so many DONT_HAVEs in a row a peer is asked whether it has a block before it is asked for it.
const UNSURE_AFTER: u32 = 4;

#[derive(Debug)]
pub(super) struct SessionState {
    window: usize,
    open: usize,
    open_bytes: usize,
    // Bounded by the permits that were taken for what is in it.
    queue: VecDeque<(Cid, u32)>,
    standings: HashMap<PeerId, Standing>,
    turns: Turns,
    deliveries: mpsc::Sender<Delivery>,
    shared: Arc<Shared>,
}

/// What a session knows of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// It was named as a provider, or had a block.
    provides: bool,
    /// DONT_HAVEs in a row.
    misses: u32,
}

impl Standing {
    const PROVIDER: Self = Self { provides: true, misses: 0 };
}

impl SessionState {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened { options, deliveries, shared } = opened;
        Self {
            window: options.window_bytes,
            open: 0,
            open_bytes: 0,
            queue: VecDeque::new(),
            standings: options.providers.into_iter().map(|peer| (peer, Standing::PROVIDER)).collect(),
            turns: options.turns,
            deliveries,
            shared,
        }
    }

    pub(super) fn push(&mut self, wants: Vec<(Cid, u32)>) {
        self.queue.extend(wants);
    }

    /// Opens the next want, if the window has room for it.
    pub(super) fn open_next(&mut self) -> Option<(Cid, usize)> {
        let (cid, size) = self.queue.front().copied()?;
        let size = size as usize;
        let used = self.open_bytes + self.shared.untaken.load(Ordering::Relaxed);
        // Each open want may need two places: for an error, and then for the block.
        let crowded = self.open >= MAX_OPEN || (self.open + 1) * 2 > self.deliveries.capacity();
        if crowded || (used > 0 && used + size > self.window) {
            return None;
        }
        self.queue.pop_front();
        self.open += 1;
        self.open_bytes += size;
        Some((cid, size))
    }

    /// Hands over the block of an open want.
    pub(super) fn deliver(&mut self, size: usize, block: Block) {
        self.close(size);
        let length = block.data().len();
        let untaken = self.shared.untaken.load(Ordering::Relaxed);
        if untaken > 0 && untaken + length > self.window.saturating_mul(2) {
            // Blocks are much larger than they were said to be: this one is asked for again when there is room.
            self.queue.push_front((*block.cid(), u32::try_from(length).unwrap_or(u32::MAX)));
            return;
        }
        self.shared.untaken.fetch_add(length, Ordering::Relaxed);
        // There is room for each open want; an owner that is gone is noticed by the next sweep.
        let _ = self.deliveries.try_send(Ok(block));
    }

    pub(super) fn report(&self, error: SessionError) {
        let _ = self.deliveries.try_send(Err(error));
    }

    /// Takes wants out of the queue.
    pub(super) fn cancel_queued(&mut self, cids: &HashSet<Cid>) {
        let before = self.queue.len();
        self.queue.retain(|(cid, _)| !cids.contains(cid));
        self.shared.queue.add_permits(before - self.queue.len());
    }

    /// An open want is cancelled.
    pub(super) fn cancel_open(&mut self, size: usize) {
        self.close(size);
        self.shared.queue.add_permits(1);
    }

    /// Whether the owner is gone.
    pub(super) fn is_over(&self) -> bool {
        self.deliveries.is_closed()
    }

    pub(super) fn add_provider(&mut self, peer: PeerId) {
        self.standings.insert(peer, Standing::PROVIDER);
    }

    pub(super) fn missed(&mut self, peer: PeerId) {
        let standing = self.standings.entry(peer).or_default();
        standing.misses = standing.misses.saturating_add(1);
    }

    /// Whether the peer is asked for blocks without asking first whether it has them.
    pub(super) fn counts_on(&self, peer: &PeerId) -> bool {
        self.standings.get(peer).is_some_and(|known| known.provides && known.misses < UNSURE_AFTER)
    }

    /// Whether the peer fetches the same, so that it has more with every moment.
    pub(super) fn is_with(&self, peer: &PeerId) -> bool {
        self.turns.is_with(peer)
    }

    pub(super) fn has_companions(&self) -> bool {
        !self.turns.are_none()
    }

    /// How many of those that fetch the same are to ask for this block before us.
    pub(super) fn before_us(&self, cid: &Cid) -> usize {
        self.turns.of(cid).0
    }

    /// How often in a row the peer did not have what this session wanted.
    pub(super) fn misses(&self, peer: &PeerId) -> u32 {
        self.standings.get(peer).map_or(0, |known| known.misses)
    }

    fn close(&mut self, size: usize) {
        self.open -= 1;
        self.open_bytes -= size;
    }
}

impl Drop for SessionState {
    fn drop(&mut self) {
        // Whoever waits for room to ask must not wait for ever.
        self.shared.queue.close();
    }
}
