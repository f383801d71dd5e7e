//! Packs: append-only CAR files with every block that is no byte range of a blob.
//!
//! Each pack knows where its blocks lie: the one that is written to by a map in memory, which is made again from
//! the file at start; a closed one by a sorted table beside it (`.idx`). So nothing that says where a block lies can
//! outlive the block, and a fold writes each node once.

mod check;
mod filter;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use cid::Cid;

use crate::block::{Block, MAX_BLOCK, verify};
use crate::car;
use crate::error::OpenError;
use crate::files::sync_directory;
use table::Table;

/// A pack is closed at this size: so long is the file that is read at start, and so many blocks (some 50,000)
/// have their place in memory.
const ROLL_AT: u64 = 8 * 1024 * 1024;

/// Bytes written at once: a fold of a big store makes tens of megabytes, which are in memory already.
const WRITE: usize = 256 * 1024;

/// The start of a block's hash. Two blocks with the same would take 2^64 tries to find.
type Key = [u8; 16];

/// Where a block lies in its pack. A pack is far below 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    offset: u32,
    len: u32,
}

#[derive(Debug)]
pub(crate) struct Packs {
    dir: PathBuf,
    writer: Mutex<Writer>,
    by_id: RwLock<BTreeMap<u32, Arc<Pack>>>,
    /// Packs below this number are about to go: what lies in them does not count as stored.
    going_below: AtomicU32,
}

#[derive(Debug)]
struct Writer {
    id: u32,
    pack: Arc<Pack>,
    len: u64,
    dirty: bool,
}

#[derive(Debug)]
struct Pack {
    file: File,
    places: Places,
}

#[derive(Debug)]
enum Places {
    Open(RwLock<HashMap<Key, Span>>),
    Closed(Table),
}

