//! Memory for frames that come in, so that strangers can make this node hold only so much, however many they are.
//!
//! Small frames take room of their connection. Large ones also take it out of a purse that all connections share: those
//! of peers that were asked for blocks out of one, all others out of another and smaller one. So whoever was asked for
//! nothing can keep nobody waiting. It does not wait either, because what it has sent would wait in the muxer's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::MAX_FRAME;

/// Up to here a frame is small: wantlists of more than 1,000 entries are.
const SMALL: usize = 64 * 1024;

/// Small frames of one connection.
const SMALL_FRAMES: usize = 256 * 1024;

/// Large frames of one connection. Two of the largest: less would let one of them wait for the other.
const LARGE_FRAMES: usize = 2 * MAX_FRAME;

/// Large frames of all that were asked for blocks: two peers at their full speed.
const ASKED: usize = 4 * MAX_FRAME;

/// And of all others. Only a wantlist of very many entries is both honest and large.
const OTHERS: usize = MAX_FRAME;

/// What connections share. Clones share it.
#[derive(Clone, Debug)]
pub(in super::super) struct Budgets {
    asked: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

/// The room of one connection.
#[derive(Clone, Debug)]
pub(in super::super) struct Room {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    shared: Budgets,
    /// The peer was asked for a block, on this connection or on another.
    is_asked: Arc<AtomicBool>,
}

/// Room that is taken, until it is dropped.
#[derive(Debug)]
pub(in super::super) struct Permit {
    _own: OwnedSemaphorePermit,
    _shared: Option<OwnedSemaphorePermit>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { asked: Arc::new(Semaphore::new(ASKED)), others: Arc::new(Semaphore::new(OTHERS)) }
    }
}

impl Budgets {
    pub(in super::super) fn room(&self, is_asked: Arc<AtomicBool>) -> Room {
        Room {
            small: Arc::new(Semaphore::new(SMALL_FRAMES)),
            large: Arc::new(Semaphore::new(LARGE_FRAMES)),
            shared: self.clone(),
            is_asked,
        }
    }
}

impl Room {
    /// Room for a frame of at most [`MAX_FRAME`]: waits for it, unless the frame is large and was not asked for. `None`
    /// where there is none.
    pub(super) async fn take(&self, length: usize) -> Option<Permit> {
        let permits = u32::try_from(length.min(MAX_FRAME)).unwrap_or(u32::MAX);
        if length <= SMALL {
            let own = Arc::clone(&self.small).acquire_many_owned(permits).await.ok()?;
            return Some(Permit { _own: own, _shared: None });
        }
        let (large, asked) = (Arc::clone(&self.large), Arc::clone(&self.shared.asked));
        if self.is_asked.load(Ordering::Relaxed) {
            let own = large.acquire_many_owned(permits).await.ok()?;
            let shared = asked.acquire_many_owned(permits).await.ok()?;
            return Some(Permit { _own: own, _shared: Some(shared) });
        }
        let own = large.try_acquire_many_owned(permits).ok()?;
        let shared = Arc::clone(&self.shared.others).try_acquire_many_owned(permits).ok()?;
        Some(Permit { _own: own, _shared: Some(shared) })
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.small.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_was_asked_for_nothing_cannot_keep_others_waiting() {
        let budgets = Budgets::default();
        let strangers: Vec<Room> = (0..64).map(|_| budgets.room(Arc::default())).collect();
        let held: Vec<Permit> =
            strangers.iter().filter_map(|room| room.take(MAX_FRAME).now_or_never().flatten()).collect();
        assert_eq!(held.len(), OTHERS / MAX_FRAME);
        let small = strangers[5].take(SMALL).now_or_never().flatten();
        assert!(small.is_some(), "a small frame passes");
        let friend = budgets.room(Arc::new(AtomicBool::new(true)));
        assert!(friend.take(MAX_FRAME).now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn all_who_were_asked_share_one_budget() {
        let budgets = Budgets::default();
        let mut held = Vec::new();
        for room in (0..8).map(|_| budgets.room(Arc::new(AtomicBool::new(true)))) {
            held.extend((0..8).filter_map(|_| room.take(MAX_FRAME).now_or_never()));
        }
        assert_eq!(held.len(), ASKED / MAX_FRAME);
    }
}
