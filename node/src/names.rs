//! The names that this node publishes or follows, and how a record that arrives is judged.
//!
//! No network and no disk here: what comes in is compared with the best record that was seen, and the
//! verdict says what to do with it.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::gossipsub::TopicHash;
use tokio::time::Instant;

use crate::clock::Wall;
use crate::event::Refusal;
use crate::gossip;
use crate::ipns::{Record, RecordError, Verified, select};
use crate::name::Name;

/// Names that are published or followed at once; each has a topic.
pub(crate) const MAX_NAMES: usize = 256;
/// The record that is known already is reported once more, when a peer names it after this time: its
/// nodes may not have been found the first time.
const REPORT_AGAIN: Duration = Duration::from_secs(10);
/// How often the DHT and the peers are asked for a followed name, beside what they tell unasked.
const LOOK_UP_FIRST: Duration = Duration::from_secs(30);
const LOOK_UP_LATER: Duration = Duration::from_mins(10);
/// A peer that joins the DHT may know what nobody knew before: they are asked then, but not more often than this.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(2);

/// How a record came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// From another Sampan; the record may have expired.
    Follow,
    /// On a path that kubo uses as well.
    Gossip,
    Fetch,
    Dht,
    /// From a delegated router, or from whoever brought it to this one.
    Http,
    /// Carried by hand by whoever runs this node; the record may have expired.
    Hand,
}

impl Via {
    /// Whether a record that has expired is taken: it is still the last that its publisher said. Paths that kubo uses
    /// never carry one.
    fn takes_expired(self) -> bool {
        matches!(self, Self::Follow | Self::Hand)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follow => "a peer",
            Self::Gossip => "pubsub",
            Self::Fetch => "a peer (fetch)",
            Self::Dht => "the DHT",
            Self::Http => "a router",
            Self::Hand => "a bundle",
        })
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Newer than what was known.
    New(Verified),
    /// Known, and worth telling the program again.
    Again(Verified),
    /// Known.
    Same,
    Refused(Refusal),
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    names: HashMap<Name, Entry>,
    topics: HashMap<TopicHash, Name>,
}

#[derive(Debug)]
struct Entry {
    followed: bool,
    published: bool,
    known: Option<Known>,
    look_up: Instant,
    looked_up: Option<Instant>,
    pause: Duration,
}

/// The best record of a name that was seen, and where it has been.
#[derive(Debug)]
struct Known {
    record: Verified,
    reported: Instant,
    /// Nodes came with it and were passed to the program.
    nodes: bool,
    /// It went by on the topic. The first copy is passed on even if the record itself is known from a
    /// faster path; else that path would keep it from the peers behind this one.
    gossiped: bool,
    /// Peers that sent it or were sent it.
    holders: HashSet<PeerId>,
}

impl Known {
    fn new(record: Verified, now: Instant) -> Self {
        Self { record, reported: now, nodes: false, gossiped: false, holders: HashSet::new() }
    }
}

impl Names {
    /// Adds a name that is followed. `false` if there are too many.
    pub(crate) fn follow(&mut self, name: Name, now: Instant) -> bool {
        self.entry(name, now).map(|entry| entry.followed = true).is_some()
    }

    /// Returns whether the name is gone altogether, since it is not published here either.
    pub(crate) fn unfollow(&mut self, name: &Name) -> bool {
        let Some(entry) = self.names.get_mut(name) else { return false };
        entry.followed = false;
        if entry.published {
            return false;
        }
        self.names.remove(name);
        self.topics.retain(|_, other| other != name);
        true
    }

    /// Takes a record that the program keeps, so that what arrives is measured against it.
    pub(crate) fn seed(&mut self, record: Verified, now: Instant) {
        if let Some(entry) = self.names.get_mut(record.name())
            && entry.known.as_ref().is_none_or(|known| select(&record, &known.record) == Ordering::Greater)
        {
            entry.known = Some(Known::new(record, now));
        }
    }

