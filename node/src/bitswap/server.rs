//! What peers want of us: a ledger for each, and what is sent next.
//!
//! Nothing here reads the store or the network. It says which sizes to look up, which blocks to read and which
//! messages to send; the behaviour does it and reports back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use sampan_storage::block::MAX_BLOCK;

use super::message::{Entry, Outgoing, Presence, WantKind};
use super::{Key, key};

/// Wants that are kept for one peer, as many as boxo's server keeps. Above it the least wanted goes.
const MAX_WANTS: usize = 1024;

/// A WANT_HAVE for a block up to this size is answered with the block (boxo's `WantHaveReplaceSize`).
const SEND_INSTEAD_OF_HAVE: usize = 1024;

/// Blocks are put together until a message has this many bytes. With one more block of at most 2 MiB it stays
/// below the 4 MiB that a frame may have.
const BATCH: usize = 1024 * 1024;
const _: () = assert!(BATCH + MAX_BLOCK + 512 * 1024 < super::message::MAX_FRAME);

/// Blocks in one message at most: what their prefixes cost stays small beside [`BATCH`].
const MAX_BLOCKS: usize = 1024;

/// Bytes of blocks that were read for one peer and are not in the muxer's hands.
const PEER_BUDGET: usize = 4 * 1024 * 1024;

/// The same for all peers together. From half of it on each peer gets one batch at a time, so that a few
/// slow readers do not take it all.
pub(super) const BUDGET: usize = 16 * 1024 * 1024;

/// The last quarter of [`BUDGET`] is for peers that have taken what they asked for, so that those who take nothing cannot
/// keep everybody waiting. What fits into a stream's window at once proves nothing; this much does.
const FOR_PROVEN: usize = BUDGET / 4;
const PROVEN: usize = 512 * 1024;

/// Messages on their way to one peer.
const MAX_IN_FLIGHT: usize = 8;

/// Presences in one message, and sizes in one look-up.
const MAX_AT_ONCE: usize = 1024;

/// A block whose stream broke is sent again this often.
const MAX_ATTEMPTS: u8 = 3;

/// What was not here is looked up again at most this often, however often the store gets more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// To whom blocks are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serving {
    #[default]
    Everyone,
    /// Every want is answered as if nothing were here.
    Nobody,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    serving: Serving,
    peers: HashMap<PeerId, Ledger>,
    // Peers with blocks to be read, in turn.
    turn: VecDeque<PeerId>,
    outstanding: usize,
    arrivals: u64,
    // The store has got more since wants were looked up.
    restocked: bool,
    looked_again: Option<Instant>,
}

/// The best first: high priority, then early.
type Rank = (Reverse<i32>, u64);

#[derive(Debug, Default)]
struct Ledger {
    wants: HashMap<Key, Want>,
    ranks: BTreeMap<Rank, Key>,
    /// Wants whose size is to be looked up.
    unknown: BTreeMap<Rank, Key>,
    /// One look-up at a time, so that a peer that asks without end takes no more than its turn.
    looking: bool,
    /// Wants whose block is to be sent.
    ready: BTreeMap<Rank, Key>,
    presences: HashMap<Key, Presence>,
    /// Blocks that were read.
    read: VecDeque<(Outgoing, Batch)>,
    in_flight: VecDeque<Batch>,
    outstanding: usize,
    /// Bytes of blocks that it has taken.
    taken: usize,
}

#[derive(Debug)]
struct Want {
    cid: Cid,
    rank: Rank,
    kind: WantKind,
    send_dont_have: bool,
    state: State,
    attempts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not looked up.
    Unknown,
    /// Looked up and not here. Kept, because it may arrive.
    Absent,
    /// A HAVE is on its way.
    Answered,
    /// Here, with this many bytes.
    Ready(usize),
    /// Being read, or on its way.
    Sending,
}

/// What one message carries, to be settled when it is sent or lost.
#[derive(Debug, Default)]
struct Batch {
    blocks: Vec<Key>,
    haves: Vec<Key>,
    /// Bytes taken from the budgets.
    reserved: usize,
    /// Bytes of blocks in the message.
    bytes: usize,
}

/// A read to be done: the blocks of one message.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) peer: PeerId,
    pub(super) cids: Vec<Cid>,
    reserved: usize,
}

