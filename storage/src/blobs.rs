//! Blobs: one file each under `blobs/<alg>/<2 hex>/<hex>`, complete and named by its digest, or not there.
//!
//! A file that failed a check moves to `quarantine/<alg>-<hex>`, so that every look-up finds nothing and the blob is
//! pushed or fetched again. The newest few of those are kept for whoever wants to look.

use std::collections::VecDeque;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::OFlags;

use crate::dag::file::FileRoot;
use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::fail;
use crate::files::{is_full, make_directory, sync_directory};
use crate::pins::Pin;

/// Files that are kept in quarantine, the newest first.
const QUARANTINED: usize = 16;
/// And as many bytes of them: damage that is looked at is small, and a disk that fails must not be filled with it.
const QUARANTINED_BYTES: u64 = 256 * 1024 * 1024;
/// Blobs that came in last: those whom parallel uploads of the same bytes meet.
const LATELY: usize = 64;
/// A use is noted no more often: a flash disk wears by writes, and which of two blobs was asked for a few minutes
/// earlier does not matter.
const NOTED_EVERY: Duration = Duration::from_hours(1);

/// A whole blob on this disk.
#[derive(Clone, Debug)]
pub struct BlobFile {
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    file: Arc<File>,
}

impl BlobFile {
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// When it was pushed or fetched last.
    pub fn modified(&self) -> Result<SystemTime, StoreError> {
        Ok(self.file.metadata()?.modified()?)
    }

    /// Notes that somebody asked for it, in the file's access time. Nothing else sets that: files are opened so that
    /// reading leaves it alone, because a scrub reads everything. A time that is later already stays.
    pub fn note_use(&self) {
        // Where it cannot be noted the blob is read all the same.
        if let Err(error) = self.set_used(SystemTime::now()) {
            tracing::debug!(digest = %self.digest, %error, "the use of a blob could not be noted");
        }
    }

    fn set_used(&self, now: SystemTime) -> io::Result<()> {
        let noted = self.file.metadata()?.accessed()?;
        if now.duration_since(noted).is_ok_and(|ago| ago >= NOTED_EVERY) {
            self.file.set_times(FileTimes::new().set_accessed(now))?;
        }
        Ok(())
    }

    /// All of it, if it is no longer than `limit` bytes.
    pub fn read_all(&self, limit: u64) -> Result<Bytes, StoreError> {
        let len = usize::try_from(self.size).ok().filter(|_| self.size <= limit);
        let mut data = vec![0; len.ok_or(StoreError::TooLarge { limit })?];
        self.file.read_exact_at(&mut data, 0)?;
        Ok(data.into())
    }
}

/// A blob that is durable under its digest but in no tree yet.
#[derive(Clone, Debug)]
pub struct StoredBlob {
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// The UnixFS file over it.
    pub root: FileRoot,
    /// Until it is in a tree, nothing else keeps it.
    pub(crate) pin: Arc<Pin>,
}

#[derive(Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    quarantine: PathBuf,
    /// Held while a file gets or loses its name. In it, what came in last: hashed on its way, durable since.
    lately: Mutex<VecDeque<Digest>>,
    losses: AtomicU64,
}

impl Blobs {
    /// Makes the fan-out directories, so that no commit has to.
    pub(crate) fn open(dir: &Path, quarantine: &Path) -> io::Result<Self> {
        for algorithm in Algorithm::ALL {
            let dir = dir.join(algorithm.name());
            let last = dir.join("ff");
            if last.is_dir() {
                continue;
            }
            make_directory(&dir, 0o755)?;
            for byte in 0..=u8::MAX {
                fs::create_dir_all(dir.join(format!("{byte:02x}")))?;
            }
            sync_directory(&dir)?;
        }
        let (dir, quarantine) = (dir.to_owned(), quarantine.to_owned());
        Ok(Self { dir, quarantine, lately: Mutex::default(), losses: AtomicU64::new(0) })
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.join(digest.algorithm().name()).join(hex.get(..2).unwrap_or_default()).join(&hex)
    }

