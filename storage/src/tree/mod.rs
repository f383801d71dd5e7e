//! A tree of directories: paths to entries, changes to new roots, and what differs between two roots.
//!
//! Paths are names with `/` between them, without one in front. Nothing here knows what a registry keeps in it.

mod apply;
mod diff;

#[cfg(test)]
mod tests;

use cid::Cid;

pub use self::apply::{Applied, Change, apply};
pub use self::diff::{Diff, Difference, MAX_MISSING, Progress};
use crate::block::{BlockError, Blocks};
use crate::dag::directory;
pub use crate::dag::directory::Entry;

/// Directories below each other. The registry's layout has some 14; deeper ones are not followed.
pub const MAX_DEPTH: usize = 64;
/// Bytes of a name, what file systems allow: a tree can be exported to one.
pub const MAX_NAME: usize = 255;

/// Finds what stands at a path, and reads only what lies on it. What is below a file is not there.
pub fn lookup(blocks: &dyn Blocks, root: &Cid, path: &str) -> Result<Option<Entry>, BlockError> {
    let mut names = path.split('/');
    if !is_path(path) {
        return Ok(None);
    }
    let mut found = names.next().map_or(Ok(None), |name| directory::lookup(blocks, root, name))?;
    for name in names {
        let Some(entry) = found else { return Ok(None) };
        found = directory::lookup(blocks, &entry.cid, name)?;
    }
    Ok(found)
}

/// Whether all names of a path are such as a tree may hold.
pub fn is_path(path: &str) -> bool {
    path.split('/').all(is_name) && path.split('/').count() <= MAX_DEPTH
}

/// A name that a file system and a URL can carry.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= MAX_NAME
        && !name.chars().any(|char| char == '/' || char.is_control())
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}
