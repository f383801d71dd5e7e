//! When what is announced in a DHT: what is new at once, and everything else in a sweep that a small board can bear.
//!
//! A plan is made for each table. It says what is next and when; asking the program for pages and the DHT to announce
//! is the worker's.

use std::collections::VecDeque;
use std::time::Duration;

use cid::Cid;
use sampan_storage::{Page, Place};
use tokio::time::Instant;

use crate::queries::Table;

/// What is new and waits for its turn; more than that is left to the sweep.
const URGENT: usize = 256;
/// CIDs of the sweep that are in memory.
pub(crate) const PAGE: usize = 64;
/// A round in full: kubo's interval, well within the 48 hours that records last.
pub(crate) const ROUND: Duration = Duration::from_hours(22);
/// A page that was asked for and did not come is asked for again.
const READING: Duration = Duration::from_mins(5);

/// How fast a table is told.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// From one announcement to the next.
    gap: Duration,
    /// Announcements that are on their way at once.
    walks: usize,
    /// From the end of a round to one that a newcomer causes.
    rest: Duration,
}

/// An announcement among the few peers of a LAN is a packet or two to each: ten a second are no load, and a thousand
/// are told within two minutes.
const LAN: Pace = Pace { gap: Duration::from_millis(100), walks: 8, rest: Duration::from_mins(1) };
/// One in the public DHT asks some sixty strangers, dials most of them, and takes up to a minute. With one every ten
/// seconds a round of 22 hours tells 7,900, and the 48 hours that records last keep 17,000 alive.
const WAN: Pace = Pace { gap: Duration::from_secs(10), walks: 2, rest: ROUND };

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Announce(Cid),
    /// Ask for the page after this place.
    Read(Option<Place>),
}

#[derive(Debug)]
pub(crate) struct Plan {
    pace: Pace,
    /// Somebody is there to be told, and an address to tell.
    ready: bool,
    urgent: VecDeque<Cid>,
    page: VecDeque<Cid>,
    sweep: Sweep,
    /// The next announcement, not before.
    next: Instant,
    walking: usize,
}

#[derive(Debug)]
enum Sweep {
    /// A round begins then; one that a newcomer causes not before `rested`.
    Resting {
        until: Instant,
        rested: Instant,
    },
    /// The page is being told, then comes the one after this place.
    At {
        began: Instant,
        place: Option<Place>,
        newcomer: bool,
    },
    Reading {
        began: Instant,
        since: Instant,
        place: Option<Place>,
        newcomer: bool,
    },
    /// The last page is being told.
    Last {
        began: Instant,
        newcomer: bool,
    },
}

impl Plan {
    pub(crate) fn new(table: Table, now: Instant) -> Self {
        let pace = match table {
            Table::Lan => LAN,
            Table::Wan => WAN,
        };
        Self {
            pace,
            ready: false,
            urgent: VecDeque::new(),
            page: VecDeque::new(),
            sweep: Sweep::Resting { until: now, rested: now },
            next: now,
            walking: 0,
        }
    }

