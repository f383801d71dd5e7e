//! Rows of followed trees, written a little at a time between the requests that the committer answers: a tree may have a
//! million tags, and who pushes to this registry does not wait for that.
//!
//! They are written in the order of their entries. Until they are, the index says that it has what came before.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use cid::Cid;
use tokio::sync::oneshot;

use crate::block::BlockError;
use crate::error::StoreError;
use crate::index::TreeKey;
use crate::inner::{Inner, pass_over};
use crate::journal::Position;
use crate::tree::{Diff, Progress};

/// How long a request may have to wait for it. What most changes of a tree need is done within.
const SLICE: Duration = Duration::from_millis(20);
/// Names that are compared, or rows that are removed, between two looks at the clock: a millisecond or two.
const STEPS: usize = 256;

type Reply = oneshot::Sender<Result<Position, StoreError>>;

/// Oldest first.
#[derive(Default)]
pub(crate) struct Listings(VecDeque<Listing>);

struct Listing {
    /// Of the entry that wants it.
    position: Position,
    name: String,
    work: Work,
    /// To whoever waits until it is done.
    reply: Option<Reply>,
}

enum Work {
    Differences(Box<Diff>),
    Removal,
}

impl Listings {
    /// The tree of a name has moved to another root, all of whose directories are here.
    pub(crate) fn adopted(
        &mut self,
        position: Position,
        name: String,
        before: Option<Cid>,
        root: Cid,
        reply: Reply,
    ) {
        let work = Work::Differences(Box::new(Diff::new(before, root, 0)));
        self.0.push_back(Listing { position, name, work, reply: Some(reply) });
    }

    /// A name is followed no longer: nobody reads its rows.
    pub(crate) fn unfollowed(&mut self, position: Position, name: String) {
        for listing in self.0.iter_mut().filter(|listing| listing.name == name) {
            listing.work = Work::Removal;
        }
        self.0.push_back(Listing { position, name, work: Work::Removal, reply: None });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to where all is in the index, where entries up to `last` have been answered.
    pub(crate) fn applied(&self, last: Position) -> Position {
        self.0.front().map_or(last, |listing| listing.position.saturating_sub(1).min(last))
    }

    /// Goes on for a moment.
    pub(crate) fn go_on(&mut self, inner: &Inner) {
        let began = Instant::now();
        while let Some(mut listing) = self.0.pop_front() {
            let stepped = listing.step(inner);
            if matches!(stepped, Ok(false)) {
                self.0.push_front(listing);
            } else {
                if let Err(error) = pass_over(&listing.name, stepped.map(drop)) {
                    inner.index_failed(&error);
                }
                // A caller that has gone does not want to know.
                listing.reply.map(|reply| reply.send(Ok(listing.position)));
            }
            if began.elapsed() >= SLICE {
                break;
            }
        }
    }
}

impl Listing {
    /// Whether that was the last step.
    fn step(&mut self, inner: &Inner) -> Result<bool, StoreError> {
        let tree = TreeKey::followed(&self.name);
        let _rows = inner.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let Work::Differences(diff) = &mut self.work else { return inner.index.drop_some(tree, STEPS) };
        let mut outcome = Ok(());
        let progress = diff.advance_by(STEPS, inner, &mut |difference| {
            if outcome.is_ok() {
                outcome = match &difference.new {
                    Some(entry) => inner.list_put(tree, &difference.path, || inner.link_content(&entry.cid)),
                    None => inner.list_remove(tree, &difference.path),
                };
            }
        })?;
        outcome?;
        match progress {
            Progress::Done => Ok(true),
            Progress::More | Progress::Full => Ok(false),
            Progress::Missing(missing) => {
                missing.first().map_or(Ok(false), |cid| Err(BlockError::Missing(*cid).into()))
            }
        }
    }
}
