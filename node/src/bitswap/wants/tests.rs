//! What a want does when peers answer, are silent, or go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sampan_storage::block::{RAW, cid_of};
use tokio::sync::mpsc;

use super::super::client::{Delivery, SessionOptions, Shared};
use super::super::turns::Turns;
use super::*;

const SIZE: u32 = 1000;

struct Bench {
    wants: Wants,
    now: Instant,
    sessions: u64,
}

struct Owner {
    id: SessionId,
    deliveries: mpsc::Receiver<Delivery>,
    shared: Arc<Shared>,
}

impl Bench {
    fn new() -> Self {
        Self { wants: Wants::default(), now: Instant::now(), sessions: 0 }
    }

    fn session(&mut self, providers: &[PeerId], window_bytes: usize) -> Owner {
        self.session_with(providers, window_bytes, Turns::default())
    }

    fn session_with(&mut self, providers: &[PeerId], window_bytes: usize, turns: Turns) -> Owner {
        self.sessions += 1;
        let id = SessionId(self.sessions);
        let (sender, deliveries) = mpsc::channel(super::super::client::DELIVERIES);
        let shared = Arc::new(Shared { untaken: 0.into(), queue: tokio::sync::Semaphore::new(0) });
        let options = SessionOptions { providers: providers.to_vec(), window_bytes, turns };
        self.wants.open(id, Opened { options, deliveries: sender, shared: Arc::clone(&shared) });
        Owner { id, deliveries, shared }
    }

    fn peer(&mut self) -> PeerId {
        let peer = PeerId::random();
        self.wants.connected(peer, Version::V1_2, self.now);
        peer
    }

    fn want(&mut self, owner: &Owner, names: std::ops::Range<u32>) {
        let wants = names.map(|name| (*block(name).cid(), SIZE)).collect();
        self.wants.want(owner.id, wants);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wants.tick(self.now);
    }

    /// What the peers are told now.
    fn told(&mut self) -> Vec<(PeerId, Entry)> {
        self.wants.assign(self.now);
        let mut told = Vec::new();
        while let Some((peer, message)) = self.wants.next_message() {
            self.wants.sent(&peer);
            told.extend(message.entries.into_iter().map(|entry| (peer, entry)));
        }
        told
    }

    fn answer(&mut self, peer: PeerId, name: u32, presence: Presence) {
        self.wants.presences(peer, &[(*block(name).cid(), presence)]);
    }

    fn give(&mut self, peer: PeerId, name: u32) -> u64 {
        self.wants.received(peer, vec![block(name)], self.now).duplicates
    }
}

fn block(name: u32) -> Block {
    let mut data = vec![1; SIZE as usize];
    data[..4].copy_from_slice(&name.to_be_bytes());
    Block::new(RAW, data.into())
}

fn kinds(told: &[(PeerId, Entry)], peer: PeerId) -> Vec<(WantKind, bool)> {
    told.iter().filter(|(to, _)| *to == peer).map(|(_, entry)| (entry.kind, entry.cancel)).collect()
}

const WANT_BLOCK: (WantKind, bool) = (WantKind::Block, false);
const WANT_HAVE: (WantKind, bool) = (WantKind::Have, false);
const CANCEL: (WantKind, bool) = (WantKind::Block, true);

#[test]
fn providers_are_asked_for_the_block_and_others_whether_they_have_it() {
    let mut bench = Bench::new();
    let (provider, other) = (bench.peer(), bench.peer());
    let mut owner = bench.session(&[provider], 1_000_000);
    bench.want(&owner, 0..1);
    let told = bench.told();
    assert_eq!((kinds(&told, provider), kinds(&told, other)), (vec![WANT_BLOCK], vec![WANT_HAVE]));
    assert_eq!(bench.give(provider, 0), 0);
    assert_eq!(owner.deliveries.try_recv().unwrap(), Ok(block(0)));
    let told = bench.told();
    assert_eq!((kinds(&told, provider), kinds(&told, other)), (vec![], vec![CANCEL]));
    assert!(bench.wants.is_idle() && !bench.wants.expects(&other));
}

