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
    let mut sorted = Vec::with_capacity(changes.len());
    for (path, change) in changes {
        if !is_path(path) {
            return Err(Malformed("a path has a name that a tree cannot hold, or too many").at(root));
        }
        sorted.push((path.as_str(), change));
    }
    // What is below one directory stands together, behind a change of the directory itself.
    sorted.sort_unstable_by(|(one, _), (other, _)| one.split('/').cmp(other.split('/')));
    let mut made = Vec::new();
    let (root, tsize) = directory(blocks, Some(root), 0, &sorted, &mut made)?;
    let mut seen = HashSet::new();
    made.retain(|block: &Block| seen.insert(*block.cid()));
    Ok(Applied { root, tsize, blocks: made })
}

/// Changes below one directory, in the order of their names. They stand in one list for the whole tree: a fold of
/// thousands must not need a map for each directory.
type Changes<'a> = [(&'a str, &'a Change)];

/// Updates one directory, those below it first. Its path is the first `depth` bytes of those of all changes.
fn directory(
    blocks: &dyn Blocks,
    dir: Option<&Cid>,
    depth: usize,
    below: &Changes<'_>,
    made: &mut Vec<Block>,
) -> Result<(Cid, u64), BlockError> {
    let mut updates = BTreeMap::new();
    for changes in below.chunk_by(|(one, _), (other, _)| split(one, depth).0 == split(other, depth).0) {
        let update = match entry(blocks, dir, depth, changes, made)? {
            Some(Change::Put { cid, tsize }) => Some((cid, tsize)),
            Some(Change::Remove) => None,
            None => continue,
        };
        updates.extend(changes.first().map(|(path, _)| (split(path, depth).0.to_owned(), update)));
    }
    directory::update(blocks, dir, &updates, made)
}

/// What becomes of one entry, if anything.
fn entry(
    blocks: &dyn Blocks,
    dir: Option<&Cid>,
    depth: usize,
    changes: &Changes<'_>,
    made: &mut Vec<Block>,
) -> Result<Option<Change>, BlockError> {
    let Some(((path, first), rest)) = changes.split_first() else { return Ok(None) };
    let (name, is_below) = split(path, depth);
    let (own, below) = if is_below { (None, changes) } else { (Some(**first), rest) };
    if below.is_empty() {
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
    if base.is_none() && !below.iter().any(|(_, change)| matches!(change, Change::Put { .. })) {
        return Ok(own);
    }
    let (cid, tsize) = directory(blocks, base.as_ref(), depth + name.len() + 1, below, made)?;
    Ok(match base {
        Some(base) if base == cid => own,
        _ if cid == directory::empty() => Some(Change::Remove),
        _ => Some(Change::Put { cid, tsize }),
    })
}

/// The name behind the first `depth` bytes of a path, and whether more names follow.
fn split(path: &str, depth: usize) -> (&str, bool) {
    let rest = path.get(depth..).unwrap_or_default();
    rest.split_once('/').map_or((rest, false), |(name, _)| (name, true))
}
