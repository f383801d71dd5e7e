//! Changes that are in the journal and not yet in my folded tree.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cid::Cid;

use crate::block::Block;
use crate::journal::{CommitEntry, Position, Target};
use crate::tree::Change;

/// What the overlay knows of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Put(Target),
    Removed,
    /// Ask the folded tree.
    Nothing,
}

#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// A removal of a directory comes before what was put below it later.
    changes: BTreeMap<String, (Position, Option<Target>)>,
    blocks: HashMap<Vec<u8>, (Position, Cid, Bytes)>,
}

impl Overlay {
    pub(crate) fn apply(&mut self, position: Position, entry: &CommitEntry) {
        for (path, target) in &entry.changes {
            if target.is_none() {
                let below = format!("{path}/");
                let gone: Vec<String> = self.below(&below).map(|(path, _)| path.clone()).collect();
                for path in &gone {
                    self.changes.remove(path);
                }
            }
            self.changes.insert(path.clone(), (position, *target));
        }
        for (cid, data) in &entry.blocks {
            let data = Bytes::copy_from_slice(data);
            self.blocks.insert(cid.0.hash().to_bytes(), (position, cid.0, data));
        }
    }

    pub(crate) fn lookup(&self, path: &str) -> Known {
        if let Some((_, target)) = self.changes.get(path) {
            return target.map_or(Known::Removed, Known::Put);
        }
        let mut rest = path;
        while let Some((above, _)) = rest.rsplit_once('/') {
            if let Some((_, None)) = self.changes.get(above) {
                return Known::Removed;
            }
            rest = above;
        }
        Known::Nothing
    }

    /// Whether something was put below this directory.
    pub(crate) fn has_below(&self, directory: &str) -> bool {
        self.below(&format!("{directory}/")).any(|(_, (_, target))| target.is_some())
    }

    pub(crate) fn block(&self, cid: &Cid) -> Option<Bytes> {
        self.blocks.get(&cid.hash().to_bytes()).map(|(_, _, data)| data.clone())
    }

    /// Everything that was put.
    pub(crate) fn targets(&self) -> Vec<Cid> {
        self.changes.values().filter_map(|(_, target)| target.map(|target| target.cid.0)).collect()
    }

    /// Paths that were put, and what they point to.
    pub(crate) fn puts(&self) -> Vec<(String, Cid)> {
        let puts = self.changes.iter().filter_map(|(path, (_, target))| Some((path, (*target)?)));
        puts.map(|(path, target)| (path.clone(), target.cid.0)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Everything, for a fold.
    pub(crate) fn snapshot(&self) -> (BTreeMap<String, Change>, Vec<Block>) {
        let change = |target: &Option<Target>| match target {
            Some(target) => Change::Put { cid: target.cid.0, tsize: target.tsize },
            None => Change::Remove,
        };
        let changes = self.changes.iter().map(|(path, (_, target))| (path.clone(), change(target))).collect();
        let blocks = self.blocks.values().map(|(_, cid, data)| Block::trusted(*cid, data.clone())).collect();
        (changes, blocks)
    }

    /// Forgets what a fold has taken in.
    pub(crate) fn forget(&mut self, covers: Position) {
        self.changes.retain(|_, (position, _)| *position > covers);
        self.blocks.retain(|_, (position, _, _)| *position > covers);
    }

    fn below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a (Position, Option<Target>))> {
        self.changes.range(prefix.to_owned()..).take_while(move |(path, _)| path.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RAW, cid_of};
    use crate::journal::CidBytes;

    fn entry(changes: &[(&str, bool)]) -> CommitEntry {
        let target = Target { cid: CidBytes(cid_of(RAW, b"x")), tsize: 1 };
        let change = |(path, put): &(&str, bool)| ((*path).to_owned(), put.then_some(target));
        CommitEntry { changes: changes.iter().map(change).collect(), blocks: Vec::new() }
    }

    #[test]
    fn a_removed_directory_hides_what_the_tree_has_and_not_what_came_after() {
        let mut overlay = Overlay::default();
        overlay.apply(1, &entry(&[("a/b/c", true)]));
        overlay.apply(2, &entry(&[("a/b", false)]));
        overlay.apply(3, &entry(&[("a/b/d", true)]));
        assert_eq!(overlay.lookup("a/b/c"), Known::Removed);
        assert!(matches!(overlay.lookup("a/b/d"), Known::Put(_)));
        assert_eq!(overlay.lookup("a/x"), Known::Nothing);
        assert!(overlay.has_below("a") && !overlay.has_below("a/b/c"));
    }

    #[test]
    fn a_fold_takes_what_it_covers_and_leaves_what_is_newer() {
        let mut overlay = Overlay::default();
        overlay.apply(1, &entry(&[("a", true), ("b", true)]));
        overlay.apply(2, &entry(&[("b", false)]));
        overlay.forget(1);
        assert_eq!(overlay.lookup("a"), Known::Nothing);
        assert_eq!(overlay.lookup("b"), Known::Removed);
    }
}
