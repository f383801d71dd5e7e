//! Uploads: bytes of a blob come in, in one request or many, and become a blob of the repository.
//!
//! The async side gathers the body into batches; hashing and writing a batch runs on the blocking pool while the next
//! one is gathered. So an upload holds at most two batches and, while its client is slow, no thread.
//! A body that breaks off leaves the session with all that arrived, to be resumed; only [`Registry::finish_upload`]
//! with the right digest makes a blob.

use std::future::ready;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use sampan_storage::{Algorithm, Commit, Digest, RepositoryName, StoredBlob, Upload, UploadId, layout};

use super::blobs::{Blob, find_content, is_visible};
use super::{OriginError, Registry, RegistryError, Sight, off_thread};
use crate::budget::{Budget, Share};

/// Bytes that are gathered before they are written.
const BATCH: usize = 512 * 1024;
/// What batches of all uploads may hold together beyond their first bytes: a client that sends a burst and then waits
/// holds it.
const BATCHES: usize = 16 * 1024 * 1024;
static BUDGET: Budget = Budget::new(BATCHES);
/// A batch of these is not counted.
const FREE: usize = 16 * 1024;
/// Pieces of a batch: many tiny ones must not pin many buffers.
const BATCH_PIECES: usize = 256;
/// A client that sends nothing for so long is gone.
const BODY_IDLE: Duration = Duration::from_mins(1);

#[derive(Clone, Debug)]
pub(crate) struct UploadStatus {
    pub(crate) id: UploadId,
    /// Bytes that the session holds.
    pub(crate) offset: u64,
}

/// The bytes that a request says it carries: `Content-Range` of an upload, last byte included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) last: u64,
}

impl Window {
    pub(crate) fn len(self) -> u64 {
        (self.last - self.start).saturating_add(1)
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    Interrupted,
    /// It is longer than its window; what is beyond was not taken.
    TooLong,
}

/// Bytes on their way to the disk.
struct Batch {
    pieces: Vec<Bytes>,
    /// Given back when they are written.
    share: Share,
}

impl Registry {
    pub(crate) async fn start_upload(
        &self,
        repository: &RepositoryName,
        algorithm: Option<Algorithm>,
    ) -> Result<UploadStatus, RegistryError> {
        let repository = repository.clone();
        self.blocking(move |store| store.begin_upload(&repository, algorithm).map(|upload| status(&upload)))
            .await
    }

    pub(crate) async fn upload_status(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<UploadStatus, RegistryError> {
        self.resume(repository, id).await.map(|upload| status(&upload))
    }

    pub(crate) async fn cancel_upload(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<(), RegistryError> {
        let (repository, id) = (repository.clone(), *id);
        self.blocking(move |store| store.cancel_upload(&repository, &id)).await
    }

    /// Appends a body to the session.
    ///
    /// # Cancel safety
    /// A dropped future gives the session back with what was written; the batch being gathered is lost.
    pub(crate) async fn append<S, E>(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        window: Option<Window>,
        body: S,
    ) -> Result<UploadStatus, RegistryError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let upload = self.resume(repository, id).await?;
        take(upload, window, body).await.map(|upload| status(&upload))
    }

    /// Appends the last body, which may be empty, and makes the session a blob of the repository.
    pub(crate) async fn finish_upload<S, E>(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
        digest: &Digest,
        window: Option<Window>,
        body: S,
    ) -> Result<(), RegistryError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let upload = self.resume(repository, id).await?;
        let upload = take(upload, window, body).await?;
        self.finish(repository, upload, digest).await
    }

    /// A blob in one request. Nothing stays of it if that fails.
    pub(crate) async fn put_blob<S, E>(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        body: S,
    ) -> Result<(), RegistryError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let (name, algorithm) = (repository.clone(), digest.algorithm());
        let upload = self.blocking(move |store| store.begin_upload(&name, Some(algorithm))).await?;
        let id = *upload.id();
        let outcome = match take(upload, None, body).await {
            Ok(upload) => self.finish(repository, upload, digest).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // After a wrong digest the session is gone already.
            let _ = self.cancel_upload(repository, &id).await;
        }
        outcome
    }