impl Server {
    pub(super) fn new(serving: Serving) -> Self {
        Self { serving, ..Self::default() }
    }

    #[cfg(any(fuzzing, test))]
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    pub(super) fn serving(&self) -> Serving {
        self.serving
    }

    /// From now on; what is on its way still goes.
    pub(super) fn set_serving(&mut self, serving: Serving) {
        self.serving = serving;
        self.look_again();
    }

    /// The store has got more, of which the blocks are not known one by one.
    pub(super) fn restocked(&mut self) {
        self.restocked = true;
    }

    /// Looks up again what was not here, if it is time.
    pub(super) fn tick(&mut self, now: Instant) {
        let early = self.looked_again.is_some_and(|at| now.saturating_duration_since(at) < LOOK_AGAIN);
        if self.restocked && !early {
            self.restocked = false;
            self.looked_again = Some(now);
            self.look_again();
        }
    }

    fn look_again(&mut self) {
        for ledger in self.peers.values_mut() {
            let again: Vec<_> = ledger.wants.keys().copied().collect();
            for key in again {
                ledger.look_again(&key);
            }
        }
    }

    /// Takes a wantlist into the ledger. Returns how many wants there was no room for.
    pub(super) fn wanted(&mut self, peer: PeerId, full: bool, entries: &[Entry]) -> u64 {
        let ledger = self.peers.entry(peer).or_default();
        if full {
            ledger.keep_only(entries);
        }
        let mut refused = 0;
        for entry in entries {
            if entry.cancel {
                ledger.remove(&key(&entry.cid));
            } else {
                self.arrivals += 1;
                refused += u64::from(!ledger.add(entry, self.arrivals));
            }
        }
        refused
    }

    /// Blocks are here now: whoever waits for them is answered.
    pub(super) fn arrived(&mut self, cids: &[Cid]) {
        for ledger in self.peers.values_mut().filter(|ledger| !ledger.wants.is_empty()) {
            for cid in cids {
                ledger.look_again(&key(cid));
            }
        }
    }

    /// The next sizes to look up, best first, for one peer.
    pub(super) fn next_lookup(&mut self) -> Option<(PeerId, Vec<Cid>)> {
        let (peer, ledger) =
            self.peers.iter_mut().find(|(_, ledger)| !ledger.looking && !ledger.unknown.is_empty())?;
        ledger.looking = true;
        let mut cids = Vec::new();
        while let Some((_, key)) = ledger.unknown.pop_first() {
            cids.extend(ledger.wants.get(&key).map(|want| want.cid));
            if cids.len() == MAX_AT_ONCE {
                break;
            }
        }
        Some((*peer, cids))
    }

    pub(super) fn looked_up(&mut self, peer: PeerId, sizes: Vec<(Cid, Option<usize>)>) {
        let serving = self.serving;
        let Some(ledger) = self.peers.get_mut(&peer) else { return };
        ledger.looking = false;
        for (cid, size) in sizes {
            let size = size.filter(|size| serving == Serving::Everyone && *size <= MAX_BLOCK);
            ledger.resolve(&key(&cid), size);
        }
        if !ledger.ready.is_empty() && !self.turn.contains(&peer) {
            self.turn.push_back(peer);
        }
    }

    /// The blocks of the next message, one peer after the other, as far as the budgets allow.
    pub(super) fn next_read(&mut self) -> Option<Read> {
        for _ in 0..self.turn.len() {
            let peer = self.turn.pop_front()?;
            let Some(ledger) = self.peers.get_mut(&peer) else { continue };
            let cids = if ledger.may_read(self.outstanding) { ledger.take_ready() } else { (Vec::new(), 0) };
            if !ledger.ready.is_empty() {
                self.turn.push_back(peer);
            }
            let (cids, reserved) = cids;
            if !cids.is_empty() {
                ledger.outstanding += reserved;
                self.outstanding += reserved;
                return Some(Read { peer, cids, reserved });
            }
        }
        None
    }