#[test]
fn a_want_has_one_peer_at_a_time_and_goes_on_with_dont_have() {
    let mut bench = Bench::new();
    let (one, two) = (bench.peer(), bench.peer());
    let owner = bench.session(&[one, two], 1_000_000);
    bench.want(&owner, 0..1);
    let told = bench.told();
    assert_eq!(told.len(), 1);
    let first = told[0].0;
    bench.answer(first, 0, Presence::DontHave);
    let told = bench.told();
    assert_eq!(told.len(), 1);
    assert_ne!(told[0].0, first);
    // It comes late from the first: the second is told that it is over.
    bench.give(first, 0);
    let second = told[0].0;
    assert_eq!(kinds(&bench.told(), second), [CANCEL]);
}

#[test]
fn a_late_have_makes_a_want_go_on() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    let owner = bench.session(&[], 1_000_000);
    bench.want(&owner, 0..1);
    assert_eq!(kinds(&bench.told(), peer), [WANT_HAVE]);
    bench.answer(peer, 0, Presence::DontHave);
    assert!(bench.told().is_empty());
    bench.answer(peer, 0, Presence::Have);
    assert_eq!(kinds(&bench.told(), peer), [WANT_BLOCK]);
}

#[test]
fn what_nobody_has_is_said_once_and_stays_wanted() {
    let mut bench = Bench::new();
    let mut owner = bench.session(&[], 1_000_000);
    bench.want(&owner, 0..1);
    bench.told();
    bench.pass(NO_PROVIDER / 2);
    assert!(owner.deliveries.try_recv().is_err());
    bench.pass(NO_PROVIDER / 2);
    assert_eq!(owner.deliveries.try_recv().unwrap(), Err(SessionError::NoProvider(*block(0).cid())));
    bench.pass(NO_PROVIDER * 2);
    assert!(owner.deliveries.try_recv().is_err());
    let peer = bench.peer();
    assert_eq!(kinds(&bench.told(), peer), [WANT_HAVE]);
    bench.give(peer, 0);
    assert_eq!(owner.deliveries.try_recv().unwrap(), Ok(block(0)));
}

#[test]
fn what_all_deny_is_said_at_once() {
    let mut bench = Bench::new();
    let (one, two) = (bench.peer(), bench.peer());
    let mut owner = bench.session(&[], 1_000_000);
    bench.want(&owner, 0..1);
    bench.told();
    bench.answer(one, 0, Presence::DontHave);
    bench.told();
    bench.pass(NO_PROVIDER / 50);
    assert!(owner.deliveries.try_recv().is_err(), "one has not answered yet");
    bench.answer(two, 0, Presence::DontHave);
    bench.told();
    bench.pass(NO_PROVIDER / 50);
    assert_eq!(owner.deliveries.try_recv().unwrap(), Err(SessionError::NoProvider(*block(0).cid())));
}

#[test]
fn a_silent_peer_loses_its_wants_and_gets_them_back_when_nobody_else_has_them() {
    let mut bench = Bench::new();
    let (one, two) = (bench.peer(), bench.peer());
    let owner = bench.session(&[one, two], 1_000_000);
    bench.want(&owner, 0..1);
    let first = bench.told()[0].0;
    let second = if first == one { two } else { one };
    bench.pass(Duration::from_millis(1100));
    let told = bench.told();
    assert_eq!((kinds(&told, first), kinds(&told, second)), (vec![CANCEL], vec![WANT_BLOCK]));
    bench.answer(second, 0, Presence::DontHave);
    assert_eq!(kinds(&bench.told(), first), [WANT_BLOCK]);
    bench.pass(MAX_PATIENCE);
    assert_eq!(kinds(&bench.told(), first), [WANT_BLOCK], "said again, for there is no other");
}

#[test]
fn a_peer_that_leaves_gives_its_wants_to_the_others() {
    let mut bench = Bench::new();
    let (one, two) = (bench.peer(), bench.peer());
    let owner = bench.session(&[one, two], 1_000_000);
    bench.want(&owner, 0..10);
    bench.told();
    bench.wants.gone(one);
    let told = bench.told();
    assert!(told.iter().all(|(peer, _)| *peer == two) && !told.is_empty());
    for name in 0..10 {
        bench.give(two, name);
    }
    assert!(bench.wants.is_idle());
}

