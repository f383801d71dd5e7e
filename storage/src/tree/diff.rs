//! What differs between two roots, found out step by step while the blocks for it arrive.
//!
//! It descends only where CIDs differ, into directories and their shards, and into files only to see that small ones
//! are whole. Whatever a hostile tree does, the work is bounded by [`MAX_VISITS`] and the memory by [`MAX_HELD`]; how many
//! files an honest one has is bounded by neither.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;

use super::{MAX_DEPTH, is_name, join};
use crate::block::{BlockError, Blocks, DAG_PB, RAW};
use crate::dag::Malformed;
use crate::dag::directory::{Entry, Form, entries, form};
use crate::dag::file::{LeafForm, Leaves, Step, root_size};
use crate::dag::shard::{Fanout, Position, Shard, Slot};

/// CIDs that are asked for at once: what a bitswap session has out to one peer.
pub const MAX_MISSING: usize = 1024;
/// Directories, shards and names that are waiting at once, and the bytes that they take. A registry's directories are
/// some 14 below each other and, below the size at which they become a HAMT, at most 5,000 wide, which are 1 MiB; those
/// of a block of 2 MiB are 40,000 entries and 8 MiB.
const MAX_FRONTIER: usize = 65_536;
const MAX_HELD: usize = 24 * 1024 * 1024;
/// Comparisons between two looks of a caller that goes step by step: a twentieth of a second, or less.
const STEPS: usize = 1 << 16;
/// Entries that are looked at in all. 100,000 tags in 10,000 repositories are some two million; few blocks that name each
/// other again and again have more than anybody can count.
const MAX_VISITS: usize = 1 << 25;

/// A file that differs. Directories are not reported, only the files in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    pub old: Option<Entry>,
    pub new: Option<Entry>,
}

/// The work-list. After an error it is of no more use.
#[derive(Debug)]
pub struct Diff {
    root: Cid,
    /// Files of at most so many bytes must be here before they are reported.
    eager: u64,
    ready: Vec<Task>,
    /// Tasks that found a block missing; they are tried again with the next call.
    waiting: Vec<Task>,
    /// Bytes of both.
    held: usize,
    /// How many more entries may be looked at.
    pub(crate) budget: usize,
}

#[derive(Debug)]
enum Task {
    Entries(Pair),
    /// What is left of two directories, from their last name to their first. It comes apart name by name: a block has
    /// 40,000 of them.
    Names {
        place: Place,
        old: Vec<Entry>,
        new: Vec<Entry>,
    },
    Sides(Place, Position, Side, Side),
    /// Two HAMTs of different fanout have no shard in common: the old one becomes a list first.
    Gather {
        place: Place,
        shards: Vec<(Position, Cid)>,
        found: Vec<Entry>,
        new: Side,
        position: Position,
    },
}

/// How far [`Diff::advance_within`] came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is said.
    Done,
    /// There is more to be said with what is here.
    More,
    /// It goes on when some of these blocks are here.
    Missing(Vec<Cid>),
    /// It holds more than it was given room for.
    Full,
}

/// What stands under one name.
#[derive(Debug)]
struct Pair {
    place: Place,
    old: Option<Entry>,
    new: Option<Entry>,
}

/// Where the directory is that something is in.
#[derive(Clone, Debug)]
struct Place {
    path: Arc<str>,
    depth: usize,
}

/// A directory, or the part of it whose names lead to one shard.
#[derive(Clone, Debug)]
enum Side {
    List(Vec<Entry>),
    Shard(Cid),
}

/// What an entry turned out to be.
enum Found {
    Nothing,
    File,
    Directory(Form, Bytes),
}

/// A task that needs blocks to go on.
type Blocked = Option<(Task, Vec<Cid>)>;

