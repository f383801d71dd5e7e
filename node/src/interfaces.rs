//! The networks that this machine stands on with its own interfaces.
//!
//! It knows nothing of what is done with them: [`crate::scope`] takes their members for the LAN.

use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use if_addrs::{IfAddr, Interface};

/// Interfaces come and go, seldom. Asking the system costs some 50 microseconds.
const KEPT: Duration = Duration::from_secs(5);
/// A network that is wider is a tunnel to everywhere.
const WIDEST_IPV4: u8 = 8;
const WIDEST_IPV6: u8 = 32;

static NETWORKS: LazyLock<Mutex<Networks>> = LazyLock::new(Mutex::default);

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Default)]
struct Networks {
    networks: Vec<Network>,
    read: Option<Instant>,
}

/// Whether an interface of this machine reaches the address without a router.
pub(crate) fn reach(ip: IpAddr) -> bool {
    let mut known = NETWORKS.lock().unwrap_or_else(PoisonError::into_inner);
    if known.read.is_none_or(|read| read.elapsed() > KEPT) {
        match if_addrs::get_if_addrs() {
            Ok(interfaces) => known.networks = interfaces.iter().map(Network::of).collect(),
            // What was known is as good as it gets.
            Err(error) => tracing::debug!(%error, "the interfaces of this machine cannot be read"),
        }
        known.read = Some(Instant::now());
    }
    known.networks.iter().any(|network| network.contains(ip))
}

impl Network {
    fn of(interface: &Interface) -> Self {
        match &interface.addr {
            IfAddr::V4(v4) => Self { address: v4.ip.into(), prefix: v4.prefixlen },
            IfAddr::V6(v6) => Self { address: v6.ip.into(), prefix: v6.prefixlen },
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let different = u32::from(own) ^ u32::from(other);
                self.prefix >= WIDEST_IPV4 && different.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let different = u128::from(own) ^ u128::from(other);
                self.prefix >= WIDEST_IPV6 && different.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, prefix: u8, ip: &str) -> bool {
        Network { address: network.parse().unwrap(), prefix }.contains(ip.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_share_its_prefix() {
        assert!(contains("192.0.2.7", 24, "192.0.2.200"));
        assert!(!contains("192.0.2.7", 24, "192.0.3.1"));
        assert!(contains("198.51.100.7", 32, "198.51.100.7"));
        assert!(!contains("198.51.100.7", 32, "198.51.100.6"));
        assert!(contains("2001:db8:1::1", 64, "2001:db8:1::2"));
        assert!(!contains("2001:db8:1::1", 64, "2001:db8:2::2"));
        assert!(!contains("192.0.2.7", 24, "2001:db8:1::2"));
    }

    #[test]
    fn a_tunnel_to_everywhere_makes_no_lan_of_the_world() {
        assert!(!contains("1.2.3.4", 0, "1.1.1.1"));
        assert!(!contains("2001:db8::1", 3, "2606:4700::1111"));
    }

    #[test]
    fn this_machine_reaches_itself_and_not_the_world() {
        assert!(reach("127.0.0.1".parse().unwrap()));
        assert!(!reach("203.0.113.9".parse().unwrap()));
    }
}
