//! Says when the machine's clock stops and begins to be believed.

use std::time::Duration;

use sampan_node::Wall;
use tokio_util::sync::CancellationToken;

/// A clock is set by hand, or once after the start.
const EVERY: Duration = Duration::from_mins(1);

/// Looks at the clock until it is told to stop.
pub(crate) async fn watch_clock(wall: Wall, stop: CancellationToken) {
    let mut suspect = false;
    loop {
        if wall.is_suspect() != suspect {
            suspect = !suspect;
            if suspect {
                tracing::warn!(
                    "the clock tells a time that has passed; no name expires here until it is set"
                );
            } else {
                tracing::info!("the clock is believed again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