impl Packs {
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::read_dir(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })
    }

    fn read_dir(dir: &Path) -> io::Result<Self> {
        let mut ids = Vec::new();
        for item in fs::read_dir(dir)? {
            let path = item?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            ids.extend(name.and_then(|name| name.strip_suffix(".car")?.parse::<u32>().ok()));
        }
        ids.sort_unstable();
        let last = ids.pop();
        let mut packs = BTreeMap::new();
        for id in ids {
            packs.insert(id, Arc::new(Pack::closed(dir, id)?));
        }
        let writer = match last {
            Some(id) => Writer::resume(dir, id)?,
            None => Writer::create(dir, 1)?,
        };
        packs.insert(writer.id, Arc::clone(&writer.pack));
        let dir = dir.to_owned();
        Ok(Self {
            dir,
            writer: Mutex::new(writer),
            by_id: RwLock::new(packs),
            going_below: AtomicU32::new(0),
        })
    }

    /// Appends blocks that are in no pack yet. They are durable after [`Self::sync`].
    pub(crate) fn append(&self, blocks: &[Block]) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sections = Vec::new();
        let mut spans = HashMap::new();
        for block in blocks {
            let key = key(block.cid());
            if spans.contains_key(&key) || self.find(&key, self.going_below.load(Ordering::SeqCst))?.is_some()
            {
                continue;
            }
            car::write_section(&mut sections, block.cid(), block.data());
            let end = writer.len + sections.len() as u64;
            spans.insert(key, Span::before(end, block.data().len())?);
            if sections.len() >= WRITE {
                self.write(&mut writer, &sections, std::mem::take(&mut spans))?;
                sections.clear();
            }
        }
        if spans.is_empty() { Ok(()) } else { self.write(&mut writer, &sections, spans) }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.dirty {
            writer.pack.file.sync_data()?;
            writer.dirty = false;
        }
        Ok(())
    }

    pub(crate) fn get(&self, cid: &Cid) -> io::Result<Option<Bytes>> {
        let Some((pack, span)) = self.find(&key(cid), 0)? else { return Ok(None) };
        let mut data = vec![0; usize::try_from(span.len).unwrap_or(MAX_BLOCK).min(MAX_BLOCK)];
        pack.file.read_exact_at(&mut data, u64::from(span.offset))?;
        Ok(Some(data.into()))
    }

    /// Length of a block in bytes.
    pub(crate) fn size(&self, cid: &Cid) -> io::Result<Option<usize>> {
        Ok(self.find(&key(cid), 0)?.map(|(_, span)| span.len as usize))
    }

    /// Bytes of all packs.
    pub(crate) fn total(&self) -> u64 {
        let packs = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        packs.values().filter_map(|pack| pack.file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Closes the last pack. Those that are closed now are returned; until [`Self::removed`] what lies in them does
    /// not count as stored.
    pub(crate) fn begin_rewrite(&self) -> io::Result<Vec<u32>> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.close_last(&mut writer)?;
        self.going_below.store(writer.id, Ordering::SeqCst);
        let packs = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        Ok(packs.keys().copied().filter(|id| *id < writer.id).collect())
    }

    pub(crate) fn end_rewrite(&self) {
        self.going_below.store(0, Ordering::SeqCst);
    }

    /// Visits the blocks of a pack. Returns whether that was all of it.
    pub(crate) fn scan(&self, id: u32, visit: &mut dyn FnMut(Cid, Bytes)) -> io::Result<bool> {
        let path = path(&self.dir, id);
        let end = scan(&path, false, &mut |cid, data, _| visit(cid, data))?;
        Ok(fs::metadata(path)?.len() == end)
    }

    /// Removes a pack of which no block is needed any more.
    pub(crate) fn remove(&self, id: u32) -> io::Result<()> {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        fs::remove_file(path(&self.dir, id))?;
        fs::remove_file(table_path(&self.dir, id))?;
        sync_directory(&self.dir)
    }

    /// The newest place of a block in packs from `from` on.
    fn find(&self, key: &Key, from: u32) -> io::Result<Option<(Arc<Pack>, Span)>> {
        let packs = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        for pack in packs.range(from..).rev().map(|(_, pack)| pack) {
            if let Some(span) = pack.find(key)? {
                return Ok(Some((Arc::clone(pack), span)));
            }
        }
        Ok(None)
    }

    fn write(&self, writer: &mut Writer, sections: &[u8], spans: HashMap<Key, Span>) -> io::Result<()> {
        if let Err(error) = writer.pack.file.write_all_at(sections, writer.len) {
            // The next append begins where this one did.
            writer.pack.file.set_len(writer.len)?;
            return Err(error);
        }
        writer.len += sections.len() as u64;
        writer.dirty = true;
        writer.pack.learn(spans);
        if writer.len >= ROLL_AT {
            self.close_last(writer)?;
        }
        Ok(())
    }

    fn close_last(&self, writer: &mut Writer) -> io::Result<()> {
        writer.pack.file.sync_data()?;
        let closed = writer.pack.close(&self.dir, writer.id, writer.len)?;
        let next = Writer::create(&self.dir, writer.id + 1)?;
        let mut packs = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        packs.insert(writer.id, Arc::new(closed));
        packs.insert(next.id, Arc::clone(&next.pack));
        *writer = next;
        Ok(())
    }
}

impl Writer {
    fn create(dir: &Path, id: u32) -> io::Result<Self> {
        let header = car::header(&[]);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path(dir, id))?;
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        sync_directory(dir)?;
        let pack = Arc::new(Pack { file, places: Places::Open(RwLock::default()) });
        Ok(Self { id, pack, len: header.len() as u64, dirty: false })
    }

    /// Goes on with the last pack of an earlier process. What a crash left unfinished at its end is cut off.
    fn resume(dir: &Path, id: u32) -> io::Result<Self> {
        let path = path(dir, id);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let header = car::header(&[]);
        let mut found = vec![0; header.len()];
        if file.metadata()?.len() < header.len() as u64 {
            return Self::create(dir, id);
        }
        file.read_exact_at(&mut found, 0)?;
        if found != header {
            // All packs begin alike, and it is synced before a block follows: what counts is behind it.
            tracing::warn!(pack = id, "the header of a pack is damaged; it is written again");
            file.write_all_at(&header, 0)?;
        }
        let mut spans = HashMap::new();
        let mut wrong = None;
        let mut end = scan(&path, true, &mut |cid, data, end| {
            if let Ok(span) = Span::before(end, data.len()) {
                spans.insert(key(&cid), span);
            } else {
                wrong = Some(end);
            }
        })?;
        end = wrong.unwrap_or(end);
        let len = file.metadata()?.len();
        if len > end {
            tracing::warn!(pack = id, at = end, bytes = len - end, "a pack ends in an unfinished block");
            file.set_len(end)?;
            file.sync_all()?;
        }
        let pack = Arc::new(Pack { file, places: Places::Open(RwLock::new(spans)) });
        Ok(Self { id, pack, len: end, dirty: true })
    }
}