    /// What a read found. A block that went away since it was looked up counts as not here.
    pub(super) fn read(&mut self, read: &Read, blocks: Vec<(Cid, Option<Bytes>)>) {
        let Some(ledger) = self.peers.get_mut(&read.peer) else {
            self.outstanding = self.outstanding.saturating_sub(read.reserved);
            return;
        };
        let mut message = Outgoing::default();
        let mut batch = Batch { reserved: read.reserved, ..Batch::default() };
        for (cid, data) in blocks {
            let key = key(&cid);
            let Some(want) = ledger.wants.get_mut(&key).filter(|want| want.state == State::Sending) else {
                continue;
            };
            // The sizes were looked up, so this is only for a store that changed them since.
            let fits =
                |data: &Bytes| data.len() <= MAX_BLOCK && batch.bytes + data.len() <= BATCH + MAX_BLOCK;
            if let Some(data) = data.filter(fits) {
                batch.bytes += data.len();
                batch.blocks.push(key);
                message.blocks.push((want.cid, data));
            } else {
                want.state = State::Unknown;
                ledger.resolve(&key, None);
            }
        }
        if message.blocks.is_empty() {
            self.settle(read.peer, &batch);
        } else {
            ledger.read.push_back((message, batch));
        }
    }

    /// The next message of any peer: presences as soon as they are known, then blocks that were read.
    pub(super) fn next_message(&mut self) -> Option<(PeerId, Outgoing)> {
        for (peer, ledger) in &mut self.peers {
            if ledger.in_flight.len() >= MAX_IN_FLIGHT {
                continue;
            }
            let next = ledger.take_presences().or_else(|| ledger.read.pop_front());
            if let Some((message, batch)) = next {
                ledger.in_flight.push_back(batch);
                return Some((*peer, message));
            }
        }
        None
    }

    /// The oldest message to this peer went out: how many blocks and bytes that were.
    pub(super) fn sent(&mut self, peer: PeerId) -> (usize, usize) {
        let Some(ledger) = self.peers.get_mut(&peer) else { return (0, 0) };
        let Some(batch) = ledger.in_flight.pop_front() else { return (0, 0) };
        for key in &batch.blocks {
            if ledger.wants.get(key).is_some_and(|want| want.state == State::Sending) {
                ledger.remove(key);
            }
        }
        for key in &batch.haves {
            if ledger.wants.get(key).is_some_and(|want| want.state == State::Answered) {
                ledger.remove(key);
            }
        }
        ledger.taken = ledger.taken.saturating_add(batch.bytes);
        self.settle(peer, &batch);
        (batch.blocks.len(), batch.bytes)
    }

    /// The stream broke: what was on its way is sent again, a few times.
    pub(super) fn lost(&mut self, peer: PeerId) {
        let Some(ledger) = self.peers.get_mut(&peer) else { return };
        let batches: Vec<_> = ledger.in_flight.drain(..).collect();
        ledger.taken = 0;
        for batch in &batches {
            for key in batch.blocks.iter().chain(&batch.haves) {
                let Some(want) = ledger.wants.get_mut(key) else { continue };
                want.attempts += 1;
                if want.attempts >= MAX_ATTEMPTS {
                    ledger.remove(key);
                } else {
                    want.state = State::Unknown;
                    ledger.unknown.insert(want.rank, *key);
                }
            }
        }
        for batch in batches {
            self.settle(peer, &batch);
        }
    }

    pub(super) fn gone(&mut self, peer: PeerId) {
        if let Some(ledger) = self.peers.remove(&peer) {
            // What is being read now is settled when the read comes back.
            let batches = ledger.in_flight.iter().chain(ledger.read.iter().map(|(_, batch)| batch));
            self.outstanding = self.outstanding.saturating_sub(batches.map(|batch| batch.reserved).sum());
        }
        self.turn.retain(|waiting| *waiting != peer);
    }

    /// Whether this peer waits for something.
    pub(super) fn owes(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|ledger| !ledger.wants.is_empty() || !ledger.in_flight.is_empty())
    }

    fn settle(&mut self, peer: PeerId, batch: &Batch) {
        self.outstanding = self.outstanding.saturating_sub(batch.reserved);
        if let Some(ledger) = self.peers.get_mut(&peer) {
            ledger.outstanding = ledger.outstanding.saturating_sub(batch.reserved);
        }
    }
}