#[test]
fn a_window_counts_what_was_not_taken() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    let owner = bench.session(&[peer], 3 * SIZE as usize);
    bench.want(&owner, 0..9);
    assert_eq!(bench.told().len(), 3);
    for name in 0..3 {
        bench.give(peer, name);
    }
    assert!(bench.told().is_empty());
    owner.shared.untaken.store(SIZE as usize, Ordering::Relaxed);
    bench.wants.sweep();
    assert_eq!(bench.told().len(), 2);
}

#[test]
fn blocks_that_are_larger_than_said_do_not_fill_the_memory() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    let mut owner = bench.session(&[peer], 1000);
    let large = |name| Block::new(RAW, vec![name; 900].into());
    let wants = (0..20).map(|name| (*large(name).cid(), 50)).collect();
    bench.wants.want(owner.id, wants);
    assert_eq!(bench.told().len(), 20);
    for name in 0..20 {
        bench.wants.received(peer, vec![large(name)], bench.now);
    }
    let untaken = owner.shared.untaken.load(Ordering::Relaxed);
    assert!((900..=2900).contains(&untaken), "{untaken}");
    let mut taken = 0;
    while taken < 20 {
        while let Ok(Ok(block)) = owner.deliveries.try_recv() {
            owner.shared.untaken.fetch_sub(block.data().len(), Ordering::Relaxed);
            taken += 1;
        }
        bench.wants.sweep();
        for (_, entry) in bench.told() {
            let name = (0..20).find(|name| *large(*name).cid() == entry.cid).unwrap();
            bench.wants.received(peer, vec![large(name)], bench.now);
        }
    }
}

#[test]
fn whoever_gives_other_bytes_is_asked_for_nothing_more() {
    let mut bench = Bench::new();
    let liar = bench.peer();
    let owner = bench.session(&[liar], 1_000_000);
    bench.want(&owner, 0..3);
    assert_eq!(kinds(&bench.told(), liar), [WANT_BLOCK; 3]);
    let honest = bench.peer();
    (0..3).for_each(|name| bench.answer(honest, name, Presence::Have));
    let wrong = Block::new(RAW, vec![9; INLINE_BELOW + 1].into());
    assert_eq!(bench.wants.received(liar, vec![wrong], bench.now).foreign, 1);
    let told = bench.told();
    assert_eq!((kinds(&told, liar), kinds(&told, honest)), (vec![CANCEL; 3], vec![WANT_BLOCK; 3]));
    bench.want(&owner, 3..4);
    assert_eq!(kinds(&bench.told(), liar), []);
    assert_eq!(bench.give(honest, 0), 0);
}

#[test]
fn a_late_block_is_no_foreign_one() {
    let mut bench = Bench::new();
    let (one, two) = (bench.peer(), bench.peer());
    let owner = bench.session(&[one, two], 1_000_000);
    let large = |fill| Block::new(RAW, vec![fill; INLINE_BELOW + 1].into());
    bench.wants.want(owner.id, vec![(*large(1).cid(), SIZE)]);
    bench.told();
    bench.wants.received(one, vec![large(1)], bench.now);
    let late = bench.wants.received(two, vec![large(1)], bench.now);
    assert_eq!((late.duplicates, late.foreign), (1, 0));
    let wrong = bench.wants.received(two, vec![large(2), block(3)], bench.now);
    assert_eq!((wrong.duplicates, wrong.foreign), (2, 1));
    let other = |number: usize| cid_of(RAW, &number.to_be_bytes());
    (0..MAX_OVER).for_each(|number| bench.wants.over.note(other(number).hash()));
    let forgotten = bench.wants.received(two, vec![large(1)], bench.now);
    assert_eq!(forgotten.foreign, 1);
    assert_eq!(bench.wants.over.keys.len(), MAX_OVER);
}

#[test]
fn sessions_share_a_want_and_it_ends_with_the_last() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    let (one, two) = (bench.session(&[peer], 1_000_000), bench.session(&[], 1_000_000));
    bench.want(&one, 0..1);
    bench.want(&two, 0..1);
    assert_eq!(bench.told().len(), 1);
    drop(one);
    bench.wants.sweep();
    assert!(bench.told().is_empty());
    bench.wants.cancel(two.id, vec![*block(0).cid()]);
    assert_eq!(kinds(&bench.told(), peer), [CANCEL]);
    assert_eq!(two.shared.queue.available_permits(), 1);
    assert_eq!(bench.give(peer, 0), 1, "a duplicate");
}

