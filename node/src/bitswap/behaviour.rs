//! The wiring: connections, commands, the store, and the clock, between the server and the wants.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::{FutureExt as _, TryFutureExt as _};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use sampan_storage::{Block, Blocks};
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Sleep, sleep};

use crate::audience::Members;

use super::client::{COMMANDS, Client, Command, SessionId, Signal};
use super::counters::Counters;
use super::frame::{Budgets, Permit};
use super::handler::{Breakage, Handler, Lane, Letter, Order, Parcel, Report};
use super::message::{Arrival, Message, Outgoing, Version};
use super::server::{Read, Server, Serving};
use super::verify;
use super::wants::{Received, Rename, Wants};
use crate::offences::Offences;

/// Messages that are hashed at once. Two cores are kept busy by as many; more only hold memory.
const MAX_VERIFYING: usize = 4;
/// Look-ups in the index, and reads of blocks, at once.
const MAX_LOOKUPS: usize = 4;
const MAX_READS: usize = 8;

/// While something is wanted, what is late is looked after this often.
const TICK: Duration = Duration::from_millis(100);

/// A stream that broke is opened again this often, with a longer pause each time.
const MAX_FAILURES: u32 = 3;
const RETRY: Duration = Duration::from_millis(200);

/// How bitswap behaves.
#[derive(Clone, Debug)]
pub struct Config {
    pub serving: Serving,
    /// What is spoken, best first.
    pub versions: Vec<Version>,
    /// Where it is noted who breaks the protocol.
    pub offences: Offences,
}

impl Default for Config {
    fn default() -> Self {
        Self { serving: Serving::default(), versions: Version::ALL.to_vec(), offences: Offences::default() }
    }
}

/// Bitswap, client and server. Must be polled in a tokio runtime.
pub struct Behaviour {
    /// What strangers may have.
    blocks: Arc<dyn Blocks>,
    /// Who may have more, and what.
    members: (Members, Arc<dyn Blocks>),
    versions: Arc<[Version]>,
    offences: Offences,
    budgets: Budgets,
    server: Server,
    wants: Wants,
    // The swarm's limit on connections bounds it.
    peers: HashMap<PeerId, Peer>,
    commands: mpsc::Receiver<Command>,
    signal: Arc<Signal>,
    counters: Arc<Counters>,
    // Each holds room of its connection's budget, which bounds how many there are.
    unverified: VecDeque<Unverified>,
    jobs: FuturesUnordered<BoxFuture<'static, Result<Done, JoinError>>>,
    verifying: usize,
    lookups: usize,
    reads: usize,
    tick: Option<Pin<Box<Sleep>>>,
    // Whether there may be lanes to open.
    survey: bool,
    // Drained before anything else is done.
    events: VecDeque<ToSwarm<Infallible, Order>>,
}

/// A connected peer.
#[derive(Debug, Default)]
struct Peer {
    /// The first is used.
    connections: Vec<ConnectionId>,
    /// The peer said that it does not speak bitswap.
    silent: bool,
    wants: Line,
    answers: Line,
    /// What its connection was told last.
    busy: bool,
    /// It was asked for a block, and may answer on any of its connections.
    asked: Arc<AtomicBool>,
}

/// One of the two streams to a peer.
#[derive(Debug, Default)]
struct Line {
    state: LineState,
    failures: u32,
    retry_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LineState {
    #[default]
    Closed,
    Opening,
    Open,
}

struct Unverified {
    peer: PeerId,
    arrivals: Vec<Arrival>,
    permit: Permit,
}

enum Done {
    Verified(PeerId, Vec<Block>, Permit),
    Renamed(SessionId, usize, Option<Block>),
    LookedUp(PeerId, Vec<(Cid, Option<usize>)>),
    Read(Read, Vec<(Cid, Option<Bytes>)>),
}

impl Behaviour {
    pub fn new(blocks: Arc<dyn Blocks>, config: Config) -> (Self, Client) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let signal = Arc::<Signal>::default();
        let counters = Arc::<Counters>::default();
        let client = Client::new(sender, Arc::clone(&signal), Arc::clone(&counters));
        let behaviour = Self {
            members: (Members::Nobody, Arc::clone(&blocks)),
            blocks,
            versions: config.versions.into(),
            offences: config.offences,
            budgets: Budgets::default(),
            server: Server::new(config.serving),
            wants: Wants::default(),
            peers: HashMap::new(),
            commands,
            signal,
            counters,
            unverified: VecDeque::new(),
            jobs: FuturesUnordered::new(),
            verifying: 0,
            lookups: 0,
            reads: 0,
            tick: None,
            survey: false,
            events: VecDeque::new(),
        };
        (behaviour, client)
    }

