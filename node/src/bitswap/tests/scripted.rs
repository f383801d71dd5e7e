//! Peers that behave as others do, or as nobody should: each message on a stream of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, StreamExt as _};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NotifyHandler,
    SubstreamProtocol, ToSwarm,
};

use super::super::frame::{self, Budgets};
use super::super::handler::Protocols;
use super::super::message::{Entry, Message, Outgoing, Presence, WantKind};
use super::*;

/// Answers wants on one stream each, as kubo does, and sends what it is told to.
#[derive(Default)]
struct Scripted {
    store: MemoryBlocks,
    received: Vec<Message>,
    events: VecDeque<ToSwarm<Infallible, Vec<u8>>>,
    waker: Option<Waker>,
}

impl Scripted {
    fn send(&mut self, peer_id: PeerId, frame: Vec<u8>) {
        self.events.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event: frame });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Scripted {
    type ConnectionHandler = ScriptedHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<ScriptedHandler, ConnectionDenied> {
        Ok(ScriptedHandler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<ScriptedHandler, ConnectionDenied> {
        Ok(ScriptedHandler::default())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, message: Message) {
        for entry in message.entries.iter().filter(|entry| !entry.cancel) {
            let Some(data) = sampan_storage::Blocks::get(&self.store, &entry.cid).unwrap() else { continue };
            let answer = Outgoing { blocks: vec![(entry.cid, data)], ..Outgoing::default() };
            self.send(peer, answer.encode(Version::V1_2).concat());
        }
        self.received.push(message);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Vec<u8>>> {
        self.waker = Some(cx.waker().clone());
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[derive(Default)]
struct ScriptedHandler {
    to_send: VecDeque<Vec<u8>>,
    streams: FuturesUnordered<BoxFuture<'static, Option<(libp2p::Stream, Message)>>>,
}

fn protocols() -> Protocols {
    Protocols(Arc::new([Version::V1_2]))
}

fn read(mut stream: libp2p::Stream) -> BoxFuture<'static, Option<(libp2p::Stream, Message)>> {
    let read = async move {
        let message = frame::read(&mut stream, &Budgets::default().room(Arc::default())).await.ok()??;
        Some((stream, message.0))
    };
    read.boxed()
}

impl ConnectionHandler for ScriptedHandler {
    type FromBehaviour = Vec<u8>;
    type ToBehaviour = Message;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Vec<u8>;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols> {
        SubstreamProtocol::new(protocols(), ())
    }

    fn on_behaviour_event(&mut self, frame: Vec<u8>) {
        self.to_send.push_back(frame);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols, (), Vec<u8>>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, _), ..
            }) => {
                self.streams.push(read(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (mut stream, _),
                info: frame,
            }) => {
                let write = async move {
                    stream.write_all(&frame).await.ok()?;
                    stream.close().await.ok()?;
                    // Until the other side ends it too, or resets it.
                    let _ = stream.read(&mut [0]).await;
                    None
                };
                self.streams.push(write.boxed());
            }
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocols, Vec<u8>, Message>> {
        if let Some(frame) = self.to_send.pop_front() {
            let protocol = SubstreamProtocol::new(protocols(), frame);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        while let Poll::Ready(Some(done)) = self.streams.poll_next_unpin(cx) {
            if let Some((stream, message)) = done {
                self.streams.push(read(stream));
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(message));
            }
        }
        Poll::Pending
    }
}

fn want(block: &Block) -> Entry {
    let (cid, kind) = (*block.cid(), WantKind::Block);
    Entry { cid, priority: 1, kind, cancel: false, send_dont_have: true }
}

impl Node<Scripted> {
    async fn send(&self, to: PeerId, frame: Vec<u8>) {
        self.call(move |swarm| swarm.behaviour_mut().send(to, frame)).await;
    }

    /// All that came, once `enough` says so.
    async fn received(&self, enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let all = async {
            loop {
                let received = self.call(|swarm| swarm.behaviour().received.clone()).await;
                if enough(&received) {
                    return received;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, all).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_for_each_answer_loses_nothing() {
    let scripted = Scripted::default();
    let blocks = blocks(400, 50_000);
    for block in &blocks {
        scripted.store.put(block);
    }
    let kubo = Node::start(scripted, PATIENCE).await;
    let mut client = Peer::start().await;
    client.node.connect(&kubo).await;
    client.fetch(&[kubo.peer], &blocks).await;
    assert_eq!(client.client.stats().refused, 0);
    // All wants came on one stream, the first of them as a full list.
    let received = kubo.received(|received| !received.is_empty()).await;
    assert!(received[0].full && received[1..].iter().all(|message| !message.full));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_too_long_ends_its_stream_only() {
    let mut peer = Node::start(Scripted::default(), PATIENCE).await;
    let server = Peer::start().await;
    let blocks = blocks(2, 100_000);
    server.put(&blocks[..1]);
    peer.connect(&server.node).await;
    peer.send(server.node.peer, vec![0x81, 0x80, 0x80, 0x02, 1, 2, 3]).await;
    peer.send(server.node.peer, vec![3, 0x0f, 0xff, 0xff]).await;
    let entries = blocks.iter().map(want).collect();
    let wants = Outgoing { entries, ..Outgoing::default() };
    peer.send(server.node.peer, wants.encode(Version::V1_2).concat()).await;
    let got = |received: &[Message]| {
        received.iter().any(|message| !message.blocks.is_empty())
            && received.iter().any(|message| !message.presences.is_empty())
    };
    let received = peer.received(got).await;
    let absent = (*blocks[1].cid(), Presence::DontHave);
    assert!(received.iter().any(|message| message.presences == [absent]));
    assert!(
        received.iter().any(|message| message.blocks.iter().any(|block| block.data == *blocks[0].data()))
    );
    while server.client.stats().refused < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_nobody_asked_for_are_not_kept() {
    let mut peer = Node::start(Scripted::default(), PATIENCE).await;
    let (mut client, server) = (Peer::start().await, Peer::start().await);
    let wanted = blocks(2, 100_000);
    server.put(&wanted);
    peer.connect(&client.node).await;
    let stranger = (*wanted[0].cid(), Bytes::from_static(b"other bytes than the name says"));
    let push = || Outgoing { blocks: vec![stranger.clone()], ..Outgoing::default() };
    // Before anything is wanted of it, and while something is.
    peer.send(client.node.peer, push().encode(Version::V1_2).concat()).await;
    while client.client.stats().refused < 1 {
        tokio::task::yield_now().await;
    }
    let mut session = client.session(&[peer.peer]).await;
    session.want(super::wants(&wanted[..1])).await.unwrap();
    peer.received(|received| !received.is_empty()).await;
    peer.send(client.node.peer, push().encode(Version::V1_2).concat()).await;
    while client.client.stats().duplicates < 1 {
        tokio::task::yield_now().await;
    }
    // The want stands, and goes to whoever has it.
    client.node.connect(&server.node).await;
    take(&mut session, &wanted[..1]).await;
}
