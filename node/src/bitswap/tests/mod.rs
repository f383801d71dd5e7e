//! Swarms in one process, over TCP on the loopback interface.

mod scripted;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;
use futures::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use sampan_storage::block::{DAG_PB, RAW};
use sampan_storage::{Block, MemoryBlocks};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::*;

const MIB: usize = 1024 * 1024;
const PATIENCE: Duration = Duration::from_mins(1);

/// A swarm in a task of its own.
struct Node<B: NetworkBehaviour> {
    peer: PeerId,
    address: Multiaddr,
    calls: mpsc::Sender<Call<B>>,
    connections: watch::Receiver<HashSet<PeerId>>,
}

type Call<B> = Box<dyn FnOnce(&mut Swarm<B>) + Send>;

impl<B: NetworkBehaviour + Send> Node<B>
where
    B::ConnectionHandler: Send,
    super::handler::Order: Send,
{
    async fn start(behaviour: B, idle: Duration) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .with_swarm_config(|config| {
                config
                    .with_idle_connection_timeout(idle)
                    .with_max_negotiating_inbound_streams(MAX_NEGOTIATING_INBOUND_STREAMS)
            })
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let peer = *swarm.local_peer_id();
        let (calls, mut called) = mpsc::channel::<Call<B>>(16);
        let (sender, connections) = watch::channel(HashSet::new());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    call = called.recv() => match call {
                        Some(call) => call(&mut swarm),
                        None => return,
                    },
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                            sender.send_modify(|peers| { peers.insert(peer_id); });
                        }
                        SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                            sender.send_modify(|peers| { peers.remove(&peer_id); });
                        }
                        _ => {}
                    },
                }
            }
        });
        Self { peer, address, calls, connections }
    }

    async fn call<R: Send + 'static>(&self, call: impl FnOnce(&mut Swarm<B>) -> R + Send + 'static) -> R {
        let (sender, result) = oneshot::channel();
        let call = move |swarm: &mut Swarm<B>| drop(sender.send(call(swarm)));
        self.calls.send(Box::new(call)).await.ok().unwrap();
        result.await.unwrap()
    }

    async fn dial(&self, address: &Multiaddr) {
        let address = address.clone();
        self.call(move |swarm| swarm.dial(address).unwrap()).await;
    }

    async fn connected(&mut self, peer: PeerId, is: bool) {
        let waited = self.connections.wait_for(|peers| peers.contains(&peer) == is);
        timeout(PATIENCE, waited).await.unwrap().unwrap();
    }

    async fn connect<C: NetworkBehaviour>(&mut self, to: &Node<C>) {
        self.dial(&to.address).await;
        self.connected(to.peer, true).await;
    }
}

/// A node that speaks bitswap, and its store.
struct Peer {
    node: Node<Behaviour>,
    client: Client,
    store: Arc<MemoryBlocks>,
}

impl Peer {
    async fn start() -> Self {
        Self::with(Config::default(), PATIENCE).await
    }

    async fn speaking(versions: &[Version]) -> Self {
        Self::with(Config { versions: versions.to_vec(), ..Config::default() }, PATIENCE).await
    }

    async fn with(config: Config, idle: Duration) -> Self {
        let store = Arc::new(MemoryBlocks::default());
        let (behaviour, client) = Behaviour::new(Arc::<MemoryBlocks>::clone(&store), config);
        Self { node: Node::start(behaviour, idle).await, client, store }
    }

    fn put<'a>(&self, blocks: impl IntoIterator<Item = &'a Block>) {
        for block in blocks {
            self.store.put(block);
        }
    }

    async fn session(&self, providers: &[PeerId]) -> Session {
        let options = SessionOptions { providers: providers.to_vec(), ..SessionOptions::default() };
        self.client.session(options).await.unwrap()
    }

    /// Fetches blocks in a session of their own.
    async fn fetch(&self, providers: &[PeerId], blocks: &[Block]) {
        let mut session = self.session(providers).await;
        session.want(wants(blocks)).await.unwrap();
        take(&mut session, blocks).await;
    }
}

