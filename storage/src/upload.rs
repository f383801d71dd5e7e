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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use crate::blobs::{Blobs, StoredBlob};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::StoreError;
use crate::fail;
use crate::name::RepositoryName;
use crate::pins::{Pin, Pins};
use crate::space::{Reserve, Space};
use crate::stream::{StreamHash, read_through};
use crate::writeback::Writeback;

/// Hash states kept between requests; each holds an open file and some 70 bytes for each MiB uploaded.
const MAX_IDLE: usize = 256;
/// How much is written between two looks at the free space.
const SPACE_CHECK: u64 = 16 * 1024 * 1024;
/// Sessions that lie on the disk, idle or not: each costs two files, and a client could begin them for ever.
const MAX_SESSIONS: usize = 10_000;
/// When there are too many, so many of the oldest go at once, so that not each new one has to look at all.
const PURGED_AT_ONCE: usize = 100;
/// But none whose client may only be slow.
const SPARED: Duration = Duration::from_mins(10);
/// After a look that found none to purge there is no other for so long.
const NEXT_LOOK: Duration = Duration::from_secs(10);

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
    /// Sessions on the disk.
    count: AtomicUsize,
    limit: usize,
    /// When it is worth while to look for old ones again.
    next_look: Mutex<Option<Instant>>,
}

impl Upload {
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// Bytes received so far.
    pub fn offset(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.hash.len)
    }

    /// Appends bytes. After an error the session is as long as before and can go on, unless the disk has failed.
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
        if let Err(error) = session.hash.write_and_update(pieces, write) {
            // What was written of it must not take space that is wanted now.
            session.file.set_len(offset)?;
            return Err(error.into());
        }
        if let Err(error) = session.writeback.grown(session.hash.len) {
            // Nobody knows which of the bytes are on the disk.
            self.end();
            return Err(error.into());
        }
        Ok(())
    }

    /// Makes the bytes a blob: durable under its digest when this returns. It ends the session, also where the digest
    /// is wrong or the disk fails.
    pub fn finish(mut self, digest: &Digest) -> Result<StoredBlob, StoreError> {
        let session = self.session.as_mut().ok_or(StoreError::UploadUnknown)?;
        let pin = self.uploads.pins.pin(vec![*digest]);
        let finished = session.finish(&self.uploads.blobs, digest, pin);
        self.end();
        finished
    }

    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            self.uploads.end(&self.id, &session.dir);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut slots = self.uploads.slots();
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

    fn finish(&mut self, blobs: &Blobs, digest: &Digest, pin: Pin) -> Result<StoredBlob, StoreError> {
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
            return Err(StoreError::DigestMismatch { expected: *digest, actual });
        }
        // Another upload of the same bytes was faster: these need not even reach the disk.
        if !blobs.came_lately(digest, self.hash.len)? {
            fail::point("upload.sync.before");
            self.writeback.finish()?;
            fail::point("upload.sync.after");
            blobs.adopt(&self.dir.join("data"), digest)?;
        }
        Ok(self.hash.clone().stored(*digest, pin))
    }
}

impl Uploads {
    /// Takes over what an earlier process left.
    pub(crate) fn open(dir: &Path, blobs: Arc<Blobs>, pins: Arc<Pins>, reserve: Reserve) -> io::Result<Self> {
        let mut count = 0;
        for item in fs::read_dir(dir)? {
            let item = item?;
            if item.file_type()?.is_file() {
                fs::remove_file(item.path())?;
            } else if item.path().join("data").exists() {
                count += 1;
            } else {
                // What a crash left of a finished upload.
                fs::remove_dir_all(item.path())?;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            blobs,
            reserve,
            pins,
            slots: Mutex::default(),
            count: count.into(),
            limit: MAX_SESSIONS,
            next_look: Mutex::default(),
        })
    }

    pub(crate) fn space(&self) -> io::Result<Space> {
        self.reserve.space()
    }

    /// Sessions in memory, those that a request holds among them.
    pub(crate) fn open_sessions(&self) -> usize {
        self.slots().len()
    }

    pub(crate) fn begin(
        self: &Arc<Self>,
        repository: &RepositoryName,
        algorithm: Option<Algorithm>,
    ) -> Result<Upload, StoreError> {
        self.reserve.check()?;
        self.make_room()?;
        let id = UploadId(Uuid::new_v4());
        let dir = self.dir.join(id.to_string());
        let algorithm = algorithm.unwrap_or_default();
        let file = match prepare(&dir, &format!("{repository}\n{algorithm}\n")) {
            Ok(file) => file,
            Err(error) => {
                // It may not even be there; whatever is left goes at the next start.
                let _ = fs::remove_dir_all(&dir);
                return Err(error.into());
            }
        };
        self.count.fetch_add(1, Ordering::SeqCst);
        let session = Session::new(repository.clone(), dir, file, StreamHash::new(algorithm));
        self.slots().insert(id, Slot::Busy);
        Ok(Upload { uploads: Arc::clone(self), session: Some(session), id })
    }