impl Default for Side {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Diff {
    /// From nothing where there is no `old` root. Files whose size is at most `eager` count as missing until they are
    /// here, whatever their form, so that what is small comes with the tree.
    pub fn new(old: Option<Cid>, new: Cid, eager: u64) -> Self {
        let entry = |cid| Entry { name: String::new(), cid, tsize: u64::MAX };
        let place = Place { path: "".into(), depth: 0 };
        let pair = Pair { place, old: old.map(entry), new: Some(entry(new)) };
        Self {
            root: new,
            eager,
            ready: vec![Task::Entries(pair)],
            waiting: Vec::new(),
            held: 0,
            budget: MAX_VISITS,
        }
    }

    /// Goes as far as it can and reports each difference once, in no order. Returns the blocks that are missing
    /// now, at most [`MAX_MISSING`]; bring them, all or some, and call again. None missing means that all is said.
    ///
    /// Names that no tree of ours may hold, entries of unknown codecs and directories deeper than
    /// [`MAX_DEPTH`] are passed over.
    pub fn advance(
        &mut self,
        blocks: &dyn Blocks,
        seen: &mut dyn FnMut(Difference),
    ) -> Result<Vec<Cid>, BlockError> {
        self.run(usize::MAX, usize::MAX, blocks, seen)
    }

    /// The same, but it comes back after a while, so that a caller may stop, and when what it has still to do takes more
    /// than `room` bytes, which may be one directory too late.
    pub fn advance_within(
        &mut self,
        room: usize,
        blocks: &dyn Blocks,
        seen: &mut dyn FnMut(Difference),
    ) -> Result<Progress, BlockError> {
        self.advance_so_far(room, STEPS, blocks, seen)
    }

    /// The same, but it comes back after so many comparisons.
    pub(crate) fn advance_by(
        &mut self,
        steps: usize,
        blocks: &dyn Blocks,
        seen: &mut dyn FnMut(Difference),
    ) -> Result<Progress, BlockError> {
        self.advance_so_far(usize::MAX, steps, blocks, seen)
    }

    fn advance_so_far(
        &mut self,
        room: usize,
        steps: usize,
        blocks: &dyn Blocks,
        seen: &mut dyn FnMut(Difference),
    ) -> Result<Progress, BlockError> {
        let missing = self.run(room, steps, blocks, seen)?;
        Ok(match () {
            () if self.held > room => Progress::Full,
            () if !missing.is_empty() => Progress::Missing(missing),
            () if self.ready.is_empty() && self.waiting.is_empty() => Progress::Done,
            () => Progress::More,
        })
    }

    fn run(
        &mut self,
        room: usize,
        steps: usize,
        blocks: &dyn Blocks,
        seen: &mut dyn FnMut(Difference),
    ) -> Result<Vec<Cid>, BlockError> {
        self.ready.append(&mut self.waiting);
        let mut done = 0;
        let (mut missing, mut asked) = (Vec::new(), HashSet::new());
        while let Some(task) = self.take() {
            done += 1;
            let blocked = match task {
                Task::Entries(pair) => self.compare(pair, blocks, seen)?,
                Task::Names { .. } => None,
                Task::Sides(place, position, old, new) => self.descend(place, position, old, new, blocks)?,
                Task::Gather { place, shards, found, new, position } => {
                    self.gather(place, shards, found, new, position, blocks)?
                }
            };
            if let Some((task, cids)) = blocked {
                self.held += task.cost();
                self.waiting.push(task);
                missing.extend(cids.into_iter().filter(|cid| asked.insert(*cid)));
                if missing.len() >= MAX_MISSING || self.waiting.len() >= MAX_MISSING {
                    break;
                }
            }
            if done >= steps || self.held > room {
                break;
            }
        }
        missing.truncate(MAX_MISSING);
        Ok(missing)
    }

    /// The next task, in the depth first. Of two directories it is their next names.
    fn take(&mut self) -> Option<Task> {
        loop {
            let Some(Task::Names { place, old, new }) = self.ready.last_mut() else {
                let task = self.ready.pop()?;
                self.held = self.held.saturating_sub(task.cost());
                return Some(task);
            };
            let (was, is) = next_name(old, new);
            let place = place.clone();
            if was.is_none() && is.is_none() {
                self.ready.pop();
                self.held = self.held.saturating_sub(size_of::<Task>());
                continue;
            }
            self.held = self.held.saturating_sub([&was, &is].into_iter().flatten().map(entry_cost).sum());
            let is_same = was.as_ref().map(|entry| entry.cid) == is.as_ref().map(|entry| entry.cid);
            let name = was.as_ref().or(is.as_ref()).map_or("", |entry| entry.name.as_str());
            if !is_same && is_name(name) {
                return Some(Task::Entries(Pair { place, old: was, new: is }));
            }
        }
    }

