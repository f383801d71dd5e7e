//! Uploads that nobody goes on with are removed, by schedule.

use std::time::Duration;

use sampan_storage::Store;
use tokio_util::sync::CancellationToken;

use crate::config::UploadPurge;

/// The first look comes when the start is over.
const FIRST: Duration = Duration::from_mins(1);

/// Looks every so often until stopped.
pub(crate) async fn purge_uploads(store: Store, settings: UploadPurge, stop: CancellationToken) {
    let mut wait = FIRST.min(settings.interval);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = settings.interval.max(FIRST);
        let store = store.clone();
        match tokio::task::spawn_blocking(move || store.purge_uploads(settings.age)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(purged)) => tracing::info!(purged, "uploads that nobody went on with are gone"),
            Ok(Err(error)) => tracing::warn!(%error, "old uploads could not be removed"),
            Err(error) => tracing::warn!(%error, "the removal of old uploads ended early"),
        }
    }
}
