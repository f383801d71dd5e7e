//! The cache: blobs of followed trees that were pulled, and that nobody keeps. Where there is a limit, those go that
//! nobody has asked for longest; they can be fetched again.
//!
//! What lies here is counted file by file, and only where so much has come since the last count that a limit may be
//! passed. Memory is that of the oldest few thousand, however many there are.

use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sampan_storage::{Digest, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::arrivals::Arrivals;
use super::blocking;
use super::follow::Follower;
use super::ledger::{Ledger, Owner, Standing};

/// Blobs that are looked at together for who goes first, some 100 bytes each. Where more are to go, they are counted
/// again.
const CANDIDATES: usize = 4096;
/// Blobs that are claimed at a time: whoever asks for one of them waits until these are gone.
const BATCH: usize = 64;
/// What has passed a limit goes down by one part of so many, so that not every pull counts all files.
const SLACK: u64 = 10;
/// The first count comes when the start is over.
const FIRST: Duration = Duration::from_mins(1);
/// Without a pull what lies here is counted this often: blobs grow old, and trees change.
const REGULARLY: Duration = Duration::from_hours(1);
/// Where a limit cannot be kept because all that is cached was asked for just now, it is tried again after this at the
/// earliest.
const AGAIN: Duration = Duration::from_secs(10);

/// What may be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheLimits {
    /// Bytes of all names together.
    pub(crate) size: Option<u64>,
    /// Since somebody asked for it last.
    pub(crate) age: Option<Duration>,
    /// What somebody asked for more recently stays, whatever else is said.
    pub(crate) grace: Duration,
}

/// Bytes of one name that lie here, as they were counted last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Of repositories that are mirrored or pinned.
    pub(crate) kept: u64,
    /// What may go.
    pub(crate) cached: u64,
}

/// What the cache has and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cached {
    /// As it was counted last; nothing before that.
    pub(crate) bytes: Option<u64>,
    /// Since the start.
    pub(crate) evicted_blobs: u64,
    pub(crate) evicted_bytes: u64,
}

/// Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    store: Store,
    follower: Follower,
    arrivals: Arrivals,
    limits: CacheLimits,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    names: HashMap<String, Usage>,
    cached: Cached,
}

/// How a pass has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Within,
    /// A limit is still passed: what could go was asked for just now, or trees have changed meanwhile.
    Over,
}

/// Something that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    // First, so that the order is that of uses.
    used: SystemTime,
    size: u64,
    owner: usize,
    digest: Digest,
}

/// What lies here against what may.
#[derive(Debug)]
struct Scale {
    names: Vec<Usage>,
    /// Down to which a limit that is passed is to be kept.
    goals: Vec<Option<u64>>,
    total_goal: Option<u64>,
    oldest: Option<SystemTime>,
}

impl Cache {
    pub(crate) fn new(store: Store, follower: Follower, arrivals: Arrivals, limits: CacheLimits) -> Self {
        Self { store, follower, arrivals, limits, shared: Arc::default() }
    }

    pub(crate) fn limits(&self) -> CacheLimits {
        self.limits
    }

    pub(crate) fn cached(&self) -> Cached {
        self.lock().cached
    }

    /// Of a name as it is configured, where it was counted.
    pub(crate) fn usage(&self, name: &str) -> Option<Usage> {
        self.lock().names.get(name).copied()
    }

