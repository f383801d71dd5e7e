//! Uploads: bytes on their way to become a blob, hashed as they arrive.
//!
//! A session is a directory `uploads/<id>/` with `data` and `about`. Its hash state lives in memory between
//! requests; after a restart, or when too many sessions lie idle, it is made again from the file.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::blobs::{Blobs, StoredBlob};
use crate::block::{RAW, cid_from_sha256};
use crate::dag::file::{CHUNK, FileBuilder};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::StoreError;
use crate::fail;
use crate::name::RepositoryName;
use crate::pins::{Pin, Pins};
use crate::space::{Reserve, Space};
use crate::writeback::Writeback;

/// Hash states kept between requests; each holds an open file and some 70 bytes for each MiB uploaded.
const MAX_IDLE: usize = 256;
/// Below this a second thread costs more than it saves.
const PARALLEL: usize = 128 * 1024;
/// A thread that only hashes.
const STACK: usize = 64 * 1024;
/// How much is written between two looks at the free space.
const SPACE_CHECK: u64 = 16 * 1024 * 1024;
/// Sessions that nobody touched for this long are removed at start, as Distribution does after a week.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(Uuid);

impl FromStr for UploadId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        // Only the one spelling that we give out: it becomes a file name.
        let id = Uuid::try_parse(text).map_err(|_| StoreError::UploadUnknown)?;
        if id.to_string() == text { Ok(Self(id)) } else { Err(StoreError::UploadUnknown) }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A session that this request holds alone. Dropping it gives the session back.
#[derive(Debug)]
pub struct Upload {
    uploads: Arc<Uploads>,
    session: Option<Session>,
    id: UploadId,
}

#[derive(Debug)]
struct Session {
    repository: RepositoryName,
    dir: PathBuf,
    file: Arc<File>,
    hash: StreamHash,
    writeback: Writeback,
    /// Offset at which the free space is looked at next.
    check_at: u64,
}

/// The digest of a stream and the hashes of its leaves, in one pass.
#[derive(Clone, Debug)]
struct StreamHash {
    whole: Hasher,
    algorithm: Algorithm,
    leaves: LeafHash,
    len: u64,
}

/// The hashes of a stream's leaves. Those of the first come from elsewhere where it is hashed anyway.
#[derive(Clone, Debug)]
struct LeafHash {
    hasher: Hasher,
    /// Bytes of the leaf that is not full.
    filled: usize,
    done: Vec<Digest>,
}

#[derive(Debug)]
enum Slot {
    Busy,
    Idle(Box<Session>),
}

#[derive(Debug)]
pub(crate) struct Uploads {
    dir: PathBuf,
    blobs: Arc<Blobs>,
    reserve: Reserve,
    pins: Arc<Pins>,
    slots: Mutex<HashMap<UploadId, Slot>>,
}

impl Upload {
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// Bytes received so far.
    pub fn offset(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.hash.len)
    }

    /// Appends bytes. After an error the session is as long as before.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_pieces(&[bytes])
    }

    /// The same for bytes in pieces. Many at a time are worth a second thread.
    pub fn write_pieces<B: AsRef<[u8]> + Sync>(&mut self, pieces: &[B]) -> Result<(), StoreError> {
        let session = self.session.as_mut().ok_or(StoreError::UploadUnknown)?;
        let offset = session.hash.len;
        if offset >= session.check_at {
            self.uploads.reserve.check()?;
            session.check_at = offset + SPACE_CHECK;
        }
        let file = &session.file;
        let write = || {
            let mut at = offset;
            pieces.iter().try_for_each(|piece| {
                file.write_all_at(piece.as_ref(), at)?;
                at += piece.as_ref().len() as u64;
                Ok(())
            })
        };
        session.hash.write_and_update(pieces, write)?;
        Ok(session.writeback.grown(session.hash.len)?)
    }

    /// Makes the bytes a blob: durable under its digest when this returns. A wrong digest ends the session.
    pub fn finish(mut self, digest: &Digest) -> Result<StoredBlob, StoreError> {
        let session = self.session.take().ok_or(StoreError::UploadUnknown)?;
        let pin = self.uploads.pins.pin(vec![*digest]);
        let finished = session.finish(&self.uploads.blobs, digest, pin);
        let mut slots = self.uploads.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.remove(&self.id);
        finished
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut slots = self.uploads.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() > MAX_IDLE {
            slots.remove(&self.id);
        } else {
            slots.insert(self.id, Slot::Idle(Box::new(session)));
        }
    }
}