#[test]
fn a_peer_is_told_of_no_more_than_it_queues() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    let mut owner = bench.session(&[], usize::MAX);
    bench.want(&owner, 0..5000);
    let names: HashMap<_, _> = (0..5000).map(|name| (*block(name).cid(), name)).collect();
    let told = bench.told();
    assert_eq!(told.len(), MAX_PROBES);
    for (_, entry) in told {
        bench.wants.presences(peer, &[(entry.cid, Presence::Have)]);
    }
    let mut given = 0;
    while !bench.wants.is_idle() {
        for (_, entry) in bench.told().into_iter().filter(|(_, entry)| !entry.cancel) {
            let name = names[&entry.cid];
            given += 1;
            bench.give(peer, name);
            while owner.deliveries.try_recv().is_ok() {}
            owner.shared.untaken.store(0, Ordering::Relaxed);
            assert!(bench.wants.sources[&peer].ledger.len() <= MAX_WANTS);
        }
    }
    assert_eq!(given, 5000);
}

#[test]
fn an_identity_cid_needs_no_peer() {
    let mut bench = Bench::new();
    let mut owner = bench.session(&[], 10);
    let cid: Cid = "bafkqaaa".parse().unwrap();
    bench.wants.want(owner.id, vec![(cid, 1)]);
    assert_eq!(owner.deliveries.try_recv().unwrap().unwrap().cid(), &cid);
    assert!(bench.wants.is_idle());
}

/// A publisher, one that fetches the same, and the name of a block whose turn it is: ours (0), or the other's (1).
fn in_turns(turn: usize) -> (Bench, PeerId, PeerId, Owner, u32) {
    let mut bench = Bench::new();
    let (publisher, companion) = (bench.peer(), bench.peer());
    let turns = Turns::new(PeerId::random(), vec![companion]);
    let name = (0..10_000).find(|name| turns.of(block(*name).cid()).0 == turn).unwrap();
    let owner = bench.session_with(&[publisher], 1_000_000, turns);
    bench.want(&owner, name..name + 1);
    (bench, publisher, companion, owner, name)
}

#[test]
fn a_companion_is_asked_first_and_then_the_publisher_for_what_is_our_turn() {
    let (mut bench, publisher, companion, _owner, name) = in_turns(0);
    let told = bench.told();
    assert_eq!((kinds(&told, publisher), kinds(&told, companion)), (vec![], vec![WANT_HAVE]));
    bench.answer(companion, name, Presence::DontHave);
    assert_eq!(kinds(&bench.told(), publisher), [WANT_BLOCK]);
    // One that says nothing holds up nobody.
    let (mut bench, publisher, _, _owner, _) = in_turns(0);
    bench.told();
    bench.pass(WORD);
    assert_eq!(kinds(&bench.told(), publisher), [WANT_BLOCK]);
}

#[test]
fn what_a_companion_has_is_taken_from_it_and_what_it_is_to_get_is_waited_for() {
    let (mut bench, publisher, companion, mut owner, name) = in_turns(1);
    bench.told();
    bench.answer(companion, name, Presence::DontHave);
    bench.pass(TURN / 2);
    assert!(bench.told().is_empty(), "it is the companion's turn");
    bench.answer(companion, name, Presence::Have);
    let told = bench.told();
    assert_eq!((kinds(&told, publisher), kinds(&told, companion)), (vec![], vec![WANT_BLOCK]));
    bench.give(companion, name);
    assert_eq!(owner.deliveries.try_recv().unwrap(), Ok(block(name)));
    // Its turn is over after a time, and with it.
    let (mut bench, publisher, companion, _owner, name) = in_turns(1);
    bench.told();
    bench.answer(companion, name, Presence::DontHave);
    bench.pass(TURN);
    assert_eq!(kinds(&bench.told(), publisher), [WANT_BLOCK]);
    let (mut bench, publisher, companion, _owner, _) = in_turns(1);
    bench.told();
    bench.wants.gone(companion);
    assert_eq!(kinds(&bench.told(), publisher), [WANT_BLOCK]);
}