impl Ledger {
    /// `false` where there is no room for it, or where it took the room of another.
    fn add(&mut self, entry: &Entry, arrival: u64) -> bool {
        let key = key(&entry.cid);
        if let Some(want) = self.wants.get_mut(&key) {
            want.send_dont_have |= entry.send_dont_have;
            let grows = want.kind == WantKind::Have && entry.kind == WantKind::Block;
            if grows {
                want.kind = WantKind::Block;
                want.cid = entry.cid;
            }
            // Asked again for what is not on its way: answer again.
            if want.state == State::Absent || (grows && want.state == State::Answered) {
                want.state = State::Unknown;
                self.unknown.insert(want.rank, key);
            }
            return true;
        }
        let rank = (Reverse(entry.priority), arrival);
        let full = self.wants.len() >= MAX_WANTS;
        if full {
            match self.ranks.last_key_value() {
                Some((last, least)) if *last > rank => {
                    let least = *least;
                    self.remove(&least);
                }
                _ => return false,
            }
        }
        let Entry { cid, kind, send_dont_have, .. } = *entry;
        self.wants.insert(key, Want { cid, rank, kind, send_dont_have, state: State::Unknown, attempts: 0 });
        self.ranks.insert(rank, key);
        self.unknown.insert(rank, key);
        !full
    }

    fn remove(&mut self, key: &Key) {
        if let Some(want) = self.wants.remove(key) {
            self.ranks.remove(&want.rank);
            self.unknown.remove(&want.rank);
            self.ready.remove(&want.rank);
            self.presences.remove(key);
        }
    }

    fn keep_only(&mut self, entries: &[Entry]) {
        let kept: std::collections::HashSet<_> =
            entries.iter().filter(|entry| !entry.cancel).map(|entry| key(&entry.cid)).collect();
        let gone: Vec<_> = self.wants.keys().filter(|key| !kept.contains(key)).copied().collect();
        for key in gone {
            self.remove(&key);
        }
    }

    fn look_again(&mut self, key: &Key) {
        if let Some(want) = self.wants.get(key)
            && matches!(want.state, State::Unknown | State::Absent)
        {
            self.unknown.insert(want.rank, *key);
        }
    }

    fn resolve(&mut self, key: &Key, size: Option<usize>) {
        let Some(want) = self.wants.get_mut(key) else { return };
        match (want.state, size) {
            (State::Unknown | State::Absent, Some(size)) => {
                if want.kind == WantKind::Block || size <= SEND_INSTEAD_OF_HAVE {
                    want.state = State::Ready(size);
                    self.ready.insert(want.rank, *key);
                    self.presences.remove(key);
                } else {
                    want.state = State::Answered;
                    self.presences.insert(*key, Presence::Have);
                }
            }
            (State::Unknown, None) => {
                want.state = State::Absent;
                if want.send_dont_have {
                    self.presences.insert(*key, Presence::DontHave);
                }
            }
            _ => {}
        }
    }

    fn may_read(&self, total: usize) -> bool {
        let is_proven = self.taken >= PROVEN;
        let most = if is_proven { BUDGET } else { BUDGET - FOR_PROVEN };
        let allowed = if is_proven && total < BUDGET / 2 { PEER_BUDGET } else { BATCH };
        total < most && self.outstanding < allowed
    }

    /// The best blocks that are ready, up to a batch, and their bytes.
    fn take_ready(&mut self) -> (Vec<Cid>, usize) {
        let (mut cids, mut reserved) = (Vec::new(), 0);
        while reserved < BATCH && cids.len() < MAX_BLOCKS {
            let Some((_, key)) = self.ready.pop_first() else { break };
            let Some(want) = self.wants.get_mut(&key) else { continue };
            if let State::Ready(size) = want.state {
                want.state = State::Sending;
                cids.push(want.cid);
                reserved += size;
            }
        }
        (cids, reserved)
    }

    fn take_presences(&mut self) -> Option<(Outgoing, Batch)> {
        let keys: Vec<_> = self.presences.keys().take(MAX_AT_ONCE).copied().collect();
        let (mut message, mut batch) = (Outgoing::default(), Batch::default());
        for key in keys {
            let Some(presence) = self.presences.remove(&key) else { continue };
            let Some(want) = self.wants.get(&key) else { continue };
            message.presences.push((want.cid, presence));
            if presence == Presence::Have {
                batch.haves.push(key);
            }
        }
        (!message.presences.is_empty()).then_some((message, batch))
    }
}

#[cfg(test)]
mod tests {
    use sampan_storage::block::{RAW, cid_of};

