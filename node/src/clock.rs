//! What time it is, and whether that can be believed. A board without a battery begins in the past, and one with a
//! wrong clock must neither let names expire nor sign records that end before those it has signed.
//!
//! A clock that is ahead looks like any other; what it signs lives longer than meant, and when it is set right it is
//! suspect until that time has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ipns::{LIFETIME, Record};

/// This program was not written before August 2026. A date of the build itself would make two builds of
/// one source differ.
const NOT_BEFORE: Duration = Duration::from_hours(495_984);
/// A clock that is set back by less was only a little wrong.
const SLACK: Duration = Duration::from_mins(5);

/// The machine's clock and what is known of it. Clones share it.
#[derive(Clone)]
pub struct Wall {
    told: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// Seconds since 1970 that have passed for certain.
    passed: Arc<AtomicU64>,
}

impl Wall {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self::telling(SystemTime::now)
    }

    /// Another clock, for tests.
    pub fn telling(told: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { told: Arc::new(told), passed: Arc::new(AtomicU64::new(NOT_BEFORE.as_secs())) }
    }

    /// Learns from a record that was signed here: by then so much time had passed.
    pub fn learn(&self, record: &Record) {
        let signed = record.validity().checked_sub(LIFETIME);
        let signed = signed.and_then(|signed| signed.duration_since(UNIX_EPOCH).ok());
        self.passed.fetch_max(signed.map_or(0, |signed| signed.as_secs()), Ordering::Relaxed);
    }

    /// The clock tells a time that has passed.
    pub fn is_suspect(&self) -> bool {
        (self.told)() + SLACK < self.passed()
    }

    /// The time to sign by: never before what has passed.
    pub fn signing_time(&self) -> SystemTime {
        (self.told)().max(self.passed())
    }

    /// The time by which records expire: with a clock that is suspect none does.
    pub fn judging_time(&self) -> SystemTime {
        if self.is_suspect() { UNIX_EPOCH } else { (self.told)() }
    }

    /// The time of the day, by a clock that can be believed.
    pub fn time_of_day(&self) -> Option<SystemTime> {
        (!self.is_suspect()).then(|| (self.told)())
    }

    fn passed(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.passed.load(Ordering::Relaxed))
    }
}

impl Default for Wall {
    fn default() -> Self {
        Self::system()
    }
}

impl std::fmt::Debug for Wall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wall").field("suspect", &self.is_suspect()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ipns::Draft;
    use crate::key::Keypair;

    /// A clock and the hand that sets it.
    fn clock() -> (Arc<Mutex<SystemTime>>, Wall) {
        let time = Arc::new(Mutex::new(UNIX_EPOCH + NOT_BEFORE + LIFETIME));
        let hand = Arc::clone(&time);
        (time, Wall::telling(move || *hand.lock().unwrap()))
    }

    fn sign(wall: &Wall, sequence: u64, before: Option<&Record>) -> Record {
        let draft = Draft::new("bafkqaaa".parse().unwrap(), sequence, wall.signing_time()).outliving(before);
        let record = Record::sign(&Keypair::generate(), &draft).unwrap();
        wall.learn(&record);
        Record::clone(&record)
    }

    #[test]
    fn a_board_that_begins_in_1970_signs_from_the_build_on_and_lets_nothing_expire() {
        let (time, wall) = clock();
        *time.lock().unwrap() = UNIX_EPOCH;
        assert!(wall.is_suspect());
        let record = sign(&wall, 1, None);
        assert_eq!(record.validity(), UNIX_EPOCH + NOT_BEFORE + LIFETIME);
        assert!(!record.is_expired(wall.judging_time()));
        // The network comes, and with it the time.
        *time.lock().unwrap() = UNIX_EPOCH + NOT_BEFORE + 2 * LIFETIME;
        assert!(!wall.is_suspect());
        assert!(record.is_expired(wall.judging_time()));
    }

    #[test]
    fn a_clock_that_falls_back_is_suspect_until_its_time_has_come_again() {
        let (time, wall) = clock();
        let first = sign(&wall, 1, None);
        let now = *time.lock().unwrap();
        *time.lock().unwrap() = now - SLACK;
        assert!(!wall.is_suspect(), "a little is no jump");
        *time.lock().unwrap() = now - Duration::from_hours(24);
        assert!(wall.is_suspect());
        let second = sign(&wall, 2, Some(&first));
        assert_eq!(second.validity(), first.validity(), "no life is lost");
        *time.lock().unwrap() = now;
        assert!(!wall.is_suspect());
    }

    #[test]
    fn a_clock_that_was_ahead_costs_no_name_its_life_when_it_is_set_right() {
        let (time, wall) = clock();
        let now = *time.lock().unwrap();
        *time.lock().unwrap() = now + 24 * LIFETIME;
        assert!(!wall.is_suspect(), "nobody can know");
        let ahead = sign(&wall, 1, None);
        *time.lock().unwrap() = now;
        assert!(wall.is_suspect());
        let right = sign(&wall, 2, Some(&ahead));
        assert_eq!(right.validity(), ahead.validity());
        assert!(!right.is_expired(wall.judging_time()));
    }
}
