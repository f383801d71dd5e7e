//! The streams of one connection: many inbound ones, read until they end, and two of our own.
//!
//! Nothing is decided here. The behaviour says which connection of a peer is used, and what is sent on it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use futures::{FutureExt as _, future};
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, ProtocolsChange,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};

use super::frame::{self, FrameError, Permit, Room};
use super::message::{Message, Outgoing, Version};

/// Streams of one connection that are read at once: as many as yamux lets through (QUIC stops at 256), because
/// kubo opens one for each answer, and what is reset is lost. Their bytes are bounded by [`Room`].
const MAX_INBOUND_STREAMS: usize = 512;

/// Reports that may wait for the swarm. More come only from messages, which wait in their streams instead.
const MAX_REPORTS: usize = 64;

/// The two streams that we open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Wants,
    Answers,
}

/// From the behaviour.
#[derive(Debug)]
pub enum Order {
    /// Opens a lane. What is sent to a closed one is lost, as it is when a lane breaks.
    Open(Lane),
    Send(Lane, Letter),
    /// Whether the connection is needed although nothing moves on it.
    Busy(bool),
}

/// To the behaviour.
#[derive(Debug)]
pub enum Report {
    /// Identify says whether the peer speaks bitswap.
    Speaks(bool),
    Opened(Lane, Version),
    /// The oldest message of this lane is in the muxer's hands.
    Sent(Lane),
    /// The lane is closed, and what was sent to it since the last [`Report::Sent`] is lost.
    Broken(Lane, Breakage),
    Received(Parcel),
    /// A stream was reset.
    Refused,
    /// It was reset for what no honest peer sends.
    Offence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// The peer does not speak any version that we do.
    Unsupported,
    Stream,
    /// The peer takes nothing of what it asked for.
    Stalled,
}

/// A message on its way out.
#[derive(Debug)]
pub struct Letter(pub(super) Outgoing);

/// A message that came in, with the room that it takes.
#[derive(Debug)]
pub struct Parcel {
    pub(super) message: Message,
    pub(super) permit: Permit,
}

/// One connection's part of bitswap.
pub struct Handler {
    versions: Arc<[Version]>,
    inbound: FuturesUnordered<BoxFuture<'static, Inbound>>,
    room: Room,
    wants: Outbound,
    answers: Outbound,
    busy: bool,
    reports: VecDeque<Report>,
}

/// A stream after one message, or after its end.
type Inbound = Result<Option<(Stream, Parcel)>, FrameError>;

impl Handler {
    pub(super) fn new(versions: Arc<[Version]>, room: Room) -> Self {
        Self {
            versions,
            inbound: FuturesUnordered::new(),
            room,
            wants: Outbound::new(Lane::Wants),
            answers: Outbound::new(Lane::Answers),
            busy: false,
            reports: VecDeque::new(),
        }
    }

    fn read(&mut self, mut stream: Stream) {
        let room = self.room.clone();
        let read = async move {
            let message = frame::read(&mut stream, &room).await?;
            Ok(message.map(|(message, permit)| (stream, Parcel { message, permit })))
        };
        self.inbound.push(read.boxed());
    }

    fn lane(&mut self, lane: Lane) -> &mut Outbound {
        match lane {
            Lane::Wants => &mut self.wants,
            Lane::Answers => &mut self.answers,
        }
    }

    fn accept(&mut self, mut stream: Stream) {
        // An idle stream is no reason to stay connected.
        stream.ignore_for_keep_alive();
        if self.inbound.len() < MAX_INBOUND_STREAMS {
            self.read(stream);
        } else {
            self.refuse();
        }
    }