impl Session {
    /// Looks at the free space at its next write.
    fn new(repository: RepositoryName, dir: PathBuf, file: File, hash: StreamHash) -> Self {
        let file = Arc::new(file);
        let writeback = Writeback::new(&file, hash.len);
        let check_at = hash.len;
        Self { repository, dir, file, hash, writeback, check_at }
    }

    fn finish(mut self, blobs: &Blobs, digest: &Digest, pin: Pin) -> Result<StoredBlob, StoreError> {
        let data = self.dir.join("data");
        // Bytes beyond the last successful write are none of ours.
        self.file.set_len(self.hash.len)?;
        let actual = if digest.algorithm() == self.hash.algorithm {
            self.hash.whole.clone().finish()
        } else {
            let mut hasher = Hasher::new(digest.algorithm());
            read_through(&self.file, &mut |bytes| hasher.update(bytes))?;
            hasher.finish()
        };
        if actual != *digest {
            fs::remove_dir_all(&self.dir)?;
            return Err(StoreError::DigestMismatch { expected: *digest, actual });
        }
        fail::point("upload.sync.before");
        self.writeback.finish()?;
        fail::point("upload.sync.after");
        blobs.adopt(&data, digest)?;
        fs::remove_dir_all(&self.dir)?;
        Ok(self.hash.stored(*digest, pin))
    }
}

impl StreamHash {
    fn new(algorithm: Algorithm) -> Self {
        Self { whole: Hasher::new(algorithm), algorithm, leaves: LeafHash::default(), len: 0 }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        let mut rest = bytes;
        if self.is_at_first() {
            // Up to here the stream's SHA-256 is the first leaf's too.
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.leaves.filled));
            self.whole.update(now);
            self.leaves.filled += now.len();
            if self.leaves.filled == CHUNK {
                self.leaves.push(self.whole.clone().finish());
            }
            rest = later;
        }
        self.whole.update(rest);
        self.leaves.update(rest);
    }

    /// Writes the pieces and hashes them. After an error the hashes are what they were before.
    fn write_and_update<B: AsRef<[u8]> + Sync>(
        &mut self,
        pieces: &[B],
        write: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let len: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        if len < PARALLEL || self.is_at_first() || !has_cores() {
            write()?;
            for piece in pieces {
                self.update(piece.as_ref());
            }
            return Ok(());
        }
        let before = self.leaves.mark();
        let (whole, leaves) = (&mut self.whole, &mut self.leaves);
        let written = thread::scope(|scope| {
            let hash = || pieces.iter().for_each(|piece| leaves.update(piece.as_ref()));
            let beside = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, hash);
            let written = write();
            if written.is_ok() && beside.is_ok() {
                for piece in pieces {
                    whole.update(piece.as_ref());
                }
            }
            // Without a second thread nothing was hashed.
            written.map(|()| beside.is_ok())
        });
        match written {
            Ok(hashed) => {
                if hashed {
                    self.len += len as u64;
                } else {
                    for piece in pieces {
                        self.update(piece.as_ref());
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.leaves.go_back(before);
                Err(error)
            }
        }
    }

    /// Whether the leaf being hashed is the first and has the same hash as the stream so far.
    fn is_at_first(&self) -> bool {
        self.leaves.done.is_empty() && self.algorithm == Algorithm::Sha256
    }

    fn stored(mut self, digest: Digest, pin: Pin) -> StoredBlob {
        let last = self.leaves.filled as u64;
        let first = self.is_at_first();
        let tail = (last > 0 || self.leaves.done.is_empty())
            .then(|| if first { self.whole.clone().finish() } else { self.leaves.take() });
        let mut builder = FileBuilder::new();
        for leaf in &self.leaves.done {
            builder.push_leaf(cid_from_sha256(RAW, leaf), CHUNK as u64);
        }
        if let Some(tail) = tail {
            builder.push_leaf(cid_from_sha256(RAW, &tail), last);
        }
        StoredBlob { digest, size: self.len, root: builder.finish(), _pin: Arc::new(pin) }
    }
}

impl Default for LeafHash {
    fn default() -> Self {
        Self { hasher: Hasher::new(Algorithm::Sha256), filled: 0, done: Vec::new() }
    }
}

