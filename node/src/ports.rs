//! Whether the ports of this node are free: asked before it listens and after it has stopped.
//!
//! libp2p shares its TCP ports with anyone who shares theirs (`SO_REUSEPORT`), kubo does the same, and
//! two nodes on one port would each get half of the connections. So a plain bind is tried first.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libp2p::multiaddr::{Multiaddr, Protocol};
use rustix::net::{self, AddressFamily, SocketType, sockopt};
use tokio::time::{Instant, sleep};

use crate::start::StartError;

/// QUIC sockets are closed by a task of their own, shortly after the node.
const FREE_DEADLINE: Duration = Duration::from_secs(3);
const FREE_POLL: Duration = Duration::from_millis(10);

/// Binds and lets go. Addresses without a fixed port are free.
pub(crate) fn check(address: &Multiaddr) -> io::Result<()> {
    let Some((address, kind)) = socket(address) else { return Ok(()) };
    let (family, v6) = match address {
        SocketAddr::V4(_) => (AddressFamily::INET, false),
        SocketAddr::V6(_) => (AddressFamily::INET6, true),
    };
    let socket = net::socket(family, kind, None)?;
    if kind == SocketType::STREAM {
        // What a former process left in TIME_WAIT is in nobody's way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if v6 {
        // The IPv4 side of the port is an address of its own here.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        net::listen(&socket, 1)?;
    }
    Ok(())
}

/// Whether an address fails because the machine has no such kind of address, rather than because of it.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(ADDRESS_FAMILY_NOT_SUPPORTED)
}

/// `EAFNOSUPPORT` on Linux, for which the standard library has no name.
const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;

/// Waits, with a deadline, until what this node listened on can be bound again.
pub(crate) async fn wait_until_free(addresses: &[Multiaddr]) {
    let deadline = Instant::now() + FREE_DEADLINE;
    for address in addresses {
        while check(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            if Instant::now() >= deadline {
                tracing::debug!(%address, "the port is still in use");
                return;
            }
            sleep(FREE_POLL).await;
        }
    }
}

fn socket(address: &Multiaddr) -> Option<(SocketAddr, SocketType)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let (port, kind) = match parts.next()? {
        Protocol::Tcp(port) => (port, SocketType::STREAM),
        Protocol::Udp(port) => (port, SocketType::DGRAM),
        _ => return None,
    };
    (port != 0).then_some((SocketAddr::new(ip, port), kind))
}

/// Whether every address can be listened on. For a program that wants to know before it changes anything.
pub fn check_all(addresses: &[Multiaddr]) -> Result<(), StartError> {
    for address in addresses {
        match check(address) {
            Err(error) if !is_unsupported(&error) => {
                return Err(StartError::Listen { address: address.clone(), source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_port_in_use_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: Multiaddr =
            format!("/ip4/127.0.0.1/tcp/{}", tcp.local_addr().unwrap().port()).parse().unwrap();
        assert_eq!(check(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(tcp);
        assert!(check(&address).is_ok());

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let address: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap();
        assert_eq!(check(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn any_port_is_free() {
        for address in ["/ip4/0.0.0.0/tcp/0", "/ip6/::/udp/0/quic-v1", "/dns4/example.com/tcp/4001"] {
            assert!(check(&address.parse().unwrap()).is_ok());
        }
    }
}
