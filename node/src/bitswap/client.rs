//! The handle for other tasks: sessions that ask for blocks and take them as they come.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use cid::Cid;
use futures::task::AtomicWaker;
use libp2p::PeerId;
use sampan_storage::Block;
use tokio::sync::{Semaphore, TryAcquireError, mpsc};

use super::counters::{Counters, PeerStats, Stats};
use super::turns::Turns;

/// Commands that wait for the behaviour; whoever sends more waits.
pub(super) const COMMANDS: usize = 256;

/// Blocks and errors that wait for a session's owner. A want needs room for two: an error, then the block.
pub(super) const DELIVERIES: usize = 2048;

/// Wants of one session that the behaviour holds. What its owner asks for beyond that stays with the owner.
const QUEUED: usize = 16 * 1024;

/// Wants in one command.
const WANTS_AT_ONCE: usize = 1024;

/// What a want of unknown size counts in the window.
const UNKNOWN_SIZE: u32 = 256 * 1024;

/// The behaviour is gone: the node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Closed;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Said once for a want. It stays: a peer that connects later, or gets the block, may still answer it.
    #[error("no connected peer has the block {0}")]
    NoProvider(Cid),
}

#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Peers that are thought to have the blocks. They are dialled if they are not connected, and asked for
    /// blocks at once; all others are first asked whether they have them.
    pub providers: Vec<PeerId>,
    /// Peers that fetch the same. Whatever one of them has by now is rather taken from there: before anyone else is
    /// asked for a block they have a moment to say whether they have it, and longer where it is their turn to get it.
    pub turns: Turns,
    /// Bytes that may be asked for and not yet taken. One block is always asked for.
    pub window_bytes: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { providers: Vec::new(), turns: Turns::default(), window_bytes: 16 * 1024 * 1024 }
    }
}

/// Opens sessions and tells of new blocks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    signal: Arc<Signal>,
    counters: Arc<Counters>,
    sessions: Arc<AtomicU64>,
}

impl Client {
    pub(super) fn new(commands: mpsc::Sender<Command>, signal: Arc<Signal>, counters: Arc<Counters>) -> Self {
        Self { commands, signal, counters, sessions: Arc::default() }
    }

    pub async fn session(&self, options: SessionOptions) -> Result<Session, Closed> {
        let id = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (deliveries, blocks) = mpsc::channel(DELIVERIES);
        let shared = Arc::new(Shared { untaken: AtomicUsize::new(0), queue: Semaphore::new(QUEUED) });
        let opened = Opened { options, deliveries, shared: Arc::clone(&shared) };
        self.commands.send(Command::Open(id, opened)).await.map_err(|_| Closed)?;
        let asker = Asker { id, commands: self.commands.clone(), shared };
        Ok(Session { asker, blocks, signal: Arc::clone(&self.signal), backlog: Mutex::default() })
    }

    /// Blocks are in the store now: peers that wait for them are answered.
    pub async fn notify(&self, cids: Vec<Cid>) {
        // A node that has stopped has nobody to tell.
        let _ = self.commands.send(Command::Notify(cids)).await;
    }

    /// The store has got more, whichever blocks that are: peers that wait for some of them are answered soon.
    pub async fn restocked(&self) {
        let _ = self.commands.send(Command::Restocked).await;
    }

    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// Peers that are connected.
    pub fn connected_peers(&self) -> usize {
        self.counters.connected_peers()
    }

    /// What passed between us and this peer, or `None` if it is not connected.
    pub fn peer_stats(&self, peer: &PeerId) -> Option<PeerStats> {
        self.counters.peer(peer)
    }
}

/// Wants that belong together: one blob, or one walk over a tree. Dropping it cancels them.
#[derive(Debug)]
pub struct Session {
    asker: Asker,
    blocks: mpsc::Receiver<Delivery>,
    signal: Arc<Signal>,
    // Wants that the behaviour has no room for yet. Never longer than what the owner handed over.
    backlog: Mutex<VecDeque<(Cid, u32)>>,
}

impl Session {
    /// Asks for blocks, with the bytes that each is expected to have (0 if unknown), in the order in which
    /// they should be asked for. Each want is delivered once, by [`Session::next`]. Does not wait for blocks.
    pub async fn want(&self, wants: Vec<(Cid, u32)>) -> Result<(), Closed> {
        self.backlog().extend(wants);
        self.hand_over().await
    }

