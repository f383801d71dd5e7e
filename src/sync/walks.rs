//! What trees that are on their way here may take of the machine together, however many names are followed and whatever
//! their trees are like.
//!
//! An honest tree of any size needs little at a time: directories come, are looked through, and lie on the disk. One that
//! is wide at many levels needs more, and there is one of these at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Trees that come at once. A name that nobody gives keeps its place for as long as an adoption is patient, so that there
/// are more of them than a board has names to follow.
const AT_ONCE: usize = 64;
/// What each of them may hold without asking: some 1,500 names that are to be compared.
pub(super) const SMALL: usize = 256 * 1024;
/// How long one may hold more while others wait for that. What has come by then is not asked for again.
const TURN: Duration = Duration::from_mins(2);

const STOPS: &str = "the program stops";

/// Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Walks {
    places: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// Trees that wait until they may hold more.
    waiting: Arc<AtomicUsize>,
    /// To the one thread that looks through trees. So they keep one core busy, and what the allocator keeps of a wide
    /// directory it keeps once, and not for each thread of a pool.
    looker: mpsc::Sender<Look>,
}

type Look = Box<dyn FnOnce() + Send>;

/// The place of one tree, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    walks: Walks,
    _entered: OwnedSemaphorePermit,
    large: Option<(OwnedSemaphorePermit, Instant)>,
}

impl Walks {
    pub(super) fn start() -> io::Result<Self> {
        // Each tree has one look under way.
        let (looker, mut looks) = mpsc::channel::<Look>(AT_ONCE);
        thread::Builder::new().name("trees".into()).spawn(move || {
            while let Some(look) = looks.blocking_recv() {
                look();
            }
        })?;
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Ok(Self { places: semaphore(AT_ONCE), large: semaphore(1), waiting: Arc::default(), looker })
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> anyhow::Result<Place> {
        let entered = Arc::clone(&self.places).acquire_owned().await.context(STOPS)?;
        Ok(Place { walks: self.clone(), _entered: entered, large: None })
    }
}

impl Place {
    /// Bytes that may be held; beyond what is small the walk itself has a bound.
    pub(super) fn room(&self) -> usize {
        if self.large.is_some() { usize::MAX } else { SMALL }
    }

    /// Looks through a part of the tree, after those that others asked for before.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, looked) = oneshot::channel();
        let look = move || {
            // Whoever was to take it may have gone.
            let _ = done.send(look());
        };
        self.walks.looker.send(Box::new(look)).await.ok().context(STOPS)?;
        looked.await.context(STOPS)
    }

    /// Waits until this one may hold more. Whoever waits should hold nothing.
    pub(super) async fn widen(&mut self) -> anyhow::Result<()> {
        let waiting = Waiting::begin(&self.walks.waiting);
        let large = Arc::clone(&self.walks.large).acquire_owned().await.context(STOPS)?;
        drop(waiting);
        self.large = Some((large, Instant::now()));
        Ok(())
    }

    /// It had the room of all long enough, and others wait for it.
    pub(super) fn is_over(&self) -> bool {
        self.is_over_at(Instant::now())
    }

    fn is_over_at(&self, now: Instant) -> bool {
        let had = self.large.as_ref().map(|(_, since)| now.saturating_duration_since(*since));
        had.is_some_and(|had| had >= TURN) && self.walks.waiting.load(Ordering::Relaxed) > 0
    }
}

/// One that waits, until it is dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn begin(waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(waiting))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_tree_at_a_time_may_hold_much_and_not_for_ever_where_others_wait() {
        let walks = Walks::start().unwrap();
        let (mut first, mut second) = (walks.enter().await.unwrap(), walks.enter().await.unwrap());
        first.widen().await.unwrap();
        assert_eq!((first.room(), second.room()), (usize::MAX, SMALL));
        let later = Instant::now() + TURN;
        assert!(!first.is_over_at(later), "nobody else wants it");
        let mut waits = Box::pin(second.widen());
        assert!(futures::poll!(&mut waits).is_pending());
        assert!(!first.is_over() && first.is_over_at(later));
        drop(first);
        waits.await.unwrap();
        assert!(!second.is_over_at(later), "nobody waits any more");
    }

    #[tokio::test]
    async fn more_trees_than_there_are_places_wait() {
        let walks = Walks::start().unwrap();
        let mut places = Vec::new();
        while let Some(place) = walks.enter().now_or_never() {
            places.push(place);
        }
        assert_eq!(places.len(), AT_ONCE);
        assert_eq!(places[0].as_ref().unwrap().look(|| 7).await.unwrap(), 7);
        places.pop();
        assert!(walks.enter().now_or_never().is_some());
    }
}
