//! The scrub, by schedule: blobs that a stop without a word may have damaged first, then all of them, slowly.

use std::ops::ControlFlow;
use std::time::Duration;

use sampan_storage::verify::Scrub;
use sampan_storage::{Digest, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::config::Scrub as Settings;
use crate::sync::Healer;

/// What was written before a stop without a word is looked at so many times as fast as the rest.
const HURRY: u64 = 8;
/// Let the start be over.
const FIRST: Duration = Duration::from_secs(10);
/// After a step that failed, as when a directory cannot be read.
const RETRY: Duration = Duration::from_mins(5);

/// Goes on until stopped. What fails goes into quarantine and is fetched again where a peer has it.
pub(crate) async fn scrub(store: Store, healer: Healer, settings: Settings, stop: CancellationToken) {
    let mut scrub = Scrub::open(&store);
    drop(store);
    let mut suspects = true;
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
        let cancelled = stop.clone();
        let work = move || {
            let mut go_on =
                || if cancelled.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            let lost = if suspects {
                scrub.suspects(Some(settings.rate.saturating_mul(HURRY)), &mut go_on)
            } else {
                scrub.step(Some(settings.rate), &mut go_on)
            };
            (scrub, lost)
        };
        let lost: Result<Vec<Digest>, StoreError>;
        (scrub, lost) = match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(%error, "the scrub ended early");
                return;
            }
        };
        wait = match lost {
            Ok(lost) => {
                suspects = false;
                if !lost.is_empty() {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        _ = healer.blobs(lost) => {}
                    }
                }
                scrub.wait(settings.interval)
            }
            Err(StoreError::Cancelled) => break,
            Err(error) => {
                tracing::warn!(%error, "blobs could not be checked");
                RETRY
            }
        };
    }
    let saved = tokio::task::spawn_blocking(move || scrub.save()).await;
    if let Ok(Err(error)) = saved {
        tracing::warn!(%error, "where the scrub was is not written down");
    }
}
