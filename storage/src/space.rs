//! Free space, and the reserve that keeps journal, fold and index from meeting a full disk.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// At least this much stays free.
const LEAST: u64 = 64 * 1024 * 1024;
/// Or this part of the file system: one of so many.
const PART: u64 = 100;

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
        let Space { free, reserve } = self.space()?;
        if free < reserve { Err(StoreError::Full { free, reserve }) } else { Ok(()) }
    }
}