    /// Whether there is anybody to tell.
    pub(crate) fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }

    /// Comes before all else; the first of `cids` first.
    pub(crate) fn news(&mut self, cids: &[Cid]) {
        for cid in cids.iter().rev() {
            self.urgent.retain(|other| other != cid);
            self.urgent.push_front(*cid);
        }
        self.urgent.truncate(URGENT);
    }

    /// What is no longer true need not be told.
    pub(crate) fn withdraw(&mut self, cid: &Cid) {
        self.urgent.retain(|other| other != cid);
        self.page.retain(|other| other != cid);
    }

    /// A peer that was told nothing yet: a round for it, but not one for each of many that come together.
    pub(crate) fn newcomer(&mut self) {
        match &mut self.sweep {
            Sweep::Resting { until, rested } => *until = (*until).min(*rested),
            Sweep::At { newcomer, .. } | Sweep::Reading { newcomer, .. } | Sweep::Last { newcomer, .. } => {
                *newcomer = true;
            }
        }
    }

    /// The page that [`Step::Read`] asked for, and the place where it ends if more follow.
    pub(crate) fn read(&mut self, page: Page) {
        let Sweep::Reading { began, newcomer, .. } = self.sweep else { return };
        self.page.extend(page.cids);
        self.sweep = match page.next {
            Some(place) => Sweep::At { began, place: Some(place), newcomer },
            None => Sweep::Last { began, newcomer },
        };
    }

    /// An announcement has ended, well or not.
    pub(crate) fn ended(&mut self) {
        self.walking = self.walking.saturating_sub(1);
    }

    pub(crate) fn step(&mut self, now: Instant) -> Option<Step> {
        if !self.ready {
            return None;
        }
        if self.next <= now
            && self.walking < self.pace.walks
            && let Some(cid) = self.urgent.pop_front().or_else(|| self.page.pop_front())
        {
            self.next = now + self.pace.gap;
            self.walking += 1;
            return Some(Step::Announce(cid));
        }
        if !self.page.is_empty() {
            return None;
        }
        let (began, place, newcomer) = match &self.sweep {
            Sweep::Resting { until, .. } if *until <= now => (now, None, false),
            Sweep::At { began, place, newcomer } => (*began, place.clone(), *newcomer),
            Sweep::Reading { began, since, place, newcomer } if *since + READING <= now => {
                (*began, place.clone(), *newcomer)
            }
            Sweep::Last { began, newcomer } => {
                let rested = now + self.pace.rest;
                let until = if *newcomer { rested } else { (*began + ROUND).max(rested) };
                self.sweep = Sweep::Resting { until, rested };
                return None;
            }
            Sweep::Resting { .. } | Sweep::Reading { .. } => return None,
        };
        self.sweep = Sweep::Reading { began, since: now, place: place.clone(), newcomer };
        Some(Step::Read(place))
    }

    /// When [`Self::step`] has something next, unless something ends before.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if !self.ready {
            return None;
        }
        if !(self.urgent.is_empty() && self.page.is_empty()) {
            return (self.walking < self.pace.walks).then_some(self.next);
        }
        match &self.sweep {
            Sweep::Resting { until, .. } => Some(*until),
            Sweep::At { .. } | Sweep::Last { .. } => Some(self.next),
            Sweep::Reading { since, .. } => Some(*since + READING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_storage::block::{Block, RAW};

    fn raw(seed: u64) -> Cid {
        *Block::new(RAW, seed.to_be_bytes().to_vec().into()).cid()
    }

    fn last(cids: Vec<Cid>) -> Page {
        Page { cids, next: None }
    }

    fn steps(plan: &mut Plan, now: Instant) -> Vec<Step> {
        std::iter::from_fn(|| plan.step(now)).collect()
    }

    fn ready(table: Table, now: Instant) -> Plan {
        let mut plan = Plan::new(table, now);
        plan.set_ready(true);
        plan
    }

    #[test]
    fn with_nobody_to_tell_nothing_is_asked_and_nothing_is_due() {
        let now = Instant::now();
        let mut plan = Plan::new(Table::Lan, now);
        plan.news(&[raw(1)]);
        assert_eq!((plan.step(now), plan.next_due()), (None, None));
        plan.set_ready(true);
        assert_eq!(plan.next_due(), Some(now));
        assert_eq!(plan.step(now), Some(Step::Announce(raw(1))));
    }

    #[test]
    fn news_go_before_the_sweep_and_the_newest_before_others() {
        let now = Instant::now();
        let mut plan = ready(Table::Lan, now);
        assert_eq!(plan.step(now), Some(Step::Read(None)));
        plan.read(last(vec![raw(1), raw(2)]));
        plan.news(&[raw(3), raw(4)]);
        plan.news(&[raw(5), raw(4)]);
        let mut told = Vec::new();
        let mut at = now;
        for _ in 0..5 {
            told.extend(steps(&mut plan, at));
            at += LAN.gap;
        }
        assert_eq!(told, [5, 4, 3, 1, 2].map(|seed| Step::Announce(raw(seed))));
    }

    #[test]
    fn there_is_a_gap_after_each_and_a_bound_on_those_on_their_way() {
        let now = Instant::now();
        let mut plan = ready(Table::Wan, now);
        plan.news(&[raw(1), raw(2), raw(3)]);
        assert_eq!(plan.step(now), Some(Step::Announce(raw(1))));
        assert!(!matches!(plan.step(now), Some(Step::Announce(_))));
        let later = now + WAN.gap;
        assert_eq!(plan.step(later), Some(Step::Announce(raw(2))));
        let late = later + WAN.gap;
        assert_eq!(plan.step(late), None, "two are on their way");
        plan.ended();
        assert_eq!(plan.step(late), Some(Step::Announce(raw(3))));
    }

    #[test]
    fn news_are_bounded() {
        let mut plan = ready(Table::Wan, Instant::now());
        for seed in 0..2 * URGENT as u64 {
            plan.news(&[raw(seed)]);
        }
        assert_eq!(plan.urgent.len(), URGENT);
        assert_eq!(plan.urgent.front(), Some(&raw(2 * URGENT as u64 - 1)));
    }

    #[test]
    fn a_round_ends_and_the_next_begins_22_hours_after_it_began() {
        let now = Instant::now();
        let mut plan = ready(Table::Lan, now);
        assert_eq!(steps(&mut plan, now), [Step::Read(None)]);
        plan.read(last(vec![raw(1)]));
        assert_eq!(steps(&mut plan, now), [Step::Announce(raw(1))]);
        assert_eq!(plan.next_due(), Some(now + ROUND));
        assert_eq!(plan.step(now + ROUND), Some(Step::Read(None)));
    }

    #[test]
    fn newcomers_get_one_round_together() {
        let now = Instant::now();
        let mut plan = ready(Table::Lan, now);
        plan.newcomer();
        assert_eq!(steps(&mut plan, now), [Step::Read(None)]);
        plan.newcomer();
        plan.newcomer();
        plan.read(last(Vec::new()));
        assert_eq!(plan.step(now), None);
        assert_eq!(plan.next_due(), Some(now + LAN.rest));
        let then = now + LAN.rest;
        assert_eq!(plan.step(then), Some(Step::Read(None)));
        plan.read(last(Vec::new()));
        assert_eq!(plan.step(then), None);
        assert_eq!(plan.next_due(), Some(then + ROUND), "nobody came since");
        plan.newcomer();
        assert_eq!(plan.next_due(), Some(then + LAN.rest));
    }

    #[test]
    fn a_page_that_does_not_come_is_asked_for_again() {
        let now = Instant::now();
        let mut plan = ready(Table::Wan, now);
        assert_eq!(plan.step(now), Some(Step::Read(None)));
        assert_eq!(plan.step(now), None);
        assert_eq!(plan.next_due(), Some(now + READING));
        assert_eq!(plan.step(now + READING), Some(Step::Read(None)));
    }
}
