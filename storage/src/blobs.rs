//! Blobs: one file each under `blobs/<alg>/<2 hex>/<hex>`, complete and named by its digest, or not there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::dag::file::FileRoot;
use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::fail;
use crate::files::{make_directory, sync_directory};
use crate::pins::Pin;

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
    pub(crate) _pin: Arc<Pin>,
}

#[derive(Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// Makes the fan-out directories, so that no commit has to.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
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
        Ok(Self { dir: dir.to_owned() })
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
        match File::open(self.path(digest)) {
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
        fs::rename(from, &to)?;
        fail::point("upload.rename.after");
        to.parent().map_or(Ok(()), sync_directory)?;
        fail::point("upload.directory.after");
        Ok(())
    }
}
