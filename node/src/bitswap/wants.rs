//! What we want of peers: which want is asked of whom, and where it goes when a peer has it not, is late or leaves.
//!
//! A want is asked of one peer at a time. Peers that are known to have a session's blocks are asked for the
//! block at once; the others are asked whether they have it, and may say so late. Nothing here does I/O: time
//! comes in as an argument, and messages are taken out with [`Wants::next_message`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use sampan_storage::Block;
use sampan_storage::block::identity_data;

use super::client::{Opened, SessionError, SessionId};
use super::message::{Entry, Outgoing, Presence, Version, WantKind};
use super::session::SessionState;
use super::source::{MAX_TIMEOUT, MAX_WANTS, Source};
use super::{Key, key};

/// A want that no peer has is reported when all have said so, else after this time: some may not answer, and where
/// nobody is connected somebody may come.
const NO_PROVIDER: Duration = Duration::from_secs(5);

/// Wants looked at in one round of [`Wants::assign`]: those that no peer has room for do not cost all others.
const MAX_SCAN: usize = 256;

/// Wants that a peer may be asked about, so that there is room left to ask it for blocks.
const MAX_PROBES: usize = MAX_WANTS * 3 / 4;

/// A peer that said DONT_HAVE this often in a row is asked only for what nobody else has (as in boxo).
const USELESS_AFTER: u32 = 16;

/// So long companions have to say whether they have a block, before it is asked of others.
const WORD: Duration = Duration::from_millis(50);

/// So long each of them has to get it that is to ask for it before us: one that has gone, or is slow, holds up no more.
const TURN: Duration = Duration::from_secs(2);

/// What many of them may take together.
const MAX_TURNS: u32 = 5;

/// A late want goes elsewhere after 10 s, then after twice that, and so on until this.
const MAX_PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct Wants {
    sessions: HashMap<SessionId, SessionState>,
    open: HashMap<Key, Want>,
    /// Wants that some peer can be asked for now, oldest first.
    ready: BTreeMap<u64, Key>,
    sources: HashMap<PeerId, Source>,
    opened: u64,
}

/// A block that came under one name and is wanted under another. It is hashed once more.
#[derive(Debug)]
pub(super) struct Rename {
    pub(super) session: SessionId,
    pub(super) cid: Cid,
    pub(super) size: usize,
    pub(super) data: Bytes,
}

#[derive(Debug)]
struct Want {
    cid: Cid,
    order: u64,
    size: usize,
    askers: Vec<(SessionId, Cid, usize)>,
    asked: Option<Asked>,
    answers: HashMap<PeerId, Answer>,
    /// When it was to be asked for first.
    looked_at: Option<Instant>,
    stuck_since: Option<Instant>,
    reported: bool,
    moves: u32,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    peer: PeerId,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Asked whether it has the block.
    Pending,
    Have,
    DontHave,
    /// Did not give it in time.
    Late(Instant),
}

impl Wants {
    pub(super) fn open(&mut self, id: SessionId, opened: Opened) {
        self.sessions.insert(id, SessionState::new(opened));
    }