    /// One name, old and new: reports files, goes into directories.
    fn compare(
        &mut self,
        pair: Pair,
        blocks: &dyn Blocks,
        seen: &mut dyn FnMut(Difference),
    ) -> Result<Blocked, BlockError> {
        let Pair { old, new, .. } = &pair;
        if old.as_ref().map(|entry| entry.cid) == new.as_ref().map(|entry| entry.cid) {
            return Ok(None);
        }
        let mut missing = Vec::new();
        let was = probe(blocks, old.as_ref(), None, &mut missing)?;
        let is = probe(blocks, new.as_ref(), Some(self.eager), &mut missing)?;
        if !missing.is_empty() {
            return Ok(Some((Task::Entries(pair), missing)));
        }
        let Pair { place, old, new } = pair;
        let name = new.as_ref().or(old.as_ref()).map_or("", |entry| entry.name.as_str());
        if let (true, Some(root), false) = (place.depth == 0, &new, matches!(is, Found::Directory(..))) {
            return Err(Malformed("the root of the tree is no directory").at(&root.cid));
        }
        let path = join(&place.path, name);
        let below = Place { path: path.as_str().into(), depth: place.depth + 1 };
        let old_side = side(old.as_ref(), &was)?;
        let new_side = side(new.as_ref(), &is)?;
        let old = old.filter(|_| matches!(was, Found::File));
        let new = new.filter(|_| matches!(is, Found::File));
        if old.is_some() || new.is_some() {
            seen(Difference { path, old, new });
        }
        if below.depth > MAX_DEPTH {
            return Ok(None);
        }
        match (old_side, new_side) {
            (None, None) => {}
            (Some((old, Some(gathered))), Some((new, Some(fanout)))) if gathered != fanout => {
                let Side::Shard(cid) = old else { return Ok(None) };
                let shards = vec![(Position::root(gathered), cid)];
                let position = Position::root(fanout);
                self.push(Task::Gather { place: below, shards, found: Vec::new(), new, position })?;
            }
            (old, new) => {
                let fanout = [&old, &new].into_iter().flatten().find_map(|(_, fanout)| *fanout);
                let position = Position::root(fanout.unwrap_or(Fanout::WRITTEN));
                let side = |known: Option<(Side, _)>| known.map(|(side, _)| side).unwrap_or_default();
                self.compare_sides(&below, position, side(old), side(new))?;
            }
        }
        Ok(None)
    }

    /// Two sides of which at least one is a shard: bucket by bucket.
    fn descend(
        &mut self,
        place: Place,
        position: Position,
        old: Side,
        new: Side,
        blocks: &dyn Blocks,
    ) -> Result<Blocked, BlockError> {
        let mut missing = Vec::new();
        let was = expand(blocks, position, &old, &mut missing)?;
        let is = expand(blocks, position, &new, &mut missing)?;
        if !missing.is_empty() {
            return Ok(Some((Task::Sides(place, position, old, new), missing)));
        }
        let mut buckets: BTreeMap<usize, (Side, Side)> = BTreeMap::new();
        for (bucket, side) in was {
            buckets.entry(bucket).or_default().0 = side;
        }
        for (bucket, side) in is {
            buckets.entry(bucket).or_default().1 = side;
        }
        self.budget = self.budget.saturating_sub(buckets.len());
        for (bucket, (old, new)) in buckets {
            match (&old, &new) {
                // No shard, no level below: the names decide.
                (Side::List(_), Side::List(_)) => self.compare_sides(&place, position, old, new)?,
                (Side::Shard(cid), _) | (_, Side::Shard(cid)) => {
                    let below = position.below(bucket).map_err(|malformed| malformed.at(cid))?;
                    self.compare_sides(&place, below, old, new)?;
                }
            }
        }
        Ok(None)
    }

