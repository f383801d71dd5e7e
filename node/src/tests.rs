//! Nodes among themselves and with a peer that is no Sampan, on this machine and without multicast.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cid::Cid;
use futures::StreamExt;
use libp2p::gossipsub;
use libp2p::request_response::{self, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{StreamProtocol, Swarm, identify, relay, swarm};
use sampan_storage::{Block, MemoryBlocks};
use tokio::time::timeout;

use crate::bitswap::{Serving, SessionOptions};
use crate::clock::Wall;
use crate::gate::Acquaintance;
use crate::ipns::{Draft, LIFETIME, Record, RecordError, Verified};
use crate::{
    Config, Event, Events, Keypair, Members, MemoryCatalogue, MemoryRecords, Multiaddr, Network, Node,
    PeerId, PublishError, Refusal, Relaying, StartError, fetch, follow, gossip, start, transport,
};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    node: Node,
    events: Events,
    key: Keypair,
    records: Arc<MemoryRecords>,
    catalogue: Arc<MemoryCatalogue>,
    blocks: Arc<MemoryBlocks>,
}

fn config() -> Config {
    Config {
        key: Keypair::generate(),
        network: Network::Lan,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        peers: Vec::new(),
        agent: "sampan/test".to_owned(),
        acquaintance: Acquaintance::default(),
        bootstrap: Vec::new(),
        relaying: Relaying::default(),
        mdns: false,
        serving: Serving::Everyone,
        members: Members::Nobody,
        finds_registries: false,
        routers: None,
        wall: Wall::system(),
    }
}

impl Fixture {
    async fn new() -> Self {
        Self::with(config()).await
    }

    async fn with(config: Config) -> Self {
        let (records, blocks) = (Arc::new(MemoryRecords::default()), Arc::new(MemoryBlocks::default()));
        let catalogue = Arc::new(MemoryCatalogue::default());
        let key = config.key.clone();
        let (node, events) = start(
            config,
            Arc::<MemoryBlocks>::clone(&blocks),
            Arc::<MemoryRecords>::clone(&records),
            Arc::<MemoryCatalogue>::clone(&catalogue),
        )
        .await
        .unwrap();
        Self { node, events, key, records, catalogue, blocks }
    }

    async fn address(&self) -> Multiaddr {
        self.node.addresses().await.first().unwrap().clone()
    }

    async fn connect(&self, other: &Self) {
        assert_eq!(self.node.connect(other.address().await).await.unwrap(), other.node.peer_id());
    }

    fn signed(&self, sequence: u64) -> Verified {
        Record::sign(&self.key, &Draft::new(root(), sequence, SystemTime::now())).unwrap()
    }

    /// Keeps a record and publishes it, as the program does.
    async fn publish(&self, record: &Verified, nodes: &'static [u8]) -> usize {
        let (name, bytes, nodes) = (*record.name(), record.bytes().clone(), Bytes::from_static(nodes));
        self.records.put(name, bytes.clone(), nodes.clone());
        self.node.publish(name, bytes, nodes).await.unwrap().followers
    }

