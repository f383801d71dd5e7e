//! What was sent and received, in numbers that any task may read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::PeerId;

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub blocks_sent: u64,
    pub bytes_sent: u64,
    pub blocks_received: u64,
    pub bytes_received: u64,
    /// Right blocks that nobody waited for: a second copy, or one that came after its want was cancelled.
    pub duplicates: u64,
    /// Thrown away unread: streams with bad frames, blocks from a peer that was asked for nothing, blocks of
    /// unknown kinds, wants above the limit of a peer.
    pub refused: u64,
}

/// What passed between us and one connected peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    pub blocks_sent: u64,
    pub bytes_sent: u64,
    pub blocks_received: u64,
    pub bytes_received: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    total: Traffic,
    duplicates: AtomicU64,
    refused: AtomicU64,
    // Only connected peers: the swarm's limit on connections bounds it.
    peers: Mutex<HashMap<PeerId, Arc<Traffic>>>,
}

#[derive(Debug, Default)]
struct Traffic {
    blocks_sent: AtomicU64,
    bytes_sent: AtomicU64,
    blocks_received: AtomicU64,
    bytes_received: AtomicU64,
}

impl Counters {
    pub(super) fn connected(&self, peer: PeerId) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).entry(peer).or_default();
    }

    pub(super) fn disconnected(&self, peer: &PeerId) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    pub(super) fn sent(&self, peer: &PeerId, blocks: usize, bytes: usize) {
        self.each(peer, |traffic| {
            traffic.blocks_sent.fetch_add(blocks as u64, Relaxed);
            traffic.bytes_sent.fetch_add(bytes as u64, Relaxed);
        });
    }

    pub(super) fn received(&self, peer: &PeerId, blocks: usize, bytes: usize) {
        self.each(peer, |traffic| {
            traffic.blocks_received.fetch_add(blocks as u64, Relaxed);
            traffic.bytes_received.fetch_add(bytes as u64, Relaxed);
        });
    }

    pub(super) fn duplicates(&self, blocks: u64) {
        self.duplicates.fetch_add(blocks, Relaxed);
    }

    pub(super) fn refused(&self, things: u64) {
        self.refused.fetch_add(things, Relaxed);
    }

    pub(super) fn stats(&self) -> Stats {
        let PeerStats { blocks_sent, bytes_sent, blocks_received, bytes_received } = self.total.read();
        let (duplicates, refused) = (self.duplicates.load(Relaxed), self.refused.load(Relaxed));
        Stats { blocks_sent, bytes_sent, blocks_received, bytes_received, duplicates, refused }
    }

    /// Peers that are connected.
    pub(super) fn connected_peers(&self) -> usize {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn peer(&self, peer: &PeerId) -> Option<PeerStats> {
        self.traffic(peer).map(|traffic| traffic.read())
    }

    fn each(&self, peer: &PeerId, count: impl Fn(&Traffic)) {
        count(&self.total);
        if let Some(traffic) = self.traffic(peer) {
            count(&traffic);
        }
    }

    fn traffic(&self, peer: &PeerId) -> Option<Arc<Traffic>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).get(peer).map(Arc::clone)
    }
}

impl Traffic {
    fn read(&self) -> PeerStats {
        PeerStats {
            blocks_sent: self.blocks_sent.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            blocks_received: self.blocks_received.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
        }
    }
}
