//! Looks at every block of a pack: whether it matches its CID, and whether the pack's table leads to it and to
//! nothing else.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError};

use cid::Cid;

use super::{Key, Pack, Packs, Places, Span, Table, key, path, table_path};
use crate::block::{MAX_BLOCK, verify};
use crate::car::{CarError, Reader};
use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;

/// What a pack turned out to be. Its size is bounded by that of a pack.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) blocks: u64,
    /// Blocks that the table leads to and that do not match their CIDs.
    pub(crate) bad: Vec<Cid>,
    /// Where blocks can no longer be told apart. What the table leads to behind that is good all the same.
    pub(crate) cut: Option<u64>,
    /// The table leads to each good block and to no other.
    pub(crate) table_fits: bool,
    /// So much of it was looked at; whoever appends goes on behind.
    end: u64,
    good: HashMap<Key, Span>,
}

impl Packs {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Looks at a pack; `step` is told of the bytes of each block and can end it. `None` where the pack has gone.
    pub(crate) fn check(
        &self,
        id: u32,
        step: &mut dyn FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<Option<Checked>, StoreError> {
        let (pack, end) = {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let packs = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
            let Some(pack) = packs.get(&id) else { return Ok(None) };
            let end = if id == writer.id { writer.len } else { pack.file.metadata()?.len() };
            (Arc::clone(pack), end)
        };
        let file = match File::open(path(&self.dir, id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut checked =
            Checked { blocks: 0, bad: Vec::new(), cut: None, table_fits: true, end, good: HashMap::new() };
        checked.read(io::BufReader::new(file), &pack, step)?;
        checked.compare(&pack)?;
        Ok(Some(checked))
    }

    /// Makes a pack's table lead to the good blocks and to no other: a bad one is not here any more.
    pub(crate) fn mend(&self, id: u32, checked: &Checked) -> io::Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packs = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        let Some(pack) = packs.get(&id) else { return Ok(()) };
        // What was appended since is kept.
        let newer = pack.entries()?.into_iter().filter(|(_, span)| u64::from(span.offset) >= checked.end);
        let mut spans = checked.good.clone();
        spans.extend(newer);
        match &pack.places {
            Places::Open(places) => *places.write().unwrap_or_else(PoisonError::into_inner) = spans,
            Places::Closed(_) => {
                let len = pack.file.metadata()?.len();
                let table = Table::write(&table_path(&self.dir, id), len, &spans)?;
                let mended = Pack { file: pack.file.try_clone()?, places: Places::Closed(table) };
                packs.insert(id, Arc::new(mended));
            }
        }
        drop(writer);
        Ok(())
    }
}

impl Checked {
    fn read(
        &mut self,
        input: impl io::BufRead,
        pack: &Pack,
        step: &mut dyn FnMut(u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut reader = match Reader::new(input) {
            Ok(reader) => reader,
            Err(CarError::Io(error)) => return Err(error.into()),
            Err(_) => {
                self.cut = Some(0);
                return Ok(());
            }
        };
        while reader.position() < self.end {
            let at = reader.position();
            match reader.next_section() {
                Ok(Some(section)) => {
                    step(section.data.len() as u64)?;
                    self.blocks += 1;
                    let key = key(&section.cid);
                    let span = Span::before(reader.position(), section.data.len())?;
                    let found = pack.find(&key)? == Some(span);
                    match (verify(&section.cid, &section.data), found) {
                        // Of two copies the one that the table leads to counts.
                        (Ok(()), true) => {
                            self.good.insert(key, span);
                        }
                        (Ok(()), false) => {
                            self.good.entry(key).or_insert(span);
                        }
                        (Err(_), true) => self.bad.push(section.cid),
                        // Bytes that nobody is led to do no harm; compaction takes them.
                        (Err(_), false) => {}
                    }
                }
                Err(CarError::Io(error)) => return Err(error.into()),
                Ok(None) | Err(_) => {
                    self.cut = Some(at);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn compare(&mut self, pack: &Pack) -> io::Result<()> {
        let mut fitting = 0;
        for (key, span) in pack.entries()? {
            if u64::from(span.offset) >= self.end {
                continue;
            }
            if self.good.get(&key) == Some(&span) {
                fitting += 1;
            } else if pack.matches(&key, span) {
                // Behind a length that is lost, or under a CID that is damaged while its block is not.
                self.good.insert(key, span);
                fitting += 1;
            } else {
                self.table_fits = false;
            }
        }
        self.table_fits &= fitting == self.good.len();
        Ok(())
    }
}

impl Pack {
    fn entries(&self) -> io::Result<Vec<(Key, Span)>> {
        match &self.places {
            Places::Open(spans) => {
                let spans = spans.read().unwrap_or_else(PoisonError::into_inner);
                Ok(spans.iter().map(|(key, span)| (*key, *span)).collect())
            }
            Places::Closed(table) => table.rows(),
        }
    }

    /// Whether the bytes there have a hash that begins like this.
    fn matches(&self, key: &Key, span: Span) -> bool {
        let mut data = vec![0; usize::try_from(span.len).unwrap_or(MAX_BLOCK).min(MAX_BLOCK)];
        let read = self.file.read_exact_at(&mut data, u64::from(span.offset));
        let begins = |algorithm| Digest::of(algorithm, &data).as_bytes().starts_with(key);
        read.is_ok() && Algorithm::ALL.into_iter().any(begins)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::block::{Block, RAW};

    /// Damages a block where it lies.
    pub(in super::super) fn flip(pack: &Path, block: &Block) {
        let mut content = fs::read(pack).unwrap();
        let at = content.windows(block.data().len()).position(|window| window == block.data()).unwrap();
        content[at] ^= 1;
        fs::write(pack, content).unwrap();
    }

    fn block(number: u32) -> Block {
        Block::new(RAW, Bytes::from(number.to_le_bytes().repeat(40)))
    }

    /// Blocks 0 to 9 in a closed pack, 10 to 19 in the open one.
    fn packs(dir: &Path) -> Packs {
        let packs = Packs::open(dir).unwrap();
        packs.append(&(0..10).map(block).collect::<Vec<_>>()).unwrap();
        packs.begin_rewrite().unwrap();
        packs.end_rewrite();
        packs.append(&(10..20).map(block).collect::<Vec<_>>()).unwrap();
        packs
    }

    fn look(packs: &Packs, id: u32) -> Checked {
        packs.check(id, &mut |_| Ok(())).unwrap().unwrap()
    }

    #[test]
    fn a_sound_pack_is_sound() {
        let dir = tempfile::tempdir().unwrap();
        let packs = packs(dir.path());
        assert_eq!(packs.ids(), [1, 2]);
        for id in packs.ids() {
            let checked = look(&packs, id);
            assert_eq!((checked.blocks, checked.bad.len(), checked.cut), (10, 0, None));
            assert!(checked.table_fits);
        }
        assert!(packs.check(9, &mut |_| Ok(())).unwrap().is_none());
    }

    #[test]
    fn a_bad_block_is_found_and_can_be_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let packs = packs(dir.path());
        for (id, number) in [(1, 3), (2, 13)] {
            flip(&path(dir.path(), id), &block(number));
            let checked = look(&packs, id);
            assert_eq!(checked.bad, [*block(number).cid()]);
            assert!(!checked.table_fits);
            packs.mend(id, &checked).unwrap();
            assert!(packs.get(block(number).cid()).unwrap().is_none());
            let after = look(&packs, id);
            assert!(after.table_fits && after.bad.is_empty());
            packs.append(&[block(number)]).unwrap();
            assert_eq!(packs.get(block(number).cid()).unwrap().as_ref(), Some(block(number).data()));
            for other in (0..20).filter(|other| *other != 13) {
                assert!(packs.get(block(other).cid()).unwrap().is_some(), "{other}");
            }
        }
    }

    #[test]
    fn blocks_behind_a_lost_length_are_found_by_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let packs = packs(dir.path());
        let file = path(dir.path(), 1);
        let mut content = fs::read(&file).unwrap();
        let header = crate::car::header(&[]).len();
        content[header] = 0;
        fs::write(&file, content).unwrap();
        let checked = look(&packs, 1);
        assert_eq!(checked.cut, Some(header as u64));
        assert!(checked.table_fits, "each block is where the table says");
        packs.mend(1, &checked).unwrap();
        assert!((0..10).all(|number| packs.get(block(number).cid()).unwrap().is_some()));
    }

    #[test]
    fn a_table_that_leads_elsewhere_is_found_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(packs(dir.path()));
        let table = table_path(dir.path(), 1);
        let mut content = fs::read(&table).unwrap();
        content[16 + 20] ^= 0x40;
        fs::write(&table, content).unwrap();
        let packs = Packs::open(dir.path()).unwrap();
        let checked = look(&packs, 1);
        assert!(!checked.table_fits && checked.bad.is_empty());
        packs.mend(1, &checked).unwrap();
        assert!(look(&packs, 1).table_fits);
        drop(packs);
        assert!(look(&Packs::open(dir.path()).unwrap(), 1).table_fits);
    }
}
