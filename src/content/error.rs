//! What can be wrong with content that was asked for.

use sampan_storage::{BlockError, Cid, KeepError, StoreError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    #[error("the block {0} is not here")]
    Missing(Cid),
    #[error("no peer gave the block {0} in time")]
    Timeout(Cid),
    #[error("the path leads nowhere")]
    NoPath,
    #[error("{0}")]
    Malformed(String),
    #[error("the name cannot be resolved here")]
    Unresolved,
    #[error(transparent)]
    Link(#[from] super::LinkError),
    #[error("too many DAGs are being sent; try again in a moment")]
    Busy,
    #[error(transparent)]
    Store(StoreError),
    #[error("the registry is stopping")]
    Stopping,
}

impl From<BlockError> for ContentError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Missing(cid) => Self::Missing(cid),
            // What a stranger made, not this disk.
            BlockError::Mismatch(_)
            | BlockError::UnsupportedHash(_)
            | BlockError::TooLarge(_)
            | BlockError::Malformed { .. } => Self::Malformed(error.to_string()),
            BlockError::Io(_) | BlockError::Index(_) => Self::Store(error.into()),
        }
    }
}

impl From<StoreError> for ContentError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<KeepError> for ContentError {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Missing(cid) => Self::Missing(cid),
            KeepError::Store(error) => Self::Store(error),
            KeepError::TooManyPins | KeepError::TooLarge => Self::Malformed(error.to_string()),
        }
    }
}