impl Pack {
    fn closed(dir: &Path, id: u32) -> io::Result<Self> {
        let file = File::open(path(dir, id))?;
        let len = file.metadata()?.len();
        let table = table_path(dir, id);
        let places = if let Some(table) = Table::open(&table, len)? {
            table
        } else {
            let mut spans = HashMap::new();
            scan(&path(dir, id), true, &mut |cid, data, end| {
                spans.extend(Span::before(end, data.len()).ok().map(|span| (key(&cid), span)));
            })?;
            Table::write(&table, len, &spans)?
        };
        Ok(Self { file, places: Places::Closed(places) })
    }

    fn close(&self, dir: &Path, id: u32, len: u64) -> io::Result<Self> {
        let table = match &self.places {
            Places::Open(spans) => {
                let spans = spans.read().unwrap_or_else(PoisonError::into_inner);
                Table::write(&table_path(dir, id), len, &spans)?
            }
            Places::Closed(_) => return Err(io::Error::other("the pack is closed already")),
        };
        Ok(Self { file: self.file.try_clone()?, places: Places::Closed(table) })
    }

    fn learn(&self, new: HashMap<Key, Span>) {
        if let Places::Open(spans) = &self.places {
            spans.write().unwrap_or_else(PoisonError::into_inner).extend(new);
        }
    }

    fn find(&self, key: &Key) -> io::Result<Option<Span>> {
        match &self.places {
            Places::Open(spans) => Ok(spans.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()),
            Places::Closed(table) => table.find(key),
        }
    }
}

impl Span {
    /// The span of `len` bytes that end at `end`.
    fn before(end: u64, len: usize) -> io::Result<Self> {
        let offset = end.checked_sub(len as u64).and_then(|offset| u32::try_from(offset).ok());
        match (offset, u32::try_from(len)) {
            (Some(offset), Ok(len)) => Ok(Self { offset, len }),
            _ => Err(io::Error::other("a pack of more than 4 GiB")),
        }
    }
}

/// Visits whole blocks and the offset of their end; returns where the last of them ends. With `check` a block that
/// does not match its CID is none: after a power cut a file may be longer than what was written of it.
fn scan(path: &Path, check: bool, visit: &mut dyn FnMut(Cid, Bytes, u64)) -> io::Result<u64> {
    let mut reader = car::Reader::new(io::BufReader::new(File::open(path)?))?;
    let mut end = reader.position();
    loop {
        match reader.next_section() {
            Ok(Some(section)) if !check || verify(&section.cid, &section.data).is_ok() => {
                end = reader.position();
                visit(section.cid, section.data, end);
            }
            Ok(Some(section)) => {
                tracing::warn!(path = %path.display(), cid = %section.cid, "a block in a pack is damaged");
            }
            Ok(None) => return Ok(end),
            Err(car::CarError::Io(error)) => return Err(error),
            Err(error) => {
                tracing::debug!(path = %path.display(), at = end, %error, "the whole blocks of a pack end here");
                return Ok(end);
            }
        }
    }
}

fn key(cid: &Cid) -> Key {
    let mut key = Key::default();
    for (to, from) in key.iter_mut().zip(cid.hash().digest()) {
        *to = *from;
    }
    key
}

fn path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:08}.car"))
}

