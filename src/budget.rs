//! Memory that strangers can make the server hold: what waits in the buffers of connections and uploads. All of them
//! take it out of one purse, each the less, the less is left in it. So few are fast, and many stay small together.
//!
//! It counts and does not allocate.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Nobody takes more than one such part of what is left.
const PART: usize = 8;

/// So many bytes for all who share them.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicUsize,
}

/// What one of them holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: &'static Budget,
    held: usize,
}

impl Budget {
    pub(crate) const fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    pub(crate) const fn share(&'static self) -> Share {
        Share { budget: self, held: 0 }
    }
}

impl Share {
    /// Takes what is missing to `bytes`. `false` where that is more than one may have, and nothing is taken.
    pub(crate) fn reach(&mut self, bytes: usize) -> bool {
        bytes <= self.held || self.grow(bytes) >= bytes
    }

    /// Comes as near to `most` as it may, and returns how much it has.
    pub(crate) fn approach(&mut self, most: usize) -> usize {
        if self.held < most { self.grow_within(0, most) } else { self.held }
    }

    fn grow(&mut self, bytes: usize) -> usize {
        self.grow_within(bytes, bytes)
    }

    /// To `most`, or as far as it may, but not at all where that is less than `least`.
    fn grow_within(&mut self, least: usize, most: usize) -> usize {
        let held = self.held;
        let next = |left: usize| most.min((left + held) / PART).max(held);
        let taken = self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            let next = next(left);
            (next > held && next >= least).then(|| left - (next - held))
        });
        if let Ok(left) = taken {
            self.held = next(left);
        }
        self.held
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_get_all_they_ask_for_and_many_fit_into_the_budget_together() {
        static BUDGET: Budget = Budget::new(1 << 20);
        let mut first = BUDGET.share();
        assert_eq!(first.approach(1 << 16), 1 << 16);
        let mut many: Vec<Share> = (0..10_000).map(|_| BUDGET.share()).collect();
        let held: usize = many.iter_mut().map(|share| share.approach(1 << 16)).sum();
        assert!(held + (1 << 16) <= 1 << 20 && held > 1 << 19);
        assert!(!BUDGET.share().reach(1 << 10));
        assert!(first.reach(1 << 16), "what one has it keeps");
        drop((first, many));
        assert_eq!(BUDGET.left.load(Ordering::Relaxed), 1 << 20);
        assert!(BUDGET.share().reach(1 << 16));
    }

    proptest! {
        #[test]
        fn no_more_is_held_than_there_was(asked in proptest::collection::vec((0..8_usize, 0..5000_usize, any::<bool>()), 0..200)) {
            let budget: &'static Budget = Box::leak(Box::new(Budget::new(10_000)));
            let mut shares: Vec<Share> = (0..8).map(|_| budget.share()).collect();
            for (place, bytes, all) in asked {
                let share = &mut shares[place];
                let before = share.held;
                if all {
                    prop_assert_eq!(share.reach(bytes), bytes <= share.held);
                    prop_assert!(share.held == before || share.held == bytes);
                } else {
                    prop_assert_eq!(share.approach(bytes), share.held);
                }
                prop_assert!(share.held >= before);
                let held: usize = shares.iter().map(|share| share.held).sum();
                prop_assert_eq!(held + budget.left.load(Ordering::Relaxed), 10_000);
            }
        }
    }
}
