//! `sampan verify` on the running registry: looks at everything, and brings what only peers have.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::bail;
use sampan_storage::Store;
use sampan_storage::verify::{Progress, Report, Stage, Verify};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::size_text;
use crate::control::Tell;
use crate::sync::Healer;

/// Rounds of fetching what trees lack: a directory that comes shows what is missing in it. Deeper trees are no
/// registry's.
const ROUNDS: usize = 32;

/// Clones share one turn.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    store: Store,
    healer: Healer,
    turn: Arc<Mutex<()>>,
}

impl Verifier {
    pub(crate) fn new(store: Store, healer: Healer) -> Self {
        Self { store, healer, turn: Arc::default() }
    }

    /// Looks at everything once; ends early when `stop` is cancelled or the future dropped.
    pub(crate) async fn verify(
        &self,
        options: Verify,
        tell: &Tell,
        stop: &CancellationToken,
    ) -> anyhow::Result<Report> {
        let Ok(_turn) = self.turn.try_lock() else {
            bail!("the disk is being verified already; wait until that is done")
        };
        let mut report = self.look(options, tell, stop).await?;
        if !options.repair {
            return Ok(report);
        }
        for _ in 0..ROUNDS {
            if report.wanted.is_empty() {
                break;
            }
            tell.tell(format!("fetching {} blocks of trees from peers", report.wanted.len()));
            if self.healer.blocks(report.wanted.clone()).await? == 0 {
                break;
            }
            let later = self.look(Verify { trees_only: true, ..options }, tell, stop).await?;
            report.look_again(later);
        }
        let lost = report.lost();
        if !lost.is_empty() {
            tell.tell(format!("fetching {} blobs from peers", lost.len()));
            for digest in self.healer.blobs(lost).await {
                report.repaired(&digest.to_string());
            }
        }
        Ok(report)
    }

    async fn look(&self, options: Verify, tell: &Tell, stop: &CancellationToken) -> anyhow::Result<Report> {
        let stop = stop.child_token();
        // Whoever drops this future ends the work on the blocking thread.
        let _ends = stop.clone().drop_guard();
        let (store, tell) = (self.store.clone(), tell.clone());
        let work = move || {
            store.verify(options, &mut |progress| {
                tell.tell(describe_progress(&progress));
                if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        };
        Ok(tokio::task::spawn_blocking(work).await??)
    }
}

/// In words, for a line.
pub(crate) fn describe_progress(progress: &Progress) -> String {
    const MIB: u64 = 1024 * 1024;
    let Progress { stage, percent, bytes, findings } = *progress;
    let stage = match stage {
        Stage::Packs => "packs",
        Stage::Journal => "journal",
        Stage::Blobs => "blobs",
        Stage::Trees => "trees",
    };
    let percent = percent.map(|percent| format!(" {percent} %")).unwrap_or_default();
    let findings = if findings > 0 { format!(", {findings} findings") } else { String::new() };
    format!("{stage}{percent}, {} read{findings}", size_text(bytes / MIB * MIB))
}
