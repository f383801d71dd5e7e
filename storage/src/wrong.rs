//! Files of followed trees that are known not to be what their path says: a publisher may put other bytes under a digest,
//! or a file that cannot be read. They are not fetched again for a while, and another tree may have the right one.
//!
//! Kept in memory only: a start finds out anew.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cid::Cid;

use crate::digest::Digest;

/// For so long. It may have been this disk that was wrong, and not the tree.
const KEEP: Duration = Duration::from_hours(1);
/// So many are remembered, some 200 bytes each; beyond, the oldest half is fetched in vain once more.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Wrong(Mutex<HashMap<(Digest, Cid), Instant>>);

impl Wrong {
    pub(crate) fn note(&self, digest: &Digest, cid: &Cid) {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, at| now.duration_since(*at) < KEEP);
        if known.len() >= MOST {
            let mut ages: Vec<Instant> = known.values().copied().collect();
            ages.sort_unstable();
            let middle = ages.get(MOST / 2).copied().unwrap_or(now);
            known.retain(|_, at| *at > middle);
        }
        known.insert((*digest, *cid), now);
    }

    pub(crate) fn has(&self, digest: &Digest, cid: &Cid) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(*digest, *cid)).is_some_and(|at| at.elapsed() < KEEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RAW, cid_of};
    use crate::digest::Algorithm;

    #[test]
    fn a_flood_of_wrong_files_takes_no_more_room_and_the_last_ones_are_known() {
        let wrong = Wrong::default();
        let cid = cid_of(RAW, b"other");
        let digest = |number: usize| Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        (0..MOST * 3).for_each(|number| wrong.note(&digest(number), &cid));
        assert!(wrong.0.lock().unwrap().len() <= MOST);
        assert!(wrong.has(&digest(MOST * 3 - 1), &cid) && !wrong.has(&digest(0), &cid));
        assert!(!wrong.has(&digest(MOST * 3 - 1), &cid_of(RAW, b"right")));
    }
}