    fn refuse(&mut self) {
        if self.reports.len() < MAX_REPORTS {
            self.reports.push_back(Report::Refused);
        }
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("inbound", &self.inbound.len())
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Order;
    type ToBehaviour = Report;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Lane;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols> {
        SubstreamProtocol::new(Protocols(Arc::clone(&self.versions)), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.busy || self.wants.is_working() || self.answers.is_working()
    }

    fn on_behaviour_event(&mut self, order: Order) {
        match order {
            Order::Open(lane) => self.lane(lane).open(),
            Order::Send(lane, letter) => self.lane(lane).send(letter.0),
            Order::Busy(busy) => self.busy = busy,
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols, (), Lane>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, _), ..
            }) => {
                self.accept(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, version),
                info: lane,
            }) => {
                self.lane(lane).opened(stream, version);
                self.reports.push_back(Report::Opened(lane, version));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: lane, error }) => {
                let breakage = match error {
                    StreamUpgradeError::NegotiationFailed => Breakage::Unsupported,
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => Breakage::Stream,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.lane(lane).close();
                self.reports.push_back(Report::Broken(lane, breakage));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                let ours = |protocol: &StreamProtocol| {
                    self.versions.iter().any(|version| version.as_ref() == protocol.as_ref())
                };
                let speaks = match change {
                    ProtocolsChange::Added(mut protocols) => protocols.any(ours).then_some(true),
                    ProtocolsChange::Removed(mut protocols) => protocols.any(ours).then_some(false),
                };
                self.reports.extend(speaks.map(Report::Speaks));
            }
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocols, Lane, Report>> {
        if let Some(report) = self.reports.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        for lane in [&mut self.wants, &mut self.answers] {
            match lane.poll(cx) {
                Poll::Ready(Step::Open) => {
                    let protocols = Protocols(Arc::clone(&self.versions));
                    let protocol = SubstreamProtocol::new(protocols, lane.lane);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                Poll::Ready(Step::Report(report)) => {
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
                }
                Poll::Pending => {}
            }
        }
        while let Poll::Ready(Some(read)) = self.inbound.poll_next_unpin(cx) {
            match read {
                Ok(Some((stream, parcel))) => {
                    self.read(stream);
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Report::Received(parcel)));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "a bitswap stream is reset");
                    let report = if error.is_offence() { Report::Offence } else { Report::Refused };
                    return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
                }
            }
        }
        Poll::Pending
    }
}

/// A stream of our own: messages go out one after the other.
struct Outbound {
    lane: Lane,
    state: State,
    // Bounded by the behaviour, which counts what it sends against what came back as sent.
    queue: VecDeque<Outgoing>,
}

enum State {
    Closed,
    Wanted,
    Opening,
    Idle(Stream, Version),
    Writing(BoxFuture<'static, Result<(Stream, Version), FrameError>>),
}

enum Step {
    Open,
    Report(Report),
}

impl Outbound {
    fn new(lane: Lane) -> Self {
        Self { lane, state: State::Closed, queue: VecDeque::new() }
    }

    fn open(&mut self) {
        if matches!(self.state, State::Closed) {
            self.state = State::Wanted;
        }
    }

    fn opened(&mut self, mut stream: Stream, version: Version) {
        stream.ignore_for_keep_alive();
        self.state = State::Idle(stream, version);
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.queue.clear();
    }

    fn send(&mut self, message: Outgoing) {
        if !matches!(self.state, State::Closed) {
            self.queue.push_back(message);
        }
    }

    fn is_working(&self) -> bool {
        matches!(self.state, State::Writing(_)) || !self.queue.is_empty()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            match std::mem::replace(&mut self.state, State::Closed) {
                State::Wanted => {
                    self.state = State::Opening;
                    return Poll::Ready(Step::Open);
                }
                State::Idle(mut stream, version) => {
                    let Some(message) = self.queue.pop_front() else {
                        self.state = State::Idle(stream, version);
                        return Poll::Pending;
                    };
                    let write = async move {
                        frame::write(&mut stream, message.encode(version)).await?;
                        Ok((stream, version))
                    };
                    self.state = State::Writing(write.boxed());
                }
                State::Writing(mut write) => match write.poll_unpin(cx) {
                    Poll::Pending => {
                        self.state = State::Writing(write);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((stream, version))) => {
                        self.state = State::Idle(stream, version);
                        return Poll::Ready(Step::Report(Report::Sent(self.lane)));
                    }
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(%error, lane = ?self.lane, "a bitswap stream broke");
                        self.close();
                        let stalled = matches!(error, FrameError::Timeout);
                        let breakage = if stalled { Breakage::Stalled } else { Breakage::Stream };
                        return Poll::Ready(Step::Report(Report::Broken(self.lane, breakage)));
                    }
                },
                waiting @ (State::Closed | State::Opening) => {
                    self.state = waiting;
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The versions offered and accepted, best first.
#[derive(Clone, Debug)]
pub struct Protocols(pub(super) Arc<[Version]>);

impl UpgradeInfo for Protocols {
    type Info = Version;
    type InfoIter = std::vec::IntoIter<Version>;

    fn protocol_info(&self) -> Self::InfoIter {
        Vec::from(&*self.0).into_iter()
    }
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = (Stream, Version);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, version: Version) -> Self::Future {
        future::ready(Ok((stream, version)))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Stream, Version);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, version: Version) -> Self::Future {
        future::ready(Ok((stream, version)))
    }
}
