//! Free space: the reserve that keeps journal, fold and index from meeting a full disk, and the ballast that makes
//! room for them when something else has filled it all the same.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use crate::error::StoreError;

/// At least this much stays free.
const LEAST: u64 = 64 * 1024 * 1024;
/// Or this part of the file system: one of so many.
const PART: u64 = 100;
/// Room for the entries of some thousand deletes, their directories, and an index that is begun anew.
const BALLAST: u64 = 16 * 1024 * 1024;

/// Room on the file system of the data directory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free: u64,
    /// What uploads leave free. Below it they are refused.
    pub reserve: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Reserve {
    dir: PathBuf,
}

/// A file that only takes space. It is given up when a write that must succeed finds the disk full, so that deletes
/// and collection can work, and made again when there is room.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    reserve: Reserve,
    here: AtomicBool,
}

impl Reserve {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let reserve = LEAST.max(stat.f_blocks.saturating_mul(stat.f_frsize) / PART);
        Ok(Space { free, reserve })
    }

    /// [`StoreError::Full`] when an upload would eat into the reserve.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.check_for(0)
    }

    /// The same for what will take so many bytes.
    pub(crate) fn check_for(&self, bytes: u64) -> Result<(), StoreError> {
        let Space { free, reserve } = self.space()?;
        if free < reserve.saturating_add(bytes) { Err(StoreError::Full { free, reserve }) } else { Ok(()) }
    }
}

impl Ballast {
    /// Makes it if there is room, and gives it up if the disk is as good as full: a start has to write a little.
    pub(crate) fn open(dir: &Path) -> Self {
        let path = dir.join("ballast");
        let here = fs::metadata(&path).is_ok_and(|file| file.len() == BALLAST);
        let ballast = Self { path, reserve: Reserve::new(dir), here: AtomicBool::new(here) };
        ballast.relieve();
        ballast.restore();
        ballast
    }

    /// Makes it again where it was given up and there is room for it beside the reserve.
    pub(crate) fn restore(&self) {
        if self.here.load(Ordering::SeqCst) {
            return;
        }
        if !self.reserve.space().is_ok_and(|it| it.free >= it.reserve.saturating_add(BALLAST)) {
            return;
        }
        match allocate(&self.path) {
            Ok(()) => self.here.store(true, Ordering::SeqCst),
            Err(error) => {
                tracing::warn!(%error, "the ballast could not be made");
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// Gives it up where hardly anything is free: for writes that do not say why they failed.
    pub(crate) fn relieve(&self) {
        if self.reserve.space().is_ok_and(|it| it.free < BALLAST) {
            self.release();
        }
    }

    /// Gives its room to whoever met a full disk. `false` where it was given before.
    pub(crate) fn release(&self) -> bool {
        if !self.here.swap(false, Ordering::SeqCst) {
            return false;
        }
        tracing::warn!("the disk is full; the ballast is given up so that what is there can be deleted");
        fs::remove_file(&self.path).is_ok()
    }
}

fn allocate(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BALLAST) {
        Ok(()) => Ok(()),
        // Not every file system can set space aside.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 1024 * 1024];
            for _ in 0..BALLAST / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
            file.sync_data()
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_ballast_takes_real_space_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ballast");
        let ballast = Ballast::open(dir.path());
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= BALLAST);
        assert!(ballast.release() && !path.exists());
        assert!(!ballast.release(), "it is given once");
        ballast.restore();
        assert!(path.exists());
        assert!(Ballast::open(dir.path()).release(), "one that lies there is taken over");
    }
}
