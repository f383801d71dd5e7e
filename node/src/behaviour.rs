//! All protocols of the node, as one libp2p behaviour.

use std::io;
use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{dcutr, identify, mdns, ping, relay};

use crate::callback::Callback;
use crate::config::{Config, peer_of};
use crate::dht::Scoped;
use crate::gate::Gate;
use crate::gossip::{self, GossipError};
use crate::offences::Offences;
use crate::{bitswap, fetch, follow};

/// Sized for a board: each connection costs some 100 KiB when busy.
const MAX_CONNECTIONS: u32 = 96;
/// Leaves room for those that this node makes itself, so that strangers cannot shut it in.
const MAX_INBOUND: u32 = 64;
/// TCP and QUIC, once from each side.
const MAX_PER_PEER: u32 = 4;
const MAX_PENDING: u32 = 32;
/// What kubo and others call the protocol family.
const PROTOCOL_FAMILY: &str = "ipfs/0.1.0";
/// A peer that vanished without a word is noticed after two that fail.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Long enough for a reply that stands behind blocks on a slow uplink.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// mDNS has no retry of its own; this is how long a lost packet costs.
const MDNS_QUERY_EVERY: Duration = Duration::from_secs(20);

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // Those that may refuse a connection come first.
    gate: Gate,
    limits: connection_limits::Behaviour,
    pub(crate) identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) lan: Scoped,
    pub(crate) wan: Toggle<Scoped>,
    pub(crate) gossip: gossip::Behaviour,
    pub(crate) fetch: fetch::Behaviour,
    pub(crate) follow: follow::Behaviour,
    bitswap: bitswap::Behaviour,
    callback: Toggle<Callback>,
    relay: Toggle<relay::client::Behaviour>,
    punch: Toggle<dcutr::Behaviour>,
}

#[derive(Debug, thiserror::Error)]
pub enum BehaviourError {
    #[error(transparent)]
    Gossip(#[from] GossipError),
    #[error("the interfaces of this machine cannot be watched for discovery by mDNS")]
    Mdns(#[source] io::Error),
}

impl Behaviour {
    /// `relay` belongs to the transport, and is there in the public network.
    pub(crate) fn new(
        config: &Config,
        bitswap: bitswap::Behaviour,
        topics: gossip::Topics,
        offences: Offences,
        relay: Option<relay::client::Behaviour>,
    ) -> Result<Self, BehaviourError> {
        let key = config.key.to_libp2p();
        let peer = key.public().to_peer_id();
        let public = config.network.is_public();
        // Without a signed peer record: libp2p signs it under another domain than Go expects.
        let identify = identify::Config::new(PROTOCOL_FAMILY.to_owned(), key.public())
            .with_agent_version(config.agent.clone())
            .with_push_listen_addr_updates(true);
        let mdns = mdns::Config { query_interval: MDNS_QUERY_EVERY, ..mdns::Config::default() };
        let mdns = config.mdns.then(|| mdns::tokio::Behaviour::new(mdns, peer)).transpose();
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(MAX_PENDING))
            .with_max_pending_outgoing(Some(MAX_PENDING))
            .with_max_established_incoming(Some(MAX_INBOUND))
            .with_max_established(Some(MAX_CONNECTIONS))
            .with_max_established_per_peer(Some(MAX_PER_PEER));
        let ping = ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIMEOUT);
        let mut limits = connection_limits::Behaviour::new(limits);
        for peer in config.peers.iter().filter_map(peer_of) {
            limits.bypass_peer_id(&peer);
        }
        Ok(Self {
            gate: Gate::new(config.network.scope(), config.acquaintance.clone(), offences),
            limits,
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping),
            mdns: mdns.map_err(BehaviourError::Mdns)?.into(),
            lan: Scoped::lan(peer),
            wan: public.then(|| Scoped::wan(peer, &config.bootstrap)).into(),
            gossip: gossip::behaviour(topics)?,
            fetch: fetch::behaviour(),
            follow: follow::behaviour(),
            bitswap,
            callback: public.then(Callback::default).into(),
            relay: relay.into(),
            punch: public.then(|| dcutr::Behaviour::new(peer)).into(),
        })
    }
}