    /// Lists are compared by name at once; shards go on the work-list.
    fn compare_sides(
        &mut self,
        place: &Place,
        position: Position,
        old: Side,
        new: Side,
    ) -> Result<(), BlockError> {
        let (old, new) = match (old, new) {
            (Side::Shard(old), Side::Shard(new)) if old == new => return Ok(()),
            (Side::List(old), Side::List(new)) => (old, new),
            (old, new) => return self.push(Task::Sides(place.clone(), position, old, new)),
        };
        self.budget = self.budget.saturating_sub(old.len() + new.len());
        if old.is_empty() && new.is_empty() {
            return Ok(());
        }
        self.push(Task::Names { place: place.clone(), old: last_first(old), new: last_first(new) })
    }

    fn gather(
        &mut self,
        place: Place,
        shards: Vec<(Position, Cid)>,
        mut found: Vec<Entry>,
        new: Side,
        position: Position,
        blocks: &dyn Blocks,
    ) -> Result<Blocked, BlockError> {
        let mut pending = shards;
        let mut shards = Vec::new();
        while let Some((position, cid)) = pending.pop() {
            let Some(block) = blocks.get(&cid)? else {
                shards.push((position, cid));
                continue;
            };
            for (bucket, slot) in Shard::decode(position, &cid, &block)?.slots {
                match slot {
                    Slot::Entry(entry) => found.push(entry),
                    Slot::Stored { cid, .. } => {
                        let below = position.below(bucket).map_err(|malformed| malformed.at(&cid))?;
                        pending.push((below, cid));
                    }
                    Slot::Loaded(_) => {}
                }
            }
            if found.len() + pending.len() > MAX_FRONTIER {
                return Err(Malformed("the directory is too large to be compared").at(&cid));
            }
        }
        if shards.is_empty() {
            self.compare_sides(&place, position, Side::List(found), new)?;
            return Ok(None);
        }
        let missing = shards.iter().map(|(_, cid)| *cid).take(MAX_MISSING).collect();
        Ok(Some((Task::Gather { place, shards, found, new, position }, missing)))
    }

