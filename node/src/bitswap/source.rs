//! One peer as a source of blocks: how fast it gives, how much is asked of it, and what it must be told next.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Key;
use super::message::{Entry, Outgoing, Version};

/// Wants that one peer is told of; kubo's server queues no more for a peer and throws out the rest.
pub(super) const MAX_WANTS: usize = 1024;

/// Bytes asked of a peer of which nothing is known: enough to measure it, and not enough to hang on a slow one.
const FIRST_WINDOW: usize = 2 * 1024 * 1024;

/// Bytes asked of one peer at most: the work of 100 ms at 320 MB/s.
const MAX_WINDOW: usize = 32 * 1024 * 1024;

/// As much is asked as arrives in this time, or in four round trips where those take longer.
const HORIZON: Duration = Duration::from_millis(500);

/// A rate is measured over at least this time.
const SAMPLE: Duration = Duration::from_millis(50);

/// An unmeasured peer counts as this fast, so that it is tried at once; its window bounds what that risks.
const UNMEASURED: u64 = 1024 * 1024 * 1024;

/// A want is called late after twice the usual time, within these bounds.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// Entries in one message: what a peer queues at most, and about 50 KiB.
const MAX_ENTRIES: usize = 1024;

#[derive(Debug)]
pub(super) struct Source {
    pub(super) version: Version,
    /// What this peer was told that we want, and not told that we no longer do.
    pub(super) ledger: HashSet<Key>,
    /// It gave other bytes than it was asked for, and is asked for nothing more on this connection.
    pub(super) is_false: bool,
    load: usize,
    window: usize,
    rate: Option<u64>,
    latency: Option<Duration>,
    sample: Option<Sample>,
    last_heard: Instant,
    outbox: HashMap<Key, Entry>,
    // The next message is the first on its stream and replaces what the peer may know from an earlier one.
    fresh: bool,
    sending: bool,
}

#[derive(Debug)]
struct Sample {
    since: Instant,
    bytes: usize,
}

impl Source {
    pub(super) fn new(version: Version, now: Instant) -> Self {
        Self {
            version,
            ledger: HashSet::new(),
            is_false: false,
            load: 0,
            window: FIRST_WINDOW,
            rate: None,
            latency: None,
            sample: None,
            last_heard: now,
            outbox: HashMap::new(),
            fresh: true,
            sending: false,
        }
    }

    /// Whether `size` more bytes may be asked for. One block always may.
    pub(super) fn has_room(&self, size: usize) -> bool {
        self.load == 0 || self.load + size <= self.window
    }

    /// Microseconds until `size` more bytes would have come.
    pub(super) fn expected(&self, size: usize) -> u64 {
        let bytes = (self.load + size) as u64;
        bytes.saturating_mul(1_000_000) / self.rate.unwrap_or(UNMEASURED).max(1)
    }

    pub(super) fn can_be_told(&self) -> bool {
        self.ledger.len() < MAX_WANTS
    }

    pub(super) fn asked(&mut self, size: usize, now: Instant) {
        if self.load == 0 {
            // Idle time is not slowness.
            self.sample = Some(Sample { since: now, bytes: 0 });
        }
        self.load += size;
    }

    /// What was asked for will not come, or is no longer waited for.
    pub(super) fn released(&mut self, size: usize) {
        self.load = self.load.saturating_sub(size);
    }

    /// A block came; `asked_at` says since when it was waited for, if it was.
    pub(super) fn delivered(&mut self, bytes: usize, asked_at: Option<Instant>, now: Instant) {
        if let Some(asked_at) = asked_at {
            let taken = now.saturating_duration_since(asked_at.max(self.last_heard));
            self.latency = Some(self.latency.map_or(taken, |latency| (latency + taken) / 2));
        }
        self.last_heard = now;
        let Some(sample) = &mut self.sample else { return };
        sample.bytes += bytes;
        let elapsed = now.saturating_duration_since(sample.since);
        if elapsed < SAMPLE {
            return;
        }
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = (sample.bytes as u64).saturating_mul(1_000_000) / micros;
        let rate = self.rate.map_or(rate, |before| before.midpoint(rate));
        self.rate = Some(rate);
        let horizon = HORIZON.max(self.latency.unwrap_or_default() * 4);
        let millis = u64::try_from(horizon.as_millis()).unwrap_or(u64::MAX);
        let window = usize::try_from(rate.saturating_mul(millis) / 1000).unwrap_or(usize::MAX);
        self.window = window.min(MAX_WINDOW);
        self.sample = Some(Sample { since: now, bytes: 0 });
    }

