//! Sampan's IPFS node: a libp2p swarm with bitswap, IPNS, pubsub, two DHTs and discovery.
//!
//! [`start`] binds the listeners and hands out a [`Node`], through which everything is asked, and
//! [`Events`], through which it tells what came in. One task owns the swarm. The program's side is
//! reached through three ports: [`sampan_storage::Blocks`] for what peers may fetch, [`Records`] for what is
//! published and followed here, and [`Catalogue`] for what the DHTs are told of.
//!
//! This crate knows no HTTP and no registry. libp2p's types end here, but for [`PeerId`] and [`Multiaddr`].

pub mod bitswap;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
pub mod ipns;
pub mod key;
pub mod keystore;
pub mod name;

mod answers;
mod audience;
mod behaviour;
mod callback;
mod catalogue;
mod clock;
mod command;
mod config;
mod dht;
mod dialer;
mod event;
mod fetch;
mod follow;
mod frame;
mod gate;
mod gossip;
mod handle;
mod interfaces;
mod mdns;
mod names;
mod offences;
mod peers;
mod pem;
mod ports;
mod provide;
mod queries;
mod reach;
mod records;
mod routers;
mod scope;
mod start;
mod transport;
mod worker;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use audience::{Audience, Members};
pub use behaviour::BehaviourError;
pub use catalogue::{Catalogue, MemoryCatalogue};
pub use clock::Wall;
pub use config::{Config, DEFAULT_PORT, Network, SwarmKey, SwarmKeyError, default_bootstrap, default_listen};
pub use event::{Event, Events, Refusal, Stats};
pub use follow::MAX_NODES;
pub use gate::Acquaintance;
pub use gossip::GossipError;
pub use handle::{ConnectError, FollowError, Found, Node, Offered, PublishError, Published, Reached};
pub use key::{KeyError, KeyFile, Keypair, replace_file};
pub use keystore::{Keystore, Label};
pub use libp2p::PeerId;
pub use libp2p::multiaddr::Multiaddr;
pub use name::{Name, ParseNameError};
pub use names::Via;
pub use peers::{Direction, Peer};
pub use ports::check_all as check_ports;
pub use reach::{Reachability, Relaying};
pub use records::{MemoryRecords, Records};
pub use routers::Routers;
pub use start::{StartError, start, start_with_members};
pub use transport::TransportError;
