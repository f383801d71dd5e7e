//! The port to delegated routers: others over HTTP that know records and providers. This crate speaks no HTTP.

use std::fmt;

use bytes::Bytes;
use cid::Cid;
use futures::future::BoxFuture;
use libp2p::multiaddr::Multiaddr;

use crate::name::Name;

/// What delegated routers are asked. Every wait is bounded by whoever implements it.
pub trait Routers: Send + Sync + fmt::Debug {
    /// The best record of a name that any of them has.
    fn record(&self, name: Name) -> BoxFuture<'_, Option<Bytes>>;

    /// Has a record brought to all of them, in its own time; of those that wait the last of each name counts.
    fn put(&self, name: Name, record: Bytes);

    /// Where those are that have a block; each address ends with the peer id.
    fn providers(&self, cid: Cid) -> BoxFuture<'_, Vec<Multiaddr>>;
}
