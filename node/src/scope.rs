//! Which addresses belong to this network: the LAN, or the world.
//!
//! On network `lan` nothing is dialled or accepted beyond it. The rule stands here; [`crate::gate`]
//! refuses connections by it, and [`ScopedTransport`] sees to it that not even a packet leaves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::multiaddr::{Multiaddr, Protocol};

use crate::interfaces;

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Locality {
    /// This machine.
    Loopback,
    /// The networks that are not routed in the internet: RFC 1918, unique local, link-local, and the
    /// shared space that carriers and overlay networks use (RFC 6598).
    Lan,
    /// Everything that is routed, and names, of which one cannot tell.
    World,
}

/// What one network reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Loopback and LAN, and whatever else stands on the networks of this machine's own interfaces: there
    /// are LANs that use addresses of the internet among themselves.
    Lan,
    /// The world, without the LAN.
    Public,
    Any,
}

impl Locality {
    pub(crate) fn of(address: &Multiaddr) -> Self {
        ip_of(address).map_or(Self::World, Self::of_ip)
    }

    fn of_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) if ip.is_loopback() => Self::Loopback,
            IpAddr::V6(ip) if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || is_shared(ip) => Self::Lan,
            IpAddr::V6(ip) if is_unique_local(ip) || is_link_local(ip) => Self::Lan,
            _ => Self::World,
        }
    }
}

impl Scope {
    pub(crate) fn allows(self, address: &Multiaddr) -> bool {
        match self {
            Self::Lan => {
                Locality::of(address) <= Locality::Lan || ip_of(address).is_some_and(interfaces::reach)
            }
            Self::Public => Locality::of(address) == Locality::World,
            Self::Any => true,
        }
    }
}

/// The IP address of the first hop.
fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    // A zone (`/ip6zone/eth0/ip6/fe80::1`) only says on which interface the address holds.
    match address.iter().find(|protocol| !matches!(protocol, Protocol::Ip6zone(_)))? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(IpAddr::from(ip).to_canonical()),
        _ => None,
    }
}

/// RFC 6598.
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && (64..128).contains(&b)
}

/// `fc00::/7`.
fn is_unique_local(ip: Ipv6Addr) -> bool {
    let [a, ..] = ip.octets();
    a & 0xfe == 0xfc
}

/// `fe80::/10`.
fn is_link_local(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 0xfe && b & 0xc0 == 0x80
}

/// A transport that does not dial what is out of scope. Peers tell each other addresses of every
/// kind, and any behaviour may dial one.
#[derive(Debug)]
pub(crate) struct ScopedTransport<T> {
    inner: T,
    scope: Scope,
}

impl<T> ScopedTransport<T> {
    pub(crate) fn new(inner: T, scope: Scope) -> Self {
        Self { inner, scope }
    }
}

impl<T: Transport + Unpin> Transport for ScopedTransport<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<T::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<T::Dial, TransportError<T::Error>> {
        if self.scope.allows(&address) {
            self.inner.dial(address, options)
        } else {
            Err(TransportError::MultiaddrNotSupported(address))
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<T::ListenerUpgrade, T::Error>> {
        Pin::new(&mut self.inner).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locality(address: &str) -> Locality {
        Locality::of(&address.parse().unwrap())
    }

    #[test]
    fn addresses_of_this_machine() {
        for address in ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.8.9.1/udp/1/quic-v1", "/ip6/::1/tcp/1"] {
            assert_eq!(locality(address), Locality::Loopback, "{address}");
        }
        assert_eq!(locality("/ip6/::ffff:127.0.0.1/tcp/1"), Locality::Loopback);
    }

    #[test]
    fn addresses_of_the_lan() {
        for address in [
            "/ip4/10.0.0.1/tcp/4001",
            "/ip4/172.16.0.1/tcp/4001",
            "/ip4/172.31.255.255/tcp/4001",
            "/ip4/192.168.1.5/udp/4001/quic-v1",
            "/ip4/169.254.7.7/tcp/4001",
            "/ip4/100.64.0.1/tcp/4001",
            "/ip4/100.127.255.255/tcp/4001",
            "/ip6/fc00::1/tcp/4001",
            "/ip6/fdab:cdef::1/tcp/4001",
            "/ip6/fe80::1/tcp/4001",
            "/ip6zone/eth0/ip6/fe80::1/tcp/4001",
            "/ip6/::ffff:192.168.1.5/tcp/4001",
        ] {
            assert_eq!(locality(address), Locality::Lan, "{address}");
        }
    }

    #[test]
    fn addresses_of_the_world() {
        for address in [
            "/ip4/1.1.1.1/tcp/4001",
            "/ip4/172.15.0.1/tcp/4001",
            "/ip4/172.32.0.1/tcp/4001",
            "/ip4/192.169.0.1/tcp/4001",
            "/ip4/100.63.255.255/tcp/4001",
            "/ip4/100.128.0.1/tcp/4001",
            "/ip4/0.0.0.0/tcp/4001",
            "/ip6/2606:4700::1111/tcp/4001",
            "/ip6/fec0::1/tcp/4001",
            "/dns4/example.com/tcp/4001",
            "/dnsaddr/bootstrap.libp2p.io",
        ] {
            assert_eq!(locality(address), Locality::World, "{address}");
        }
    }

    #[test]
    fn a_lan_and_the_world_do_not_overlap() {
        let lan: Multiaddr = "/ip4/192.168.1.5/tcp/4001".parse().unwrap();
        let world: Multiaddr = "/ip4/1.1.1.1/tcp/4001".parse().unwrap();
        assert!(Scope::Lan.allows(&lan) && !Scope::Lan.allows(&world));
        assert!(!Scope::Public.allows(&lan) && Scope::Public.allows(&world));
        assert!(Scope::Any.allows(&lan) && Scope::Any.allows(&world));
    }
}