    /// Whether a block asked for at `asked_at` is late. A peer that still delivers others is not.
    pub(super) fn is_late(&self, asked_at: Instant, now: Instant) -> bool {
        let usual = self.latency.unwrap_or_default() * 2;
        now.saturating_duration_since(asked_at.max(self.last_heard)) >= usual.clamp(MIN_TIMEOUT, MAX_TIMEOUT)
    }

    pub(super) fn want(&mut self, key: Key, mut entry: Entry) {
        if !self.version.has_presences() {
            entry.send_dont_have = false;
        }
        self.ledger.insert(key);
        self.outbox.insert(key, entry);
    }

    pub(super) fn cancel(&mut self, key: Key, entry: Entry) {
        if self.ledger.remove(&key) {
            self.outbox.insert(key, Entry { cancel: true, send_dont_have: false, ..entry });
        }
    }

    /// The peer dropped a want by itself: it sent the block.
    pub(super) fn settled(&mut self, key: &Key) {
        if self.ledger.remove(key) {
            self.outbox.remove(key);
        }
    }

    /// What has changed since the last message, if that one is on its way.
    pub(super) fn next_message(&mut self) -> Option<Outgoing> {
        if self.sending || self.outbox.is_empty() {
            return None;
        }
        let mut entries: Vec<_> = self.outbox.drain().map(|(key, entry)| (entry, key)).collect();
        // Cancels first, so that a peer at its limit makes room before it takes more.
        entries.sort_unstable_by_key(|(entry, _)| (!entry.cancel, Reverse(entry.priority)));
        let rest = entries.split_off(entries.len().min(MAX_ENTRIES));
        self.outbox.extend(rest.into_iter().map(|(entry, key)| (key, entry)));
        self.sending = true;
        let full = std::mem::take(&mut self.fresh);
        let mut entries: Vec<_> = entries.into_iter().map(|(entry, _)| entry).collect();
        if full {
            entries.retain(|entry| !entry.cancel);
        }
        Some(Outgoing { full, entries, ..Outgoing::default() })
    }

    pub(super) fn sent(&mut self) {
        self.sending = false;
    }
}

#[cfg(test)]
mod tests {
    use sampan_storage::block::{RAW, cid_of};

    use super::super::message::WantKind;
    use super::*;

    fn entry(priority: i32) -> (Key, Entry) {
        let cid = cid_of(RAW, &priority.to_be_bytes());
        (*cid.hash(), Entry { cid, priority, kind: WantKind::Block, cancel: false, send_dont_have: true })
    }

    #[test]
    fn the_window_follows_the_rate() {
        let start = Instant::now();
        let mut source = Source::new(Version::V1_2, start);
        source.asked(FIRST_WINDOW, start);
        assert!(!source.has_room(1));
        source.delivered(1_000_000, Some(start), start + Duration::from_millis(100));
        assert_eq!(source.rate, Some(10_000_000));
        assert_eq!(source.window, 5_000_000);
        source.released(FIRST_WINDOW);
        assert!(source.has_room(usize::MAX), "one block may always be asked for");
    }

    #[test]
    fn a_peer_that_still_delivers_is_not_late() {
        let start = Instant::now();
        let mut source = Source::new(Version::V1_2, start);
        source.asked(2, start);
        let later = start + Duration::from_millis(900);
        source.delivered(1, Some(start), later);
        assert!(!source.is_late(start, later + Duration::from_secs(1)));
        assert!(source.is_late(start, later + Duration::from_secs(2)));
    }

    #[test]
    fn changes_coalesce_while_a_message_is_on_its_way() {
        let mut source = Source::new(Version::V1_2, Instant::now());
        let ((first, one), (second, two)) = (entry(1), entry(2));
        source.want(first, one);
        let message = source.next_message().unwrap();
        assert!(message.full && message.entries == [one]);
        source.want(second, two);
        source.cancel(first, one);
        source.cancel(second, two);
        assert!(source.next_message().is_none());
        source.sent();
        let message = source.next_message().unwrap();
        assert!(!message.full && message.entries.iter().all(|entry| entry.cancel));
    }
}