    /// Keeps to the limits until it is told to stop. While there are none, nothing is counted.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut due = tokio::time::Instant::now() + FIRST;
        let mut patient = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
                () = self.arrivals.came(), if !patient => {
                    if !self.may_be_over() {
                        continue;
                    }
                }
            }
            let passed = if self.is_limited() { self.count(stop.clone()).await } else { Passed::Within };
            patient = passed == Passed::Over;
            due =
                tokio::time::Instant::now() + if patient { self.limits.grace.max(AGAIN) } else { REGULARLY };
        }
    }

    async fn count(&self, stop: CancellationToken) -> Passed {
        let this = self.clone();
        match blocking(move || this.pass(&stop)).await {
            Ok(Ok(passed)) => return passed,
            Ok(Err(error)) => tracing::warn!(%error, "what is cached could not be counted"),
            Err(error) => tracing::warn!(%error, "a look at what is cached ended early"),
        }
        Passed::Over
    }

    fn is_limited(&self) -> bool {
        let CacheLimits { size, age, .. } = self.limits;
        let quotas = || self.follower.places().iter().any(|(_, following)| following.quota.is_some());
        size.is_some() || age.is_some() || quotas()
    }

    /// Whether what has come since the last count may have passed a limit.
    fn may_be_over(&self) -> bool {
        let arrived = self.arrivals.since();
        let shared = self.lock();
        let all: u64 = arrived.values().sum();
        if self.limits.size.is_some_and(|size| shared.cached.bytes.unwrap_or_default() + all > size) {
            return true;
        }
        let mut came: HashMap<String, (u64, u64)> = HashMap::new();
        for (tree, following) in self.follower.places() {
            let Some(quota) = following.quota else { continue };
            let of = came.entry(following.whom.to_string()).or_insert((quota, 0));
            of.1 += arrived.get(&tree).copied().unwrap_or_default();
        }
        came.into_iter().any(|(name, (quota, bytes))| {
            let Usage { kept, cached } = shared.names.get(&name).copied().unwrap_or_default();
            kept + cached + bytes > quota
        })
    }

    /// Counts, and evicts where a limit is passed. Blocks.
    fn pass(&self, stop: &CancellationToken) -> Result<Passed, StoreError> {
        self.arrivals.take();
        let since = Instant::now();
        let since = since.checked_sub(self.limits.grace).unwrap_or(since);
        let ledger = Ledger::read(&self.store, &self.follower.places())?;
        let mut scale = Scale::weigh(&self.store, &ledger, self.limits)?;
        let mut went = Cached::default();
        let passed = loop {
            let oldest = oldest(&self.store, &ledger, &scale)?;
            let before = went.evicted_blobs;
            let all = oldest.len() < CANDIDATES;
            let current = self.evict(&ledger, &oldest, since, &mut scale, &mut went)?;
            if !current || stop.is_cancelled() {
                break Passed::Over;
            }
            if all || went.evicted_blobs == before {
                break if scale.is_passed() { Passed::Over } else { Passed::Within };
            }
        };
        if went.evicted_blobs > 0 {
            self.store.forget_evicted()?;
            let Cached { evicted_blobs: blobs, evicted_bytes: bytes, .. } = went;
            tracing::info!(blobs, bytes, "what nobody has asked for longest has left the cache");
        }
        let mut shared = self.lock();
        let names = ledger.owners().iter().map(|owner| owner.name.clone());
        shared.names = names.zip(scale.names.iter().copied()).collect();
        shared.cached.bytes = Some(scale.total());
        shared.cached.evicted_blobs += went.evicted_blobs;
        shared.cached.evicted_bytes += went.evicted_bytes;
        Ok(passed)
    }

    /// Takes away what is due of these. `false` where trees have changed meanwhile.
    fn evict(
        &self,
        ledger: &Ledger,
        oldest: &[Candidate],
        since: Instant,
        scale: &mut Scale,
        went: &mut Cached,
    ) -> Result<bool, StoreError> {
        for batch in oldest.chunks(BATCH) {
            let due: Vec<&Candidate> = batch.iter().filter(|candidate| scale.take(candidate)).collect();
            let digests: Vec<Digest> = due.iter().map(|candidate| candidate.digest).collect();
            let gone = self.store.evict(&digests, since, ledger.roots())?;
            for candidate in due {
                let is_gone = |gone: &Vec<sampan_storage::Swept>| {
                    gone.iter().any(|gone| gone.digest == candidate.digest)
                };
                if gone.as_ref().is_some_and(is_gone) {
                    went.evicted_blobs += 1;
                    went.evicted_bytes += candidate.size;
                } else {
                    scale.put_back(candidate);
                }
            }
            if gone.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scale {
    fn weigh(store: &Store, ledger: &Ledger, limits: CacheLimits) -> Result<Self, StoreError> {
        let mut names = vec![Usage::default(); ledger.owners().len()];
        ledger.each(store, &mut |holding, standing| match standing {
            Standing::Other => {}
            Standing::Kept(owners) => {
                for owner in owners {
                    if let Some(usage) = names.get_mut(owner) {
                        usage.kept += holding.size;
                    }
                }
            }
            Standing::Cached(owner) => {
                if let Some(usage) = names.get_mut(owner) {
                    usage.cached += holding.size;
                }
            }
        })?;
        Ok(Self::new(names, ledger.owners(), limits))
    }

    fn new(names: Vec<Usage>, owners: &[Owner], limits: CacheLimits) -> Self {
        let goal = |limit: u64, now: u64| (now > limit).then(|| limit - limit / SLACK);
        let goals = names.iter().zip(owners);
        let goals = goals.map(|(usage, owner)| goal(owner.quota?, usage.kept + usage.cached)).collect();
        let total = names.iter().map(|usage| usage.cached).sum();
        let total_goal = limits.size.and_then(|size| goal(size, total));
        let oldest = limits.age.and_then(|age| SystemTime::now().checked_sub(age));
        Self { names, goals, total_goal, oldest }
    }

    fn total(&self) -> u64 {
        self.names.iter().map(|usage| usage.cached).sum()
    }

    fn is_due(&self, candidate: &Candidate) -> bool {
        self.oldest.is_some_and(|oldest| candidate.used < oldest)
            || self.total_goal.is_some_and(|goal| self.total() > goal)
            || self.is_over_its_goal(candidate.owner)
    }

    /// Whether something is to go that cannot.
    fn is_passed(&self) -> bool {
        let owners = 0..self.names.len();
        self.total_goal.is_some_and(|goal| self.total() > goal)
            // What is kept is no business of the cache.
            || owners.into_iter().any(|owner| {
                self.is_over_its_goal(owner) && self.names.get(owner).is_some_and(|usage| usage.cached > 0)
            })
    }

    fn is_over_its_goal(&self, owner: usize) -> bool {
        let goal = self.goals.get(owner).copied().flatten();
        let usage = self.names.get(owner).copied().unwrap_or_default();
        goal.is_some_and(|goal| usage.kept + usage.cached > goal)
    }

    /// Whether it is to go; then it counts as gone.
    fn take(&mut self, candidate: &Candidate) -> bool {
        let due = self.is_due(candidate);
        if due && let Some(usage) = self.names.get_mut(candidate.owner) {
            usage.cached = usage.cached.saturating_sub(candidate.size);
        }
        due
    }

    fn put_back(&mut self, candidate: &Candidate) {
        if let Some(usage) = self.names.get_mut(candidate.owner) {
            usage.cached += candidate.size;
        }
    }
}

/// What is due, the longest unused first, of which the first few are given.
fn oldest(store: &Store, ledger: &Ledger, scale: &Scale) -> Result<Vec<Candidate>, StoreError> {
    let limited = scale.oldest.is_some() || scale.total_goal.is_some();
    if !limited && scale.goals.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let mut oldest = BinaryHeap::new();
    ledger.each(store, &mut |holding, standing| {
        let Standing::Cached(owner) = standing else { return };
        let sampan_storage::Holding { digest, size, used, .. } = holding;
        let candidate = Candidate { used, size, owner, digest };
        if scale.is_due(&candidate) {
            oldest.push(candidate);
            if oldest.len() > CANDIDATES {
                oldest.pop();
            }
        }
    })?;
    Ok(oldest.into_sorted_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    fn limits(size: Option<u64>, age: Option<Duration>) -> CacheLimits {
        CacheLimits { size, age, grace: Duration::ZERO }
    }

    fn owner(name: &str, quota: Option<u64>) -> Owner {
        Owner { name: name.to_owned(), quota }
    }

    fn candidate(owner: usize, size: u64, used: SystemTime) -> Candidate {
        let digest = Digest::of(sampan_storage::Algorithm::Sha256, format!("{owner} {size}").as_bytes());
        Candidate { used, size, owner, digest }
    }

    #[test]
    fn what_has_passed_its_quota_goes_down_by_a_tenth_and_others_are_left_alone() {
        let names = vec![Usage { kept: 40, cached: 70 }, Usage { kept: 0, cached: 500 }];
        let owners = [owner("a", Some(100)), owner("b", Some(500))];
        let mut scale = Scale::new(names, &owners, limits(None, None));
        let used = SystemTime::UNIX_EPOCH + NOW;
        assert!(!scale.take(&candidate(1, 500, used)), "it has not passed its own");
        assert!(scale.take(&candidate(0, 15, used)));
        assert!(scale.is_passed(), "95 of 100 are within the quota, and not within nine tenths");
        let next = candidate(0, 10, used);
        assert!(scale.take(&next) && !scale.is_passed());
        assert!(!scale.take(&candidate(0, 5, used)));
        scale.put_back(&next);
        assert!(scale.is_passed());
    }

    #[test]
    fn a_limit_for_all_counts_what_is_cached_and_not_what_is_kept() {
        let names = vec![Usage { kept: 1000, cached: 60 }, Usage { kept: 0, cached: 60 }];
        let owners = [owner("a", None), owner("b", None)];
        let used = SystemTime::UNIX_EPOCH + NOW;
        let mut scale = Scale::new(names.clone(), &owners, limits(Some(100), None));
        assert!(scale.take(&candidate(1, 40, used)) && !scale.take(&candidate(0, 60, used)));
        let mut scale = Scale::new(names, &owners, limits(Some(120), None));
        assert!(!scale.take(&candidate(0, 60, used)));
    }

    #[test]
    fn what_is_too_old_goes_whatever_room_there_is() {
        let names = vec![Usage { kept: 0, cached: 2 }];
        let owners = [owner("a", None)];
        let mut scale = Scale::new(names, &owners, limits(None, Some(Duration::from_hours(24))));
        let now = SystemTime::now();
        assert!(scale.take(&candidate(0, 1, now - Duration::from_hours(25))));
        assert!(!scale.take(&candidate(0, 1, now - Duration::from_hours(23))));
        assert!(!scale.take(&candidate(0, 1, now + Duration::from_hours(1))), "a clock that was ahead");
    }

    #[test]
    fn a_quota_that_is_passed_by_what_is_kept_is_no_business_of_the_cache() {
        let names = vec![Usage { kept: 200, cached: 0 }];
        let scale = Scale::new(names, &[owner("a", Some(100))], limits(None, None));
        assert!(!scale.is_passed());
    }
}
