//! What a registry is: repositories, manifests, tags, blobs, uploads and referrers, over the trees of the store.
//!
//! The rules of the OCI distribution spec stand here, without HTTP: no status code, no header, no URL. Nothing here
//! knows the network either; bytes that only a followed name has come through the [`Origin`] port.
//! Reading looks through my tree and then the followed ones, in order. Writing changes mine alone, one [`Commit`] for
//! each request.
//!
//! [`Commit`]: sampan_storage::Commit

mod blobs;
mod cache;
mod collect;
mod delete;
mod descriptor;
mod error;
mod explain;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod lists;
mod manifest;
mod manifests;
mod origin;
mod push;
mod referrers;
mod sight;
mod tags;
mod uploads;

use std::sync::Arc;

use sampan_storage::{Store, StoreError};

use cache::ManifestCache;

pub(crate) use blobs::Blob;
pub(crate) use collect::{Collected, Garbage, Retention, Rule};
pub(crate) use delete::Deleted;
pub(crate) use descriptor::Descriptor;
pub(crate) use error::RegistryError;
pub(crate) use explain::Explained;
pub(crate) use lists::MAX_PAGE;
pub(crate) use manifest::{MAX_MANIFEST, OCI_INDEX};
#[cfg(test)]
pub(crate) use origin::Nowhere;
pub(crate) use origin::{BlobStream, Origin, OriginError, RemoteBlob};
pub(crate) use push::ManifestPush;
pub(crate) use referrers::ReferrersQuery;
pub(crate) use sight::Sight;
pub(crate) use uploads::{UploadStatus, Window};

/// A registry over one store. Clones share everything.
#[derive(Clone)]
pub(crate) struct Registry {
    store: Store,
    origin: Arc<dyn Origin>,
    policy: Policy,
    manifests: Arc<ManifestCache>,
}

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Policy {
    /// Tags, manifests and blobs can be deleted.
    pub(crate) delete: bool,
    /// Nothing can be pushed or deleted.
    pub(crate) read_only: bool,
    /// A manifest may name content that is not here.
    pub(crate) sparse: bool,
    /// Others write the same tags, and writes are counted.
    pub(crate) together: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { delete: true, read_only: false, sparse: false, together: false }
    }
}

impl Registry {
    pub(crate) fn new(store: Store, origin: Arc<dyn Origin>, policy: Policy) -> Self {
        Self { store, origin, policy, manifests: Arc::default() }
    }

    /// The one gate of every change.
    pub(crate) fn check_writable(&self) -> Result<(), RegistryError> {
        if self.policy.read_only { Err(RegistryError::ReadOnly) } else { Ok(()) }
    }

    /// Runs work that reads or writes the disk off the async threads.
    async fn blocking<T, E>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        E: Into<RegistryError> + Send + 'static,
    {
        let store = self.store.clone();
        off_thread(move || work(&store)).await
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("policy", &self.policy).finish_non_exhaustive()
    }
}

async fn off_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, RegistryError>
where
    T: Send + 'static,
    E: Into<RegistryError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        // The runtime ends, or the work panicked and has been logged.
        Err(_) => Err(RegistryError::Stopping),
    }
}

/// Bytes that are not what the tree says of them: whoever made it is at fault, and it is of no use to ask again.
fn is_malformed(error: &StoreError) -> bool {
    matches!(error, StoreError::Block(error) if matches!(**error, sampan_storage::BlockError::Malformed { .. }))
}

/// A block that is named but not here: the tree is known, its bytes are not.
fn is_missing(error: &StoreError) -> bool {
    matches!(error, StoreError::Block(error) if matches!(**error, sampan_storage::BlockError::Missing(_)))
}