    use super::*;

    fn cid(name: u32) -> Cid {
        cid_of(RAW, &name.to_be_bytes())
    }

    fn want(name: u32, kind: WantKind) -> Entry {
        Entry { cid: cid(name), priority: 1, kind, cancel: false, send_dont_have: true }
    }

    fn look_up(server: &mut Server, size: impl Fn(&Cid) -> Option<usize>) {
        while let Some((peer, cids)) = server.next_lookup() {
            let sizes = cids.into_iter().map(|cid| (cid, size(&cid))).collect();
            server.looked_up(peer, sizes);
        }
    }

    fn read(server: &mut Server, size: usize) -> Option<usize> {
        let read = server.next_read()?;
        let blocks = read.cids.iter().map(|cid| (*cid, Some(Bytes::from(vec![0; size])))).collect();
        server.read(&read, blocks);
        Some(read.cids.len())
    }

    #[test]
    fn a_want_have_is_answered_by_size() {
        let (mut server, peer) = (Server::default(), PeerId::random());
        let entries = [want(1, WantKind::Have), want(2, WantKind::Have), want(3, WantKind::Have)];
        server.wanted(peer, false, &entries);
        look_up(&mut server, |of| match *of {
            of if of == cid(1) => Some(SEND_INSTEAD_OF_HAVE),
            of if of == cid(2) => Some(SEND_INSTEAD_OF_HAVE + 1),
            _ => None,
        });
        let (_, mut message) = server.next_message().unwrap();
        message.presences.sort_by_key(|(of, _)| *of != cid(2));
        assert_eq!(message.presences, [(cid(2), Presence::Have), (cid(3), Presence::DontHave)]);
        assert_eq!(read(&mut server, SEND_INSTEAD_OF_HAVE), Some(1));
        assert_eq!(server.next_message().unwrap().1.blocks[0].0, cid(1));
        server.sent(peer);
        server.sent(peer);
        let left: Vec<_> = server.peers[&peer].wants.keys().copied().collect();
        assert_eq!(left, [key(&cid(3))], "what is not here is still waited for");
    }

    #[test]
    fn dont_have_is_said_only_to_those_who_asked() {
        let (mut server, peer) = (Server::default(), PeerId::random());
        server.wanted(peer, false, &[Entry { send_dont_have: false, ..want(1, WantKind::Block) }]);
        look_up(&mut server, |_| None);
        assert!(server.next_message().is_none());
        server.arrived(&[cid(1)]);
        look_up(&mut server, |_| Some(5));
        assert_eq!(read(&mut server, 5), Some(1));
        assert_eq!(server.next_message().unwrap().1.blocks.len(), 1);
    }

    #[test]
    fn an_arrival_during_a_look_up_is_not_missed() {
        let (mut server, peer) = (Server::default(), PeerId::random());
        server.wanted(peer, false, &[want(1, WantKind::Block)]);
        server.next_lookup().unwrap();
        server.arrived(&[cid(1)]);
        server.looked_up(peer, vec![(cid(1), None)]);
        look_up(&mut server, |_| Some(5));
        assert_eq!(read(&mut server, 5), Some(1));
    }

    #[test]
    fn what_comes_into_the_store_is_looked_up_again_but_not_all_the_time() {
        let (mut server, peer) = (Server::default(), PeerId::random());
        server.wanted(peer, false, &[want(1, WantKind::Have)]);
        look_up(&mut server, |_| None);
        server.next_message().unwrap();
        let start = Instant::now();
        server.restocked();
        server.tick(start);
        look_up(&mut server, |_| None);
        server.restocked();
        server.tick(start + LOOK_AGAIN / 2);
        assert!(server.next_lookup().is_none());
        server.tick(start + LOOK_AGAIN);
        look_up(&mut server, |_| Some(SEND_INSTEAD_OF_HAVE + 1));
        assert_eq!(server.next_message().unwrap().1.presences, [(cid(1), Presence::Have)]);
        server.tick(start + LOOK_AGAIN * 3);
        assert!(server.next_lookup().is_none(), "nothing has come since");
    }