    /// Takes a record that is published here.
    pub(crate) fn publish(&mut self, record: Verified, now: Instant) -> Result<(), PublishFault> {
        let entry = self.entry(*record.name(), now).ok_or(PublishFault::TooMany)?;
        entry.published = true;
        match &mut entry.known {
            Some(known) if select(&record, &known.record) == Ordering::Less => {
                return Err(PublishFault::Older);
            }
            Some(known) if known.record == record => {}
            known => *known = Some(Known::new(record, now)),
        }
        if let Some(known) = &mut entry.known {
            known.gossiped = true;
        }
        Ok(())
    }

    /// Compares a record that arrived with what is known, and remembers it if it is better.
    pub(crate) fn judge(
        &mut self,
        name: &Name,
        bytes: &Bytes,
        nodes: bool,
        path: Via,
        clock: Clock,
    ) -> Verdict {
        let Some(entry) = self.names.get_mut(name) else {
            return Verdict::Refused(Refusal::NotFollowed);
        };
        if let Some(known) = &mut entry.known
            && known.record.bytes() == bytes
        {
            let late = clock.now.duration_since(known.reported) >= REPORT_AGAIN;
            let worth_telling = entry.followed && ((nodes && !known.nodes) || (late && path == Via::Follow));
            if !worth_telling {
                return Verdict::Same;
            }
            known.nodes |= nodes;
            known.reported = clock.now;
            return Verdict::Again(known.record.clone());
        }
        let record = match Record::decode(bytes.clone()).and_then(|record| record.verify_signature(name)) {
            Ok(record) => record,
            Err(error) => return Verdict::Refused(error.into()),
        };
        if !path.takes_expired() && record.is_expired(clock.time) {
            return Verdict::Refused(RecordError::Expired.into());
        }
        if let Some(known) = &entry.known
            && select(&record, &known.record) != Ordering::Greater
        {
            return Verdict::Refused(Refusal::Older);
        }
        entry.known = Some(Known { nodes, ..Known::new(record.clone(), clock.now) });
        Verdict::New(record)
    }

    /// Whether the known record has not gone by on its topic before. Asked once per message.
    pub(crate) fn first_on_topic(&mut self, name: &Name, bytes: &[u8]) -> bool {
        let known = self.names.get_mut(name).and_then(|entry| entry.known.as_mut());
        known.is_some_and(|known| {
            known.record.bytes() == bytes && !std::mem::replace(&mut known.gossiped, true)
        })
    }

    /// Notes that a peer has the known record. Returns whether that is news.
    pub(crate) fn held_by(&mut self, name: &Name, peer: PeerId) -> bool {
        let known = self.names.get_mut(name).and_then(|entry| entry.known.as_mut());
        known.is_some_and(|known| known.holders.insert(peer))
    }

    pub(crate) fn forget_peer(&mut self, peer: &PeerId) {
        for known in self.names.values_mut().filter_map(|entry| entry.known.as_mut()) {
            known.holders.remove(peer);
        }
    }

    pub(crate) fn contains(&self, name: &Name) -> bool {
        self.names.contains_key(name)
    }

    /// Whether the name is for members only, as far as its record is known.
    pub(crate) fn is_private(&self, name: &Name) -> bool {
        let known = self.names.get(name).and_then(|entry| entry.known.as_ref());
        known.is_some_and(|known| known.record.is_private())
    }

    pub(crate) fn of_topic(&self, topic: &TopicHash) -> Option<Name> {
        self.topics.get(topic).copied()
    }

    pub(crate) fn followed(&self) -> Vec<Name> {
        self.names.iter().filter(|(_, entry)| entry.followed).map(|(name, _)| *name).collect()
    }

    /// The records that are published here.
    pub(crate) fn published(&self) -> Vec<Verified> {
        let published = self.names.values().filter(|entry| entry.published);
        published.filter_map(|entry| entry.known.as_ref()).map(|known| known.record.clone()).collect()
    }