impl LeafHash {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - self.filled));
            self.hasher.update(now);
            self.filled += now.len();
            if self.filled == CHUNK {
                let leaf = self.take();
                self.push(leaf);
            }
            bytes = rest;
        }
    }

    fn push(&mut self, leaf: Digest) {
        self.filled = 0;
        self.done.push(leaf);
    }

    fn take(&mut self) -> Digest {
        std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256)).finish()
    }

    fn mark(&self) -> (Hasher, usize, usize) {
        (self.hasher.clone(), self.filled, self.done.len())
    }

    fn go_back(&mut self, (hasher, filled, done): (Hasher, usize, usize)) {
        (self.hasher, self.filled) = (hasher, filled);
        self.done.truncate(done);
    }
}

/// Whether a second thread can run beside this one.
fn has_cores() -> bool {
    static CORES: OnceLock<bool> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().is_ok_and(|cores| cores.get() > 1))
}

impl Uploads {
    /// Takes over what an earlier process left and removes what is too old.
    pub(crate) fn open(dir: &Path, blobs: Arc<Blobs>, pins: Arc<Pins>, reserve: Reserve) -> io::Result<Self> {
        let now = SystemTime::now();
        for item in fs::read_dir(dir)? {
            let item = item?;
            let data = item.path().join("data");
            let touched = fs::metadata(&data).and_then(|metadata| metadata.modified());
            // A directory without data is what a crash left of a finished upload.
            let old = touched.map_or(true, |at| now.duration_since(at).is_ok_and(|age| age > MAX_AGE));
            if old && item.file_type()?.is_dir() {
                fs::remove_dir_all(item.path())?;
            } else if item.file_type()?.is_file() {
                fs::remove_file(item.path())?;
            }
        }
        Ok(Self { dir: dir.to_owned(), blobs, reserve, pins, slots: Mutex::default() })
    }

    pub(crate) fn space(&self) -> io::Result<Space> {
        self.reserve.space()
    }

    /// Sessions in memory, those that a request holds among them.
    pub(crate) fn open_sessions(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn begin(
        self: &Arc<Self>,
        repository: &RepositoryName,
        algorithm: Option<Algorithm>,
    ) -> Result<Upload, StoreError> {
        self.reserve.check()?;
        let id = UploadId(Uuid::new_v4());
        let dir = self.dir.join(id.to_string());
        let algorithm = algorithm.unwrap_or_default();
        fs::create_dir(&dir)?;
        fs::write(dir.join("about"), format!("{repository}\n{algorithm}\n"))?;
        let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
        let file = options.open(dir.join("data"))?;
        let session = Session::new(repository.clone(), dir, file, StreamHash::new(algorithm));
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Slot::Busy);
        Ok(Upload { uploads: Arc::clone(self), session: Some(session), id })
    }

    pub(crate) fn resume(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Upload, StoreError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.insert(*id, Slot::Busy) {
                Some(Slot::Busy) => return Err(StoreError::UploadBusy),
                slot => slot,
            }
        };
        let session = match slot {
            Some(Slot::Idle(session)) => Ok(*session),
            _ => self.read_back(id),
        };
        let mut upload = Upload { uploads: Arc::clone(self), session: None, id: *id };
        match session {
            Ok(session) if session.repository == *repository => {
                upload.session = Some(session);
                Ok(upload)
            }
            // Another repository's session goes back to its place.
            Ok(session) => {
                upload.session = Some(session);
                Err(StoreError::UploadUnknown)
            }
            Err(error) => {
                self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
                Err(error)
            }
        }
    }

    pub(crate) fn cancel(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<(), StoreError> {
        let mut upload = self.resume(repository, id)?;
        if let Some(session) = upload.session.take() {
            fs::remove_dir_all(&session.dir)?;
        }
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }

    /// A small blob in one go.
    pub(crate) fn put(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<StoredBlob, StoreError> {
        self.reserve.check()?;
        let mut hash = StreamHash::new(algorithm);
        hash.update(bytes);
        let digest = hash.whole.clone().finish();
        let pin = self.pins.pin(vec![digest]);
        let path = self.dir.join(format!("{}.new", Uuid::new_v4()));
        let file = File::create_new(&path)?;
        let written = file.write_all_at(bytes, 0).and_then(|()| file.sync_data());
        if let Err(error) = written {
            fs::remove_file(&path)?;
            return Err(error.into());
        }
        self.blobs.adopt(&path, &digest)?;
        Ok(hash.stored(digest, pin))
    }

    /// A session that an earlier process began: its bytes are hashed again.
    fn read_back(&self, id: &UploadId) -> Result<Session, StoreError> {
        let dir = self.dir.join(id.to_string());
        let about = match fs::read_to_string(dir.join("about")) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::UploadUnknown),
            Err(error) => return Err(error.into()),
        };
        let mut lines = about.lines();
        let repository = lines.next().and_then(|line| line.parse().ok()).ok_or(StoreError::UploadUnknown)?;
        let algorithm = lines.next().and_then(|line| line.parse().ok()).unwrap_or_default();
        let file = OpenOptions::new().read(true).write(true).open(dir.join("data"))?;
        let mut hash = StreamHash::new(algorithm);
        read_through(&file, &mut |bytes| hash.update(bytes))?;
        Ok(Session::new(repository, dir, file, hash))
    }
}