fn blocks(count: usize, size: usize) -> Vec<Block> {
    let name = |number: usize| {
        let mut data = vec![7; size];
        data[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Block::new(RAW, Bytes::from(data))
    };
    (0..count).map(name).collect()
}

fn wants(blocks: &[Block]) -> Vec<(Cid, u32)> {
    blocks.iter().map(|block| (*block.cid(), block.data().len() as u32)).collect()
}

/// Takes blocks out of a session until all of these have come, each once.
async fn take(session: &mut Session, blocks: &[Block]) {
    let mut missing: HashSet<Cid> = blocks.iter().map(|block| *block.cid()).collect();
    while !missing.is_empty() {
        let next =
            timeout(PATIENCE, session.next()).await.expect("a block must come").expect("the node runs");
        assert!(missing.remove(next.unwrap().cid()), "a block came that was not asked for, or twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_64_mib() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    let blocks = blocks(64, MIB);
    server.put(&blocks);
    client.node.connect(&server.node).await;
    let start = Instant::now();
    client.fetch(&[server.node.peer], &blocks).await;
    let rate = 64.0 / start.elapsed().as_secs_f64();
    println!("64 MiB at {rate:.0} MiB/s");
    assert_eq!(client.client.stats().blocks_received, 64);
    assert_eq!(client.client.stats().duplicates, 0);
    assert_eq!(client.client.peer_stats(&server.node.peer).unwrap().bytes_received, 64 * MIB as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_many_small_blocks() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    // More than the behaviour holds for a session.
    let blocks = blocks(20_000, 300);
    server.put(&blocks);
    client.node.connect(&server.node).await;
    client.fetch(&[], &blocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stripes_over_providers_that_have_half_each() {
    let (one, two, mut client) = (Peer::start().await, Peer::start().await, Peer::start().await);
    let blocks = blocks(32, MIB / 2);
    one.put(&blocks[..16]);
    two.put(&blocks[16..]);
    client.node.connect(&one.node).await;
    client.node.connect(&two.node).await;
    client.fetch(&[one.node.peer, two.node.peer], &blocks).await;
    assert_eq!(client.client.peer_stats(&one.node.peer).unwrap().blocks_received, 16);
    assert_eq!(client.client.peer_stats(&two.node.peer).unwrap().blocks_received, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn stripes_over_providers_that_have_all() {
    let (one, two, mut client) = (Peer::start().await, Peer::start().await, Peer::start().await);
    let blocks = blocks(64, MIB);
    one.put(&blocks);
    two.put(&blocks);
    client.node.connect(&one.node).await;
    client.node.connect(&two.node).await;
    client.fetch(&[one.node.peer, two.node.peer], &blocks).await;
    let received = |peer| client.client.peer_stats(peer).unwrap().blocks_received;
    assert!(received(&one.node.peer) > 8 && received(&two.node.peer) > 8);
    assert_eq!(client.client.stats().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dont_have_moves_on_to_a_peer_that_was_not_named() {
    let (empty, full, mut client) = (Peer::start().await, Peer::start().await, Peer::start().await);
    let blocks = blocks(20, 100_000);
    full.put(&blocks);
    client.node.connect(&empty.node).await;
    client.node.connect(&full.node).await;
    client.fetch(&[empty.node.peer], &blocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_connects_later_is_asked() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    let blocks = blocks(3, 100_000);
    server.put(&blocks);
    let mut session = client.session(&[]).await;
    session.want(wants(&blocks)).await.unwrap();
    client.node.connect(&server.node).await;
    take(&mut session, &blocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_arrives_after_the_want_is_sent() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    let blocks = blocks(2, 100_000);
    server.put(&blocks[..1]);
    client.node.connect(&server.node).await;
    let mut session = client.session(&[server.node.peer]).await;
    session.want(wants(&blocks[1..])).await.unwrap();
    // The same stream brings the first want before this one.
    client.fetch(&[server.node.peer], &blocks[..1]).await;
    server.put(&blocks[1..]);
    server.client.notify(vec![*blocks[1].cid()]).await;
    take(&mut session, &blocks[1..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_fetches_it_gives_on_to_who_waits() {
    let (origin, mut middle, mut last) = (Peer::start().await, Peer::start().await, Peer::start().await);
    let blocks = blocks(10, 100_000);
    middle.node.connect(&origin.node).await;
    last.node.connect(&middle.node).await;
    let mut waiting = last.session(&[]).await;
    waiting.want(wants(&blocks)).await.unwrap();
    origin.put(&blocks);
    middle.fetch(&[origin.node.peer], &blocks).await;
    middle.put(&blocks);
    middle.client.notify(blocks.iter().map(|block| *block.cid()).collect()).await;
    take(&mut waiting, &blocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_session_cancels_its_wants() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    let blocks = blocks(3, 100_000);
    client.node.connect(&server.node).await;
    let session = client.session(&[server.node.peer]).await;
    session.want(wants(&blocks[..1])).await.unwrap();
    server.put(&blocks[1..]);
    client.fetch(&[server.node.peer], &blocks[1..2]).await;
    drop(session);
    client.fetch(&[server.node.peer], &blocks[2..]).await;
    server.put(&blocks[..1]);
    let arrived = *blocks[0].cid();
    server.node.call(move |swarm| swarm.behaviour_mut().blocks_arrived(&[arrived])).await;
    client.fetch(&[server.node.peer], &blocks[2..]).await;
    let Stats { blocks_received, refused, .. } = client.client.stats();
    assert_eq!((blocks_received, refused), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_share_one_want_on_the_wire() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    let blocks = blocks(16, 200_000);
    server.put(&blocks);
    let (mut one, mut two) = (client.session(&[]).await, client.session(&[]).await);
    one.want(wants(&blocks)).await.unwrap();
    two.want(wants(&blocks)).await.unwrap();
    client.node.connect(&server.node).await;
    tokio::join!(take(&mut one, &blocks), take(&mut two, &blocks));
    assert_eq!(client.client.stats().blocks_received, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_comes_under_each_name_that_it_is_wanted_by() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    let v1 = Block::new(DAG_PB, Bytes::from(vec![9; 50_000]));
    let v0 = Block::verified(Cid::new_v0(*v1.cid().hash()).unwrap(), v1.data().clone()).unwrap();
    let raw = Block::new(RAW, v1.data().clone());
    server.put([&v1]);
    client.node.connect(&server.node).await;
    client.fetch(&[server.node.peer], &[v0, v1, raw]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_versions_are_spoken_both_ways() {
    for version in [Version::V1_1, Version::V1_0, Version::Unversioned] {
        let (old, mut new) = (Peer::speaking(&[version]).await, Peer::start().await);
        let blocks = blocks(6, 100_000);
        old.put(&blocks[..3]);
        new.put(&blocks[3..]);
        new.node.connect(&old.node).await;
        new.fetch(&[], &blocks[..3]).await;
        old.fetch(&[], &blocks[3..]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_leaves_is_replaced() {
    let (one, two, mut client) = (Peer::start().await, Peer::start().await, Peer::start().await);
    let blocks = blocks(48, MIB);
    one.put(&blocks);
    two.put(&blocks);
    client.node.connect(&one.node).await;
    client.node.connect(&two.node).await;
    let mut session = client.session(&[one.node.peer]).await;
    session.want(wants(&blocks)).await.unwrap();
    let first = timeout(PATIENCE, session.next()).await.unwrap().unwrap().unwrap();
    let peer = one.node.peer;
    client.node.call(move |swarm| swarm.disconnect_peer_id(peer).unwrap()).await;
    let rest: Vec<_> = blocks.into_iter().filter(|block| block.cid() != first.cid()).collect();
    take(&mut session, &rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_connection_of_a_peer_takes_over() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    let blocks = blocks(40, MIB);
    server.put(&blocks);
    client.node.connect(&server.node).await;
    client.node.dial(&server.node.address).await;
    let count = |swarm: &mut Swarm<Behaviour>| swarm.network_info().connection_counters().num_established();
    while client.node.call(count).await < 2 {
        tokio::task::yield_now().await;
    }
    let mut session = client.session(&[server.node.peer]).await;
    session.want(wants(&blocks)).await.unwrap();
    let first = timeout(PATIENCE, session.next()).await.unwrap().unwrap().unwrap();
    // The older connection is the one in use.
    let closed = client.node.call(move |swarm| swarm.behaviour().first_connection(&server.node.peer)).await;
    assert!(client.node.call(move |swarm| swarm.close_connection(closed.unwrap())).await);
    let rest: Vec<_> = blocks.into_iter().filter(|block| block.cid() != first.cid()).collect();
    take(&mut session, &rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_want_keeps_the_connection_and_its_end_lets_it_go() {
    let idle = Duration::from_millis(300);
    let server = Peer::with(Config::default(), idle).await;
    let mut client = Peer::with(Config::default(), idle).await;
    let blocks = blocks(1, 100_000);
    let mut session = client.session(&[server.node.peer]).await;
    session.want(wants(&blocks)).await.unwrap();
    client.node.connect(&server.node).await;
    // The error comes seconds after the connection would have been idle for too long.
    let missing = timeout(PATIENCE, session.next()).await.unwrap().unwrap();
    assert_eq!(missing, Err(SessionError::NoProvider(*blocks[0].cid())));
    assert!(client.node.connections.borrow().contains(&server.node.peer));
    server.put(&blocks);
    server.client.notify(vec![*blocks[0].cid()]).await;
    take(&mut session, &blocks).await;
    client.node.connected(server.node.peer, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_when_so_said() {
    let server = Peer::with(Config { serving: Serving::Nobody, ..Config::default() }, PATIENCE).await;
    let mut client = Peer::start().await;
    let blocks = blocks(1, 100_000);
    server.put(&blocks);
    client.node.connect(&server.node).await;
    let mut session = client.session(&[server.node.peer]).await;
    session.want(wants(&blocks)).await.unwrap();
    assert!(timeout(PATIENCE, session.next()).await.unwrap().unwrap().is_err());
    server.node.call(|swarm| swarm.behaviour_mut().set_serving(Serving::Everyone)).await;
    take(&mut session, &blocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_owner_is_asked_for_no_more_than_its_window() {
    let (server, mut client) = (Peer::start().await, Peer::start().await);
    let blocks = blocks(30, MIB);
    server.put(&blocks);
    client.node.connect(&server.node).await;
    let options = SessionOptions {
        providers: vec![server.node.peer],
        window_bytes: 4 * MIB,
        ..SessionOptions::default()
    };
    let mut slow = client.client.session(options).await.unwrap();
    slow.want(wants(&blocks)).await.unwrap();
    let first = timeout(PATIENCE, slow.next()).await.unwrap().unwrap().unwrap();
    // Another session is not held up meanwhile.
    let others = super::tests::blocks(200, 2000);
    server.put(&others);
    client.fetch(&[server.node.peer], &others).await;
    assert!(client.client.stats().bytes_received <= 5 * MIB as u64 + 200 * 2000);
    let rest: Vec<_> = blocks.into_iter().filter(|block| block.cid() != first.cid()).collect();
    take(&mut slow, &rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_ends_its_sessions() {
    let client = Peer::start().await;
    let mut session = client.session(&[]).await;
    let asker = session.asker();
    drop(client.node);
    assert!(timeout(PATIENCE, session.next()).await.unwrap().is_none());
    assert_eq!(asker.want(wants(&blocks(1, 10))).await, Err(Closed));
}