    /// Where the blobs are whose hexadecimal digest begins with this byte.
    pub(crate) fn directory(&self, algorithm: Algorithm, fan_out: u8) -> PathBuf {
        self.dir.join(algorithm.name()).join(format!("{fan_out:02x}"))
    }

    pub(crate) fn list(&self, algorithm: Algorithm, fan_out: u8) -> io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for item in fs::read_dir(self.directory(algorithm, fan_out))? {
            let name = item?.file_name();
            digests.extend(name.to_str().and_then(|hex| format!("{algorithm}:{hex}").parse::<Digest>().ok()));
        }
        Ok(digests)
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> io::Result<Option<BlobFile>> {
        match open_quietly(&self.path(digest)) {
            Ok(file) => {
                let size = file.metadata()?.len();
                Ok(Some(BlobFile { digest: *digest, size, file: Arc::new(file) }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves a file of the same file system to its digest. The file's bytes are durable already; its new name is
    /// when this returns. What lay there before is replaced: a push heals.
    pub(crate) fn adopt(&self, from: &Path, digest: &Digest) -> io::Result<()> {
        let to = self.path(digest);
        {
            let _names = self.lately();
            fs::rename(from, &to)?;
        }
        fail::point("upload.rename.after");
        to.parent().map_or(Ok(()), sync_directory)?;
        fail::point("upload.directory.after");
        let mut lately = self.lately();
        lately.retain(|known| known != digest);
        lately.push_back(*digest);
        if lately.len() > LATELY {
            lately.pop_front();
        }
        Ok(())
    }

    /// Whether the blob came in only just now and is still there whole: then another copy of it is of no use.
    pub(crate) fn came_lately(&self, digest: &Digest, size: u64) -> io::Result<bool> {
        let known = self.lately().contains(digest);
        Ok(known && self.open_blob(digest)?.is_some_and(|blob| blob.size == size))
    }

    /// Takes a blob that failed a check out of the way, durably. `false` where another file has taken its place
    /// since it was opened.
    pub(crate) fn quarantine(&self, blob: &BlobFile) -> io::Result<bool> {
        let from = self.path(&blob.digest);
        {
            let mut lately = self.lately();
            if !is_at(&blob.file, &from)? {
                return Ok(false);
            }
            lately.retain(|known| *known != blob.digest);
            let name = format!("{}-{}", blob.digest.algorithm(), blob.digest.hex());
            match fs::rename(&from, self.quarantine.join(name)) {
                // Its name may need a block of the disk, where none is left.
                Err(error) if is_full(&error) => fs::remove_file(&from)?,
                moved => moved?,
            }
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
        tracing::error!(digest = %blob.digest, "a blob failed its check and is in quarantine");
        fail::point("quarantine.rename.after");
        from.parent().map_or(Ok(()), sync_directory)?;
        sync_directory(&self.quarantine)?;
        self.trim()?;
        Ok(true)
    }

    /// Blobs that went into quarantine since the start.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Keeps the newest files of the quarantine, within its bounds.
    fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for item in fs::read_dir(&self.quarantine)? {
            let item = item?;
            let metadata = item.metadata()?;
            // A rename changes this time and no other.
            files.push(((metadata.ctime(), metadata.ctime_nsec()), metadata.len(), item.path()));
        }
        files.sort_unstable_by(|one, other| other.cmp(one));
        let mut bytes = 0;
        for (place, (_, len, path)) in files.into_iter().enumerate() {
            bytes += len;
            if place >= QUARANTINED || bytes > QUARANTINED_BYTES {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn lately(&self) -> MutexGuard<'_, VecDeque<Digest>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reading it does not change its access time, which says when somebody asked for it.
fn open_quietly(path: &Path) -> io::Result<File> {
    let quiet = OpenOptions::new().read(true).custom_flags(OFlags::NOATIME.bits().cast_signed()).open(path);
    match quiet {
        // Another user's file: a data directory that was copied by root.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
}

/// Whether the open file is still the one with this name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Blobs {
        for name in ["blobs", "quarantine"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        Blobs::open(&dir.join("blobs"), &dir.join("quarantine")).unwrap()
    }

    fn put(blobs: &Blobs, dir: &Path, digest: &Digest, content: &[u8]) {
        fs::write(dir.join("new"), content).unwrap();
        blobs.adopt(&dir.join("new"), digest).unwrap();
    }

    #[test]
    fn a_blob_in_quarantine_is_not_there_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path());
        let digest = Digest::of(Algorithm::Sha256, b"good");
        put(&blobs, dir.path(), &digest, b"baad");
        let bad = blobs.open_blob(&digest).unwrap().unwrap();
        assert!(blobs.quarantine(&bad).unwrap());
        assert!(blobs.open_blob(&digest).unwrap().is_none());
        assert_eq!(blobs.losses(), 1);
        let kept = dir.path().join("quarantine").join(format!("sha256-{}", digest.hex()));
        assert_eq!(fs::read(kept).unwrap(), b"baad");
        put(&blobs, dir.path(), &digest, b"good");
        assert_eq!(blobs.open_blob(&digest).unwrap().unwrap().read_all(9).unwrap(), "good");
        // Whoever finds the old file bad only now does not take the new one away.
        assert!(!blobs.quarantine(&bad).unwrap());
        assert!(blobs.open_blob(&digest).unwrap().is_some());
    }

    #[test]
    fn a_use_is_noted_now_and_then_and_reading_notes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path());
        let digest = Digest::of(Algorithm::Sha256, b"good");
        put(&blobs, dir.path(), &digest, b"good");
        let path = blobs.path(&digest);
        let used = || fs::metadata(&path).unwrap().accessed().unwrap();
        let set = |time: SystemTime| {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_times(FileTimes::new().set_accessed(time)).unwrap();
        };
        let now = SystemTime::now();
        let (old, lately, ahead) = (now - NOTED_EVERY * 30, now - NOTED_EVERY / 2, now + NOTED_EVERY);
        set(old);
        let blob = blobs.open_blob(&digest).unwrap().unwrap();
        let modified = blob.modified().unwrap();
        blob.read_all(9).unwrap();
        assert_eq!(used(), old);
        blob.note_use();
        assert!(used() >= now);
        assert_eq!(blob.modified().unwrap(), modified, "a use is no push");
        for time in [lately, ahead] {
            set(time);
            blob.note_use();
            assert_eq!(used(), time);
        }
    }

    #[test]
    fn the_quarantine_keeps_the_newest_and_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path());
        let digests: Vec<Digest> =
            (0..=QUARANTINED).map(|number| Digest::of(Algorithm::Sha256, &number.to_le_bytes())).collect();
        for digest in &digests {
            put(&blobs, dir.path(), digest, b"bad");
            assert!(blobs.quarantine(&blobs.open_blob(digest).unwrap().unwrap()).unwrap());
        }
        let kept = || fs::read_dir(dir.path().join("quarantine")).unwrap().count();
        assert_eq!(kept(), QUARANTINED);
        // A sparse file: only its length counts here.
        let large = Digest::of(Algorithm::Sha256, b"large");
        put(&blobs, dir.path(), &large, b"");
        fs::File::options()
            .write(true)
            .open(blobs.path(&large))
            .unwrap()
            .set_len(QUARANTINED_BYTES + 1)
            .unwrap();
        assert!(blobs.quarantine(&blobs.open_blob(&large).unwrap().unwrap()).unwrap());
        assert_eq!(kept(), 0, "what is too large for the quarantine takes its whole room");
    }

    #[test]
    fn only_what_came_lately_and_is_whole_makes_another_copy_needless() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = open(dir.path());
        let digest = Digest::of(Algorithm::Sha256, b"good");
        assert!(!blobs.came_lately(&digest, 4).unwrap());
        put(&blobs, dir.path(), &digest, b"good");
        assert!(blobs.came_lately(&digest, 4).unwrap() && !blobs.came_lately(&digest, 5).unwrap());
        fs::remove_file(blobs.path(&digest)).unwrap();
        assert!(!blobs.came_lately(&digest, 4).unwrap());
    }
}
