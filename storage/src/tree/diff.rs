//! What differs between two roots, found out step by step while the blocks for it arrive.
//!
//! It descends only where CIDs differ, into directories and their shards, and into files only to see that small ones
//! are whole. Whatever a hostile tree does, the work is bounded by [`MAX_VISITS`] and the memory by [`MAX_FRONTIER`].

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
/// Comparisons that are waiting at once, and the bytes that they take. A registry's directories are some 14 below each
/// other and, below the size at which they become a HAMT, at most 5,000 wide; a block of 2 MiB has 40,000 entries.
const MAX_FRONTIER: usize = 65_536;
const MAX_HELD: usize = 24 * 1024 * 1024;
/// Comparisons of one call: a caller that is to stop waits for no more.
const STEPS: usize = 4096;
/// Entries that are looked at in all. A million tags are some ten million.
const MAX_VISITS: usize = 1 << 24;

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
        self.run(blocks, seen, usize::MAX)
    }

    /// The same, but it comes back after a while, so that a caller may stop. All is said when [`Diff::is_done`].
    pub fn advance_a_little(
        &mut self,
        blocks: &dyn Blocks,
        seen: &mut dyn FnMut(Difference),
    ) -> Result<Vec<Cid>, BlockError> {
        self.run(blocks, seen, STEPS)
    }

    fn run(
        &mut self,
        blocks: &dyn Blocks,
        seen: &mut dyn FnMut(Difference),
        steps: usize,
    ) -> Result<Vec<Cid>, BlockError> {
        self.ready.append(&mut self.waiting);
        self.held = self.ready.iter().map(Task::cost).sum();
        let mut done = 0;
        let (mut missing, mut asked) = (Vec::new(), HashSet::new());
        while let Some(task) = self.ready.pop() {
            self.held = self.held.saturating_sub(task.cost());
            done += 1;
            let blocked = match task {
                Task::Entries(pair) => self.compare(pair, blocks, seen)?,
                Task::Sides(place, position, old, new) => self.descend(place, position, old, new, blocks)?,
                Task::Gather { place, shards, found, new, position } => {
                    self.gather(place, shards, found, new, position, blocks)?
                }
            };
            if let Some((task, cids)) = blocked {
                self.waiting.push(task);
                missing.extend(cids.into_iter().filter(|cid| asked.insert(*cid)));
                if missing.len() >= MAX_MISSING || self.waiting.len() >= MAX_MISSING {
                    break;
                }
            }
            if done >= steps {
                break;
            }
        }
        missing.truncate(MAX_MISSING);
        Ok(missing)
    }

    /// All is said.
    pub fn is_done(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty()
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
        let mut names: BTreeMap<String, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
        // Where a name stands twice, the first counts, as in a look-up.
        for entry in old {
            names.entry(entry.name.clone()).or_default().0.get_or_insert(entry);
        }
        for entry in new {
            names.entry(entry.name.clone()).or_default().1.get_or_insert(entry);
        }
        for (name, (old, new)) in names {
            let is_same = old.as_ref().map(|entry| entry.cid) == new.as_ref().map(|entry| entry.cid);
            if !is_same && is_name(&name) {
                self.push(Task::Entries(Pair { place: place.clone(), old, new }))?;
            }
        }
        Ok(())
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

impl Difference {
    /// Bytes that it takes in memory, about.
    pub fn cost(&self) -> usize {
        let names = [&self.old, &self.new].into_iter().flatten().map(|entry| entry.name.len());
        size_of::<Self>() + self.path.len() + names.sum::<usize>()
    }
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