    pub(crate) fn resume(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<Upload, StoreError> {
        let slot = {
            match self.slots().insert(*id, Slot::Busy) {
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
                self.slots().remove(id);
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
            self.end(id, &session.dir);
        }
        Ok(())
    }

    /// Removes sessions of which nothing was written for so long, but none that a request holds. Returns how many.
    pub(crate) fn purge(&self, older_than: Duration) -> Result<usize, StoreError> {
        Ok(self.purge_oldest(older_than, usize::MAX)?)
    }

    fn purge_oldest(&self, older_than: Duration, most: usize) -> io::Result<usize> {
        let now = SystemTime::now();
        let mut old = Vec::new();
        for item in fs::read_dir(&self.dir)? {
            let dir = item?.path();
            let id = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            // One that has ended since is not there to be asked.
            let touched = fs::metadata(dir.join("data")).and_then(|data| data.modified());
            if let (Some(id), Ok(touched)) = (id, touched)
                && now.duration_since(touched).is_ok_and(|age| age >= older_than)
            {
                old.push((touched, id, dir));
            }
        }
        old.sort_unstable_by_key(|(touched, ..)| *touched);
        let mut purged = 0;
        for (_, id, dir) in old.into_iter().take(most) {
            // Held for as long as it takes, as a request would.
            let slot = self.slots().insert(id, Slot::Busy);
            if matches!(slot, Some(Slot::Busy)) {
                continue;
            }
            drop(slot);
            self.end(&id, &dir);
            purged += 1;
        }
        Ok(purged)
    }

    /// Lets the oldest go when there are too many.
    fn make_room(&self) -> Result<(), StoreError> {
        if self.count.load(Ordering::SeqCst) < self.limit {
            return Ok(());
        }
        let too_many = StoreError::TooManyUploads { limit: self.limit };
        let mut next_look = self.next_look.lock().unwrap_or_else(PoisonError::into_inner);
        if next_look.is_some_and(|at| Instant::now() < at) {
            return Err(too_many);
        }
        let purged = self.purge_oldest(SPARED, PURGED_AT_ONCE)?;
        *next_look = (purged == 0).then(|| Instant::now() + NEXT_LOOK);
        if purged == 0 { Err(too_many) } else { Ok(()) }
    }

    /// Removes a session that the caller holds.
    fn end(&self, id: &UploadId, dir: &Path) {
        if let Err(error) = fs::remove_dir_all(dir) {
            tracing::warn!(dir = %dir.display(), %error, "an upload that has ended could not be removed");
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.slots().remove(id);
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
        if let Err(error) = written.and_then(|()| self.blobs.adopt(&path, &digest)) {
            // If it has its place already, it stays there and is in no tree.
            let _ = fs::remove_file(&path);
            return Err(error.into());
        }
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

    fn slots(&self) -> MutexGuard<'_, HashMap<UploadId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's directory and its empty file.
fn prepare(dir: &Path, about: &str) -> io::Result<File> {
    fs::create_dir(dir)?;
    fs::write(dir.join("about"), about)?;
    OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("data"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dag::file::{CHUNK, from_bytes};

    fn open(dir: &Path) -> Arc<Uploads> {
        for name in ["blobs", "quarantine", "uploads"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let blobs = Arc::new(Blobs::open(&dir.join("blobs"), &dir.join("quarantine")).unwrap());
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

    fn count(dir: &Path) -> usize {
        fs::read_dir(dir.join("uploads")).unwrap().count()
    }

    fn age(dir: &Path, upload: &UploadId, age: Duration) {
        let data = dir.join("uploads").join(upload.to_string()).join("data");
        File::options().write(true).open(data).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn old_sessions_go_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        let repository = "foo".parse().unwrap();
        let left = *open(dir.path()).begin(&repository, None).unwrap().id();
        let uploads = open(dir.path());
        let busy = uploads.begin(&repository, None).unwrap();
        let idle = *uploads.begin(&repository, None).unwrap().id();
        let young = *uploads.begin(&repository, None).unwrap().id();
        for id in [&left, busy.id(), &idle] {
            age(dir.path(), id, Duration::from_hours(2));
        }
        assert_eq!(uploads.purge(Duration::from_hours(1)).unwrap(), 2);
        for gone in [left, idle] {
            assert!(matches!(uploads.resume(&repository, &gone), Err(StoreError::UploadUnknown)));
        }
        assert!(uploads.resume(&repository, &young).is_ok());
        assert_eq!(busy.finish(&Digest::of(Algorithm::Sha256, b"")).unwrap().size, 0);
        assert_eq!(uploads.count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn beyond_the_limit_the_oldest_make_room_or_nobody_does() {
        let dir = tempfile::tempdir().unwrap();
        let repository = "foo".parse().unwrap();
        let mut uploads = open(dir.path());
        Arc::get_mut(&mut uploads).unwrap().limit = 3;
        let ids: Vec<UploadId> = (0..3).map(|_| *uploads.begin(&repository, None).unwrap().id()).collect();
        let refused = uploads.begin(&repository, None);
        assert!(matches!(refused, Err(StoreError::TooManyUploads { limit: 3 })));
        age(dir.path(), &ids[1], SPARED);
        // Not looked at again so soon.
        assert!(uploads.begin(&repository, None).is_err());
        *uploads.next_look.lock().unwrap() = None;
        assert!(uploads.begin(&repository, None).is_ok());
        assert!(matches!(uploads.resume(&repository, &ids[1]), Err(StoreError::UploadUnknown)));
        assert!(uploads.resume(&repository, &ids[0]).is_ok());
        uploads.cancel(&repository, &ids[0]).unwrap();
        assert!(uploads.begin(&repository, None).is_ok(), "one that has ended makes room");
        assert_eq!(count(dir.path()), 3);
    }

    #[test]
    fn two_uploads_of_one_blob_meet_in_one_file() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let uploads = open(dir.path());
        let content = bytes(CHUNK + 1);
        let digest = Digest::of(Algorithm::Sha256, &content);
        let begin = |name: &str| {
            let mut upload = uploads.begin(&name.parse().unwrap(), None).unwrap();
            upload.write(&content).unwrap();
            upload
        };
        let file = || fs::metadata(uploads.blobs.path(&digest)).unwrap().ino();
        let (one, two) = (begin("one"), begin("two"));
        let first = one.finish(&digest).unwrap();
        let before = file();
        let second = two.finish(&digest).unwrap();
        assert_eq!((first.root, first.size), (second.root, second.size));
        assert_eq!(file(), before, "the first one's file is the blob");
        assert_eq!(count(dir.path()), 0);

        // One that has lost bytes since is no reason to throw good ones away.
        File::options().write(true).open(uploads.blobs.path(&digest)).unwrap().set_len(5).unwrap();
        begin("three").finish(&digest).unwrap();
        let healed = uploads.blobs.open_blob(&digest).unwrap().unwrap();
        assert_eq!(healed.read_all(u64::MAX).unwrap(), content);
    }

    #[test]
    fn a_wrong_digest_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = open(dir.path());
        let mut upload = uploads.begin(&"foo".parse().unwrap(), None).unwrap();
        upload.write(b"bytes").unwrap();
        assert!(upload.finish(&Digest::of(Algorithm::Sha512, b"other")).is_err());
        assert_eq!(count(dir.path()), 0);
        assert_eq!(uploads.count.load(Ordering::SeqCst), 0);
    }

    /// What happens to the uploads at a time.
    #[derive(Clone, Debug)]
    enum Step {
        /// So many bytes come to one of them, in pieces of a size.
        Write { which: usize, bytes: usize, piece: usize },
        /// The process ends and another one begins.
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![0..9_usize, CHUNK - 2..CHUNK + 3, 0..2 * CHUNK];
        prop_oneof![
            8 => (0..3_usize, bytes, 1..300_000_usize)
                .prop_map(|(which, bytes, piece)| Step::Write { which, bytes, piece }),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// The first two bring the same bytes, the third brings others.
        #[test]
        fn uploads_become_their_blobs_however_their_bytes_come(
            sizes in [0..3 * CHUNK, 0..3 * CHUNK],
            steps in prop::collection::vec(step(), 0..12),
            announced in [prop::option::of(0..2_usize), prop::option::of(0..2_usize), prop::option::of(0..2_usize)],
            digests in [0..2_usize, 0..2_usize, 0..2_usize],
        ) {
            let dir = tempfile::tempdir().unwrap();
            let repository: RepositoryName = "foo".parse().unwrap();
            let mut other = bytes(sizes[1]);
            other.push(7);
            let contents = [bytes(sizes[0]), bytes(sizes[0]), other];
            let mut uploads = open(dir.path());
            let ids = announced.map(|algorithm| {
                *uploads.begin(&repository, algorithm.map(|at| Algorithm::ALL[at])).unwrap().id()
            });
            let mut came = [0; 3];
            for step in steps {
                let Step::Write { which, bytes, piece } = step else {
                    drop(uploads);
                    uploads = open(dir.path());
                    continue;
                };
                let mut upload = uploads.resume(&repository, &ids[which]).unwrap();
                prop_assert_eq!(upload.offset(), came[which] as u64);
                let end = contents[which].len().min(came[which] + bytes);
                let pieces: Vec<&[u8]> = contents[which][came[which]..end].chunks(piece).collect();
                upload.write_pieces(&pieces).unwrap();
                came[which] = end;
            }
            for (which, content) in contents.iter().enumerate() {
                let mut upload = uploads.resume(&repository, &ids[which]).unwrap();
                upload.write(&content[came[which]..]).unwrap();
                let digest = Digest::of(Algorithm::ALL[digests[which]], content);
                let stored = upload.finish(&digest).unwrap();
                prop_assert_eq!((stored.size, stored.root.cid), (content.len() as u64, from_bytes(content).0.cid));
                let blob = uploads.blobs.open_blob(&digest).unwrap().unwrap();
                prop_assert_eq!(&blob.read_all(u64::MAX).unwrap()[..], &content[..]);
            }
            prop_assert_eq!(count(dir.path()), 0);
        }
    }
}