    /// The next event of the kind that `pick` takes.
    async fn next<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.events.next().await.expect("the node stopped");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("the event did not come")
    }

    async fn next_record(&mut self) -> (Verified, Bytes, Option<PeerId>, bool) {
        self.next(|event| match event {
            Event::Record { record, nodes, from, expired, .. } => Some((record, nodes, from, expired)),
            _ => None,
        })
        .await
    }

    /// Pubsub and the DHT may be faster; the nodes come with the direct message.
    async fn next_record_with_nodes(&mut self) -> (Verified, Bytes, Option<PeerId>, bool) {
        loop {
            let received = self.next_record().await;
            if !received.1.is_empty() {
                return received;
            }
        }
    }

    async fn next_refusal(&mut self) -> Refusal {
        self.next(|event| match event {
            Event::RecordRefused { reason, .. } => Some(reason),
            _ => None,
        })
        .await
    }

    /// Until `count` peers have asked this node for `name`.
    async fn until_followed(&self, key: &Keypair, count: usize) {
        self.until(|peers| peers.iter().filter(|peer| peer.follows.contains(&key.name())).count() == count)
            .await;
    }

    async fn until(&self, mut reached: impl FnMut(&[crate::Peer]) -> bool) {
        let wait = async {
            while !reached(&self.node.peers().await) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the peers never came to this");
    }

    /// Looks until somebody has it.
    async fn finds(&self, cid: Cid) -> Vec<PeerId> {
        let found = async {
            loop {
                let found = self.node.find_providers(cid).await;
                if !found.is_empty() {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("nobody is said to have it")
    }

    async fn until_introduced(&self, count: usize) {
        self.until(|peers| peers.iter().filter(|peer| peer.agent.is_some()).count() >= count).await;
    }
}

fn root() -> Cid {
    "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354".parse().unwrap()
}

/// A peer that offers what kubo does for names, and can speak the follow protocol to misuse it.
#[derive(NetworkBehaviour)]
struct StrangerBehaviour {
    identify: identify::Behaviour,
    gossip: gossip::Behaviour,
    fetch: fetch::Behaviour,
    follow: follow::Behaviour,
}

struct Stranger(Swarm<StrangerBehaviour>);

impl Stranger {
    async fn connected_to(node: &Node) -> Self {
        Self::speaking(node, vec![(follow::PROTOCOL, ProtocolSupport::Full)]).await
    }

    /// One that speaks no protocol of ours, as a kubo.
    async fn kubo_connected_to(node: &Node) -> Self {
        Self::speaking(node, Vec::new()).await
    }

    async fn speaking(node: &Node, ours: Vec<(StreamProtocol, ProtocolSupport)>) -> Self {
        let config = config();
        let key = config.key.to_libp2p();
        let behaviour = StrangerBehaviour {
            identify: identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".to_owned(), key.public())),
            gossip: gossip::behaviour(gossip::Topics::default()).unwrap(),
            fetch: fetch::behaviour(),
            follow: request_response::Behaviour::with_codec(
                follow::Codec::default(),
                ours,
                request_response::Config::default(),
            ),
        };
        let swarm_config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
        let (transport, _) = transport::build(&config).unwrap();
        let mut swarm = Swarm::new(transport, behaviour, config.key.peer_id(), swarm_config);
        let address = node.addresses().await.first().unwrap().clone();
        swarm.dial(address).unwrap();
        let mut stranger = Self(swarm);
        stranger.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())).await;
        stranger
    }

    async fn until<T>(&mut self, mut pick: impl FnMut(SwarmEvent<StrangerBehaviourEvent>) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(picked) = pick(self.0.select_next_some().await) {
                    return picked;
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("the event did not come")
    }

    /// Goes on living while something else is waited for.
    async fn during<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                _ = self.0.select_next_some() => {}
            }
        }
    }

    fn subscribe(&mut self, name: &crate::Name) {
        self.0.behaviour_mut().gossip.subscribe(&gossip::topic(name)).unwrap();
    }

    /// Subscribes, and waits until the other side has too.
    async fn join_topic(&mut self, name: &crate::Name) {
        self.subscribe(name);
        let joined = |event| match event {
            SwarmEvent::Behaviour(StrangerBehaviourEvent::Gossip(gossipsub::Event::Subscribed {
                ..
            })) => Some(()),
            _ => None,
        };
        self.until(joined).await;
    }

    fn say(&mut self, name: &crate::Name, data: impl Into<Vec<u8>>) {
        self.0.behaviour_mut().gossip.publish(gossip::topic(name), data).unwrap();
    }

    async fn fetch(&mut self, peer: PeerId, name: &crate::Name) -> fetch::Response {
        self.0.behaviour_mut().fetch.send_request(&peer, fetch::Request(name.routing_key()));
        let answer = |event| match event {
            SwarmEvent::Behaviour(StrangerBehaviourEvent::Fetch(fetch::Event::Message {
                message: Message::Response { response, .. },
                ..
            })) => Some(response),
            _ => None,
        };
        self.until(answer).await
    }
}

#[tokio::test]
async fn a_follower_gets_the_current_record_when_it_connects() {
    let (publisher, mut follower) = (Fixture::new().await, Fixture::new().await);
    let record = publisher.signed(1);
    publisher.publish(&record, b"nodes").await;
    follower.node.follow(publisher.key.name()).await.unwrap();
    follower.connect(&publisher).await;
    let (received, nodes, from, expired) = follower.next_record_with_nodes().await;
    assert_eq!(received, record);
    assert_eq!(nodes, b"nodes".as_slice());
    assert_eq!(from, Some(publisher.node.peer_id()));
    assert!(!expired);
}

