//! Changes at paths become a new root: bottom-up, and only the directories on those paths.

use std::collections::{BTreeMap, HashSet};

use cid::Cid;

use super::is_path;
use crate::block::{Block, BlockError, Blocks};
use crate::dag::{Malformed, directory};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file, or a whole directory, takes the place of whatever is there.
    Put { cid: Cid, tsize: u64 },
    /// Nothing where nothing is there.
    Remove,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub root: Cid,
    /// Bytes of all blocks of the tree.
    pub tsize: u64,
    /// The new nodes of directories, each once.
    pub blocks: Vec<Block>,
}

/// Applies changes to the tree below `root`.
///
/// A change of a path comes before those of paths below it: so a subtree is removed first, then filled anew.
/// Directories on the way to something that is put are made, and a file that stands in the way gives way.
/// A directory that a removal leaves empty is removed as well, but for the root.
pub fn apply(
    blocks: &dyn Blocks,
    root: &Cid,
    changes: &BTreeMap<String, Change>,
) -> Result<Applied, BlockError> {
    let mut below = BTreeMap::new();
    for (path, change) in changes {
        if !is_path(path) {
            return Err(Malformed("a path has a name that a tree cannot hold, or too many").at(root));
        }
        insert(&mut below, path, *change);
    }
    let mut made = Vec::new();
    let (root, tsize) = directory(blocks, Some(root), &below, &mut made)?;
    let mut seen = HashSet::new();
    made.retain(|block: &Block| seen.insert(*block.cid()));
    Ok(Applied { root, tsize, blocks: made })
}

/// What happens at a path, and below it.
#[derive(Debug, Default)]
struct Changes {
    own: Option<Change>,
    below: BTreeMap<String, Changes>,
}

impl Changes {
    fn puts_below(&self) -> bool {
        self.below
            .values()
            .any(|changes| matches!(changes.own, Some(Change::Put { .. })) || changes.puts_below())
    }
}

fn insert(into: &mut BTreeMap<String, Changes>, path: &str, change: Change) {
    let (name, rest) = path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let changes = into.entry(name.to_owned()).or_default();
    match rest {
        Some(rest) => insert(&mut changes.below, rest, change),
        None => changes.own = Some(change),
    }
}

/// Updates one directory, those below it first.
fn directory(
    blocks: &dyn Blocks,
    dir: Option<&Cid>,
    below: &BTreeMap<String, Changes>,
    made: &mut Vec<Block>,
) -> Result<(Cid, u64), BlockError> {
    let mut updates = BTreeMap::new();
    for (name, changes) in below {
        let update = match entry(blocks, dir, name, changes, made)? {
            Some(Change::Put { cid, tsize }) => Some((cid, tsize)),
            Some(Change::Remove) => None,
            None => continue,
        };
        updates.insert(name.clone(), update);
    }
    directory::update(blocks, dir, &updates, made)
}

/// What becomes of one entry, if anything.
fn entry(
    blocks: &dyn Blocks,
    dir: Option<&Cid>,
    name: &str,
    changes: &Changes,
    made: &mut Vec<Block>,
) -> Result<Option<Change>, BlockError> {
    let own = changes.own;
    if changes.below.is_empty() {
        return Ok(own);
    }
    let there = match (own, dir) {
        (Some(Change::Put { cid, .. }), _) => Some(cid),
        (None, Some(dir)) => directory::lookup(blocks, dir, name)?.map(|entry| entry.cid),
        (Some(Change::Remove), _) | (None, None) => None,
    };
    let base = match there {
        Some(cid) if directory::is_directory(blocks, &cid)? => Some(cid),
        _ => None,
    };
    if base.is_none() && !changes.puts_below() {
        return Ok(own);
    }
    let (cid, tsize) = directory(blocks, base.as_ref(), &changes.below, made)?;
    Ok(match base {
        Some(base) if base == cid => own,
        _ if cid == directory::empty() => Some(Change::Remove),
        _ => Some(Change::Put { cid, tsize }),
    })
}
