//! The folder: a thread that turns the changes since the last root into a new root.
//!
//! Dirty directories only, bottom-up; new nodes go to a pack, which is synced before the journal names the root.
//! It never makes a push wait: it works on a copy of the changes, and the committer switches the tree over.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use cid::Cid;
use tokio::sync::{mpsc, oneshot};

use crate::commit::{Change, Request};
use crate::compact::Compactor;
use crate::error::StoreError;
use crate::fail;
use crate::inner::Inner;
use crate::journal::{CidBytes, Entry, Position, PublicRoot};
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
    /// Fold now and say when it is done; the journal goes on in a new file if it is to be renewed, and the sequence goes
    /// on above this one.
    Now {
        reply: oneshot::Sender<Result<(), StoreError>>,
        renew: bool,
        above: Option<u64>,
    },
    /// An empty tree becomes this one, which lies here.
    Restore {
        reply: oneshot::Sender<Result<(), StoreError>>,
        root: Cid,
        sequence: u64,
    },
}

/// Runs until the committer is gone.
pub(crate) fn run(inner: &Arc<Inner>, requests: &mpsc::WeakSender<Request>, signals: &Receiver<Signal>) {
    let mut compactor = Compactor::new(inner);
    let mut last = Instant::now();
    let mut due: Option<Instant> = None;
    let mut waiting = Vec::new();
    let (mut renewing, mut raising) = (false, None);
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
            Ok(Signal::Now { reply, renew, above }) => {
                renewing |= renew;
                raising = raising.max(above);
                waiting.push(reply);
                due = Some(Instant::now());
                continue;
            }
            Ok(Signal::Restore { reply, root, sequence }) => {
                // Whoever has gone sees it in the state.
                let _ = reply.send(send(requests, Change::Restore { root, sequence }));
                due = Some(Instant::now());
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        last = Instant::now();
        let folded =
            raise(inner, requests, raising).and_then(|raised| fold(inner, requests, renewing, raised));
        waiting.drain(..).for_each(|reply: oneshot::Sender<_>| drop(reply.send(folded.clone())));
        due = match &folded {
            Ok(()) => {
                (renewing, raising) = (false, None);
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

/// Has the sequence go on above one that was seen elsewhere under the same name. Whether there was something to do.
fn raise(
    inner: &Inner,
    requests: &mpsc::WeakSender<Request>,
    above: Option<u64>,
) -> Result<bool, StoreError> {
    let state = inner.state();
    let Some(above) = above.filter(|above| *above > state.sequence) else { return Ok(above.is_some()) };
    let root = state.root.unwrap_or_else(|| CidBytes(inner.fold_input().0));
    // The public tree is made again, under a number above this one.
    let entry = Entry::Fold { root, sequence: above, covers: state.covers, public: None };
    send(requests, Change::Other(entry))?;
    Ok(true)
}

/// `tell`: there is a new sequence to tell of, also where nothing has changed.
fn fold(
    inner: &Arc<Inner>,
    requests: &mpsc::WeakSender<Request>,
    renew: bool,
    tell: bool,
) -> Result<(), StoreError> {
    let (base, covers, changes, pending) = inner.fold_input();
    let divide = inner.is_public_due();
    if changes.is_empty() && !renew && !divide && !tell {
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
    let before = inner.state().public;
    let public = public(inner, requests, divide, &applied.root, &changes)?;
    fail::point("fold.public.after");
    let told = changed || tell || public != before;
    let sequence = inner.state().sequence + u64::from(told);
    let entry = Entry::Fold { root: CidBytes(applied.root), sequence, covers, public };
    if changed {
        nodes.extend(small_files(inner, changes.keys()));
        // Before the root is known, so that whoever hears of it finds what it added.
        inner.recent.lock().unwrap_or_else(PoisonError::into_inner).push(base, nodes);
    }
    send(requests, if renew { Change::Renew(entry) } else { Change::Other(entry) })?;
    fail::point("fold.entry.after");
    if told {
        inner.announce(base, sequence);
    }
    Ok(())
}

/// The root of what everyone may have, of my tree at this root.
fn public(
    inner: &Inner,
    requests: &mpsc::WeakSender<Request>,
    divide: bool,
    root: &Cid,
    changes: &BTreeMap<String, tree::Change>,
) -> Result<Option<PublicRoot>, StoreError> {
    let before = inner.state().public.filter(|_| !divide);
    if let Some((tree, before)) = inner.public.as_ref().zip(before) {
        match tree.advance(inner, &before, root, changes) {
            // It is derived, so a block of it that is lost or damaged is no reason to stop.
            Err(StoreError::Block(error)) => tracing::warn!(%error, "the public tree is made again"),
            advanced => return advanced.map(Some),
        }
    }
    withdraw(inner, requests)?;
    fail::point("fold.withdraw.after");
    // Above all that was told of either tree before.
    let sequence = inner.state().sequence + 1;
    inner.public.as_ref().map(|tree| tree.renew(inner, root, sequence)).transpose()
}

/// The public tree is about to be made by other rules: whatever happens meanwhile, it is not there.
fn withdraw(inner: &Inner, requests: &mpsc::WeakSender<Request>) -> Result<(), StoreError> {
    let state = inner.state();
    let (Some(root), Some(_)) = (state.root, state.public) else { return Ok(()) };
    // By an entry that says the rest once more, under a number that neither tree has had.
    let entry = Entry::Fold { root, sequence: state.sequence + 1, covers: state.covers, public: None };
    send(requests, Change::Other(entry))
}

fn send(requests: &mpsc::WeakSender<Request>, change: Change) -> Result<(), StoreError> {
    let (reply, answer) = oneshot::channel();
    let sender = requests.upgrade().ok_or(StoreError::Closed)?;
    sender.blocking_send(Request { change, reply }).map_err(|_| StoreError::Closed)?;
    drop(sender);
    let _: Position = answer.blocking_recv().map_err(|_| StoreError::Closed)??;
    Ok(())
}
