//! Roots at which the next bundle may begin: their directories stay, whatever becomes of the root.
//!
//! What a root has over another can only be told while the directories of both are here, and those of past roots go
//! within hours. So the roots that were carried away last are kept, in a small file; their blobs are not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cid::Cid;

use crate::files::write_whole;

/// A daily bundle for some names, and a medium that was lost meanwhile.
const MOST: usize = 16;

#[derive(Debug)]
pub(crate) struct Bases {
    path: PathBuf,
    /// The newest last.
    roots: Mutex<Vec<Cid>>,
}

impl Bases {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("bases");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        // A line that cannot be read costs the next increment, not the start.
        let roots = text.lines().filter_map(|line| line.parse().ok()).take(MOST).collect();
        Ok(Self { path, roots: Mutex::new(roots) })
    }

    pub(crate) fn list(&self) -> Vec<Cid> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn add(&self, root: Cid) -> io::Result<()> {
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now: Vec<Cid> = roots.iter().copied().filter(|known| *known != root).collect();
        now.push(root);
        now.drain(..now.len().saturating_sub(MOST));
        let text: Vec<String> = now.iter().map(ToString::to_string).collect();
        write_whole(&self.path, text.join("\n").as_bytes(), 0o644)?;
        *roots = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RAW, cid_of};

    #[test]
    fn the_newest_roots_are_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = |number: usize| cid_of(RAW, &number.to_le_bytes());
        let bases = Bases::open(dir.path()).unwrap();
        for number in 0..MOST + 2 {
            bases.add(root(number)).unwrap();
        }
        bases.add(root(3)).unwrap();
        let expected: Vec<Cid> = (2..MOST + 2).filter(|number| *number != 3).chain([3]).map(root).collect();
        assert_eq!(bases.list(), expected);
        fs::write(dir.path().join("bases.new"), "half").unwrap();
        assert_eq!(Bases::open(dir.path()).unwrap().list(), expected);
    }
}