    #[test]
    fn a_ledger_is_bounded_and_keeps_the_most_wanted() {
        let (mut server, peer) = (Server::default(), PeerId::random());
        let many: Vec<_> = (0..MAX_WANTS as u32).map(|name| want(name, WantKind::Block)).collect();
        assert_eq!(server.wanted(peer, false, &many), 0);
        assert_eq!(server.wanted(peer, false, &[want(5000, WantKind::Block)]), 1);
        let urgent = Entry { priority: 2, ..want(5001, WantKind::Block) };
        assert_eq!(server.wanted(peer, false, &[urgent]), 1);
        let ledger = &server.peers[&peer];
        assert_eq!(ledger.wants.len(), MAX_WANTS);
        assert!(ledger.wants.contains_key(&key(&urgent.cid)) && !ledger.wants.contains_key(&key(&cid(5000))));
    }

    #[test]
    fn a_full_list_replaces_and_a_cancel_removes() {
        let (mut server, peer) = (Server::default(), PeerId::random());
        server.wanted(peer, false, &[want(1, WantKind::Block), want(2, WantKind::Block)]);
        server.wanted(peer, true, &[want(2, WantKind::Block), want(3, WantKind::Block)]);
        server.wanted(peer, false, &[Entry { cancel: true, ..want(3, WantKind::Block) }]);
        assert_eq!(server.peers[&peer].wants.keys().copied().collect::<Vec<_>>(), [key(&cid(2))]);
    }

    #[test]
    fn a_message_stays_below_the_limit_and_a_peer_within_its_budget() {
        let (mut server, peer) = (Server::default(), PeerId::random());
        let entries: Vec<_> = (0..64).map(|name| want(name, WantKind::Block)).collect();
        server.wanted(peer, false, &entries);
        let size = 700 * 1024;
        look_up(&mut server, |_| Some(size));
        server.peers.get_mut(&peer).unwrap().taken = PROVEN;
        let mut reads = 0;
        while read(&mut server, size) == Some(2) {
            reads += 1;
        }
        assert_eq!(reads, 3);
        while let Some((_, message)) = server.next_message() {
            assert!(message.encode(super::super::message::Version::V1_2).concat().len() < 4 * 1024 * 1024);
        }
        assert_eq!(server.sent(peer), (2, 2 * size));
        assert_eq!(read(&mut server, size), Some(2));
        server.gone(peer);
        assert_eq!(server.outstanding, 0);
    }

    #[test]
    fn those_who_take_nothing_leave_room_for_those_who_do() {
        let mut server = Server::default();
        let entries: Vec<_> = (0..64).map(|name| want(name, WantKind::Block)).collect();
        for _ in 0..64 {
            server.wanted(PeerId::random(), false, &entries);
        }
        look_up(&mut server, |_| Some(BATCH));
        while read(&mut server, BATCH).is_some() {}
        assert_eq!(server.outstanding, BUDGET - FOR_PROVEN);
        let honest = PeerId::random();
        server.wanted(honest, false, &entries);
        look_up(&mut server, |_| Some(BATCH));
        server.peers.get_mut(&honest).unwrap().taken = PROVEN;
        assert_eq!(read(&mut server, BATCH), Some(1));
        server.next_message().unwrap();
        server.lost(honest);
        assert_eq!(server.peers[&honest].taken, 0, "whoever stops has to show it again");
    }

    #[test]
    fn what_a_broken_stream_carried_is_sent_again() {
        let (mut server, peer) = (Server::default(), PeerId::random());
        server.wanted(peer, false, &[want(1, WantKind::Block)]);
        for _ in 0..MAX_ATTEMPTS {
            look_up(&mut server, |_| Some(9));
            assert_eq!(read(&mut server, 9), Some(1));
            server.next_message().unwrap();
            server.lost(peer);
        }
        assert!(!server.owes(&peer));
        assert_eq!(server.outstanding, 0);
    }

    #[test]
    fn nobody_is_served_when_so_said() {
        let (mut server, peer) = (Server::new(Serving::Nobody), PeerId::random());
        server.wanted(peer, false, &[want(1, WantKind::Block)]);
        look_up(&mut server, |_| Some(9));
        assert_eq!(server.next_message().unwrap().1.presences, [(cid(1), Presence::DontHave)]);
        server.set_serving(Serving::Everyone);
        look_up(&mut server, |_| Some(9));
        assert_eq!(read(&mut server, 9), Some(1));
    }
}