#[tokio::test]
async fn a_name_that_is_followed_later_is_asked_for_at_once() {
    let (publisher, mut follower) = (Fixture::new().await, Fixture::new().await);
    let record = publisher.signed(1);
    publisher.publish(&record, b"nodes").await;
    follower.connect(&publisher).await;
    follower.until_introduced(1).await;
    follower.node.follow(publisher.key.name()).await.unwrap();
    assert_eq!(follower.next_record().await.0, record);
}

#[tokio::test]
async fn an_update_reaches_a_connected_follower_with_its_nodes() {
    let (publisher, mut follower) = (Fixture::new().await, Fixture::new().await);
    follower.node.follow(publisher.key.name()).await.unwrap();
    follower.connect(&publisher).await;
    publisher.until_followed(&publisher.key, 1).await;
    for sequence in 1..=3 {
        let record = publisher.signed(sequence);
        assert_eq!(publisher.publish(&record, b"nodes").await, 1);
        let (received, nodes, ..) = follower.next_record_with_nodes().await;
        assert_eq!((received, nodes), (record, Bytes::from_static(b"nodes")));
    }
    assert_eq!(follower.node.stats().records_taken, 3);
}

#[tokio::test]
async fn a_node_that_serves_nobody_gives_records_without_nodes() {
    let publisher = Fixture::with(Config { serving: Serving::Nobody, ..config() }).await;
    let (name, first, second) = (publisher.key.name(), publisher.signed(1), publisher.signed(2));
    publisher.publish(&first, b"nodes").await;
    let mut stranger = Stranger::connected_to(&publisher.node).await;
    let ask = follow::Request::Ask { name, have: None };
    stranger.0.behaviour_mut().follow.send_request(&publisher.node.peer_id(), ask);
    let answer = stranger.until(|event| match event {
        SwarmEvent::Behaviour(StrangerBehaviourEvent::Follow(follow::Event::Message {
            message: Message::Response { response, .. },
            ..
        })) => Some(response),
        _ => None,
    });
    let without = follow::Response::Known { record: first.bytes().clone(), nodes: Bytes::new() };
    assert_eq!(answer.await, without);

    // It has asked, so it is told of what comes next.
    assert_eq!(stranger.during(publisher.publish(&second, b"nodes")).await, 1);
    let told = stranger.until(|event| match event {
        SwarmEvent::Behaviour(StrangerBehaviourEvent::Follow(follow::Event::Message {
            message: Message::Request { request: follow::Request::Update { record, nodes, .. }, .. },
            ..
        })) => Some((record, nodes)),
        _ => None,
    });
    assert_eq!(told.await, (second.bytes().clone(), Bytes::new()));
}

#[tokio::test]
async fn an_update_travels_on_to_whom_the_publisher_does_not_know() {
    let (publisher, mut middle, mut far) = (Fixture::new().await, Fixture::new().await, Fixture::new().await);
    let name = publisher.key.name();
    middle.node.follow(name).await.unwrap();
    far.node.follow(name).await.unwrap();
    middle.connect(&publisher).await;
    far.connect(&middle).await;
    publisher.until_followed(&publisher.key, 1).await;
    middle.until_followed(&publisher.key, 1).await;
    let record = publisher.signed(1);
    publisher.publish(&record, b"").await;
    assert_eq!(middle.next_record().await.0, record);
    let (received, _, from, _) = far.next_record().await;
    assert_eq!((received, from), (record, Some(middle.node.peer_id())));
}

#[tokio::test]
async fn an_expired_record_passes_between_sampans_and_is_marked() {
    let (publisher, mut follower) = (Fixture::new().await, Fixture::new().await);
    let long_ago = SystemTime::now() - LIFETIME - Duration::from_mins(1);
    let record = Record::sign(&publisher.key, &Draft::new(root(), 1, long_ago)).unwrap();
    let published = publisher.publish(&record, b"").await;
    assert_eq!(published, 0);
    follower.node.follow(publisher.key.name()).await.unwrap();
    follower.connect(&publisher).await;
    let (received, _, _, expired) = follower.next_record().await;
    assert!(expired && received == record);
    assert_eq!(
        follower.node.resolve(publisher.key.name()).await,
        None,
        "kubo's paths carry no expired record"
    );
}