    /// Links a blob of another repository, or of any where `from` is not given, if it is seen. `false` where there is
    /// none to link, so that the client uploads it.
    pub(crate) async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<RepositoryName>,
        sight: Sight,
    ) -> Result<bool, RegistryError> {
        let digest = *digest;
        let target = repository.clone();
        let found = self.blocking(move |store| {
            // Before the look, so that what is found is not collected until it is linked.
            let pin = store.pin(vec![digest]);
            let trees = store.trees();
            let shown = match &from {
                Some(from) => sight.sees(from) && is_visible(&trees, from, &digest)?,
                None => sight.search().may_link(store, &trees, &target, &digest)?,
            };
            let content = if shown { find_content(store, &trees, &digest)? } else { None };
            Ok::<_, RegistryError>(content.map(|content| (pin, content)))
        });
        let Some((_pin, content)) = found.await? else { return Ok(false) };
        if let Blob::Remote(want) = content.blob {
            match self.origin.fetch(want).await {
                Ok(_) => {}
                Err(OriginError::Unavailable | OriginError::Wrong(_)) => return Ok(false),
                Err(OriginError::Store(error)) => return Err(error.into()),
            }
        }
        let mut commit = Commit::new();
        if !content.mine {
            commit.put_entry(layout::blob(&digest), &content.entry);
        }
        commit.put_link(layout::layer(repository, &digest), &digest);
        self.store.commit(commit).await?;
        Ok(true)
    }

    async fn resume(&self, repository: &RepositoryName, id: &UploadId) -> Result<Upload, RegistryError> {
        let (repository, id) = (repository.clone(), *id);
        self.blocking(move |store| store.resume_upload(&repository, &id)).await
    }

    async fn finish(
        &self,
        repository: &RepositoryName,
        upload: Upload,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let wanted = *digest;
        let stored: StoredBlob = off_thread(move || upload.finish(&wanted)).await?;
        let mut commit = Commit::new();
        commit.put_blob(&stored);
        commit.put_link(layout::layer(repository, digest), digest);
        Ok(self.store.commit(commit).await?)
    }
}

fn status(upload: &Upload) -> UploadStatus {
    UploadStatus { id: *upload.id(), offset: upload.offset() }
}

/// Writes a whole body, or says how it fell short.
async fn take<S, E>(upload: Upload, window: Option<Window>, body: S) -> Result<Upload, RegistryError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let start = upload.offset();
    if window.is_some_and(|window| window.start != start) {
        return Err(RegistryError::OutOfOrder { offset: start });
    }
    let (upload, end) = pump(upload, window.map(Window::len), body).await?;
    let offset = upload.offset();
    match end {
        End::Interrupted => Err(RegistryError::Interrupted { offset }),
        End::TooLong => Err(RegistryError::LengthMismatch { offset }),
        End::Complete if window.is_some_and(|window| offset - start != window.len()) => {
            Err(RegistryError::LengthMismatch { offset })
        }
        End::Complete => Ok(upload),
    }
}

/// Gathers and writes in turn: one batch is written while the next is gathered.
async fn pump<S, E>(
    upload: Upload,
    mut left: Option<u64>,
    mut body: S,
) -> Result<(Upload, End), RegistryError>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let mut writing: BoxFuture<'static, Result<Upload, RegistryError>> = Box::pin(ready(Ok(upload)));
    loop {
        let (batch, end) = gather(&mut body, &mut left).await;
        let mut upload = writing.await?;
        writing = if batch.pieces.is_empty() {
            Box::pin(ready(Ok(upload)))
        } else {
            // Begins at once, not when it is first awaited.
            let task =
                tokio::task::spawn_blocking(move || upload.write_pieces(&batch.pieces).map(|()| upload));
            Box::pin(async move {
                match task.await {
                    Ok(written) => Ok(written?),
                    Err(_) => Err(RegistryError::Stopping),
                }
            })
        };
        if let Some(end) = end {
            return Ok((writing.await?, end));
        }
    }
}

/// The next batch, and how the body ended if it did.
async fn gather<S, E>(body: &mut S, left: &mut Option<u64>) -> (Batch, Option<End>)
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let mut batch = Batch { pieces: Vec::new(), share: BUDGET.share() };
    let mut size = 0;
    let may_grow = |batch: &mut Batch, size| size < FREE || size < BATCH && batch.share.reach(size);
    while may_grow(&mut batch, size) && batch.pieces.len() < BATCH_PIECES {
        let mut piece = match tokio::time::timeout(BODY_IDLE, body.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) => return (batch, Some(End::Complete)),
            Ok(Some(Err(_))) | Err(_) => return (batch, Some(End::Interrupted)),
        };
        if let Some(left) = left {
            let len = piece.len() as u64;
            if len > *left {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                batch.pieces.push(piece);
                return (batch, Some(End::TooLong));
            }
            *left -= len;
        }
        size += piece.len();
        if !piece.is_empty() {
            batch.pieces.push(piece);
        }
    }
    (batch, None)
}