    /// The next block, in any order, checked against its CID; or what went wrong with a want. `None` only when
    /// the node has stopped: it waits for ever where nothing is wanted.
    ///
    /// May be dropped before it is ready; nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Block, SessionError>> {
        self.hand_over().await.ok()?;
        let delivery = self.blocks.recv().await?;
        if let Ok(block) = &delivery {
            self.asker.shared.untaken.fetch_sub(block.data().len(), Ordering::Relaxed);
            self.asker.shared.queue.add_permits(1);
        }
        self.signal.raise();
        Some(delivery)
    }

    pub async fn add_provider(&self, peer: PeerId) {
        self.asker.add_provider(peer).await;
    }

    /// No longer wants these. A block that is on its way out of [`Session::next`] still comes.
    pub async fn cancel(&self, cids: Vec<Cid>) {
        self.backlog().retain(|(cid, _)| !cids.contains(cid));
        let _ = self.asker.commands.send(Command::Cancel(self.asker.id, cids)).await;
    }

    /// Gives the behaviour as many wants as it has room for.
    async fn hand_over(&self) -> Result<(), Closed> {
        while !self.backlog().is_empty() && self.asker.shared.queue.available_permits() > 0 {
            let command = self.asker.commands.reserve().await.map_err(|_| Closed)?;
            let mut backlog = self.backlog();
            let count = WANTS_AT_ONCE.min(backlog.len()).min(self.asker.shared.queue.available_permits());
            let room = u32::try_from(count).map_err(|_| Closed)?;
            match self.asker.shared.queue.try_acquire_many(room) {
                Ok(permits) => permits.forget(),
                Err(TryAcquireError::Closed) => return Err(Closed),
                // An asker took the room meanwhile; the next block makes some.
                Err(TryAcquireError::NoPermits) => continue,
            }
            command.send(Command::Want(self.asker.id, backlog.drain(..count).map(counted).collect()));
        }
        Ok(())
    }

    fn backlog(&self) -> std::sync::MutexGuard<'_, VecDeque<(Cid, u32)>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle that asks in this session while another task takes its blocks.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.blocks.close();
        self.asker.shared.queue.close();
        self.signal.raise();
    }
}

/// Asks in a session that another task reads.
#[derive(Clone, Debug)]
pub struct Asker {
    id: SessionId,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Asker {
    /// As [`Session::want`], but waits for blocks to be taken where 16,384 wants wait already. [`Closed`] also
    /// when the session was dropped.
    pub async fn want(&self, wants: Vec<(Cid, u32)>) -> Result<(), Closed> {
        for wants in wants.chunks(WANTS_AT_ONCE) {
            let room = u32::try_from(wants.len()).map_err(|_| Closed)?;
            self.shared.queue.acquire_many(room).await.map_err(|_| Closed)?.forget();
            let wants = wants.iter().copied().map(counted).collect();
            self.commands.send(Command::Want(self.id, wants)).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    pub async fn add_provider(&self, peer: PeerId) {
        let _ = self.commands.send(Command::Provider(self.id, peer)).await;
    }
}

fn counted((cid, expected): (Cid, u32)) -> (Cid, u32) {
    (cid, if expected == 0 { UNKNOWN_SIZE } else { expected })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u64);

pub(super) type Delivery = Result<Block, SessionError>;

#[derive(Debug)]
pub(super) enum Command {
    Open(SessionId, Opened),
    Want(SessionId, Vec<(Cid, u32)>),
    Provider(SessionId, PeerId),
    Cancel(SessionId, Vec<Cid>),
    Notify(Vec<Cid>),
    Restocked,
}

/// The behaviour's side of a session.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) options: SessionOptions,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// Bytes delivered and not taken by the owner.
    pub(super) untaken: AtomicUsize,
    /// Room for wants.
    pub(super) queue: Semaphore,
}

/// Wakes the behaviour when a session took a block or ended.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it was raised since the last time, and asks to be woken when it is again.
    pub(super) fn poll(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.raised.swap(false, Ordering::Acquire)
    }
}