#[tokio::test]
async fn publishing_an_older_or_foreign_record_is_an_error() {
    let publisher = Fixture::new().await;
    publisher.publish(&publisher.signed(5), b"").await;
    let publish = |name, record: Verified| {
        let node = publisher.node.clone();
        async move { node.publish(name, record.bytes().clone(), Bytes::new()).await }
    };
    let older = publish(publisher.key.name(), publisher.signed(4)).await;
    assert!(matches!(older, Err(PublishError::Older)));
    let foreign = publish(Keypair::generate().name(), publisher.signed(6)).await;
    assert!(matches!(foreign, Err(PublishError::Record(RecordError::BadSignature))));
}

#[tokio::test]
async fn a_late_joiner_fetches_from_a_peer_that_joins_the_topic() {
    let mut follower = Fixture::new().await;
    let publisher = Keypair::generate();
    let name = publisher.name();
    follower.node.follow(name).await.unwrap();
    let record = Record::sign(&publisher, &Draft::new(root(), 1, SystemTime::now())).unwrap();

    let mut stranger = Stranger::kubo_connected_to(&follower.node).await;
    stranger.subscribe(&name);
    let asked = stranger.until(|event| match event {
        SwarmEvent::Behaviour(StrangerBehaviourEvent::Fetch(fetch::Event::Message {
            message: Message::Request { request, channel, .. },
            ..
        })) => Some((request, channel)),
        _ => None,
    });
    let (request, channel) = asked.await;
    assert_eq!(request, fetch::Request(name.routing_key()));
    let response = fetch::Response::Found(record.bytes().clone());
    stranger.0.behaviour_mut().fetch.send_response(channel, response).unwrap();
    assert_eq!(stranger.during(follower.next_record()).await.0, record);
}

#[tokio::test]
async fn any_peer_may_fetch_a_published_record() {
    let publisher = Fixture::new().await;
    let record = publisher.signed(1);
    publisher.publish(&record, b"").await;
    let mut stranger = Stranger::connected_to(&publisher.node).await;
    let peer = publisher.node.peer_id();
    let found = stranger.fetch(peer, &publisher.key.name()).await;
    assert_eq!(found, fetch::Response::Found(record.bytes().clone()));
    assert_eq!(stranger.fetch(peer, &Keypair::generate().name()).await, fetch::Response::NotFound);
}

#[tokio::test]
async fn whoever_sends_garbage_again_and_again_is_cut_off() {
    let node = Fixture::new().await;
    let name = node.key.name();
    node.node.follow(name).await.unwrap();
    let mut stranger = Stranger::connected_to(&node.node).await;
    stranger.join_topic(&name).await;
    for number in 0..20_u8 {
        stranger.say(&name, vec![number; 100]);
    }
    let closed = |event| matches!(event, SwarmEvent::ConnectionClosed { .. }).then_some(());
    stranger.until(closed).await;
    let address = node.node.addresses().await.first().unwrap().clone();
    stranger.0.dial(address).unwrap();
    stranger.until(closed).await;
}

