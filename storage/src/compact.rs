//! Compaction: packs that are mostly dead are rewritten, so that directories of past roots do not pile up.
//!
//! The folder does it between two folds, so that no fold is half-way. What is live is found by walking the trees that may still be read: my
//! current root and those of the last hour, because a follower may be half-way through one, and the last good root
//! of each followed name; the roots at which bundles can begin (`bases`); what is pinned is live to its last leaf. Live blocks of the old packs are copied to the pack that is written to, made durable, and
//! only then are the old packs removed; after a crash in between, blocks lie twice.
//!
//! While old packs are going, a block in one of them does not count as stored (it is written again), and no followed root is being adopted: an adoption trusts the blocks that it finds.

use std::collections::{HashSet, VecDeque};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;

use crate::block::{Block, BlockError, Blocks, DAG_PB, RAW};
use crate::dag::Malformed;
use crate::dag::file::root_size;
use crate::dag::pb;
use crate::dag::walk::links;
use crate::error::StoreError;
use crate::inner::Inner;
use crate::pack::Packs;

/// Below this, packs are not worth a walk.
const LEAST: u64 = 16 * 1024 * 1024;
/// Packs are rewritten when they are this many times what was live the last time.
const FACTOR: u64 = 2;
/// How long a root that is no longer current stays whole.
const KEEP: Duration = Duration::from_hours(1);
/// Of those at most so many, evenly thinned: a storm of pushes makes twenty a second.
const KEEP_ROOTS: usize = 32;
/// Files up to this size may have come with the tree around them, as blocks. A leaf has at most as much.
const SMALL_FILE: u64 = 1024 * 1024;
/// Blocks copied between two writes.
const BATCH_BYTES: usize = 256 * 1024;

/// Roots that were current within the last hour.
#[derive(Debug, Default)]
pub(crate) struct PastRoots(VecDeque<(Instant, Cid)>);

impl PastRoots {
    pub(crate) fn push(&mut self, root: Cid) {
        self.0.push_back((Instant::now(), root));
        while self.0.front().is_some_and(|(at, _)| at.elapsed() > KEEP) {
            self.0.pop_front();
        }
        if self.0.len() > KEEP_ROOTS {
            let mut keep = false;
            // Every second of the older half: young ones are the likeliest to be read.
            let half = self.0.len() / 2;
            let thinned = self.0.drain(..half).filter(|_| {
                keep = !keep;
                keep
            });
            let mut thinned: VecDeque<_> = thinned.collect();
            thinned.append(&mut self.0);
            self.0 = thinned;
        }
    }

    pub(crate) fn aged(&self) -> Vec<(Cid, Duration)> {
        self.0.iter().map(|(at, root)| (*root, at.elapsed())).collect()
    }

    pub(crate) fn roots(&self) -> Vec<Cid> {
        self.0.iter().map(|(_, root)| *root).collect()
    }
}

/// What it means that a directory is not here, or is none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lacking {
    /// Nothing is rewritten before it is here again.
    Wrong,
    /// A followed tree may name what it was never asked for: below a name that no tree may hold, or too deep.
    Usual,
}

/// Compacts when the packs have grown enough since the last time, which may have been before a restart: a walk of a
/// big store is not to be paid for by the first push after each start.
#[derive(Debug)]
pub(crate) struct Compactor {
    live: u64,
}

impl Compactor {
    pub(crate) fn new(inner: &Inner) -> Self {
        // An index that does not say costs a walk.
        Self { live: inner.index.live().unwrap_or(0) }
    }

    /// Called between two folds, by the thread that makes them.
    pub(crate) fn look(&mut self, inner: &Inner) {
        if let Some(public) = &inner.public
            && let Err(error) = public.compact(inner)
        {
            tracing::warn!(%error, "the public packs could not be compacted");
        }
        // A tree that has just come is live, and says so.
        self.live = self.live.max(inner.index.live().unwrap_or(0));
        if inner.packs.total() < due(self.live) {
            return;
        }
        match compact(inner) {
            Ok(Some(live)) => {
                self.live = live;
                if let Err(error) = inner.index.set_live(live) {
                    inner.index_failed(&error);
                }
            }
            Ok(None) => {}
            // Nothing was removed that is needed; the next fold tries again.
            Err(error) => tracing::warn!(%error, "packs could not be compacted"),
        }
    }
}

/// A tree has come from nothing: all that it has brought is live, and a walk over it would find nothing that is not.
pub(crate) fn came_whole(inner: &Inner) -> Result<(), StoreError> {
    inner.index.set_live(inner.packs.total())
}

/// Length of packs that are worth a walk, by what was live the last time.
pub(crate) fn due(live: u64) -> u64 {
    LEAST.max(live * FACTOR)
}

/// The same for the packs of the public tree, in which nobody else puts anything.
pub(crate) fn compact_public(
    inner: &Inner,
    packs: &Packs,
    current: Cid,
    past: &[Cid],
) -> Result<(), StoreError> {
    let old = packs.begin_rewrite()?;
    let mut live = HashSet::new();
    let marked = mark_below(inner, &current, &mut live, Lacking::Wrong)
        .and_then(|()| mark_past(inner, past, &mut live));
    let rewritten = marked.map_err(StoreError::from).and_then(|()| rewrite(packs, &old, &live));
    packs.end_rewrite();
    rewritten
}

