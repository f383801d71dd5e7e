//! The folder: a thread that turns the changes since the last root into a new root.
//!
//! Dirty directories only, bottom-up; new nodes go to a pack, which is synced before the journal names the root.
//! It never makes a push wait: it works on a copy of the changes, and the committer switches the tree over.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::commit::{Change, Request};
use crate::compact::Compactor;
use crate::error::StoreError;
use crate::fail;
use crate::inner::Inner;
use crate::journal::{CidBytes, Entry, Position};
use crate::recent::small_files;
use crate::tree;

/// Folds begin at least this far apart, so that a storm of pushes costs one set of directories each.
const INTERVAL: Duration = Duration::from_millis(50);
/// Layers without a manifest yet concern nobody; they wait this long for their manifest.
const LAZY: Duration = Duration::from_secs(2);
/// More changes than this are folded at once, so that memory and replay stay bounded.
const MAX_CHANGES: usize = 4096;
/// After a failed fold, a full disk for instance.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) enum Signal {
    Changed {
        soon: bool,
    },
    /// Fold now and say when it is done; the journal goes on in a new file if it is to be renewed.
    Now {
        reply: oneshot::Sender<Result<(), StoreError>>,
        renew: bool,
    },
}

/// Runs until the committer is gone.
pub(crate) fn run(inner: &Arc<Inner>, requests: &mpsc::WeakSender<Request>, signals: &Receiver<Signal>) {
    let mut compactor = Compactor::new(inner);
    let mut last = Instant::now();
    let mut due: Option<Instant> = None;
    let mut waiting = Vec::new();
    let mut renewing = false;
    loop {
        let signal = match due {
            Some(at) => signals.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => signals.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match signal {
            Ok(Signal::Changed { soon }) => {
                let soon = soon || inner.pending() > MAX_CHANGES;
                let at = if soon { last + INTERVAL } else { Instant::now() + LAZY };
                due = Some(due.map_or(at, |due| due.min(at)));
                continue;
            }
            Ok(Signal::Now { reply, renew }) => {
                renewing |= renew;
                waiting.push(reply);
                due = Some(Instant::now());
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        last = Instant::now();
        let folded = fold(inner, requests, renewing);
        waiting.drain(..).for_each(|reply: oneshot::Sender<_>| drop(reply.send(folded.clone())));
        due = match &folded {
            Ok(()) => {
                renewing = false;
                inner.ballast.restore();
                compactor.look(inner);
                None
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                if matches!(error, StoreError::NoSpace) {
                    inner.ballast.release();
                }
                tracing::warn!(%error, "the tree could not be folded; trying again");
                Some(last + RETRY)
            }
        };
    }
}

fn fold(inner: &Arc<Inner>, requests: &mpsc::WeakSender<Request>, renew: bool) -> Result<(), StoreError> {
    let (base, sequence, covers, changes, pending) = inner.fold_input();
    if changes.is_empty() && !renew {
        return Ok(());
    }
    let applied = tree::apply(inner.as_ref(), &base, &changes)?;
    fail::point("fold.apply.after");
    let mut nodes = pending;
    nodes.extend(applied.blocks);
    inner.packs.append(&nodes)?;
    fail::point("fold.pack.after");
    inner.packs.sync()?;
    fail::point("fold.sync.after");
    let changed = applied.root != base;
    let sequence = if changed { sequence + 1 } else { sequence };
    let entry = Entry::Fold { root: CidBytes(applied.root), sequence, covers };
    if changed {
        nodes.extend(small_files(inner, changes.keys()));
        // Before the root is known, so that whoever hears of it finds what it added.
        inner.recent.lock().unwrap_or_else(PoisonError::into_inner).push(base, nodes);
    }
    let (reply, answer) = oneshot::channel();
    let sender = requests.upgrade().ok_or(StoreError::Closed)?;
    let change = if renew { Change::Renew(entry) } else { Change::Other(entry) };
    sender.blocking_send(Request { change, reply }).map_err(|_| StoreError::Closed)?;
    drop(sender);
    let _: Position = answer.blocking_recv().map_err(|_| StoreError::Closed)??;
    fail::point("fold.entry.after");
    if changed {
        inner.announce(base, sequence);
    }
    Ok(())
}
