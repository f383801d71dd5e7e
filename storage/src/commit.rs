//! The committer: one thread through which every change of the data directory goes, in one order.
//!
//! Requests that wait together share one sync of the journal. A request is answered when its entry is durable and
//! visible to look-ups and lists; rows that say where leaves lie follow after the answer.

use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use serde_bytes::ByteBuf;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use crate::blobs::StoredBlob;
use crate::block::{Block, RAW};
use crate::compact::came_whole;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::fail;
use crate::files::is_full;
use crate::fold::Signal;
use crate::inner::Inner;
use crate::journal::{CidBytes, CommitEntry, Entry, Journal, Position, Target};
use crate::layout;
use crate::listings::Listings;
use crate::pins::Pin;
use crate::tree;
use crate::view::Tree;

/// Requests that wait for the committer. Each waits for a sync anyway; more would only hide that.
pub(crate) const QUEUE: usize = 256;

/// One request's changes to my tree.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    entry: CommitEntry,
    soon: bool,
    expects: Vec<(String, Cid)>,
    /// Stored blobs are kept by nothing else until the commit has put them into the tree.
    pins: Vec<Arc<Pin>>,
}

impl Commit {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a stored blob into the tree under its digest.
    pub fn put_blob(&mut self, blob: &StoredBlob) {
        let target = Target { cid: CidBytes(blob.root.cid), tsize: blob.root.tsize };
        self.entry.changes.push((layout::blob(&blob.digest), Some(target)));
        blob.root.nodes.iter().for_each(|node| self.push_block(node));
        self.pins.push(Arc::clone(&blob.pin));
    }

    /// Links a file that is in a tree already.
    pub fn put_entry(&mut self, path: String, entry: &tree::Entry) {
        let target = Target { cid: CidBytes(entry.cid), tsize: entry.tsize };
        self.entry.changes.push((path, Some(target)));
    }

    /// Puts a small file of one leaf.
    pub fn put_bytes(&mut self, path: String, bytes: Bytes) {
        let tsize = bytes.len() as u64;
        let block = Block::new(RAW, bytes);
        self.entry.changes.push((path, Some(Target { cid: CidBytes(*block.cid()), tsize })));
        self.push_block(&block);
    }

    pub fn put_link(&mut self, path: String, digest: &Digest) {
        self.soon |= matches!(layout::parse(&path), Some(layout::Item::Tag(..) | layout::Item::Revision(..)));
        self.put_bytes(path, layout::link(digest));
    }

    /// Removes a file, or a directory with all that is in it.
    pub fn remove(&mut self, path: String) {
        self.soon = true;
        self.entry.changes.push((path, None));
    }

    /// The commit happens only if this path of my tree still leads to this CID; otherwise it is
    /// [`StoreError::Changed`].
    pub fn expect(&mut self, path: String, cid: Cid) {
        self.expects.push((path, cid));
    }

    pub fn is_empty(&self) -> bool {
        self.entry.changes.is_empty()
    }

    pub(crate) fn into_change(self) -> Change {
        Change::Commit { entry: self.entry, soon: self.soon, expects: self.expects, _pins: self.pins }
    }

    fn push_block(&mut self, block: &Block) {
        let cid = CidBytes(*block.cid());
        self.entry.blocks.push((cid, ByteBuf::from(block.data().to_vec())));
    }
}

/// A followed name's new root, all of whose directories are here.
#[derive(Clone, Debug)]
pub struct Adoption {
    pub name: String,
    /// The root before, from which the differences were taken: where it is another one by now, the adoption is
    /// [`StoreError::Changed`].
    pub before: Option<Cid>,
    pub root: Cid,
    pub sequence: u64,
    pub record: Bytes,
}

#[derive(Debug)]
pub(crate) enum Change {
    /// `soon`: tags or manifests changed, so that followers should see it at once.
    Commit {
        entry: CommitEntry,
        soon: bool,
        /// What paths must lead to for the commit to happen.
        expects: Vec<(String, Cid)>,
        /// Until it is answered.
        _pins: Vec<Arc<Pin>>,
    },
    Adopt(Adoption),
    /// My tree, which is empty, is at this root from now on. All of it is here.
    Restore {
        root: Cid,
        sequence: u64,
    },
    Other(Entry),
    /// A fold after which the journal goes on in a new file, so that those before it can go.
    Renew(Entry),
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) change: Change,
    pub(crate) reply: oneshot::Sender<Result<Position, StoreError>>,
}