fn read_through(file: &File, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(());
        }
        visit(buffer.get(..read).unwrap_or_default());
        offset += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::file::from_bytes;

    fn open(dir: &Path) -> Arc<Uploads> {
        for name in ["blobs", "uploads"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let blobs = Arc::new(Blobs::open(&dir.join("blobs")).unwrap());
        Arc::new(Uploads::open(&dir.join("uploads"), blobs, Arc::default(), Reserve::new(dir)).unwrap())
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 % 251) as u8).collect()
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_blob() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = open(dir.path());
        let repository = "foo".parse().unwrap();
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let content = bytes(len);
            for algorithm in Algorithm::ALL {
                let digest = Digest::of(algorithm, &content);
                for (split, announced) in
                    [(1000, Some(algorithm)), (CHUNK, None), (CHUNK + 7, Some(algorithm))]
                {
                    let mut upload = uploads.begin(&repository, announced).unwrap();
                    for part in content.chunks(split.max(len / 10 + 1)) {
                        upload.write(part).unwrap();
                    }
                    let stored = upload.finish(&digest).unwrap();
                    assert_eq!((stored.size, stored.root.cid), (len as u64, from_bytes(&content).0.cid));
                    let blob = uploads.blobs.open_blob(&digest).unwrap().unwrap();
                    assert_eq!(blob.read_all(u64::MAX).unwrap(), content);
                }
            }
        }
        assert_eq!(fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);
    }

    #[test]
    fn pieces_that_cannot_be_written_are_not_hashed() {
        let content = bytes(4 * CHUNK);
        let mut hash = StreamHash::new(Algorithm::Sha256);
        let good = || Ok(());
        let bad = || Err(io::ErrorKind::StorageFull.into());
        for part in content.chunks(CHUNK / 2 + 9) {
            let pieces: Vec<&[u8]> = part.chunks(40_000).collect();
            assert!(hash.write_and_update(&pieces, bad).is_err());
            hash.write_and_update(&pieces, good).unwrap();
        }
        let digest = hash.whole.clone().finish();
        assert_eq!(digest, Digest::of(Algorithm::Sha256, &content));
        let pin = Arc::new(Pins::default()).pin(vec![digest]);
        assert_eq!(hash.stored(digest, pin).root.cid, from_bytes(&content).0.cid);
    }

    #[test]
    fn an_upload_goes_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let repository = "foo".parse().unwrap();
        let content = bytes(2 * CHUNK + 9);
        let mut upload = open(dir.path()).begin(&repository, None).unwrap();
        upload.write(&content[..CHUNK + 3]).unwrap();
        let id = *upload.id();
        drop(upload);
        let uploads = open(dir.path());
        let mut upload = uploads.resume(&repository, &id).unwrap();
        assert_eq!(upload.offset(), CHUNK as u64 + 3);
        assert!(matches!(uploads.resume(&repository, &id), Err(StoreError::UploadBusy)));
        upload.write(&content[CHUNK + 3..]).unwrap();
        let digest = Digest::of(Algorithm::Sha256, &content);
        assert_eq!(upload.finish(&digest).unwrap().root.cid, from_bytes(&content).0.cid);
        assert!(matches!(uploads.resume(&repository, &id), Err(StoreError::UploadUnknown)));
    }

    #[test]
    fn a_session_belongs_to_its_repository_and_a_wrong_digest_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = open(dir.path());
        let (mine, other) = ("foo".parse().unwrap(), "bar".parse().unwrap());
        let upload = uploads.begin(&mine, None).unwrap();
        let id = *upload.id();
        drop(upload);
        assert!(matches!(uploads.resume(&other, &id), Err(StoreError::UploadUnknown)));
        let upload = uploads.resume(&mine, &id).unwrap();
        let wrong = Digest::of(Algorithm::Sha256, b"other");
        assert!(matches!(upload.finish(&wrong), Err(StoreError::DigestMismatch { .. })));
        assert!(matches!(uploads.cancel(&mine, &id), Err(StoreError::UploadUnknown)));
    }
}