    /// The same with peers that may have more than the others.
    #[must_use]
    pub fn with_members(mut self, members: Members, blocks: Arc<dyn Blocks>) -> Self {
        self.members = (members, blocks);
        self
    }

    /// What this peer may have. For it there is nothing else.
    fn shelf(&self, peer: &PeerId) -> Arc<dyn Blocks> {
        let (members, blocks) = &self.members;
        Arc::clone(if members.contains(peer) { blocks } else { &self.blocks })
    }

    /// Answers the outstanding wants of all peers for blocks that are in the store now.
    pub fn blocks_arrived(&mut self, cids: &[Cid]) {
        self.server.arrived(cids);
    }

    /// Changes to whom blocks are given, from the next answer on.
    pub fn set_serving(&mut self, serving: Serving) {
        self.server.set_serving(serving);
    }

    pub fn serving(&self) -> Serving {
        self.server.serving()
    }

    #[cfg(test)]
    pub(super) fn first_connection(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.peers.get(peer)?.connections.first().copied()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open(id, opened) => {
                for peer in &opened.options.providers {
                    self.dial(*peer);
                }
                self.wants.open(id, opened);
            }
            Command::Want(id, wants) => self.wants.want(id, wants),
            Command::Provider(id, peer) => {
                self.dial(peer);
                self.wants.add_provider(id, peer);
            }
            Command::Cancel(id, cids) => self.wants.cancel(id, cids),
            Command::Notify(cids) => self.server.arrived(&cids),
            Command::Restocked => self.server.restocked(),
        }
        self.survey = true;
    }

    /// For a new connection. That it is established is told right after.
    fn handler(&mut self, peer: PeerId) -> Handler {
        let asked = Arc::clone(&self.peers.entry(peer).or_default().asked);
        Handler::new(Arc::clone(&self.versions), self.budgets.room(asked))
    }

    fn dial(&mut self, peer: PeerId) {
        if !self.peers.contains_key(&peer) {
            // Other behaviours know the addresses; a dial under way is not repeated.
            self.events.push_back(ToSwarm::Dial { opts: DialOpts::peer_id(peer).build() });
        }
    }

    fn received(&mut self, peer: PeerId, parcel: Parcel) {
        let Parcel { message, permit } = parcel;
        let Message { full, entries, blocks, presences, skipped, too_large } = message;
        if too_large > 0 {
            self.offences.note(peer);
        }
        self.counters.refused(skipped);
        if full || !entries.is_empty() {
            let refused = self.server.wanted(peer, full, &entries);
            self.counters.refused(refused);
        }
        if !presences.is_empty() {
            self.wants.presences(peer, &presences);
        }
        if blocks.is_empty() {
            return;
        }
        if !self.wants.expects(&peer) {
            // Not even hashed: a peer may not make us work by sending what it was not asked for.
            self.counters.refused(blocks.len() as u64);
            // One that was asked for a block may be late with it, and what is small comes in the place of a HAVE.
            let asked = self.peers.get(&peer).is_some_and(|state| state.asked.load(Ordering::Relaxed));
            if !asked && blocks.iter().any(|block| block.data.len() > verify::INLINE_BELOW) {
                self.offences.note(peer);
            }
            return;
        }
        let bytes = blocks.iter().map(|block| block.data.len()).sum();
        self.counters.received(&peer, blocks.len(), bytes);
        if bytes < verify::INLINE_BELOW {
            let blocks = verify::blocks(blocks);
            self.verified(peer, blocks);
        } else {
            self.unverified.push_back(Unverified { peer, arrivals: blocks, permit });
        }
    }

    fn verified(&mut self, peer: PeerId, blocks: Vec<Block>) {
        let Received { duplicates, foreign, renames } = self.wants.received(peer, blocks, Instant::now());
        self.counters.duplicates(duplicates);
        for _ in 0..foreign {
            self.offences.note(peer);
        }
        for Rename { session, cid, size, data } in renames {
            let rename = spawn_blocking(move || Block::verified(cid, data).ok());
            self.jobs.push(rename.map_ok(move |block| Done::Renamed(session, size, block)).boxed());
        }
    }

    fn finished(&mut self, done: Done) {
        match done {
            Done::Verified(peer, blocks, permit) => {
                self.verifying -= 1;
                self.verified(peer, blocks);
                drop(permit);
            }
            Done::Renamed(session, size, block) => {
                if let Some(block) = block {
                    self.wants.deliver(session, size, block);
                }
            }
            Done::LookedUp(peer, sizes) => {
                self.lookups -= 1;
                self.server.looked_up(peer, sizes);
            }
            Done::Read(read, blocks) => {
                self.reads -= 1;
                self.server.read(&read, blocks);
            }
        }
    }

    /// Hands work to the blocking pool, as much as may be done at once.
    fn start_jobs(&mut self) {
        while self.verifying < MAX_VERIFYING {
            let Some(Unverified { peer, arrivals, permit }) = self.unverified.pop_front() else { break };
            let verify = spawn_blocking(move || Done::Verified(peer, verify::blocks(arrivals), permit));
            self.jobs.push(verify.boxed());
            self.verifying += 1;
        }
        while self.lookups < MAX_LOOKUPS {
            let Some((peer, cids)) = self.server.next_lookup() else { break };
            let blocks = self.shelf(&peer);
            let look_up = spawn_blocking(move || {
                let size = |cid: &Cid| blocks.size(cid).unwrap_or_else(|error| unreadable(cid, &error));
                Done::LookedUp(peer, cids.into_iter().map(|cid| (cid, size(&cid))).collect())
            });
            self.jobs.push(look_up.boxed());
            self.lookups += 1;
        }
        while self.reads < MAX_READS {
            let Some(read) = self.server.next_read() else { break };
            let blocks = self.shelf(&read.peer);
            let job = spawn_blocking(move || {
                let get = |cid: &Cid| blocks.get(cid).unwrap_or_else(|error| unreadable(cid, &error));
                let found = read.cids.iter().map(|cid| (*cid, get(cid))).collect();
                Done::Read(read, found)
            });
            self.jobs.push(job.boxed());
            self.reads += 1;
        }
    }

    /// Opens the streams on which to ask, to all peers that may answer.
    fn open_lines(&mut self, now: Instant) {
        if !std::mem::take(&mut self.survey) || self.wants.is_idle() {
            return;
        }
        for (peer, state) in &mut self.peers {
            if state.silent || !state.wants.may_open(now) {
                continue;
            }
            let Some(connection) = state.connections.first() else { continue };
            state.wants.state = LineState::Opening;
            self.events.push_back(order(*peer, *connection, Order::Open(Lane::Wants)));
        }
    }

    fn send(&mut self) {
        while let Some((peer, message)) = self.wants.next_message() {
            self.post(peer, Lane::Wants, message);
        }
        while let Some((peer, message)) = self.server.next_message() {
            self.post(peer, Lane::Answers, message);
        }
    }

    fn post(&mut self, peer: PeerId, lane: Lane, message: Outgoing) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let Some(connection) = state.connections.first().copied() else { return };
        if lane == Lane::Wants && message.asks_for_blocks() {
            state.asked.store(true, Ordering::Relaxed);
        }
        if lane == Lane::Answers && state.answers.state == LineState::Closed {
            state.answers.state = LineState::Opening;
            self.events.push_back(order(peer, connection, Order::Open(lane)));
        }
        self.events.push_back(order(peer, connection, Order::Send(lane, Letter(message))));
    }

    fn broken(&mut self, peer: PeerId, lane: Lane, breakage: Breakage) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let line = state.line(lane);
        line.state = LineState::Closed;
        line.failures += 1;
        line.retry_at = Some(Instant::now() + RETRY * line.failures);
        let hopeless = breakage == Breakage::Unsupported || line.failures > MAX_FAILURES;
        if breakage == Breakage::Stalled {
            // Or it would ask for the same again and take nothing of that either.
            let connection = CloseConnection::All;
            self.events.push_back(ToSwarm::CloseConnection { peer_id: peer, connection });
        }
        match lane {
            Lane::Wants => {
                state.silent |= hopeless;
                self.wants.gone(peer);
                self.survey = true;
            }
            // What is owed counts its attempts itself.
            Lane::Answers if hopeless => {
                self.server.gone(peer);
            }
            Lane::Answers => self.server.lost(peer),
        }
    }

    fn closed(&mut self, peer: PeerId, connection: ConnectionId, remaining: usize) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let used = state.connections.first() == Some(&connection);
        state.connections.retain(|known| *known != connection);
        if remaining == 0 {
            self.peers.remove(&peer);
            self.wants.gone(peer);
            self.server.gone(peer);
            self.counters.disconnected(&peer);
        } else if used {
            // The next connection takes over; what was on the old one is said and sent again.
            state.wants = Line::default();
            state.answers = Line::default();
            state.busy = false;
            self.wants.gone(peer);
            self.server.lost(peer);
            self.survey = true;
        }
    }

    /// Does what time demands. Returns whether there is time left to watch.
    fn tick(&mut self, now: Instant) -> bool {
        self.wants.tick(now);
        self.server.tick(now);
        self.survey = true;
        let mut watch = !self.wants.is_idle();
        for (peer, state) in &mut self.peers {
            let busy = self.wants.expects(peer) || self.server.owes(peer);
            watch |= busy;
            if let Some(connection) = state.connections.first()
                && busy != state.busy
            {
                state.busy = busy;
                self.events.push_back(order(*peer, *connection, Order::Busy(busy)));
            }
        }
        watch
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>, now: Instant) {
        while self.needs_tick() {
            let tick = self.tick.get_or_insert_with(|| Box::pin(sleep(TICK)));
            if tick.poll_unpin(cx).is_pending() {
                return;
            }
            self.tick = None;
            if !self.tick(now) {
                return;
            }
        }
    }

    fn needs_tick(&self) -> bool {
        self.tick.is_some() || !self.wants.is_idle() || self.peers.keys().any(|peer| self.server.owes(peer))
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let peer = self.peers.entry(established.peer_id).or_default();
                peer.connections.push(established.connection_id);
                self.counters.connected(established.peer_id);
                self.survey = true;
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                remaining_established,
                ..
            }) => {
                self.closed(peer_id, connection_id, remaining_established);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, report: Report) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let used = state.connections.first() == Some(&connection);
        match report {
            Report::Received(parcel) => {
                self.survey |= std::mem::take(&mut state.silent);
                self.received(peer, parcel);
            }
            Report::Refused => self.counters.refused(1),
            Report::Offence => {
                self.counters.refused(1);
                self.offences.note(peer);
            }
            Report::Speaks(speaks) => {
                state.silent = !speaks;
                state.wants.failures = 0;
                self.survey = true;
            }
            // A connection that is no longer used was given up with all that it carried.
            _ if !used => {}
            Report::Opened(lane, version) => {
                state.line(lane).state = LineState::Open;
                if lane == Lane::Wants {
                    self.wants.connected(peer, version, Instant::now());
                }
            }
            Report::Sent(lane) => {
                state.line(lane).failures = 0;
                match lane {
                    Lane::Wants => self.wants.sent(&peer),
                    Lane::Answers => {
                        let (blocks, bytes) = self.server.sent(peer);
                        self.counters.sent(&peer, blocks, bytes);
                    }
                }
            }
            Report::Broken(lane, breakage) => self.broken(peer, lane, breakage),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Order>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let now = Instant::now();
        while let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) {
            self.obey(command);
        }
        if self.signal.poll(cx) {
            self.wants.sweep();
        }
        loop {
            self.start_jobs();
            match self.jobs.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(done))) => self.finished(done),
                // The runtime shuts down and takes the job with it.
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        self.poll_tick(cx, now);
        self.open_lines(now);
        self.wants.assign(now);
        self.send();
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour")
            .field("peers", &self.peers.len())
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

impl Peer {
    fn line(&mut self, lane: Lane) -> &mut Line {
        match lane {
            Lane::Wants => &mut self.wants,
            Lane::Answers => &mut self.answers,
        }
    }
}

impl Line {
    fn may_open(&self, now: Instant) -> bool {
        self.state == LineState::Closed && self.retry_at.is_none_or(|at| at <= now)
    }
}

fn order(peer_id: PeerId, connection: ConnectionId, event: Order) -> ToSwarm<Infallible, Order> {
    ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event }
}

/// A block that cannot be read is answered as one that is not here; whoever keeps the store hears of it there.
fn unreadable<T>(cid: &Cid, error: &sampan_storage::BlockError) -> Option<T> {
    tracing::warn!(%cid, %error, "a block that a peer wants cannot be read");
    None
}