    /// The followed names whose next look-up is due. Each is put off, longer each time.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Name> {
        let due = self.names.iter_mut().filter(|(_, entry)| entry.followed && entry.look_up <= now);
        due.map(|(name, entry)| {
            entry.pause = (entry.pause * 2).min(LOOK_UP_LATER);
            entry.look_up = now + entry.pause;
            entry.looked_up = Some(now);
            *name
        })
        .collect()
    }

    /// There is somebody new to ask for the followed names.
    pub(crate) fn look_up_soon(&mut self, now: Instant) {
        for entry in self.names.values_mut().filter(|entry| entry.followed) {
            let soonest = entry.looked_up.map_or(now, |before| (before + LOOK_UP_AGAIN).max(now));
            entry.look_up = entry.look_up.min(soonest);
            entry.pause = LOOK_UP_FIRST / 2;
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.names.values().filter(|entry| entry.followed).map(|entry| entry.look_up).min()
    }

    fn entry(&mut self, name: Name, now: Instant) -> Option<&mut Entry> {
        if !self.names.contains_key(&name) && self.names.len() >= MAX_NAMES {
            return None;
        }
        self.topics.insert(gossip::topic(&name).hash(), name);
        Some(self.names.entry(name).or_insert_with(|| Entry {
            followed: false,
            published: false,
            known: None,
            look_up: now,
            looked_up: None,
            pause: LOOK_UP_FIRST / 2,
        }))
    }
}

/// The two clocks of a judgement: what records are dated by, and what passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) time: SystemTime,
    pub(crate) now: Instant,
}