    fn push(&mut self, task: Task) -> Result<(), BlockError> {
        self.held += task.cost();
        let waiting = self.ready.len() + self.waiting.len();
        if waiting >= MAX_FRONTIER || self.held > MAX_HELD || self.budget == 0 {
            return Err(Malformed("the tree is too large to be followed").at(&self.root));
        }
        self.ready.push(task);
        Ok(())
    }
}

impl Task {
    /// Bytes, about.
    fn cost(&self) -> usize {
        let names = |entries: &[Entry]| -> usize { entries.iter().map(entry_cost).sum() };
        let side = |side: &Side| match side {
            Side::List(entries) => names(entries),
            Side::Shard(_) => 0,
        };
        let within = match self {
            Self::Entries(pair) => [&pair.old, &pair.new].into_iter().flatten().map(|e| e.name.len()).sum(),
            Self::Names { old, new, .. } => names(old) + names(new),
            Self::Sides(_, _, old, new) => side(old) + side(new),
            Self::Gather { shards, found, new, .. } => {
                size_of_val(shards.as_slice()) + names(found) + side(new)
            }
        };
        size_of::<Self>() + within
    }
}

fn entry_cost(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.name.len()
}

/// Entries in the opposite order of their names. Where a name stands twice, the first counts, as in a look-up.
fn last_first(mut entries: Vec<Entry>) -> Vec<Entry> {
    // Most writers sort, and to do it again would take as much memory once more.
    if !entries.is_sorted_by(|a, b| a.name <= b.name) {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
    }
    entries.dedup_by(|second, first| second.name == first.name);
    entries.reverse();
    entries
}

/// What stands on both sides under the first name that is left on either.
fn next_name(old: &mut Vec<Entry>, new: &mut Vec<Entry>) -> (Option<Entry>, Option<Entry>) {
    let order = match (old.last(), new.last()) {
        (Some(old), Some(new)) => old.name.cmp(&new.name),
        (None, _) => Ordering::Greater,
        (_, None) => Ordering::Less,
    };
    (old.pop_if(|_| order.is_le()), new.pop_if(|_| order.is_ge()))
}

/// Looks into an entry's block, as far as its kind and its entries go; notes the block where it is missing.
fn probe(
    blocks: &dyn Blocks,
    entry: Option<&Entry>,
    eager: Option<u64>,
    missing: &mut Vec<Cid>,
) -> Result<Found, BlockError> {
    let Some(Entry { cid, tsize, .. }) = entry else { return Ok(Found::Nothing) };
    match cid.codec() {
        RAW => {
            if eager.is_some_and(|eager| *tsize <= eager) && blocks.size(cid)?.is_none() {
                missing.push(*cid);
            }
            Ok(Found::File)
        }
        DAG_PB => {
            let Some(block) = blocks.get(cid)? else {
                missing.push(*cid);
                return Ok(Found::Nothing);
            };
            Ok(match form(cid, &block)? {
                Form::Other => {
                    if eager.is_some_and(|eager| root_size(cid, &block).is_ok_and(|size| size <= eager)) {
                        missing.extend(lacking(blocks, cid)?);
                    }
                    Found::File
                }
                form => Found::Directory(form, block),
            })
        }
        _ => Ok(Found::Nothing),
    }
}

/// The blocks of a file that are not here, as far as they are known now. One that is malformed lacks nothing: nobody can
/// read it, and the tree around it is none the worse.
fn lacking(blocks: &dyn Blocks, root: &Cid) -> Result<Vec<Cid>, BlockError> {
    let mut leaves = Leaves::new(*root, None);
    let mut missing = Vec::new();
    while missing.len() < MAX_MISSING {
        match leaves.next(blocks) {
            Ok(Step::Leaf(leaf)) => {
                if leaf.form == LeafForm::Raw && blocks.size(&leaf.cid)?.is_none() {
                    missing.push(leaf.cid);
                }
            }
            Ok(Step::Missing(_)) => {
                for (cid, _) in leaves.pending(MAX_MISSING) {
                    if blocks.size(&cid)?.is_none() {
                        missing.push(cid);
                    }
                }
                break;
            }
            Ok(Step::End) => break,
            Err(BlockError::Malformed { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// A directory as a side to compare, and its fanout where it is a HAMT.
fn side(entry: Option<&Entry>, found: &Found) -> Result<Option<(Side, Option<Fanout>)>, BlockError> {
    let (Some(Entry { cid, .. }), Found::Directory(form, block)) = (entry, found) else { return Ok(None) };
    Ok(match form {
        Form::Sharded(fanout) => Some((Side::Shard(*cid), Some(*fanout))),
        _ => Some((Side::List(entries(cid, block)?), None)),
    })
}

/// What is in each bucket of a side; notes its block where it is missing.
fn expand(
    blocks: &dyn Blocks,
    position: Position,
    side: &Side,
    missing: &mut Vec<Cid>,
) -> Result<BTreeMap<usize, Side>, BlockError> {
    let mut buckets = BTreeMap::new();
    match side {
        Side::List(entries) => {
            for entry in entries {
                if let Side::List(list) = buckets.entry(position.bucket(&entry.name)).or_default() {
                    list.push(entry.clone());
                }
            }
        }
        Side::Shard(cid) => match blocks.get(cid)? {
            None => missing.push(*cid),
            Some(block) => {
                for (bucket, slot) in Shard::decode(position, cid, &block)?.slots {
                    match slot {
                        Slot::Entry(entry) => buckets.insert(bucket, Side::List(vec![entry])),
                        Slot::Stored { cid, .. } => buckets.insert(bucket, Side::Shard(cid)),
                        Slot::Loaded(_) => None,
                    };
                }
            }
        },
    }
    Ok(buckets)
}
