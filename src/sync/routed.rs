//! Followed names at delegated routers: they tell nothing unasked, so they are asked by the clock.

use std::time::Duration;

use sampan_node::{Node, Offered};
use tokio_util::sync::CancellationToken;

use super::Follower;

/// As long as a record may be answered from memory (its TTL).
const EVERY: Duration = Duration::from_mins(1);

/// Asks for each followed name until it is told to stop; at once when one is added.
pub(crate) async fn ask_routers(follower: Follower, node: Node, stop: CancellationToken) {
    loop {
        for name in follower.names_now() {
            let found = tokio::select! {
                () = stop.cancelled() => return,
                found = node.ask_routers(name) => found,
            };
            let Some(found) = found else { continue };
            if let Offered::Refused(reason) = node.offer(name, found.record.bytes().clone()).await {
                tracing::debug!(%name, %reason, "the record of a router is refused");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
            () = follower.added() => {}
        }
    }
}
