//! Bodies of answers: parts of blobs, read a piece at a time off the async threads.

use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use futures::stream::{self, LocalBoxStream, Stream, StreamExt, TryStreamExt};
use rustix::io::{ReadWriteFlags, preadv2};
use sampan_storage::BlobFile;
use tokio::task::JoinHandle;

use super::connection::Connection;
use crate::registry::{Blob, OriginError, Registry, RegistryError};

/// Why a body breaks off. The client sees a cut connection, never a whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("reading the blob failed")]
    Io(#[from] io::Error),
    #[error("the blob's file is shorter than it was")]
    Short,
    #[error("fetching the blob failed")]
    Origin(#[from] OriginError),
    #[error("opening the blob failed")]
    Registry(#[from] RegistryError),
    #[error("the server is stopping")]
    Stopping,
}

/// Part of a blob as a stream. Where the bytes are with peers, they are asked for when the stream is first read.
pub(crate) fn part(
    registry: &Registry,
    blob: &Blob,
    range: Range<u64>,
    connection: Option<&Rc<Connection>>,
) -> LocalBoxStream<'static, Result<Bytes, BodyError>> {
    match blob {
        Blob::File(file) => FileStream::new(file.clone(), range, connection).boxed_local(),
        Blob::Small(bytes) => {
            let cut = |at: u64| usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()));
            let bytes = bytes.slice(cut(range.start)..cut(range.end).max(cut(range.start)));
            stream::once(std::future::ready(Ok(bytes))).boxed_local()
        }
        Blob::Remote(want) => {
            let (registry, want) = (registry.clone(), want.clone());
            let open = async move { registry.open(want, Some(range)).await.map_err(BodyError::from) };
            stream::once(open)
                .map_ok(|opened| opened.body.map_err(BodyError::from))
                .try_flatten()
                .boxed_local()
        }
    }
}

/// The answer to HEAD: as long as the content, and empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadOf(pub u64);

impl MessageBody for HeadOf {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

/// Reads a file piece by piece. What the system holds in memory is read at once, which is cheaper than to change
/// threads; for the rest a thread of the blocking pool waits for the disk.
struct FileStream {
    file: BlobFile,
    at: u64,
    end: u64,
    connection: Rc<Connection>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileStream {
    fn new(file: BlobFile, range: Range<u64>, connection: Option<&Rc<Connection>>) -> Self {
        let connection = connection.map_or_else(Connection::new, Rc::clone);
        Self { file, at: range.start, end: range.end, connection, reading: None }
    }

    /// Length of the next piece.
    fn piece(&self) -> u64 {
        self.connection.piece(self.end.saturating_sub(self.at)) as u64
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.reading.is_none() {
            let len = this.piece();
            if len == 0 {
                return Poll::Ready(None);
            }
            if let Some(piece) = read_cached(&this.file, this.at, len) {
                this.at += piece.len() as u64;
                return Poll::Ready(Some(Ok(piece)));
            }
            let (file, at) = (this.file.clone(), this.at);
            this.reading = Some(tokio::task::spawn_blocking(move || read(&file, at, len)));
        }
        let Some(reading) = &mut this.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(context));
        this.reading = None;
        Poll::Ready(Some(match read {
            Ok(Ok(piece)) => {
                this.at += piece.len() as u64;
                Ok(piece)
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(BodyError::Short),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(BodyError::Stopping),
        }))
    }
}

/// What of the next piece is in the page cache, from its beginning; `None` where a read would have to wait.
fn read_cached(file: &BlobFile, at: u64, len: u64) -> Option<Bytes> {
    let mut piece = vec![0; usize::try_from(len).ok()?];
    let read = {
        let mut buffers = [io::IoSliceMut::new(&mut piece)];
        preadv2(file.file(), &mut buffers, at, ReadWriteFlags::NOWAIT).ok()?
    };
    piece.truncate(read);
    (read > 0).then(|| piece.into())
}

fn read(file: &BlobFile, at: u64, len: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let mut filled = 0;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(at + filled as u64, rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(piece.into())
}
