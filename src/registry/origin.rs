//! The port through which bytes come that only a followed name has.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use sampan_storage::{BlobFile, BlockError, Digest, Entry, StoreError};

/// Where the bytes of followed trees come from. The node's side implements it.
pub(crate) trait Origin: Send + Sync {
    /// Streams a blob of a followed tree, from its first byte or a range of it. The stream starts while the blob is
    /// still being fetched; its blocks are verified by CID, and by digest before the blob is kept.
    /// Waits are bounded: [`OriginError::Unavailable`] when no peer gives it in time.
    fn open(
        &self,
        want: RemoteBlob,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'_, Result<BlobStream, OriginError>>;

    /// Fetches a blob whole to this disk, verified by its digest. Waits are bounded in the same way.
    fn fetch(&self, want: RemoteBlob) -> BoxFuture<'_, Result<BlobFile, OriginError>>;
}

/// A blob that a followed tree names and that is not whole on this disk.
#[derive(Clone, Debug)]
pub(crate) struct RemoteBlob {
    /// The IPNS name of the tree.
    pub(crate) tree: String,
    pub(crate) digest: Digest,
    pub(crate) entry: Entry,
    pub(crate) size: u64,
}

pub(crate) struct BlobStream {
    /// Bytes that the stream gives.
    pub(crate) size: u64,
    pub(crate) body: BoxStream<'static, Result<Bytes, OriginError>>,
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream").field("size", &self.size).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum OriginError {
    #[error("no peer gave it in time")]
    Unavailable,
    /// It is the publisher's fault, and of no use to be asked for again.
    #[error("the tree has something else in its place: {0}")]
    Wrong(Arc<str>),
    #[error("storing it failed: {0}")]
    Store(StoreError),
}

impl From<StoreError> for OriginError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::DigestMismatch { actual, .. } => Self::Wrong(format!("{actual}").into()),
            StoreError::TooLarge { .. } => Self::Wrong("a file that is longer than it says".into()),
            StoreError::Block(block) if matches!(**block, BlockError::Malformed { .. }) => {
                Self::Wrong(block.to_string().into())
            }
            _ => Self::Store(error),
        }
    }
}

/// An origin without peers: what is not on this disk is not to be had.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nowhere;

#[cfg(test)]
impl Origin for Nowhere {
    fn open(&self, _: RemoteBlob, _: Option<Range<u64>>) -> BoxFuture<'_, Result<BlobStream, OriginError>> {
        Box::pin(std::future::ready(Err(OriginError::Unavailable)))
    }

    fn fetch(&self, _: RemoteBlob) -> BoxFuture<'_, Result<BlobFile, OriginError>> {
        Box::pin(std::future::ready(Err(OriginError::Unavailable)))
    }
}
