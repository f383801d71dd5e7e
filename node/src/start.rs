//! Starting a node: everything is built and bound here, so that what can fail fails before it runs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::transport::TransportError as ListenError;
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{Swarm, swarm};
use sampan_storage::Blocks;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::answers::Answers;
use crate::behaviour::{Behaviour, BehaviourError};
use crate::bitswap;
use crate::catalogue::Catalogue;
use crate::config::{Config, Network, peer_of};
use crate::dialer::Dialer;
use crate::event::{Counters, Events, Outbox};
use crate::gossip;
use crate::handle::Node;
use crate::mdns::Responder;
use crate::names::Names;
use crate::offences::Offences;
use crate::peers::Peers;
use crate::ports;
use crate::queries::Queries;
use crate::reach::Reach;
use crate::records::Records;
use crate::transport::{self, TransportError};
use crate::worker::{Provided, Worker};

/// Commands that wait for the node's task.
const COMMANDS: usize = 64;
/// A machine has few interfaces, and their addresses come without a pause.
const MORE_ADDRESSES: usize = 16;
const ADDRESSES_QUIET: Duration = Duration::from_millis(20);
/// For the operating system to name the interfaces that a wildcard address means.
const LISTEN_DEADLINE: Duration = Duration::from_secs(5);
/// An unused connection among strangers is closed after this.
const IDLE_PUBLIC: Duration = Duration::from_mins(2);
/// On a LAN, and in a private network, peers stay connected: they are few, and the next push may come
/// any time.
const IDLE_PRIVATE: Duration = Duration::from_hours(24);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}; is another IPFS node running, or another Sampan?")]
    Listen { address: Multiaddr, source: io::Error },
    #[error(
        "{address} cannot be listened on: it is not an IP address with /tcp/<port> or /udp/<port>/quic-v1"
    )]
    ListenAddress { address: Multiaddr },
    #[error("the peer address {address} must end in /p2p/<peer id>")]
    Peer { address: Multiaddr },
    #[error("LIBP2P_FORCE_PNET is set, and the node has no swarm key")]
    SwarmKeyMissing,
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Behaviour(#[from] BehaviourError),
}

/// Starts a node. When this returns, its listeners are bound and their addresses known.
///
/// `blocks` is what peers may fetch; `records` is what is published and followed here, and
/// `catalogue` what others may find this node by.
pub async fn start(
    config: Config,
    blocks: Arc<dyn Blocks>,
    records: Arc<dyn Records>,
    catalogue: Arc<dyn Catalogue>,
) -> Result<(Node, Events), StartError> {
    let members = Arc::clone(&blocks);
    start_with_members(config, blocks, members, records, catalogue).await
}

