//! Packs: append-only CAR files with every block that is no byte range of a blob.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use cid::Cid;

use crate::block::{Block, MAX_BLOCK};
use crate::car;
use crate::error::OpenError;
use crate::files::sync_directory;

/// A pack is closed at this size, so that one can be rewritten in a moment.
const ROLL_AT: u64 = 64 * 1024 * 1024;

/// Where a block lies in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: u32,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

#[derive(Debug)]
struct Writer {
    pack: u32,
    file: Arc<File>,
    len: u64,
    dirty: bool,
}

#[derive(Debug)]
pub(crate) struct Packs {
    dir: PathBuf,
    writer: Mutex<Writer>,
    files: RwLock<BTreeMap<u32, Arc<File>>>,
}

impl Packs {
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        let mut files = BTreeMap::new();
        for item in fs::read_dir(dir).map_err(io)? {
            let path = item.map_err(io)?.path();
            let id =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".car"));
            if let Some(id) = id.and_then(|digits| digits.parse().ok()) {
                let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
                files.insert(id, Arc::new(file));
            }
        }
        let (pack, file) = if let Some((id, file)) = files.last_key_value() {
            (*id, Arc::clone(file))
        } else {
            let file = Arc::new(create(dir, 1).map_err(io)?);
            files.insert(1, Arc::clone(&file));
            (1, file)
        };
        let len = file.metadata().map_err(io)?.len();
        let writer = Mutex::new(Writer { pack, file, len, dirty: false });
        Ok(Self { dir: dir.to_owned(), writer, files: RwLock::new(files) })
    }

    /// Numbers of the packs, oldest first.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Appends blocks. They are durable after [`Self::sync`].
    pub(crate) fn append(&self, blocks: &[Block]) -> io::Result<Vec<Place>> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut places = Vec::with_capacity(blocks.len());
        let mut sections = Vec::new();
        for block in blocks {
            let len = u32::try_from(block.data().len()).map_err(io::Error::other)?;
            car::write_section(&mut sections, block.cid(), block.data());
            let end = writer.len + sections.len() as u64;
            places.push(Place { pack: writer.pack, offset: end - u64::from(len), len });
        }
        if let Err(error) = writer.file.write_all_at(&sections, writer.len) {
            // The next append begins where this one did.
            writer.file.set_len(writer.len)?;
            return Err(error);
        }
        writer.len += sections.len() as u64;
        writer.dirty = true;
        if writer.len >= ROLL_AT {
            self.next(&mut writer)?;
        }
        Ok(places)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.dirty {
            writer.file.sync_data()?;
            writer.dirty = false;
        }
        Ok(())
    }

    /// Whether the pack reaches as far as this block. A pack whose end was lost is never appended to again
    /// ([`Self::roll`]), so a row into the lost part stays false.
    pub(crate) fn holds(&self, place: Place) -> bool {
        self.length(place.pack).is_some_and(|len| place.offset + u64::from(place.len) <= len)
    }

    /// Whether the pack's whole blocks end where the file does.
    pub(crate) fn ends_at(&self, pack: u32, end: u64) -> io::Result<bool> {
        Ok(fs::metadata(path(&self.dir, pack))?.len() == end)
    }

    fn length(&self, pack: u32) -> Option<u64> {
        let (current, len) = self.end();
        if pack == current {
            return Some(len);
        }
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&pack)?.metadata().ok().map(|metadata| metadata.len())
    }

    /// The pack that is written to and its length.
    pub(crate) fn end(&self) -> (u32, u64) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        (writer.pack, writer.len)
    }

    /// Closes the pack that is written to and begins another, so that the closed ones can be rewritten.
    pub(crate) fn roll(&self) -> io::Result<u32> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.next(&mut writer)?;
        Ok(writer.pack)
    }

    fn next(&self, writer: &mut Writer) -> io::Result<()> {
        writer.file.sync_data()?;
        let pack = writer.pack + 1;
        let file = Arc::new(create(&self.dir, pack)?);
        let len = file.metadata()?.len();
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(pack, Arc::clone(&file));
        *writer = Writer { pack, file, len, dirty: false };
        Ok(())
    }

    /// Removes a pack of which no block is needed any more.
    pub(crate) fn remove(&self, pack: u32) -> io::Result<()> {
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&pack);
        fs::remove_file(path(&self.dir, pack))?;
        sync_directory(&self.dir)
    }

    /// Bytes of all packs.
    pub(crate) fn total(&self) -> u64 {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.values().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// `None` where the pack is gone.
    pub(crate) fn read(&self, place: Place) -> io::Result<Option<Bytes>> {
        let file = {
            let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
            files.get(&place.pack).map(Arc::clone)
        };
        let len = usize::try_from(place.len).unwrap_or(usize::MAX);
        let Some(file) = file.filter(|_| len <= MAX_BLOCK) else { return Ok(None) };
        let mut data = vec![0; len];
        match file.read_exact_at(&mut data, place.offset) {
            Ok(()) => Ok(Some(data.into())),
            // The row has outlived the block: a power cut took the pack's end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Visits the blocks of a pack from `from` on (0: all) and returns where the whole ones end. What follows in
    /// the pack that is written to is the torn tail of a crash and is cut off.
    pub(crate) fn scan(
        &self,
        pack: u32,
        from: u64,
        visit: &mut dyn FnMut(Cid, Place, Bytes),
    ) -> io::Result<u64> {
        let mut reader = car::Reader::open_at(io::BufReader::new(File::open(path(&self.dir, pack))?), from)?;
        let mut end = reader.position();
        loop {
            match reader.next_section() {
                Ok(Some(section)) => {
                    let len = section.data.len() as u32;
                    visit(section.cid, Place { pack, offset: section.offset, len }, section.data);
                    end = reader.position();
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(pack, at = end, %error, "a pack ends in an unfinished block");
                    let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
                    if writer.pack == pack {
                        writer.file.set_len(end)?;
                        writer.len = end;
                    }
                    break;
                }
            }
        }
        Ok(end)
    }
}

fn path(dir: &Path, pack: u32) -> PathBuf {
    dir.join(format!("{pack:08}.car"))
}

fn create(dir: &Path, pack: u32) -> io::Result<File> {
    let path = path(dir, pack);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(&car::header(&[]), 0)?;
    file.sync_all()?;
    sync_directory(dir)?;
    Ok(file)
}
