//! When garbage is collected: by schedule, and when a command asks. One collection at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::registry::{Collected, Garbage, Registry, Retention};

/// What an answer lists by name; more is counted.
const MAX_LISTED: usize = 10_000;
/// The first scheduled collection comes so long after the grace period of the start is over.
const FIRST: Duration = Duration::from_mins(5);

/// Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    registry: Registry,
    retention: Arc<Retention>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    running: AtomicBool,
    totals: Mutex<Totals>,
}

/// Of all collections since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) runs: u64,
    pub(crate) failed: u64,
    pub(crate) collected: Collected,
}

/// What `sampan gc` is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GcAnswer {
    pub(crate) dry_run: bool,
    #[serde(flatten)]
    pub(crate) collected: Collected,
    /// What has gone, or would go; the first of it where it is much.
    pub(crate) items: Vec<Garbage>,
}

/// Only one collection at a time; this is it.
struct Turn(Arc<Shared>);

impl Collector {
    pub(crate) fn new(registry: Registry, retention: Retention) -> Self {
        Self { registry, retention: Arc::new(retention), shared: Arc::default() }
    }

    pub(crate) fn totals(&self) -> Totals {
        *self.shared.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects once. `progress` sees the totals so far; the collection ends early when `stop` is cancelled.
    pub(crate) async fn collect(
        &self,
        dry_run: bool,
        grace: Option<Duration>,
        stop: CancellationToken,
        progress: impl Fn(&Collected) + Send + 'static,
    ) -> anyhow::Result<GcAnswer> {
        let Some(turn) = Turn::take(&self.shared) else {
            bail!("garbage is being collected already; wait until that is done")
        };
        let registry = self.registry.clone();
        let mut retention = Retention::clone(&self.retention);
        retention.grace = grace.unwrap_or(retention.grace);
        let work = move || {
            let mut items = Vec::new();
            let collected = registry.collect(&retention, dry_run, &mut |garbage, so_far| {
                items.extend(garbage.filter(|_| items.len() < MAX_LISTED));
                progress(so_far);
                !stop.is_cancelled()
            });
            drop(turn);
            collected.map(|collected| GcAnswer { dry_run, collected, items })
        };
        let answer = tokio::task::spawn_blocking(work).await?;
        let mut totals = self.shared.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.runs += 1;
        match &answer {
            Ok(answer) if !dry_run => totals.collected.add(&answer.collected),
            Ok(_) => {}
            Err(_) => totals.failed += 1,
        }
        Ok(answer?)
    }

    /// Collects every `interval` until stopped.
    pub(crate) async fn run(self, interval: Duration, stop: CancellationToken) {
        let mut wait = interval.min(self.retention.grace + FIRST);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = interval;
            match self.collect(false, None, stop.clone(), |_| {}).await {
                Ok(GcAnswer { collected, .. }) => tracing::info!(
                    tags = collected.tags,
                    manifests = collected.manifests,
                    blobs = collected.blobs,
                    bytes = collected.bytes,
                    "garbage collected"
                ),
                Err(error) => tracing::warn!(%error, "garbage could not be collected"),
            }
        }
    }
}

impl Turn {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        (!shared.running.swap(true, Ordering::SeqCst)).then(|| Self(Arc::clone(shared)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::SeqCst);
    }
}