impl Clock {
    pub(crate) fn read(wall: &Wall) -> Self {
        Self { time: wall.judging_time(), now: Instant::now() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishFault {
    TooMany,
    Older,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipns::{Draft, LIFETIME};
    use crate::key::Keypair;

    struct Fixture {
        names: Names,
        key: Keypair,
        clock: Clock,
    }

    impl Fixture {
        fn new() -> Self {
            let (mut names, key, clock) =
                (Names::default(), Keypair::generate(), Clock::read(&Wall::system()));
            assert!(names.follow(key.name(), clock.now));
            Self { names, key, clock }
        }

        fn record(&self, sequence: u64) -> Verified {
            Record::sign(&self.key, &Draft::new("bafkqaaa".parse().unwrap(), sequence, self.clock.time))
                .unwrap()
        }

        fn judge(&mut self, record: &Verified, nodes: bool, path: Via) -> Verdict {
            self.names.judge(&self.key.name(), record.bytes(), nodes, path, self.clock)
        }
    }

    #[test]
    fn a_higher_sequence_wins_and_a_lower_is_refused() {
        let mut fixture = Fixture::new();
        let (old, new) = (fixture.record(1), fixture.record(2));
        assert_eq!(fixture.judge(&new, false, Via::Gossip), Verdict::New(new.clone()));
        assert_eq!(fixture.judge(&old, false, Via::Follow), Verdict::Refused(Refusal::Older));
        assert_eq!(fixture.judge(&new, false, Via::Dht), Verdict::Same);
    }

    #[test]
    fn what_the_program_keeps_is_the_measure() {
        let mut fixture = Fixture::new();
        let (old, new) = (fixture.record(1), fixture.record(2));
        fixture.names.seed(new, fixture.clock.now);
        assert_eq!(fixture.judge(&old, false, Via::Follow), Verdict::Refused(Refusal::Older));
    }

    #[test]
    fn nodes_that_come_after_the_record_are_passed_on_once() {
        let mut fixture = Fixture::new();
        let record = fixture.record(1);
        assert_eq!(fixture.judge(&record, false, Via::Gossip), Verdict::New(record.clone()));
        assert_eq!(fixture.judge(&record, true, Via::Follow), Verdict::Again(record.clone()));
        assert_eq!(fixture.judge(&record, true, Via::Follow), Verdict::Same);
        fixture.clock.now += REPORT_AGAIN;
        assert_eq!(fixture.judge(&record, false, Via::Gossip), Verdict::Same);
        assert_eq!(fixture.judge(&record, false, Via::Follow), Verdict::Again(record));
    }

    #[test]
    fn a_record_known_from_a_faster_path_still_goes_round_on_the_topic() {
        let mut fixture = Fixture::new();
        let record = fixture.record(1);
        fixture.judge(&record, true, Via::Follow);
        assert!(fixture.names.first_on_topic(&fixture.key.name(), record.bytes()));
        assert!(!fixture.names.first_on_topic(&fixture.key.name(), record.bytes()));
        let next = fixture.record(2);
        assert!(!fixture.names.first_on_topic(&fixture.key.name(), next.bytes()));
    }

    #[test]
    fn an_expired_record_passes_between_sampans_only() {
        let mut fixture = Fixture::new();
        let record = fixture.record(1);
        fixture.clock.time += LIFETIME;
        for path in [Via::Gossip, Via::Fetch, Via::Dht, Via::Http] {
            let refused = Verdict::Refused(RecordError::Expired.into());
            assert_eq!(fixture.judge(&record, false, path), refused);
        }
        assert_eq!(fixture.judge(&record, false, Via::Follow), Verdict::New(record));
        let later = fixture.record(2);
        assert_eq!(fixture.judge(&later, false, Via::Hand), Verdict::New(later));
    }

    #[test]
    fn a_foreign_signature_is_refused() {
        let mut fixture = Fixture::new();
        let foreign = Record::sign(
            &Keypair::generate(),
            &Draft::new("bafkqaaa".parse().unwrap(), 9, fixture.clock.time),
        );
        let refused = fixture.judge(&foreign.unwrap(), false, Via::Follow);
        assert_eq!(refused, Verdict::Refused(RecordError::BadSignature.into()));
    }

    #[test]
    fn a_name_that_nobody_follows_is_not_looked_at() {
        let mut fixture = Fixture::new();
        let record = fixture.record(1);
        assert!(fixture.names.unfollow(&fixture.key.name()));
        assert_eq!(fixture.judge(&record, false, Via::Follow), Verdict::Refused(Refusal::NotFollowed));
    }

    #[test]
    fn a_sequence_never_falls_when_publishing() {
        let mut fixture = Fixture::new();
        let (old, new) = (fixture.record(1), fixture.record(2));
        assert_eq!(fixture.names.publish(new.clone(), fixture.clock.now), Ok(()));
        assert_eq!(fixture.names.publish(old, fixture.clock.now), Err(PublishFault::Older));
        assert_eq!(fixture.names.publish(new.clone(), fixture.clock.now), Ok(()));
        assert_eq!(fixture.names.published(), [new]);
        assert!(!fixture.names.unfollow(&fixture.key.name()), "what is published stays");
    }

    #[test]
    fn look_ups_become_rare() {
        let mut fixture = Fixture::new();
        let mut now = fixture.clock.now;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(fixture.names.due(now).len(), 1);
            assert!(fixture.names.due(now).is_empty());
            let next = fixture.names.next_due().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600, 600]);
    }

    #[test]
    fn names_are_bounded() {
        let mut names = Names::default();
        let now = Instant::now();
        for _ in 0..MAX_NAMES {
            assert!(names.follow(Keypair::generate().name(), now));
        }
        assert!(!names.follow(Keypair::generate().name(), now));
    }

    #[test]
    fn whoever_comes_is_asked_soon_and_a_crowd_no_oftener() {
        let Fixture { mut names, clock: Clock { now, .. }, .. } = Fixture::new();
        assert_eq!(names.due(now).len(), 1);
        names.look_up_soon(now + LOOK_UP_AGAIN / 2);
        assert_eq!(names.next_due(), Some(now + LOOK_UP_AGAIN));
        let later = now + LOOK_UP_AGAIN * 3;
        names.look_up_soon(later);
        assert_eq!(names.due(later).len(), 1);
        assert_eq!(names.next_due(), Some(later + LOOK_UP_FIRST), "as if it had just begun");
    }
}
