//! The two Kademlia DHTs: one among the peers of the LAN, and in the public network that of IPFS.
//!
//! Both run at once, as kubo's do. Addresses must not leak from one to the other: [`Scoped`] shows
//! each only this node's addresses of its own scope, and what identify reports is filtered likewise.

use std::num::NonZeroUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::kad::{self, BucketInserts, Mode, StoreInserts};
use libp2p::multiaddr::Multiaddr;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{PeerId, StreamProtocol};

use crate::config::peer_of;
use crate::ipns::MAX_RECORD;
use crate::scope::Scope;

pub(crate) const LAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");
pub(crate) const WAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");

/// Answers of kubo go beyond libp2p's default of 16 KiB: 20 peers with all their addresses.
const MAX_PACKET: usize = 1024 * 1024;
/// A LAN answers at once or not at all.
const LAN_QUERY: Duration = Duration::from_secs(10);
/// A walk of the public DHT takes up to a minute.
const WAN_QUERY: Duration = Duration::from_mins(1);
/// kubo's concurrency, alpha.
const PARALLELISM: NonZeroUsize = NonZeroUsize::new(10).expect("10 is not zero");
/// How long the network keeps values and providers (kad-dht specification).
pub(crate) const RECORD_TTL: Duration = Duration::from_hours(48);
/// Records held for others: at most 5 MiB.
const MAX_RECORDS: usize = 512;
/// Keys of which this node says itself that it has them, those told last. Others say it of the rest.
pub(crate) const MAX_OWN: usize = 1024;
/// Keys for which providers are remembered on behalf of others, in both tables together.
pub(crate) const MAX_FOREIGN: usize = 1024;
/// Providers of one key: whoever asks needs a few, and on a LAN where all mirror one name each of them is one.
const MAX_PROVIDERS: usize = 8;

/// A Kademlia that knows only addresses of one scope.
pub(crate) struct Scoped {
    kad: kad::Behaviour<MemoryStore>,
    scope: Scope,
}

impl Scoped {
    /// The DHT of the LAN. Every member serves: there is no one else to ask.
    pub(crate) fn lan(peer: PeerId) -> Self {
        let mut config = common(LAN_PROTOCOL, LAN_QUERY);
        // Nobody to bootstrap from but those that were met; a self-lookup on each meeting is enough.
        config.set_periodic_bootstrap_interval(None);
        let mut kad = kad::Behaviour::with_config(peer, store(peer), config);
        kad.set_mode(Some(Mode::Server));
        Self { kad, scope: Scope::Lan }
    }

    /// The public DHT, as a client until strangers can call.
    pub(crate) fn wan(peer: PeerId, bootstrap: &[Multiaddr]) -> Self {
        let mut kad = kad::Behaviour::with_config(peer, store(peer), common(WAN_PROTOCOL, WAN_QUERY));
        // By itself it would take a relay for an address of its own.
        kad.set_mode(Some(Mode::Client));
        for address in bootstrap {
            if let Some(peer) = peer_of(address) {
                kad.add_address(&peer, address.clone());
            }
        }
        Self { kad, scope: Scope::Public }
    }

    pub(crate) fn kad(&mut self) -> &mut kad::Behaviour<MemoryStore> {
        &mut self.kad
    }

    /// Takes a peer that speaks this DHT into the routing table, with what it says of itself.
    /// Returns whether it has an address in this scope.
    pub(crate) fn add_peer(&mut self, peer: &PeerId, addresses: &[Multiaddr]) -> bool {
        let in_scope: Vec<&Multiaddr> =
            addresses.iter().filter(|address| self.scope.allows(address)).collect();
        for address in &in_scope {
            self.kad.add_address(peer, (*address).clone());
        }
        !in_scope.is_empty()
    }

    fn concerns(&self, event: &FromSwarm<'_>) -> bool {
        match event {
            // External addresses say the same. A new listener only makes Kademlia look for peers, and
            // while the LAN has none it complains that there are none.
            FromSwarm::NewListenAddr(_) | FromSwarm::ExpiredListenAddr(_) if self.scope == Scope::Lan => {
                false
            }
            FromSwarm::NewListenAddr(event) => self.scope.allows(event.addr),
            FromSwarm::ExpiredListenAddr(event) => self.scope.allows(event.addr),
            FromSwarm::NewExternalAddrCandidate(event) => self.scope.allows(event.addr),
            FromSwarm::ExternalAddrConfirmed(event) => self.scope.allows(event.addr),
            FromSwarm::ExternalAddrExpired(event) => self.scope.allows(event.addr),
            FromSwarm::NewExternalAddrOfPeer(event) => self.scope.allows(event.addr),
            _ => true,
        }
    }
}

fn common(protocol: StreamProtocol, query_timeout: Duration) -> kad::Config {
    let mut config = kad::Config::new(protocol);
    config
        .set_max_packet_size(MAX_PACKET)
        .set_query_timeout(query_timeout)
        .set_parallelism(PARALLELISM)
        .set_record_ttl(Some(RECORD_TTL))
        .set_provider_record_ttl(Some(RECORD_TTL))
        .set_provider_publication_interval(None)
        // Records are published again by whoever holds the key, and providers by the sweep; copying others' on is
        // not our duty.
        .set_replication_interval(None)
        .set_publication_interval(None)
        // A record is stored only after its signature was checked.
        .set_record_filtering(StoreInserts::FilterBoth)
        // A peer enters the table by what identify reports, filtered by scope.
        .set_kbucket_inserts(BucketInserts::Manual);
    config
}

fn store(peer: PeerId) -> MemoryStore {
    let config = MemoryStoreConfig {
        max_records: MAX_RECORDS,
        max_value_bytes: MAX_RECORD,
        // A new one comes before the oldest goes.
        max_provided_keys: MAX_OWN + MAX_FOREIGN + 1,
        max_providers_per_key: MAX_PROVIDERS,
    };
    MemoryStore::with_config(peer, config)
}

impl NetworkBehaviour for Scoped {
    type ConnectionHandler = <kad::Behaviour<MemoryStore> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut known = self.kad.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        // `/dnsaddr` of the bootstrap peers counts as the world.
        known.retain(|address| self.scope.allows(address));
        Ok(known)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if self.concerns(&event) {
            self.kad.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.kad.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.kad.poll(context)
    }
}
