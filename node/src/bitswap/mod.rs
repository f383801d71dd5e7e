//! Bitswap: blocks asked for by CID, and answered (specs, `bitswap-protocol.md`, versions 1.2.0 to 1.0.0).
//!
//! One [`Behaviour`] is both client and server. It reads the store through the port
//! [`sampan_storage::Blocks`] and never writes to it: whoever opened a [`Session`] keeps what it delivers,
//! and says so with [`Client::notify`], so that peers who wait for the same blocks get them.
//!
//! Which room does what: `message` is the wire, `frame` a message on a stream, `handler` the streams of one
//! connection, `server` what peers want of us, `wants` what we want of peers, `session` for whom, `source` how
//! fast a peer gives, `verify` bytes becoming blocks, `behaviour` the wiring, `client` the handle for other tasks.

mod behaviour;
mod client;
mod counters;
mod frame;
mod handler;
mod message;
mod server;
mod session;
mod source;
mod turns;
mod verify;
mod wants;

#[cfg(test)]
mod tests;

#[cfg(any(fuzzing, test))]
pub(crate) use message::fuzz;

pub use behaviour::{Behaviour, Config};
pub use client::{Asker, Client, Closed, Session, SessionError, SessionOptions};
pub use counters::{PeerStats, Stats};
pub use handler::Handler;
pub use message::Version;
pub use server::Serving;
pub use turns::Turns;

/// What the swarm must allow (`with_max_negotiating_inbound_streams`): kubo opens a stream for each answer,
/// and what comes above the default of 128 waits, then is dropped by the muxer.
pub const MAX_NEGOTIATING_INBOUND_STREAMS: usize = 256;

/// What names the same bytes under every CID: wants, ledgers and answers are matched by it, so that a CIDv0
/// and a CIDv1 of the same hash are one want.
type Key = multihash::Multihash<64>;

fn key(cid: &cid::Cid) -> Key {
    *cid.hash()
}
