//! What can go wrong on the disk, as variants that a caller can act on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::block::BlockError;
use crate::digest::Digest;
use crate::files::is_full;

/// Why a data directory does not open. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{dir} is in use by another process{holder}; stop it, or choose another directory with --data")]
    Locked { dir: PathBuf, holder: String },
    #[error(
        "{dir} was written by a newer version of sampan (format {found}, this one reads up to {known}); upgrade sampan"
    )]
    Newer { dir: PathBuf, found: u32, known: u32 },
    #[error(
        "{dir} holds other files and is no data directory of sampan; choose an empty or new one with --data"
    )]
    Foreign { dir: PathBuf },
    #[error("{path}: {source}; {}, or choose another directory with --data", remedy(.source))]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} is damaged at byte {at}: {reason}; restore the directory from a backup or from followers"
    )]
    Damaged { path: PathBuf, at: u64, reason: &'static str },
    #[error("the tree could not be read: {0}")]
    Store(#[from] StoreError),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the disk is full: {free} bytes are free and {reserve} are kept in reserve; make room and push again"
    )]
    Full { free: u64, reserve: u64 },
    /// The disk itself refused, below every reserve.
    #[error("the disk is full; make room and push again")]
    NoSpace,
    #[error("there are {limit} unfinished uploads, and none of them is old; try again later")]
    TooManyUploads { limit: usize },
    #[error("the index is being built anew; try again in a moment")]
    Rebuilding,
    #[error(
        "what {name} published last has expired, and is older than max_stale allows; its publisher is away"
    )]
    TooOld { name: String },
    #[error("there is no such upload")]
    UploadUnknown,
    #[error("another request is writing to this upload")]
    UploadBusy,
    #[error("the bytes have the digest {actual}, not {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error(transparent)]
    Block(Arc<BlockError>),
    #[error("reading or writing the data directory failed: {0}")]
    Io(Arc<io::Error>),
    #[error("the index failed: {0}")]
    Index(Arc<str>),
    #[error("what was to be removed has changed since")]
    Changed,
    #[error("it was ended before it was done")]
    Cancelled,
    #[error("the store is closed")]
    Closed,
}

fn remedy(error: &io::Error) -> &'static str {
    if is_full(error) { "make room on the disk" } else { "make it writable for this user" }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { Self::NoSpace } else { Self::Io(Arc::new(error)) }
    }
}

impl From<BlockError> for StoreError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Io(error) => error.into(),
            other => Self::Block(Arc::new(other)),
        }
    }
}

impl From<StoreError> for BlockError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io(error) => Self::Io(io::Error::new(error.kind(), error)),
            StoreError::NoSpace => Self::Io(io::ErrorKind::StorageFull.into()),
            other => Self::Index(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_does_not_open_on_a_full_disk_asks_for_room() {
        let said =
            |kind: io::ErrorKind| OpenError::Io { path: "packs".into(), source: kind.into() }.to_string();
        assert!(said(io::ErrorKind::StorageFull).contains("make room on the disk"));
        assert!(said(io::ErrorKind::PermissionDenied).contains("make it writable"));
    }
}
