//! Packs and the journal.

use std::fs;
use std::io;
use std::sync::PoisonError;

use super::{Kind, Outcome, Stage, Verifier};
use crate::block::{Block, Blocks, verify};
use crate::error::StoreError;
use crate::journal::{self, Position};
use crate::store::Store;

impl Verifier<'_> {
    /// Each block against its CID, and what leads to it.
    pub(super) fn packs(&mut self) -> Result<(), StoreError> {
        self.begin(Stage::Packs)?;
        let inner = self.inner;
        let ids = inner.packs.ids();
        for (place, id) in ids.iter().enumerate() {
            self.percent = Some((place * 100 / ids.len()) as u64);
            let Some(checked) = inner.packs.check(*id, &mut |bytes| self.spend(bytes))? else { continue };
            self.report.blocks += checked.blocks;
            if !checked.table_fits && self.options.repair {
                inner.packs.mend(*id, &checked)?;
            }
            if let Some(at) = checked.cut {
                self.find(Kind::PackCut, format!("packs/{id:08}.car, byte {at}"), Outcome::Left);
            }
            if !checked.table_fits && checked.bad.is_empty() {
                let outcome = if self.options.repair { Outcome::Repaired } else { Outcome::Left };
                self.find(Kind::PackTable, format!("packs/{id:08}.idx"), outcome);
            }
            for cid in &checked.bad {
                let outcome = if self.restore(cid)? { Outcome::Repaired } else { Outcome::Left };
                self.find(Kind::PackBlock, cid.to_string(), outcome);
            }
        }
        if self.options.repair {
            inner.packs.sync()?;
        }
        Ok(())
    }

    /// Writes a block again whose copy in a pack is bad, from memory or another copy.
    fn restore(&self, cid: &cid::Cid) -> Result<bool, StoreError> {
        let Some(data) = self.inner.get(cid)? else { return Ok(false) };
        if verify(cid, &data).is_err() {
            // Read before anyone knew.
            self.inner.cache.remove(&cid.hash().to_bytes());
            return Ok(false);
        }
        if self.options.repair {
            self.inner.packs.append(&[Block::trusted(*cid, data)])?;
        }
        Ok(self.options.repair)
    }

    /// What was bad in the packs may have been made again from a blob since; and what no tree needs is no loss.
    pub(super) fn settle_pack_blocks(&mut self) {
        if !self.options.repair {
            return;
        }
        for finding in &mut self.report.findings {
            let Ok(cid) = finding.subject.parse::<cid::Cid>() else { continue };
            if finding.kind == Kind::PackBlock && !self.report.wanted.contains(&cid) {
                finding.outcome = Outcome::Repaired;
            }
        }
    }

    /// Each file's entries. What is being appended just now is none of them.
    pub(super) fn journal(&mut self, store: &Store) -> Result<(), StoreError> {
        self.begin(Stage::Journal)?;
        let broken = self.broken_files(store)?;
        if broken.is_empty() {
            return Ok(());
        }
        if self.options.repair {
            // All that is in them is in the tree and the state then, and they go.
            store.fold_now(true)?;
            // Files go behind the answer; the next one waits until they have gone.
            store.fold_now(true)?;
        }
        let left = if self.options.repair { self.broken_files(store)? } else { broken.clone() };
        for file in broken {
            let outcome = if left.contains(&file) { Outcome::Left } else { Outcome::Repaired };
            self.find(Kind::Journal, file, outcome);
        }
        Ok(())
    }

    fn broken_files(&mut self, store: &Store) -> Result<Vec<String>, StoreError> {
        let durable = self.inner.view.read().unwrap_or_else(PoisonError::into_inner).position;
        let files = journal::files(&store.dir().join("journal"))?;
        let last = files.len().saturating_sub(1);
        let mut broken = Vec::new();
        for (place, (first, path)) in files.into_iter().enumerate() {
            let content = match fs::read(&path) {
                Ok(content) => content,
                // A fold has covered it since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            self.spend(content.len() as u64)?;
            let (entries, end) = whole_entries(&content);
            // Of the last file only what was durable when the look began.
            let whole = if place == last { first + entries > durable } else { end == content.len() };
            if !whole {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                broken.push(format!("journal/{name}, byte {end}"));
            }
        }
        Ok(broken)
    }
}

/// How many whole entries stand at the beginning, and where they end.
fn whole_entries(content: &[u8]) -> (Position, usize) {
    let (mut entries, mut end) = (0, 0);
    while let Some((_, used)) = content.get(end..).and_then(journal::decode) {
        entries += 1;
        end += used;
    }
    (entries, end)
}