fn table_path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:08}.idx"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::RAW;

    fn block(number: u32) -> Block {
        Block::new(RAW, Bytes::from(number.to_le_bytes().repeat(40)))
    }

    fn blocks(range: std::ops::Range<u32>) -> Vec<Block> {
        range.map(block).collect()
    }

    fn check(packs: &Packs, range: std::ops::Range<u32>) {
        for block in blocks(range) {
            assert_eq!(packs.get(block.cid()).unwrap().as_ref(), Some(block.data()));
            assert_eq!(packs.size(block.cid()).unwrap(), Some(160));
        }
    }

    #[test]
    fn blocks_are_found_in_open_and_closed_packs_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let packs = Packs::open(dir.path()).unwrap();
        packs.append(&blocks(0..2000)).unwrap();
        packs.begin_rewrite().unwrap();
        packs.end_rewrite();
        packs.append(&blocks(1500..2500)).unwrap();
        check(&packs, 0..2500);
        assert!(packs.get(block(9999).cid()).unwrap().is_none());
        drop(packs);
        fs::remove_file(table_path(dir.path(), 1)).unwrap();
        let packs = Packs::open(dir.path()).unwrap();
        check(&packs, 0..2500);
        let total = packs.total();
        packs.append(&blocks(0..2500)).unwrap();
        assert_eq!(packs.total(), total, "what is stored is not stored again");
    }

    #[test]
    fn what_lies_behind_a_damaged_block_is_not_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let packs = Packs::open(dir.path()).unwrap();
        packs.append(&blocks(0..10)).unwrap();
        drop(packs);
        check::tests::flip(&path(dir.path(), 1), &block(4));
        let packs = Packs::open(dir.path()).unwrap();
        check(&packs, 0..4);
        check(&packs, 5..10);
        assert!(packs.get(block(4).cid()).unwrap().is_none());
    }

    #[test]
    fn a_torn_or_garbled_end_is_cut_off() {
        for garble in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let packs = Packs::open(dir.path()).unwrap();
            packs.append(&blocks(0..10)).unwrap();
            drop(packs);
            let path = path(dir.path(), 1);
            let mut content = fs::read(&path).unwrap();
            let len = content.len();
            if garble {
                content[len - 5..].fill(0);
            } else {
                content.truncate(len - 5);
            }
            fs::write(&path, content).unwrap();
            let packs = Packs::open(dir.path()).unwrap();
            check(&packs, 0..9);
            assert!(packs.get(block(9).cid()).unwrap().is_none());
            packs.append(&blocks(9..12)).unwrap();
            check(&packs, 0..12);
            drop(packs);
            check(&Packs::open(dir.path()).unwrap(), 0..12);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Packs that are closed keep everything, the last one what lies before the cut; then it goes on.
        #[test]
        fn what_a_power_cut_leaves_is_the_beginning(
            packed in prop::collection::vec(1_u32..30, 1..4),
            cut in any::<prop::sample::Index>(),
            tail in prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 1..20), Just(vec![0; 50])],
        ) {
            let dir = tempfile::tempdir().unwrap();
            let packs = Packs::open(dir.path()).unwrap();
            let (mut end, mut closed, mut ends) = (0, 0, Vec::new());
            for (number, count) in packed.iter().enumerate() {
                if number > 0 {
                    closed = end;
                    packs.begin_rewrite().unwrap();
                    packs.end_rewrite();
                }
                ends.clear();
                for block in blocks(end..end + count) {
                    packs.append(&[block]).unwrap();
                    ends.push(packs.writer.lock().unwrap().len);
                }
                end += count;
            }
            drop(packs);
            let last = path(dir.path(), packed.len() as u32);
            let mut content = fs::read(&last).unwrap();
            let cut = cut.index(content.len() + 1);
            let whole = closed + ends.iter().filter(|end| **end <= cut as u64).count() as u32;
            content.truncate(cut);
            content.extend(tail);
            fs::write(&last, content).unwrap();

            let packs = Packs::open(dir.path()).unwrap();
            check(&packs, 0..whole);
            for block in blocks(whole..end) {
                // The tail may happen to be what was cut off.
                prop_assert!(packs.get(block.cid()).unwrap().is_none_or(|data| data == *block.data()));
            }
            packs.append(&blocks(0..end + 5)).unwrap();
            check(&packs, 0..end + 5);
            drop(packs);
            check(&Packs::open(dir.path()).unwrap(), 0..end + 5);
        }
    }
}
