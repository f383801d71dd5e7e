//! What can go wrong in the registry, as variants that a caller can act on.

use sampan_storage::{Digest, Reference, RepositoryName, StoreError};

use super::manifest::ManifestError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("there is no repository {0} with content here")]
    RepositoryUnknown(RepositoryName),
    #[error("{0} is not in this repository")]
    BlobUnknown(Digest),
    #[error("{0} is known, but no peer gives its bytes now")]
    BlobUnavailable(Digest),
    #[error("{0} is known, but what the followed tree has in its place is something else, and is not kept")]
    BlobWrong(Digest),
    #[error("{0} is not in this repository")]
    ManifestUnknown(Reference),
    #[error("the manifest {0} is known, but no peer gives its bytes now")]
    ManifestUnavailable(Digest),
    #[error(
        "the manifest {0} is known, but what the followed tree has in its place is something else, and is not kept"
    )]
    ManifestWrong(Digest),
    #[error("the manifest names {} that {} not in this repository; push them first", list(.0), if .0.len() == 1 { "is" } else { "are" })]
    ManifestBlobUnknown(Vec<Digest>),
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    #[error("a manifest has at most {limit} bytes")]
    ManifestTooLarge { limit: u64 },
    #[error("the bytes have the digest {actual}, not {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("there is no such upload in this repository")]
    UploadUnknown,
    #[error("another request is writing to this upload")]
    UploadBusy,
    #[error("the upload goes on at byte {offset}")]
    OutOfOrder { offset: u64 },
    #[error("the body does not have the length that the request announced; the upload holds {offset} bytes")]
    LengthMismatch { offset: u64 },
    #[error("the body ended early; the upload holds {offset} bytes and can go on there")]
    Interrupted { offset: u64 },
    #[error("only the followed name {tree} has this, and what others publish cannot be deleted here")]
    OnlyFollowed { tree: String },
    #[error("deleting is switched off in this registry")]
    DeleteDisabled,
    #[error("this registry is read-only: nothing can be pushed or deleted")]
    ReadOnly,
    #[error("{0}")]
    Full(StoreError),
    #[error("{0}")]
    TooManyUploads(StoreError),
    /// Lists come from an index, which is being built anew.
    #[error("{0}")]
    Rebuilding(StoreError),
    /// What a followed name says is older than the configuration allows.
    #[error("{0}")]
    TooOld(StoreError),
    #[error("reading or writing the store failed")]
    Store(#[source] StoreError),
    #[error("the registry is stopping")]
    Stopping,
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UploadUnknown => Self::UploadUnknown,
            StoreError::UploadBusy => Self::UploadBusy,
            StoreError::DigestMismatch { expected, actual } => Self::DigestMismatch { expected, actual },
            StoreError::Full { .. } | StoreError::NoSpace => Self::Full(error),
            StoreError::TooManyUploads { .. } => Self::TooManyUploads(error),
            StoreError::Rebuilding => Self::Rebuilding(error),
            StoreError::TooOld { .. } => Self::TooOld(error),
            StoreError::Closed => Self::Stopping,
            StoreError::TooLarge { .. }
            | StoreError::Block(_)
            | StoreError::Io(_)
            | StoreError::Index(_)
            | StoreError::Changed
            | StoreError::Cancelled => Self::Store(error),
        }
    }
}

fn list(digests: &[Digest]) -> String {
    let names: Vec<String> = digests.iter().map(Digest::to_string).collect();
    names.join(", ")
}
