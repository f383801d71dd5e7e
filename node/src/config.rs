//! What a node is started with.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::pnet::PreSharedKey;

use crate::audience::Members;
use crate::bitswap::Serving;
use crate::clock::Wall;
use crate::gate::Acquaintance;
use crate::key::Keypair;
use crate::reach::Relaying;
use crate::routers::Routers;
use crate::scope::Scope;

/// The port that IPFS nodes listen on, for TCP and for QUIC.
pub const DEFAULT_PORT: u16 = 4001;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own key. Names may have other keys.
    pub key: Keypair,
    pub network: Network,
    /// Addresses to listen on; see [`default_listen`].
    pub listen: Vec<Multiaddr>,
    /// Peers that are dialled at start and again whenever they are lost. They end in `/p2p/<peer id>`.
    pub peers: Vec<Multiaddr>,
    /// Who may be connected to at all.
    pub acquaintance: Acquaintance,
    /// Name and version that other nodes see, such as `sampan/1.0.0`.
    pub agent: String,
    /// Where a newcomer to the public network begins; see [`default_bootstrap`].
    pub bootstrap: Vec<Multiaddr>,
    /// In the public network: when others relay connections to this node.
    pub relaying: Relaying,
    /// Look for peers on the LAN by multicast.
    pub mdns: bool,
    /// Who may fetch blocks from this node.
    pub serving: Serving,
    /// Who gets what is not for strangers.
    pub members: Members,
    /// Members are asked now and then which registries they know of.
    pub finds_registries: bool,
    /// Whom else to ask for records and providers.
    pub routers: Option<Arc<dyn Routers>>,
    /// What records are dated by.
    pub wall: Wall,
}

/// Whom a node talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Peers on the local network; nothing beyond is dialled or accepted.
    Lan,
    /// The public IPFS network, and the LAN.
    Public,
    /// Those who have the same swarm key, wherever they are.
    Private(SwarmKey),
}

impl Network {
    pub(crate) fn scope(&self) -> Scope {
        match self {
            Self::Lan => Scope::Lan,
            Self::Public | Self::Private(_) => Scope::Any,
        }
    }

    pub(crate) fn is_public(&self) -> bool {
        *self == Self::Public
    }
}

/// The secret that the members of a private network share: kubo's `swarm.key`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SwarmKey(PreSharedKey);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a swarm key: the file has three lines, /key/swarm/psk/1.0.0/, then /base16/, then 64 hexadecimal digits"
)]
pub struct SwarmKeyError;

impl SwarmKey {
    /// What kubo prints at start; it tells two keys apart and gives neither away.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint().to_string()
    }

    pub(crate) fn to_libp2p(self) -> PreSharedKey {
        self.0
    }
}

impl FromStr for SwarmKey {
    type Err = SwarmKeyError;

    /// Reads the text of a `swarm.key` file.
    fn from_str(text: &str) -> Result<Self, SwarmKeyError> {
        // libp2p cuts the digits in pairs of bytes, and panics where that is in the middle of a letter.
        let text = Some(text.trim_end()).filter(|text| text.is_ascii()).ok_or(SwarmKeyError)?;
        text.parse().map(Self).map_err(|_| SwarmKeyError)
    }
}

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwarmKey({})", self.fingerprint())
    }
}

/// All interfaces, TCP and QUIC, IPv4 and IPv6. A machine without IPv6 skips its addresses.
pub fn default_listen() -> Vec<Multiaddr> {
    let interfaces = [Protocol::Ip4(Ipv4Addr::UNSPECIFIED), Protocol::Ip6(Ipv6Addr::UNSPECIFIED)];
    interfaces
        .into_iter()
        .flat_map(|interface| {
            let host = Multiaddr::empty().with(interface);
            let tcp = host.clone().with(Protocol::Tcp(DEFAULT_PORT));
            let quic = host.with(Protocol::Udp(DEFAULT_PORT)).with(Protocol::QuicV1);
            [tcp, quic]
        })
        .collect()
}

/// kubo's list, but for an address that says nothing else.
pub fn default_bootstrap() -> Vec<Multiaddr> {
    let addresses = [
        "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
        "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
        "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
        "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
        "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
        "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
        "/ip4/104.131.131.82/udp/4001/quic-v1/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
    ];
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

/// The peer id that an address ends in.
pub(crate) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_addresses_are_those_of_ipfs() {
        let listen: Vec<String> = default_listen().iter().map(Multiaddr::to_string).collect();
        assert_eq!(
            listen,
            [
                "/ip4/0.0.0.0/tcp/4001",
                "/ip4/0.0.0.0/udp/4001/quic-v1",
                "/ip6/::/tcp/4001",
                "/ip6/::/udp/4001/quic-v1"
            ]
        );
    }

    #[test]
    fn every_bootstrap_address_names_its_peer() {
        assert_eq!(default_bootstrap().iter().filter_map(peer_of).count(), 7);
    }

    #[test]
    fn a_swarm_key_of_kubo_is_read() {
        let text = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "0a".repeat(32));
        let key: SwarmKey = text.parse().unwrap();
        assert_eq!(key.fingerprint().len(), 32);
        assert!(!format!("{key:?}").contains(&"0a".repeat(32)));
    }

    #[test]
    fn what_is_no_swarm_key_is_refused_with_the_form() {
        for text in
            ["", "\n\n\n", "/key/swarm/psk/1.0.0/\n/base16/\nzz", "/key/swarm/psk/1.0.0/\n/base64/\nAAAA"]
        {
            assert!(text.parse::<SwarmKey>().unwrap_err().to_string().contains("/base16/"));
        }
    }
}
