//! Who needs a digest just now, and when it was last asked for: what keeps a collection and a push apart.
//!
//! A push pins every digest that it names before it looks whether they are here, and lets go when its commit is
//! durable. A collection claims a digest before it takes it away, which it cannot while it is pinned or was touched
//! since; whoever pins a claimed digest waits until the claim is over, and then sees what is there.
//! Kept in memory only: at a start everything counts as touched.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::digest::Digest;

/// Digests whose last touch is remembered, some 100 bytes each. Of more, the older half is forgotten.
const MAX_TOUCHED: usize = 50_000;

#[derive(Debug)]
pub(crate) struct Pins {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug)]
struct State {
    pinned: HashMap<Digest, usize>,
    claimed: HashSet<Digest>,
    touched: HashMap<Digest, Instant>,
    /// Everything else was touched then.
    floor: Instant,
}

/// Digests that are not taken away while this lives. Its end is a touch: somebody was told that they are here, and will
/// count on that for a while.
#[derive(Debug)]
#[must_use = "a pin holds as long as it lives"]
pub struct Pin {
    pins: Arc<Pins>,
    digests: Vec<Digest>,
    found: bool,
}

/// Digests that nobody may pin while this lives.
#[derive(Debug)]
#[must_use = "a claim holds as long as it lives"]
pub struct Claim {
    pins: Arc<Pins>,
    digests: Vec<Digest>,
}

impl Default for Pins {
    fn default() -> Self {
        let state = State {
            pinned: HashMap::new(),
            claimed: HashSet::new(),
            touched: HashMap::new(),
            floor: Instant::now(),
        };
        Self { state: Mutex::new(state), released: Condvar::new() }
    }
}

impl Pins {
    /// Waits while one of them is claimed: for one commit, or for the removal of some files.
    pub(crate) fn pin(self: &Arc<Self>, digests: Vec<Digest>) -> Pin {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let claimed = |state: &mut State| digests.iter().any(|digest| state.claimed.contains(digest));
        let mut state = self.released.wait_while(state, claimed).unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *state.pinned.entry(*digest).or_default() += 1;
        }
        drop(state);
        Pin { pins: Arc::clone(self), digests, found: true }
    }

    /// The same without waiting; `None` where one of them is claimed.
    pub(crate) fn try_pin(self: &Arc<Self>, digests: Vec<Digest>) -> Option<Pin> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.iter().any(|digest| state.claimed.contains(digest)) {
            return None;
        }
        for digest in &digests {
            *state.pinned.entry(*digest).or_default() += 1;
        }
        drop(state);
        Some(Pin { pins: Arc::clone(self), digests, found: true })
    }

    /// Those of the digests that nobody has pinned, claimed, or touched at `since` or later.
    pub(crate) fn claim(self: &Arc<Self>, digests: &[Digest], since: Instant) -> Claim {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let digests = digests.iter().copied().filter(|digest| state.claim(*digest, since)).collect();
        drop(state);
        Claim { pins: Arc::clone(self), digests }
    }
}

impl State {
    fn touch(&mut self, digest: Digest) {
        if self.touched.len() >= MAX_TOUCHED {
            let mut times: Vec<Instant> = self.touched.values().copied().collect();
            let (_, median, _) = times.select_nth_unstable(MAX_TOUCHED / 2);
            let median = *median;
            // What is forgotten counts as touched no earlier than it was.
            self.floor = self.floor.max(median);
            self.touched.retain(|_, touched| *touched > median);
        }
        self.touched.insert(digest, Instant::now());
    }

    fn claim(&mut self, digest: Digest, since: Instant) -> bool {
        let touched = self.touched.get(&digest).copied().unwrap_or(self.floor).max(self.floor);
        touched < since && !self.pinned.contains_key(&digest) && self.claimed.insert(digest)
    }
}

impl Pin {
    /// They turned out not to be here: nobody counts on them, and whoever asks for what there never was leaves no trace.
    pub fn release(mut self) {
        self.found = false;
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.pins.state.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in self.digests.drain(..) {
            if let Some(count) = state.pinned.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    state.pinned.remove(&digest);
                }
            }
            if self.found {
                state.touch(digest);
            }
        }
    }
}

impl Claim {
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.pins.state.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            state.claimed.remove(digest);
        }
        drop(state);
        self.pins.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    #[test]
    fn what_is_pinned_or_touched_since_is_not_claimed() {
        let pins = Arc::new(Pins::default());
        let (one, two, three) = (digest("1"), digest("2"), digest("3"));
        let begun = Instant::now();
        let pin = pins.pin(vec![one]);
        drop(pins.pin(vec![two]));
        assert_eq!(pins.claim(&[one, two, three], begun).digests(), [three]);
        drop(pin);
        assert_eq!(pins.claim(&[one, two, three], begun).digests(), [three], "letting go is a touch");
        assert_eq!(pins.claim(&[one, two, three], Instant::now()).digests(), [one, two, three]);
    }

    #[test]
    fn what_was_not_found_leaves_no_trace() {
        let pins = Arc::new(Pins::default());
        let one = digest("1");
        let begun = Instant::now();
        pins.try_pin(vec![one]).unwrap().release();
        let claim = pins.claim(&[one], begun);
        assert_eq!(claim.digests(), [one]);
        assert!(pins.try_pin(vec![one]).is_none(), "it is claimed");
    }

    #[test]
    fn at_a_start_everything_was_touched() {
        let before = Instant::now();
        let pins = Arc::new(Pins::default());
        assert!(pins.claim(&[digest("1")], before).digests().is_empty());
    }

    #[test]
    fn a_pin_waits_for_the_claim_and_others_do_not() {
        let pins = Arc::new(Pins::default());
        let (claimed, free) = (digest("1"), digest("2"));
        let claim = pins.claim(&[claimed], Instant::now());
        assert!(pins.claim(&[claimed], Instant::now()).digests().is_empty(), "one claim at a time");
        drop(pins.pin(vec![free]));
        let (asked, asks) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn({
            let pins = Arc::clone(&pins);
            move || {
                let pin = pins.pin(vec![free, claimed]);
                asked.send(()).unwrap();
                drop(pin);
            }
        });
        assert!(asks.try_recv().is_err());
        drop(claim);
        waiter.join().unwrap();
        asks.recv().unwrap();
    }

    #[test]
    fn more_touches_than_are_kept_spare_what_was_forgotten() {
        let pins = Arc::new(Pins::default());
        let begun = Instant::now();
        let digests: Vec<Digest> = (0..=MAX_TOUCHED).map(|number| digest(&number.to_string())).collect();
        for digest in &digests {
            drop(pins.pin(vec![*digest]));
        }
        assert!(pins.state.lock().unwrap().touched.len() <= MAX_TOUCHED / 2 + 1);
        assert!(pins.claim(&digests, begun).digests().is_empty());
    }
}