    pub(super) fn want(&mut self, id: SessionId, wants: Vec<(Cid, u32)>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.push(wants);
            self.fill(id);
        }
    }

    pub(super) fn add_provider(&mut self, id: SessionId, peer: PeerId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.add_provider(peer);
        if !self.sources.contains_key(&peer) {
            return;
        }
        for (key, want) in &mut self.open {
            if want.askers.iter().any(|(session, ..)| *session == id) {
                // An earlier DONT_HAVE was an answer to another question: it is now said to have it.
                want.answers.remove(&peer);
                Self::make_ready(&mut self.ready, want, *key);
            }
        }
    }

    pub(super) fn cancel(&mut self, id: SessionId, cids: Vec<Cid>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let cids = HashSet::from_iter(cids);
        session.cancel_queued(&cids);
        for cid in cids {
            let key = key(&cid);
            let Some(want) = self.open.get_mut(&key) else { continue };
            for (_, _, size) in want.askers.extract_if(.., |(asker, named, _)| *asker == id && *named == cid)
            {
                session.cancel_open(size);
            }
            if want.askers.is_empty() {
                Self::drop_want(&mut self.open, &mut self.sources, &mut self.ready, &key, None);
            }
        }
        self.fill(id);
    }

    /// Ends sessions whose owners are gone, and asks for more where blocks were taken.
    pub(super) fn sweep(&mut self) {
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            if self.sessions.get(&id).is_some_and(SessionState::is_over) {
                self.sessions.remove(&id);
                let ended: Vec<_> = self
                    .open
                    .iter_mut()
                    .filter_map(|(key, want)| {
                        want.askers.retain(|(session, ..)| *session != id);
                        want.askers.is_empty().then_some(*key)
                    })
                    .collect();
                for key in ended {
                    Self::drop_want(&mut self.open, &mut self.sources, &mut self.ready, &key, None);
                }
            } else {
                self.fill(id);
            }
        }
    }

    /// A peer can be asked from now on.
    pub(super) fn connected(&mut self, peer: PeerId, version: Version, now: Instant) {
        self.gone(peer);
        self.sources.insert(peer, Source::new(version, now));
        let mut keys: Vec<_> = self.open.iter().map(|(key, want)| (want.order, *key)).collect();
        keys.sort_unstable();
        for (_, key) in keys {
            self.consider(&key, peer, USELESS_AFTER);
        }
    }

    /// A peer can no longer be asked: what was asked of it goes elsewhere.
    pub(super) fn gone(&mut self, peer: PeerId) {
        if self.sources.remove(&peer).is_none() {
            return;
        }
        for (key, want) in &mut self.open {
            want.answers.remove(&peer);
            if want.asked.is_some_and(|asked| asked.peer == peer) {
                want.asked = None;
                Self::make_ready(&mut self.ready, want, *key);
            }
        }
    }

    pub(super) fn presences(&mut self, peer: PeerId, presences: &[(Cid, Presence)]) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        for (cid, presence) in presences {
            let key = key(cid);
            let Some(want) = self.open.get_mut(&key).filter(|_| source.ledger.contains(&key)) else {
                continue;
            };
            let asked = want.asked.is_some_and(|asked| asked.peer == peer);
            for (session, ..) in &want.askers {
                let Some(session) = self.sessions.get_mut(session) else { continue };
                match presence {
                    Presence::Have => session.add_provider(peer),
                    Presence::DontHave => session.missed(peer),
                }
            }
            match presence {
                // It was asked for the block itself, and says that it is coming.
                Presence::Have if asked => {}
                Presence::Have => {
                    want.answers.insert(peer, Answer::Have);
                    Self::make_ready(&mut self.ready, want, key);
                }
                Presence::DontHave => {
                    want.answers.insert(peer, Answer::DontHave);
                    if asked {
                        want.asked = None;
                        source.released(want.size);
                        Self::make_ready(&mut self.ready, want, key);
                    }
                }
            }
        }
    }

    /// Blocks that are what their CIDs say. Returns how many nobody waits for, and those that are wanted under
    /// another name.
    pub(super) fn received(&mut self, peer: PeerId, blocks: Vec<Block>, now: Instant) -> (u64, Vec<Rename>) {
        let (mut duplicates, mut renames) = (0, Vec::new());
        for block in blocks {
            let key = key(block.cid());
            let Some(want) = self.open.get(&key) else {
                duplicates += 1;
                continue;
            };
            let asked_at = want.asked.filter(|asked| asked.peer == peer).map(|asked| asked.at);
            if let Some(source) = self.sources.get_mut(&peer) {
                source.delivered(block.data().len(), asked_at, now);
            }
            let Some(want) =
                Self::drop_want(&mut self.open, &mut self.sources, &mut self.ready, &key, Some(peer))
            else {
                continue;
            };
            for (session, cid, size) in want.askers {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.add_provider(peer);
                }
                if cid == *block.cid() {
                    self.deliver(session, size, block.clone());
                } else {
                    renames.push(Rename { session, cid, size, data: block.data().clone() });
                }
            }
        }
        (duplicates, renames)
    }

    /// Hands a block to a session that waits for it.
    pub(super) fn deliver(&mut self, id: SessionId, size: usize, block: Block) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.deliver(size, block);
            self.fill(id);
        }
    }

    /// Looks after what is late, and reports what nobody has. To be called some times a second.
    pub(super) fn tick(&mut self, now: Instant) {
        let late: Vec<_> = self
            .open
            .iter()
            .filter(|(_, want)| want.asked.is_some_and(|asked| self.is_late(asked, now)))
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            self.move_on(&key, now);
        }
        for (key, want) in &mut self.open {
            let Some(since) = want.stuck_since else { continue };
            let mut late = want.answers.values().filter_map(Answer::late_at);
            if late.any(|at| now - at >= MAX_TIMEOUT) {
                Self::make_ready(&mut self.ready, want, *key);
            } else if now.saturating_duration_since(since) >= NO_PROVIDER || want.is_denied_by(&self.sources)
            {
                Self::report(&self.sessions, want);
            }
        }
    }

    /// Asks for what is ready, as far as peers have room.
    pub(super) fn assign(&mut self, now: Instant) {
        if !self.sources.is_empty() && self.sources.values().all(|source| !source.has_room(1)) {
            return;
        }
        let ready: Vec<_> = self.ready.values().take(MAX_SCAN).copied().collect();
        for key in ready {
            if self.is_being_told(&key, now) {
                continue;
            }
            match self.choose(&key, None, |_| true) {
                Choice::Peer(peer) => self.ask(&key, peer, now),
                Choice::Busy => {}
                Choice::Nobody => {
                    if let Some(want) = self.open.get_mut(&key) {
                        self.ready.remove(&want.order);
                        want.stuck_since.get_or_insert(now);
                    }
                    self.ask_around(&key, None, u32::MAX);
                }
            }
        }
    }

    pub(super) fn next_message(&mut self) -> Option<(PeerId, Outgoing)> {
        self.sources.iter_mut().find_map(|(peer, source)| Some((*peer, source.next_message()?)))
    }

    pub(super) fn sent(&mut self, peer: &PeerId) {
        if let Some(source) = self.sources.get_mut(peer) {
            source.sent();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether this peer was told of wants that still stand.
    pub(super) fn expects(&self, peer: &PeerId) -> bool {
        self.sources.get(peer).is_some_and(|source| !source.ledger.is_empty())
    }

    /// Opens as many queued wants as the session's window allows.
    fn fill(&mut self, id: SessionId) {
        while let Some(session) = self.sessions.get_mut(&id) {
            let Some((cid, size)) = session.open_next() else { return };
            let within = identity_data(&cid).and_then(|data| Block::verified(cid, data).ok());
            match within {
                Some(block) => session.deliver(size, block),
                None => self.open_want(id, cid, size),
            }
        }
    }

    fn open_want(&mut self, id: SessionId, cid: Cid, size: usize) {
        let key = key(&cid);
        if let Some(want) = self.open.get_mut(&key) {
            want.askers.push((id, cid, size));
            // This session may know of other providers.
            want.reported = false;
            Self::make_ready(&mut self.ready, want, key);
            return;
        }
        self.opened += 1;
        let order = self.opened;
        let askers = vec![(id, cid, size)];
        let (asked, answers, looked_at, stuck_since) = (None, HashMap::new(), None, None);
        let want = Want {
            cid,
            order,
            size,
            askers,
            asked,
            answers,
            looked_at,
            stuck_since,
            reported: false,
            moves: 0,
        };
        self.open.insert(key, want);
        self.ready.insert(order, key);
        self.ask_around(&key, None, USELESS_AFTER);
    }

    /// Asks all peers but one whether they have a block.
    fn ask_around(&mut self, key: &Key, but: Option<PeerId>, useless_after: u32) {
        let peers: Vec<_> = self.sources.keys().filter(|peer| but != Some(**peer)).copied().collect();
        for peer in peers {
            self.consider(key, peer, useless_after);
        }
    }

    /// Asks a peer whether it has a block, unless it is to be asked for the block itself.
    fn consider(&mut self, key: &Key, peer: PeerId, useless_after: u32) {
        let Some(want) = self.open.get_mut(key) else { return };
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let known = want.answers.contains_key(&peer) || want.asked.is_some_and(|asked| asked.peer == peer);
        if known {
            return;
        }
        let askers = want.askers.iter().filter_map(|(asker, ..)| self.sessions.get(asker));
        let with = askers.clone().any(|session| session.is_with(&peer));
        let useless = !with && askers.clone().all(|session| session.misses(&peer) >= useless_after);
        let counted_on = !with && askers.clone().any(|session| session.counts_on(&peer));
        if !source.version.has_presences() || counted_on {
            Self::make_ready(&mut self.ready, want, *key);
            return;
        }
        if useless {
            return;
        }
        if source.ledger.len() < MAX_PROBES {
            want.answers.insert(peer, Answer::Pending);
            source.want(*key, want.entry(WantKind::Have));
        } else if want.asked.is_none() {
            // Looked at again with the next assignment, when there may be room.
            self.ready.insert(want.order, *key);
        }
    }

    /// Whether companions are about to say if they have a block, or to get it, and none has said that it does.
    fn is_being_told(&mut self, key: &Key, now: Instant) -> bool {
        let Some(want) = self.open.get_mut(key) else { return false };
        let askers = want.askers.iter().filter_map(|(asker, ..)| self.sessions.get(asker));
        if !askers.clone().any(SessionState::has_companions) {
            return false;
        }
        let since = *want.looked_at.get_or_insert(now);
        let before = askers.clone().map(|session| session.before_us(&want.cid)).min().unwrap_or_default();
        let turns = TURN * u32::try_from(before).unwrap_or(MAX_TURNS).min(MAX_TURNS);
        let mut wait = Duration::ZERO;
        for (peer, answer) in &want.answers {
            let with = || askers.clone().any(|session| session.is_with(peer));
            match answer {
                Answer::Have => return false,
                Answer::Pending if with() => wait = wait.max(turns).max(WORD),
                Answer::DontHave if with() => wait = wait.max(turns),
                Answer::Pending | Answer::DontHave | Answer::Late(_) => {}
            }
        }
        now.saturating_duration_since(since) < wait
    }

    /// The peer from which the block should come first: of those that have it, else of those that cannot say
    /// whether they do, else of those that were late with it.
    fn choose(&self, key: &Key, but: Option<PeerId>, late_enough: impl Fn(Instant) -> bool) -> Choice {
        let Some(want) = self.open.get(key) else { return Choice::Busy };
        let askers = want.askers.iter().filter_map(|(asker, ..)| self.sessions.get(asker));
        let counted_on =
            |peer: &PeerId| askers.clone().any(|session| session.counts_on(peer) && !session.is_with(peer));
        let with = |peer: &PeerId| askers.clone().any(|session| session.is_with(peer));
        let rank = |peer: &PeerId, source: &Source| match want.answers.get(peer) {
            // What companions have they share, also where the publisher had room sooner.
            Some(Answer::Have) if with(peer) => Some(0_u8),
            Some(Answer::Have) => Some(1),
            Some(Answer::Late(at)) if late_enough(*at) => Some(3),
            Some(_) => None,
            None if counted_on(peer) => Some(1),
            None => (!source.version.has_presences()).then_some(2),
        };
        let others = self.sources.iter().filter(|(peer, _)| but != Some(**peer));
        let ranked: Vec<_> =
            others.filter_map(|(peer, source)| Some((rank(peer, source)?, peer, source))).collect();
        let Some(best) = ranked.iter().map(|(rank, ..)| *rank).min() else { return Choice::Nobody };
        let can_be_told = |source: &Source| source.can_be_told() || source.ledger.contains(key);
        ranked
            .into_iter()
            .filter(|(rank, _, source)| *rank == best && source.has_room(want.size) && can_be_told(source))
            .min_by_key(|(_, _, source)| source.expected(want.size))
            .map_or(Choice::Busy, |(_, peer, _)| Choice::Peer(*peer))
    }

    fn ask(&mut self, key: &Key, peer: PeerId, now: Instant) {
        let Some(want) = self.open.get_mut(key) else { return };
        let Some(source) = self.sources.get_mut(&peer) else { return };
        self.ready.remove(&want.order);
        want.stuck_since = None;
        want.answers.remove(&peer);
        want.asked = Some(Asked { peer, at: now });
        source.asked(want.size, now);
        source.want(*key, want.entry(WantKind::Block));
    }

    fn is_late(&self, asked: Asked, now: Instant) -> bool {
        let source = self.sources.get(&asked.peer);
        now.saturating_duration_since(asked.at) >= MAX_TIMEOUT
            || source.is_some_and(|source| source.is_late(asked.at, now))
    }

    /// A want is late: it goes to another peer that may have it, or is said again to the same one.
    fn move_on(&mut self, key: &Key, now: Instant) {
        let Some((asked, moves)) = self.open.get(key).and_then(|want| Some((want.asked?, want.moves))) else {
            return;
        };
        let patience = (MAX_TIMEOUT * 2_u32.saturating_pow(moves.min(8))).min(MAX_PATIENCE);
        let waited = now.saturating_duration_since(asked.at);
        // One that was late itself is tried again only when this one had its time.
        let choice = self.choose(key, Some(asked.peer), |at| waited >= patience && now - at >= MAX_TIMEOUT);
        if matches!(choice, Choice::Nobody) {
            self.ask_around(key, Some(asked.peer), u32::MAX);
        }
        let Some(want) = self.open.get_mut(key) else { return };
        let Some(source) = self.sources.get_mut(&asked.peer) else { return };
        if let Choice::Peer(peer) = choice {
            want.moves += 1;
            source.released(want.size);
            source.cancel(*key, want.entry(WantKind::Block));
            want.answers.insert(asked.peer, Answer::Late(now));
            self.ask(key, peer, now);
        } else if waited >= patience {
            want.moves += 1;
            want.asked = Some(Asked { peer: asked.peer, at: now });
            source.want(*key, want.entry(WantKind::Block));
            Self::report(&self.sessions, want);
        }
    }

    fn report(sessions: &HashMap<SessionId, SessionState>, want: &mut Want) {
        if std::mem::replace(&mut want.reported, true) {
            return;
        }
        for (session, cid, _) in &want.askers {
            if let Some(session) = sessions.get(session) {
                session.report(SessionError::NoProvider(*cid));
            }
        }
    }

    fn make_ready(ready: &mut BTreeMap<u64, Key>, want: &mut Want, key: Key) {
        if want.asked.is_none() {
            want.stuck_since = None;
            ready.insert(want.order, key);
        }
    }

    /// Forgets a want and tells every peer that knows of it, except the one that gave the block: it forgot too.
    fn drop_want(
        wants: &mut HashMap<Key, Want>,
        sources: &mut HashMap<PeerId, Source>,
        ready: &mut BTreeMap<u64, Key>,
        key: &Key,
        given: Option<PeerId>,
    ) -> Option<Want> {
        let want = wants.remove(key)?;
        ready.remove(&want.order);
        let asked = want.asked.map(|asked| asked.peer);
        for peer in want.answers.keys().copied().chain(asked) {
            let Some(source) = sources.get_mut(&peer) else { continue };
            if asked == Some(peer) {
                source.released(want.size);
            }
            if given == Some(peer) {
                source.settled(key);
            } else {
                source.cancel(*key, want.entry(WantKind::Block));
            }
        }
        Some(want)
    }
}

impl Answer {
    fn late_at(&self) -> Option<Instant> {
        if let Self::Late(at) = self { Some(*at) } else { None }
    }
}

impl Want {
    /// Whether all who are connected have said that they do not have it.
    fn is_denied_by(&self, sources: &HashMap<PeerId, Source>) -> bool {
        let denied = |peer: &PeerId| self.answers.get(peer) == Some(&Answer::DontHave);
        !sources.is_empty() && sources.keys().all(denied)
    }

    fn entry(&self, kind: WantKind) -> Entry {
        // What was wanted first is answered first.
        let priority = i32::MAX - i32::try_from(self.order % (1 << 30)).unwrap_or(0);
        Entry { cid: self.cid, priority, kind, cancel: false, send_dont_have: true }
    }
}

enum Choice {
    Peer(PeerId),
    /// Some have it, and all of them have enough to do.
    Busy,
    Nobody,
}

#[cfg(test)]
mod tests;
