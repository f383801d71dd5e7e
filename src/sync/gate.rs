//! What lets a mirror fetch one blob more: the time of the day, and room in its quota.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sampan_node::Wall;

use super::following::Following;
use super::window::Window;
use crate::config::size_text;

/// A clock may be set while a window is waited for: it is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Of one pass. What has closed it once keeps it closed.
#[derive(Debug)]
pub(super) struct Gate {
    wall: Wall,
    window: Option<Window>,
    quota: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes that are here, or on their way.
    kept: u64,
    closed: Option<Closed>,
}

/// Why nothing more is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It is the wrong time of the day. It is looked at again after `wait`.
    Window {
        why: String,
        wait: Duration,
    },
    Quota {
        why: String,
    },
}

impl Gate {
    /// `kept` is what lies here of the name already.
    pub(super) fn new(wall: Wall, following: &Following, kept: u64) -> Self {
        let (window, quota) = (following.window, following.quota);
        Self { wall, window, quota, state: Mutex::new(State { kept, closed: None }) }
    }

    /// Lets a blob of so many bytes in. After the first that is refused none is let in.
    pub(super) fn enter(&self, size: u64) -> bool {
        let mut state = self.lock();
        if state.closed.is_none() {
            state.closed = self.window.and_then(|window| shut(&self.wall, window));
        }
        if state.closed.is_none()
            && let Some(quota) = self.quota
            && state.kept.saturating_add(size) > quota
        {
            let State { kept, .. } = *state;
            let (all, next) = (size_text(quota), size_text(size));
            let why = format!(
                "its quota of {all} has no room: {kept} bytes are kept, and the next blob has {next}; raise quota, or show or pin fewer repositories"
            );
            state.closed = Some(Closed::Quota { why });
        }
        if state.closed.is_none() {
            state.kept = state.kept.saturating_add(size);
        }
        state.closed.is_none()
    }

    /// One that was let in did not come.
    pub(super) fn leave(&self, size: u64) {
        let mut state = self.lock();
        state.kept = state.kept.saturating_sub(size);
    }

    pub(super) fn closed(&self) -> Option<Closed> {
        self.lock().closed.clone()
    }

    /// Bytes that are kept, where they are counted.
    pub(super) fn kept(&self) -> Option<u64> {
        self.quota.map(|_| self.lock().kept)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Closed {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Window { why, .. } | Self::Quota { why } => why,
        }
    }
}

/// Whether the window is not open now. A clock that cannot be believed opens none.
pub(super) fn shut(wall: &Wall, window: Window) -> Option<Closed> {
    let Some(now) = wall.time_of_day() else {
        let why = "its window is not known before the clock is set".to_owned();
        return Some(Closed::Window { why, wait: LOOK_AGAIN });
    };
    let wait = window.opens_in(now)?;
    let why = format!("waits for its window, which opens at {}", window.beginning());
    Some(Closed::Window { why, wait: wait.min(LOOK_AGAIN) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;

    const NAME: &str = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";
    /// Midnight of a day after this was written.
    const MIDNIGHT: Duration = Duration::from_hours(24 * 21_000);

    fn following(window: Option<&str>, quota: Option<u64>) -> Following {
        let window = window.map(|text| text.parse().unwrap());
        Following { quota, window, ..Following::plain(NAME.parse().unwrap()) }
    }

    /// A clock that tells hours after midnight, and the hand that sets it.
    fn clock(hours: u64) -> (Arc<Mutex<u64>>, Wall) {
        let hand = Arc::new(Mutex::new(hours));
        let hours = Arc::clone(&hand);
        let told = move || SystemTime::UNIX_EPOCH + MIDNIGHT + Duration::from_hours(*hours.lock().unwrap());
        (hand, Wall::telling(told))
    }

    #[test]
    fn a_pass_goes_on_until_its_window_ends_and_another_begins_in_the_next() {
        let (hand, wall) = clock(1);
        let following = following(Some("01:00-05:00"), None);
        let gate = Gate::new(wall.clone(), &following, 0);
        assert!(gate.enter(7) && gate.closed().is_none());
        *hand.lock().unwrap() = 5;
        assert!(!gate.enter(7));
        let closed = gate.closed().unwrap();
        assert!(closed.why().contains("opens at 01:00 UTC"), "{closed:?}");
        assert!(matches!(closed, Closed::Window { wait: LOOK_AGAIN, .. }));
        *hand.lock().unwrap() = 25;
        assert!(!gate.enter(7), "this pass has ended");
        assert!(shut(&wall, following.window.unwrap()).is_none());
        assert!(Gate::new(wall, &following, 0).enter(7));
    }

    #[test]
    fn without_a_clock_no_window_is_open() {
        let wall = Wall::telling(|| SystemTime::UNIX_EPOCH + Duration::from_hours(2));
        let gate = Gate::new(wall.clone(), &following(Some("01:00-05:00"), None), 0);
        assert!(!gate.enter(1) && gate.closed().unwrap().why().contains("clock"));
        assert!(Gate::new(wall, &following(None, None), 0).enter(1));
    }

    #[test]
    fn a_quota_lets_in_what_fits_and_then_nothing() {
        let (_, wall) = clock(0);
        let gate = Gate::new(wall, &following(None, Some(100)), 50);
        assert!(gate.enter(40));
        gate.leave(40);
        assert!(gate.enter(50));
        assert_eq!(gate.kept(), Some(100));
        assert!(!gate.enter(1));
        assert!(matches!(gate.closed(), Some(Closed::Quota { why }) if why.contains("quota of 100")));
        gate.leave(50);
        assert!(!gate.enter(1), "keeps to what it said until the pass has ended");
    }
}
