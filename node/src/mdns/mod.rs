//! Answers those on the LAN who ask for peers by multicast DNS and do not understand libp2p's answers.
//!
//! rust-libp2p asks and answers too, without an SRV record and an address of a host; go-libp2p, and kubo with it,
//! passes over such answers. What is found is libp2p's business; here is only said where this node is, on IPv4.

mod message;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketType, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use message::Answer;
pub(crate) use message::asks_for_peers;

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// What one answer says everybody hears, so that more often is of no use (RFC 6762, section 6).
const GAP: Duration = Duration::from_secs(1);
/// Networks that are answered on.
const MAX_INTERFACES: usize = 16;
/// The largest packet that the standard allows.
const MAX_PACKET: usize = 9000;
/// In a row; a network that is down gives some.
const MAX_FAILURES: usize = 64;

/// Answers as long as it lives.
#[derive(Debug)]
pub(crate) struct Responder {
    addresses: watch::Sender<Vec<Multiaddr>>,
    task: JoinHandle<()>,
}

/// Where this node is on one network.
#[derive(Debug, Default)]
struct Interface {
    port: u16,
    addresses: Vec<String>,
    answered: Option<Instant>,
}

struct Task {
    socket: UdpSocket,
    peer: PeerId,
    name: String,
    interfaces: HashMap<Ipv4Addr, Interface>,
}

impl Responder {
    pub(crate) fn start(peer: PeerId) -> io::Result<Self> {
        let socket = UdpSocket::from_std(bind()?)?;
        // Another one at each start: who knows the old name waits for its end.
        let name = PeerId::random().to_base58();
        let task = Task { socket, peer, name, interfaces: HashMap::new() };
        let (addresses, receiver) = watch::channel(Vec::new());
        Ok(Self { addresses, task: tokio::spawn(task.run(receiver)) })
    }

    /// Where this node listens now.
    pub(crate) fn set_addresses(&self, addresses: Vec<Multiaddr>) {
        self.addresses.send_if_modified(|before| {
            let changed = *before != addresses;
            *before = addresses;
            changed
        });
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Task {
    async fn run(mut self, mut addresses: watch::Receiver<Vec<Multiaddr>>) {
        let mut buffer = vec![0; MAX_PACKET];
        let mut failures = 0;
        loop {
            tokio::select! {
                changed = addresses.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = addresses.borrow_and_update().clone();
                    self.move_to(&now);
                    self.answer().await;
                }
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, _)) => {
                        failures = 0;
                        if buffer.get(..length).is_some_and(asks_for_peers) {
                            self.answer().await;
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        if failures >= MAX_FAILURES {
                            tracing::warn!(%error, "questions of kubo by multicast DNS are no longer answered");
                            return;
                        }
                    }
                },
            }
        }
    }

    /// Joins the group on each network, and leaves it on those that are gone.
    fn move_to(&mut self, addresses: &[Multiaddr]) {
        let now = by_interface(addresses, self.peer);
        for ip in self.interfaces.keys().filter(|ip| !now.contains_key(*ip)) {
            // An interface that is gone has left by itself.
            let _ = sockopt::set_ip_drop_membership(&self.socket, &GROUP, ip);
        }
        let mut joined = HashMap::new();
        for (ip, interface) in now {
            match sockopt::set_ip_add_membership(&self.socket, &GROUP, &ip) {
                // One that was joined before, or by another of its addresses.
                Ok(()) | Err(Errno::ADDRINUSE) => _ = joined.insert(ip, interface),
                Err(error) => tracing::debug!(%ip, %error, "no multicast on this interface"),
            }
        }
        self.interfaces = joined;
    }

    /// On each network, where this node is there.
    async fn answer(&mut self) {
        let now = Instant::now();
        let group = SocketAddr::V4(SocketAddrV4::new(GROUP, PORT));
        for (ip, interface) in &mut self.interfaces {
            if interface.answered.is_some_and(|answered| now < answered + GAP) {
                continue;
            }
            interface.answered = Some(now);
            let Interface { port, addresses, .. } = interface;
            let answer = Answer { name: &self.name, ip: *ip, port: *port, addresses };
            let chosen = sockopt::set_ip_multicast_if(&self.socket, ip).map_err(io::Error::from);
            let sent = match chosen {
                Ok(()) => self.socket.send_to(&answer.encode(), group).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::debug!(%ip, %error, "a question by multicast DNS was not answered");
            }
        }
    }
}

/// Beside others that listen on the port, as everyone who speaks multicast DNS does.
fn bind() -> io::Result<StdSocket> {
    let flags = net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT))?;
    sockopt::set_ip_multicast_loop(&socket, true)?;
    sockopt::set_ip_multicast_ttl(&socket, 255)?;
    Ok(socket.into())
}

/// The networks with an address that can be called, TCP before QUIC.
fn by_interface(addresses: &[Multiaddr], peer: PeerId) -> HashMap<Ipv4Addr, Interface> {
    let mut interfaces: HashMap<Ipv4Addr, Interface> = HashMap::new();
    for address in addresses {
        let mut parts = address.iter();
        let (Some(Protocol::Ip4(ip)), Some(transport)) = (parts.next(), parts.next()) else { continue };
        let (Protocol::Tcp(port) | Protocol::Udp(port)) = transport else { continue };
        let relayed = parts.any(|protocol| matches!(protocol, Protocol::P2pCircuit));
        let room = interfaces.len() < MAX_INTERFACES || interfaces.contains_key(&ip);
        if ip.is_loopback() || relayed || !room {
            continue;
        }
        let interface = interfaces.entry(ip).or_default();
        let Ok(full) = address.clone().with_p2p(peer) else { continue };
        if matches!(transport, Protocol::Tcp(_)) {
            interface.port = port;
            interface.addresses.insert(0, full.to_string());
        } else {
            interface.addresses.push(full.to_string());
        }
    }
    interfaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_is_told_what_holds_there() {
        let peer = PeerId::random();
        let addresses = [
            "/ip4/127.0.0.1/tcp/4001",
            "/ip4/10.0.0.2/udp/4001/quic-v1",
            "/ip4/10.0.0.2/tcp/4001",
            "/ip4/192.168.1.2/tcp/4001",
            "/ip6/fd00::1/tcp/4001",
            "/ip4/10.9.9.9/tcp/1/p2p/12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS/p2p-circuit",
        ];
        let interfaces = by_interface(&addresses.map(|address| address.parse().unwrap()), peer);
        let mut ips: Vec<String> = interfaces.keys().map(ToString::to_string).collect();
        ips.sort();
        assert_eq!(ips, ["10.0.0.2", "192.168.1.2"]);
        let interface = &interfaces[&Ipv4Addr::new(10, 0, 0, 2)];
        assert_eq!(interface.port, 4001);
        let expected = ["tcp/4001", "udp/4001/quic-v1"].map(|end| format!("/ip4/10.0.0.2/{end}/p2p/{peer}"));
        assert_eq!(interface.addresses, expected);
    }
}