/// Runs until every sender is gone.
pub(crate) fn run(
    inner: &Arc<Inner>,
    mut journal: Journal,
    mut requests: mpsc::Receiver<Request>,
    folder: &std::sync::mpsc::SyncSender<Signal>,
) {
    let mut conditional = None;
    let mut listings = Listings::default();
    loop {
        let next = match conditional.take() {
            None if listings.is_empty() => requests.blocking_recv(),
            None => match requests.try_recv() {
                Err(TryRecvError::Empty) => {
                    go_on(inner, &journal, &mut listings);
                    continue;
                }
                next => next.ok(),
            },
            first => first,
        };
        // What is not listed then is listed at the next start.
        let Some(first) = next else { return };
        if let Err(error) = first.change.check(inner) {
            // A caller that has gone does not want to know.
            let _ = first.reply.send(Err(error));
            continue;
        }
        let mut batch = vec![first];
        while batch.len() < QUEUE
            && conditional.is_none()
            && let Ok(request) = requests.try_recv()
        {
            if request.change.is_conditional() {
                // Its conditions are looked at when all before it is visible.
                conditional = Some(request);
            } else {
                batch.push(request);
            }
        }
        let first_position = journal.next();
        let placed = batch.iter().zip(first_position..);
        let entries: Vec<Entry> = placed.map(|(request, position)| request.change.entry(position)).collect();
        let mut appended = journal.append(&entries);
        if appended.as_ref().is_err_and(is_full) && inner.ballast.release() {
            appended = journal.append(&entries);
        }
        if let Err(error) = appended {
            let error = StoreError::from(error);
            tracing::error!(%error, "the journal could not be written");
            for request in batch {
                // A caller that has gone does not want to know.
                let _ = request.reply.send(Err(error.clone()));
            }
            continue;
        }
        let mut soon = false;
        let mut commits = Vec::new();
        let (mut folded, mut renew) = (false, false);
        for ((request, entry), position) in batch.into_iter().zip(&entries).zip(first_position..) {
            let before = match &request.change {
                Change::Adopt(adoption) => inner.good_root(&adoption.name),
                _ => None,
            };
            if let Err(error) = inner.apply(position, entry) {
                inner.index_failed(&error);
            }
            match &request.change {
                Change::Commit { soon: now, .. } => soon |= now,
                Change::Adopt(_) => {
                    if before.is_none()
                        && let Err(error) = came_whole(inner)
                    {
                        inner.index_failed(&error);
                    }
                }
                Change::Restore { root, .. } => {
                    if let Err(error) = inner.list_mine(*root) {
                        inner.index_failed(&error);
                    }
                    folded = true;
                }
                Change::Other(Entry::Fold { .. }) => folded = true,
                Change::Renew(_) => (folded, renew) = (true, true),
                Change::Other(Entry::Unfollow { name }) => listings.unfollowed(position, name.clone()),
                Change::Other(_) => {}
            }
            fail::point("journal.apply.after");
            match request.change {
                Change::Adopt(Adoption { name, root, .. }) => {
                    listings.adopted(position, name, before, root, request.reply);
                }
                change => {
                    // A caller that has gone does not want to know.
                    let _ = request.reply.send(Ok(position));
                    if let Change::Commit { entry, .. } = change {
                        commits.push(entry);
                    }
                }
            }
        }
        if let Err(error) = commits.iter().try_for_each(|entry| inner.index_leaves(entry)) {
            inner.index_failed(&error);
        }
        go_on(inner, &journal, &mut listings);
        if !commits.is_empty() {
            // A full queue holds a signal that is as good as this one.
            let _ = folder.try_send(Signal::Changed { soon });
        }
        if (folded || journal.is_long())
            && let Err(error) = tidy(inner, &mut journal, renew, listings.is_empty())
        {
            tracing::warn!(%error, "old journal files stay until the next fold");
        }
    }
}

/// Writes rows of followed trees for a moment.
fn go_on(inner: &Inner, journal: &Journal, listings: &mut Listings) {
    listings.go_on(inner);
    if let Err(error) = inner.index.set_applied(listings.applied(journal.next() - 1)) {
        inner.index_failed(&error);
    }
}

/// Closes a long journal file and drops those that a fold, or the state of a later one, has covered, where all
/// that they want in the index is `listed`.
fn tidy(inner: &Inner, journal: &mut Journal, renew: bool, listed: bool) -> Result<(), StoreError> {
    let state = inner.state();
    if renew {
        journal.begin_file(&state)?;
    } else {
        journal.rotate(&state)?;
    }
    // Without changes that wait for a fold, the state at the head of the last file says it all.
    let covers = if inner.pending() == 0 { journal.next() - 1 } else { state.covers };
    if listed && journal.has_covered(covers) {
        // The index must not need what is dropped here.
        inner.index.set_applied(journal.next() - 1)?;
        inner.index.checkpoint()?;
        journal.drop_covered(covers)?;
    }
    Ok(())
}

impl Change {
    fn is_conditional(&self) -> bool {
        match self {
            Self::Commit { expects, .. } => !expects.is_empty(),
            Self::Adopt(_) | Self::Restore { .. } => true,
            Self::Other(_) | Self::Renew(_) => false,
        }
    }

    /// Whether every path still leads where the commit expects it, and a name to the root that it is to leave.
    fn check(&self, inner: &Arc<Inner>) -> Result<(), StoreError> {
        let expects = match self {
            Self::Commit { expects, .. } => expects,
            Self::Adopt(Adoption { name, before, .. }) => {
                let state = inner.state();
                let good = state.follow(name).and_then(|follow| follow.good.as_ref());
                let is_there = good.map(|good| good.root.0) == *before;
                return is_there.then_some(()).ok_or(StoreError::Changed);
            }
            Self::Restore { .. } => return if inner.is_empty() { Ok(()) } else { Err(StoreError::Changed) },
            Self::Other(_) | Self::Renew(_) => return Ok(()),
        };
        let tree = Tree::mine(Arc::clone(inner));
        for (path, cid) in expects {
            if tree.lookup(path)?.is_none_or(|entry| entry.cid != *cid) {
                return Err(StoreError::Changed);
            }
        }
        Ok(())
    }

    /// As it stands at this position of the journal.
    fn entry(&self, position: Position) -> Entry {
        match self {
            Self::Commit { entry, .. } => Entry::Commit(entry.clone()),
            Self::Adopt(adoption) => Entry::Adopt {
                name: adoption.name.clone(),
                root: CidBytes(adoption.root),
                sequence: adoption.sequence,
                record: ByteBuf::from(adoption.record.to_vec()),
            },
            Self::Restore { root, sequence } => Entry::Fold {
                root: CidBytes(*root),
                sequence: *sequence,
                covers: position.saturating_sub(1),
                public: None,
            },
            Self::Other(entry) | Self::Renew(entry) => entry.clone(),
        }
    }
}