/// Returns the bytes that are live, or `None` when a root is being adopted just now.
pub(crate) fn compact(inner: &Inner) -> Result<Option<u64>, StoreError> {
    let Ok(_no_adoption) = inner.adoptions.try_write() else { return Ok(None) };
    let before = inner.packs.total();
    let old = inner.packs.begin_rewrite()?;
    let rewritten = mark(inner).map_err(StoreError::from).and_then(|live| rewrite(&inner.packs, &old, &live));
    inner.packs.end_rewrite();
    rewritten?;
    let after = inner.packs.total();
    tracing::debug!(before, after, "packs compacted");
    Ok(Some(after))
}

/// What may be read, by the first bytes of its hash: two that share them are both kept.
fn mark(inner: &Inner) -> Result<HashSet<u64>, BlockError> {
    let (current, state, pending) = {
        let view = inner.view.read().unwrap_or_else(PoisonError::into_inner);
        (view.base, view.state.clone(), view.overlay.targets())
    };
    let mut live = HashSet::new();
    // First, so that what of them is missing is seen.
    for root in std::iter::once(current).chain(pending) {
        mark_below(inner, &root, &mut live, Lacking::Wrong)?;
    }
    for good in state.follows.iter().filter_map(|follow| follow.good.as_ref()) {
        mark_below(inner, &good.root.0, &mut live, Lacking::Usual)?;
    }
    let mut past = inner.past_roots.lock().unwrap_or_else(PoisonError::into_inner).roots();
    past.extend(inner.bases.list());
    mark_past(inner, &past, &mut live)?;
    mark_kept(inner, &mut live)?;
    Ok(live)
}

fn mark_past(inner: &Inner, roots: &[Cid], live: &mut HashSet<u64>) -> Result<(), BlockError> {
    for root in roots {
        // One that an earlier compaction has thinned away is whole no more.
        match mark_below(inner, root, live, Lacking::Wrong) {
            Ok(()) | Err(BlockError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is pinned, to its last leaf: those of files lie in packs too, unless a blob has them.
fn mark_kept(inner: &Inner, live: &mut HashSet<u64>) -> Result<(), BlockError> {
    for (_, root) in inner.kept.held() {
        match mark_below(inner, &root, live, Lacking::Wrong) {
            // Its leaves are in the blob, and rows lead to them.
            Ok(()) | Err(BlockError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
    }
    // Of its own: what is live for a tree is so without its leaves.
    let mut seen = HashSet::new();
    let mut pending = inner.kept.list();
    while let Some(cid) = pending.pop() {
        if !seen.insert(short(&cid)) {
            continue;
        }
        live.insert(short(&cid));
        if cid.codec() == RAW {
            continue;
        }
        let Some(data) = inner.get(&cid)? else {
            tracing::warn!(%cid, "a pinned block is not here");
            continue;
        };
        pending.extend(links(&cid, &data).map_err(|malformed| malformed.at(&cid))?);
    }
    Ok(())
}

/// Everything below a node: directories and small files whole; of other files the nodes, and leaves that are dag-pb,
/// which may be kept as they came. What is live already is live with all below it.
fn mark_below(
    inner: &Inner,
    root: &Cid,
    live: &mut HashSet<u64>,
    lacking: Lacking,
) -> Result<(), BlockError> {
    let mut pending = vec![(*root, true)];
    while let Some((cid, needed)) = pending.pop() {
        if !live.insert(short(&cid)) || cid.codec() != DAG_PB {
            continue;
        }
        let Some(data) = inner.get(&cid)? else {
            // Nodes inside a file come with its bytes, which a follower may not have.
            if needed && lacking == Lacking::Wrong {
                return Err(BlockError::Missing(cid));
            }
            continue;
        };
        match mark_links(&cid, &data, live, &mut pending) {
            Err(malformed) if lacking == Lacking::Wrong => return Err(malformed.at(&cid)),
            _ => {}
        }
    }
    Ok(())
}

fn mark_links(
    cid: &Cid,
    data: &Bytes,
    live: &mut HashSet<u64>,
    pending: &mut Vec<(Cid, bool)>,
) -> Result<(), Malformed> {
    let mut small = None;
    for link in pb::View::parse(data)?.links() {
        let link = link?;
        let below = link.cid()?;
        // Only a directory's links have names.
        let named = !link.name().is_empty();
        if below.codec() == DAG_PB {
            pending.push((below, named));
        } else if named || *small.get_or_insert_with(|| is_small(cid, data)) {
            live.insert(short(&below));
        }
    }
    Ok(())
}

fn rewrite(packs: &Packs, old: &[u32], live: &HashSet<u64>) -> Result<(), StoreError> {
    for pack in old {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut copied = Ok(());
        let whole = packs.scan(*pack, &mut |cid, data| {
            if live.contains(&short(&cid)) && copied.is_ok() {
                bytes += data.len();
                batch.push(Block::trusted(cid, data));
                if bytes > BATCH_BYTES {
                    copied = packs.append(&batch);
                    batch.clear();
                    bytes = 0;
                }
            }
        })?;
        copied?;
        packs.append(&batch)?;
        if !whole {
            // Behind the damage may lie what is needed.
            tracing::warn!(pack, "a damaged pack is left as it is");
            continue;
        }
        packs.sync()?;
        // Readers find the copy from here on.
        packs.remove(*pack)?;
    }
    Ok(())
}

/// Whether raw leaves of this file may lie in packs: it came with its tree.
fn is_small(cid: &Cid, node: &Bytes) -> bool {
    root_size(cid, node).is_ok_and(|size| size <= SMALL_FILE)
}

fn short(cid: &Cid) -> u64 {
    let digest = cid.hash().digest();
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