#[tokio::test]
async fn broken_and_old_records_are_refused_and_counted() {
    let mut follower = Fixture::new().await;
    let publisher = Keypair::generate();
    let name = publisher.name();
    follower.node.follow(name).await.unwrap();
    let sign = |key: &Keypair, sequence| {
        Record::sign(key, &Draft::new(root(), sequence, SystemTime::now())).unwrap()
    };

    let mut stranger = Stranger::connected_to(&follower.node).await;
    stranger.join_topic(&name).await;
    stranger.say(&name, sign(&publisher, 2).bytes().to_vec());
    assert_eq!(stranger.during(follower.next_record()).await.0.sequence(), 2);
    stranger.say(&name, sign(&publisher, 1).bytes().to_vec());
    assert_eq!(stranger.during(follower.next_refusal()).await, Refusal::Older);
    stranger.say(&name, sign(&Keypair::generate(), 3).bytes().to_vec());
    let refused = stranger.during(follower.next_refusal()).await;
    assert_eq!(refused, Refusal::Invalid(RecordError::BadSignature));
    stranger.say(&name, b"garbage".to_vec());
    assert!(matches!(stranger.during(follower.next_refusal()).await, Refusal::Invalid(_)));

    let update = follow::Request::Update {
        name: Keypair::generate().name(),
        record: sign(&publisher, 9).bytes().clone(),
        nodes: Bytes::new(),
        room: crate::frame::Room::default(),
    };
    let peer = follower.node.peer_id();
    stranger.0.behaviour_mut().follow.send_request(&peer, update);
    let answered = |event| match event {
        SwarmEvent::Behaviour(StrangerBehaviourEvent::Follow(follow::Event::Message {
            message: Message::Response { response, .. },
            ..
        })) => Some(response),
        _ => None,
    };
    assert_eq!(stranger.until(answered).await, follow::Response::Taken);
    let stats = follower.node.stats();
    assert_eq!((stats.records_taken, stats.records_older), (1, 1));
    assert_eq!((stats.records_invalid, stats.records_not_followed), (2, 1));
}

#[tokio::test]
async fn a_record_goes_through_the_dht_of_three_nodes_in_a_chain() {
    let (publisher, middle, reader) = (Fixture::new().await, Fixture::new().await, Fixture::new().await);
    publisher.connect(&middle).await;
    publisher.until_introduced(1).await;
    publisher.publish(&publisher.signed(1), b"").await;
    publisher.publish(&publisher.signed(2), b"").await;
    reader.connect(&middle).await;
    reader.until_introduced(1).await;
    let found = async {
        loop {
            if let Some(record) = reader.node.resolve(publisher.key.name()).await {
                return record.record.sequence();
            }
        }
    };
    assert_eq!(timeout(PATIENCE, found).await.unwrap(), 2);
    assert_eq!(reader.node.resolve(Keypair::generate().name()).await, None);
}

#[tokio::test]
async fn a_record_that_was_put_before_anyone_was_there_is_found() {
    let (publisher, reader) = (Fixture::new().await, Fixture::new().await);
    publisher.publish(&publisher.signed(1), b"").await;
    reader.connect(&publisher).await;
    reader.until_introduced(1).await;
    let resolved = reader.node.resolve(publisher.key.name()).await;
    let bytes = resolved.map(|found| found.record.bytes().clone());
    assert_eq!(bytes, Some(publisher.records_of_own()));
}