/// The same where members may fetch `members`, and all others `blocks`.
pub async fn start_with_members(
    config: Config,
    blocks: Arc<dyn Blocks>,
    members: Arc<dyn Blocks>,
    records: Arc<dyn Records>,
    catalogue: Arc<dyn Catalogue>,
) -> Result<(Node, Events), StartError> {
    // As in kubo: whoever sets this wants no connection without the shared secret.
    if std::env::var_os("LIBP2P_FORCE_PNET").is_some_and(|value| value == "1")
        && !matches!(config.network, Network::Private(_))
    {
        return Err(StartError::SwarmKeyMissing);
    }
    let peer_id = config.key.peer_id();
    let (topics, offences) = (gossip::Topics::default(), Offences::default());
    let bitswap =
        bitswap::Config { serving: config.serving, offences: offences.clone(), ..bitswap::Config::default() };
    let (bitswap, bitswap_client) = bitswap::Behaviour::new(blocks, bitswap);
    let bitswap = bitswap.with_members(config.members.clone(), members);
    let (transport, relay) = transport::build(&config)?;
    let behaviour = Behaviour::new(&config, bitswap, topics.clone(), offences.clone(), relay)?;
    let mut swarm = Swarm::new(transport, behaviour, peer_id, swarm_config(&config.network));
    let listeners = listen(&mut swarm, &config)?;

    let now = Instant::now();
    let mut dialer = Dialer::new(peer_id);
    for address in config.peers {
        let peer = peer_of(&address).ok_or_else(|| StartError::Peer { address: address.clone() })?;
        dialer.keep(peer, address, now);
    }
    let responder = config.mdns.then(|| Responder::start(peer_id)).transpose().unwrap_or_else(|error| {
        tracing::warn!(%error, "kubo on this LAN does not find this node: its questions cannot be answered");
        None
    });
    for address in &config.bootstrap {
        peer_of(address).ok_or_else(|| StartError::Peer { address: address.clone() })?;
    }
    let counters = Arc::new(Counters::default());
    let (outbox, events) = Outbox::new();
    let (commands, receiver) = mpsc::channel(COMMANDS);
    // Boxed, because it is large and every future that holds it would be.
    let mut worker = Box::new(Worker {
        swarm,
        commands: receiver,
        answers: Answers::new(records, catalogue, config.serving),
        members: config.members,
        registries_due: config.finds_registries.then(Instant::now),
        outbox,
        counters: Arc::clone(&counters),
        network: config.network,
        dialer,
        names: Names::default(),
        topics,
        offences,
        peers: Peers::default(),
        queries: Queries::default(),
        provided: Provided::new(now),
        reach: Reach::new(config.relaying, now),
        responder,
        confirmed_here: BTreeSet::new(),
        asked: HashMap::new(),
        connecting: HashMap::new(),
        listeners,
        wall: config.wall.clone(),
    });
    // A machine whose network is not up yet gets its addresses later.
    let _ = timeout(LISTEN_DEADLINE, worker.wait_for_addresses()).await;
    tokio::spawn(worker.run());
    Ok((
        Node {
            peer_id,
            commands,
            bitswap: bitswap_client,
            counters,
            routers: config.routers,
            wall: config.wall,
        },
        events,
    ))
}

fn swarm_config(network: &Network) -> swarm::Config {
    let idle = if network.is_public() { IDLE_PUBLIC } else { IDLE_PRIVATE };
    swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(idle)
        .with_max_negotiating_inbound_streams(bitswap::MAX_NEGOTIATING_INBOUND_STREAMS)
}

fn listen(
    swarm: &mut Swarm<Behaviour>,
    config: &Config,
) -> Result<HashMap<libp2p::core::transport::ListenerId, Multiaddr>, StartError> {
    let mut listeners = HashMap::new();
    let quic_off = matches!(config.network, Network::Private(_));
    for address in config.listen.iter().filter(|address| !(quic_off && is_quic(address))) {
        let failed = |source| StartError::Listen { address: address.clone(), source };
        match ports::check(address) {
            Err(error) if is_ipv6(address) && ports::is_unsupported(&error) => {
                tracing::info!(%address, "skipped, this machine has no IPv6");
                continue;
            }
            checked => checked.map_err(failed)?,
        }
        match swarm.listen_on(address.clone()) {
            Ok(listener) => {
                listeners.insert(listener, address.clone());
            }
            Err(ListenError::MultiaddrNotSupported(address)) => {
                return Err(StartError::ListenAddress { address });
            }
            Err(ListenError::Other(source)) => return Err(failed(source)),
        }
    }
    Ok(listeners)
}

impl Worker {
    /// Until there is an address of each transport that is listened on.
    async fn wait_for_addresses(&mut self) {
        let wanted: HashSet<bool> = self.listeners.values().map(is_quic).collect();
        while self.swarm.listeners().map(is_quic).collect::<HashSet<bool>>() != wanted {
            self.step().await;
        }
        // Those of other interfaces follow at once; on a busy network other events do too.
        for _ in 0..MORE_ADDRESSES {
            if timeout(ADDRESSES_QUIET, self.step()).await.is_err() {
                break;
            }
        }
    }
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| matches!(protocol, Protocol::QuicV1))
}

fn is_ipv6(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Ip6(_)))
}
