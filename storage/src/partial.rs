//! A blob that is being fetched: a sparse file, which of its bytes are here, and the digest so far.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use cid::Cid;

use crate::blobs::BlobFile;
use crate::block::Block;
use crate::digest::{Digest, Hasher};
use crate::error::StoreError;
use crate::index::Form;
use crate::inner::{Inner, form_of};
use crate::space::Reserve;

/// Bytes hashed at once when a gap closes.
const STRIDE: usize = 1024 * 1024;
/// Bytes written between two looks at the room that is left: others fill the disk meanwhile.
const LOOK: u64 = 16 * 1024 * 1024;

#[derive(Debug)]
pub struct Partial {
    inner: Arc<Inner>,
    path: PathBuf,
    file: Arc<File>,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    /// Everything before this is here and hashed.
    contiguous: u64,
    /// Start and end of what is here beyond that.
    ahead: BTreeMap<u64, u64>,
    reserve: Reserve,
    /// Bytes written since the room was looked at.
    written: u64,
}

impl Partial {
    pub(crate) fn create(
        dir: &Path,
        inner: Arc<Inner>,
        reserve: Reserve,
        digest: &Digest,
        size: u64,
    ) -> Result<Self, StoreError> {
        // A fetch that was given up may go while the next one for the same blob has begun.
        let path = dir.join(format!("{}-{}", digest.hex(), uuid::Uuid::new_v4()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.set_len(size)?;
        Ok(Self {
            inner,
            path,
            file: Arc::new(file),
            digest: *digest,
            size,
            hasher: Hasher::new(digest.algorithm()),
            contiguous: 0,
            ahead: BTreeMap::new(),
            reserve,
            written: 0,
        })
    }

    pub(crate) fn clear(dir: &Path) -> io::Result<()> {
        for item in fs::read_dir(dir)? {
            fs::remove_file(item?.path())?;
        }
        Ok(())
    }

    /// For readers that follow the fetch; bytes before [`Self::contiguous`] are there to be read.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Length of the whole beginning that is here.
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Stores the bytes that a verified block carries at this offset of the file.
    pub fn write(&mut self, offset: u64, cid: &Cid, block: &Bytes, bytes: &Bytes) -> Result<(), StoreError> {
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.size {
            return Err(StoreError::TooLarge { limit: self.size });
        }
        self.written += bytes.len() as u64;
        if self.written > LOOK {
            self.reserve.check()?;
            self.written = 0;
        }
        self.file.write_all_at(bytes, offset)?;
        let raw = (block.len() == bytes.len()).then_some(Form::Raw);
        match raw.or_else(|| form_of(cid, bytes).map(|(form, _)| form)) {
            Some(form) => self.inner.arriving.put(cid, &self.file, offset, bytes.len(), form),
            // A leaf that cannot be built from its bytes is kept as it came.
            None => self.inner.packs.append(&[Block::trusted(*cid, block.clone())])?,
        }
        if offset == self.contiguous {
            self.hasher.update(bytes);
            self.contiguous = end;
            self.close_gaps()?;
        } else if offset > self.contiguous {
            self.ahead.insert(offset, end);
        }
        Ok(())
    }

    fn close_gaps(&mut self) -> io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(first) = self.ahead.first_entry().filter(|first| *first.key() <= self.contiguous) {
            let end = first.remove();
            buffer.resize(STRIDE, 0);
            while self.contiguous < end {
                let len = usize::try_from(end - self.contiguous).unwrap_or(STRIDE).min(STRIDE);
                let part = buffer.get_mut(..len).unwrap_or_default();
                self.file.read_exact_at(part, self.contiguous)?;
                self.hasher.update(part);
                self.contiguous += len as u64;
            }
        }
        Ok(())
    }

    /// Makes it a blob if every byte is here and the OCI digest is right; otherwise it is dropped, because a
    /// publisher may put other bytes under a digest's path.
    pub fn finish(self, root: &Cid) -> Result<BlobFile, StoreError> {
        let actual = self.hasher.clone().finish();
        if self.contiguous != self.size || actual != self.digest {
            self.inner.wrong.note(&self.digest, root);
            return Err(StoreError::DigestMismatch { expected: self.digest, actual });
        }
        // A followed tree names it already, or the push that wants it has pinned it; this one orders the removal of an
        // old file before the new one.
        let _pin = self.inner.pins.pin(vec![self.digest]);
        // It came now, however long it took.
        self.file.set_times(FileTimes::new().set_accessed(SystemTime::now()))?;
        self.file.sync_data()?;
        self.inner.packs.sync()?;
        self.inner.blobs.adopt(&self.path, &self.digest)?;
        // The blob is here, whatever becomes of the rows.
        let indexed = self.inner.index_blob(&self.digest, root);
        if let Err(error) = indexed.and_then(|()| self.inner.index.checkpoint()) {
            self.inner.index_failed(&error);
        }
        let blob = self.inner.blobs.open_blob(&self.digest)?;
        blob.ok_or_else(|| StoreError::from(io::Error::from(io::ErrorKind::NotFound)))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.inner.arriving.remove(&self.file);
        // A finished one has moved away.
        let _ = fs::remove_file(&self.path);
    }
}