#[tokio::test]
async fn a_denied_peer_is_neither_taken_nor_dialled() {
    let stranger = Fixture::new().await;
    let deny = std::iter::once(stranger.node.peer_id()).collect();
    let node =
        Fixture::with(Config { acquaintance: Acquaintance { deny, ..Acquaintance::default() }, ..config() });
    let (node, friend) = (node.await, Fixture::new().await);
    assert!(node.node.connect(stranger.address().await).await.is_err());
    // Whoever dials learns of the refusal when the connection is closed.
    let _ = stranger.node.connect(node.address().await).await;
    friend.connect(&node).await;
    node.until(|peers| peers.iter().any(|peer| peer.id == friend.node.peer_id())).await;
    assert!(node.node.peers().await.iter().all(|peer| peer.id != stranger.node.peer_id()));
    stranger.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn where_some_are_allowed_the_others_are_not_taken() {
    let (friend, stranger) = (Fixture::new().await, Fixture::new().await);
    let allow = std::iter::once(friend.node.peer_id()).collect();
    let node =
        Fixture::with(Config { acquaintance: Acquaintance { allow, ..Acquaintance::default() }, ..config() });
    let node = node.await;
    let _ = stranger.node.connect(node.address().await).await;
    friend.connect(&node).await;
    node.until(|peers| peers.len() == 1 && peers.iter().all(|peer| peer.id == friend.node.peer_id())).await;
    stranger.until(<[_]>::is_empty).await;
}

/// Relays for others, as kubo does in the public network.
#[derive(NetworkBehaviour)]
struct RelayBehaviour {
    identify: identify::Behaviour,
    relay: relay::Behaviour,
}

/// Starts one. Returns where it is; it runs as long as the test does.
async fn relay() -> Multiaddr {
    let config = config();
    let (key, peer) = (config.key.to_libp2p(), config.key.peer_id());
    let behaviour = RelayBehaviour {
        identify: identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".to_owned(), key.public())),
        relay: relay::Behaviour::new(peer, relay::Config::default()),
    };
    let swarm_config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
    let (transport, _) = transport::build(&config).unwrap();
    let mut swarm = Swarm::new(transport, behaviour, peer, swarm_config);
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(address.clone());
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    address.with_p2p(peer).unwrap()
}

#[tokio::test]
async fn a_node_that_nobody_can_call_is_reached_through_a_relay() {
    let public = Config { network: Network::Public, ..config() };
    let hidden = Config { listen: Vec::new(), relaying: Relaying::Always, ..public.clone() };
    let (hidden, caller) =
        (Fixture::with(hidden).await, Fixture::with(Config { key: Keypair::generate(), ..public }).await);
    let block = block(b"behind a router");
    hidden.blocks.put(&block);
    let relay = relay().await;
    let relay_id = hidden.node.connect(relay.clone()).await.unwrap();
    let reserved = async {
        while hidden.node.reached().await.unwrap().relays != [relay_id] {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reserved).await.expect("the relay granted no reservation");

    let through = hidden.address().await;
    assert!(through.to_string().starts_with(&format!("{relay}/p2p-circuit")), "{through}");
    assert_eq!(caller.node.connect(through).await.unwrap(), hidden.node.peer_id());
    let options = SessionOptions { providers: vec![hidden.node.peer_id()], ..SessionOptions::default() };
    let mut session = caller.node.bitswap().session(options).await.unwrap();
    session.want(vec![(*block.cid(), 15)]).await.unwrap();
    let fetched = timeout(PATIENCE, session.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(fetched, block);
}

#[tokio::test]
async fn on_a_lan_nobody_is_asked_to_relay() {
    let node = Fixture::with(Config { relaying: Relaying::Always, ..config() }).await;
    let relay = relay().await;
    node.node.connect(relay).await.unwrap();
    node.until_introduced(1).await;
    assert_eq!(node.node.reached().await.unwrap().relays, []);
    assert!(node.node.addresses().await.iter().all(|address| !address.to_string().contains("p2p-circuit")));
}

fn block(content: &'static [u8]) -> Block {
    Block::new(sampan_storage::block::RAW, Bytes::from_static(content))
}

#[tokio::test]
async fn all_that_a_node_has_to_offer_is_found_after_a_sweep() {
    let (provider, middle, reader) = (Fixture::new().await, Fixture::new().await, Fixture::new().await);
    let offered: Vec<Cid> = [b"one", b"two", b"six"].map(|content| *block(content).cid()).to_vec();
    for cid in &offered {
        provider.catalogue.put(*cid);
    }
    provider.connect(&middle).await;
    reader.connect(&middle).await;
    reader.until_introduced(1).await;
    for cid in offered {
        assert_eq!(reader.finds(cid).await, [provider.node.peer_id()]);
    }
}

#[tokio::test]
async fn a_node_that_serves_nobody_announces_nothing() {
    let silent = Fixture::with(Config { serving: Serving::Nobody, ..config() }).await;
    let (open, reader) = (Fixture::new().await, Fixture::new().await);
    let (kept, given) = (*block(b"kept").cid(), *block(b"given").cid());
    silent.catalogue.put(kept);
    silent.node.provide(silent.key.name(), kept).await;
    open.catalogue.put(given);
    for provider in [&silent, &open] {
        reader.connect(provider).await;
    }
    // Both had the same time for it.
    assert_eq!(reader.finds(given).await, [open.node.peer_id()]);
    assert_eq!(reader.node.find_providers(kept).await, []);
    assert_eq!(silent.node.stats().announced, 0);
}

#[tokio::test]
async fn providers_are_found_with_their_addresses() {
    let (provider, middle, reader) = (Fixture::new().await, Fixture::new().await, Fixture::new().await);
    let block = Block::new(sampan_storage::block::RAW, Bytes::from_static(b"a block"));
    provider.blocks.put(&block);
    provider.connect(&middle).await;
    provider.until_introduced(1).await;
    provider.node.provide(provider.key.name(), *block.cid()).await;
    reader.connect(&middle).await;
    reader.until_introduced(1).await;
    assert_eq!(reader.finds(*block.cid()).await, [provider.node.peer_id()]);
    let provider_id = provider.node.peer_id();
    reader.until(|peers| peers.iter().any(|peer| peer.id == provider_id)).await;

    let options = SessionOptions { providers: vec![provider_id], ..SessionOptions::default() };
    let mut session = reader.node.bitswap().session(options).await.unwrap();
    session.want(vec![(*block.cid(), 7)]).await.unwrap();
    let fetched = timeout(PATIENCE, session.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(fetched, block);
}

#[tokio::test]
async fn a_static_peer_is_dialled_again_after_it_was_away() {
    let first = Fixture::new().await;
    let address = first.address().await;
    let mut follower = Fixture::with(Config { peers: vec![address.clone()], ..config() }).await;
    let peer = first.node.peer_id();
    follower
        .next(|event| matches!(event, Event::PeerConnected { peer: other } if other == peer).then_some(()))
        .await;
    first.node.shutdown().await;
    follower.next(|event| matches!(event, Event::PeerDisconnected { .. }).then_some(())).await;
    let listen = address.iter().take(2).collect();
    let _again = Fixture::with(Config { key: first.key.clone(), listen: vec![listen], ..config() }).await;
    follower
        .next(|event| matches!(event, Event::PeerConnected { peer: other } if other == peer).then_some(()))
        .await;
}

#[tokio::test]
async fn shutdown_frees_the_ports() {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    drop(udp);
    let listen: Vec<Multiaddr> = vec![
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(),
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap(),
    ];
    let key = Keypair::generate();
    for _ in 0..3 {
        let mut node = Fixture::with(Config { key: key.clone(), listen: listen.clone(), ..config() }).await;
        assert_eq!(node.node.addresses().await.len(), 2);
        let other = Fixture::new().await;
        other.connect(&node).await;
        node.node.shutdown().await;
        assert_eq!(node.node.resolve(key.name()).await, None);
        while node.events.next().await.is_some() {}
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let first = Fixture::new().await;
    let taken: Multiaddr = first.address().await.iter().take(2).collect();
    let config = Config { listen: vec![taken.clone()], ..config() };
    let error = start(
        config,
        Arc::new(MemoryBlocks::default()),
        Arc::new(MemoryRecords::default()),
        Arc::new(MemoryCatalogue::default()),
    )
    .await
    .unwrap_err();
    assert!(matches!(&error, StartError::Listen { address, .. } if *address == taken));
    assert!(error.to_string().contains(&taken.to_string()));
}

#[tokio::test]
async fn an_address_beyond_the_lan_is_not_dialled() {
    let node = Fixture::new().await;
    let world: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
    assert!(timeout(Duration::from_secs(1), node.node.connect(world)).await.unwrap().is_err());
}

#[tokio::test]
async fn only_those_with_the_swarm_key_connect() {
    let private = |digits: &str| {
        let text = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digits.repeat(32));
        Config { network: Network::Private(text.parse().unwrap()), ..config() }
    };
    let (one, two) = (Fixture::with(private("0a")).await, Fixture::with(private("0a")).await);
    one.connect(&two).await;
    for stranger in [Fixture::with(private("0b")).await, Fixture::new().await] {
        // A handshake with another key ends in an error, or in silence.
        let connected = timeout(Duration::from_secs(1), stranger.node.connect(one.address().await)).await;
        assert!(!matches!(connected, Ok(Ok(_))));
    }
}

#[tokio::test]
async fn a_peer_address_without_a_peer_is_refused() {
    let config = Config { peers: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()], ..config() };
    let error = start(
        config,
        Arc::new(MemoryBlocks::default()),
        Arc::new(MemoryRecords::default()),
        Arc::new(MemoryCatalogue::default()),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, StartError::Peer { .. }));
}

impl Fixture {
    fn records_of_own(&self) -> Bytes {
        crate::Records::record(self.records.as_ref(), &self.key.name(), crate::Audience::Members).unwrap()
    }
}
