//! Messages on a stream: a varint length, then that many bytes.

use std::io;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A `u64` varint is at most this long.
const MAX_VARINT: usize = 10;
/// What is set aside before any byte has arrived: a length that is only claimed costs nothing more.
const FIRST_ALLOCATION: usize = 4096;
/// Room is taken in such parts.
const PART: usize = 16 * 1024;

/// Bytes of long messages that may be held at once, by all connections together. What finds no room is refused: nobody
/// waits for those who are slow.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

/// Room that a message takes until it is dropped. It is no part of what the message says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    _held: Option<Arc<OwnedSemaphorePermit>>,
}

impl PartialEq for Room {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Room {}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }
}

/// Reads one message of at most `limit` bytes. Beyond the first 4 KiB its bytes take room in the budget as they come.
pub(crate) async fn read_within<T: AsyncRead + Unpin + Send>(
    io: &mut T,
    limit: usize,
    budget: &Budget,
) -> io::Result<(Vec<u8>, Room)> {
    let length = read_length_within(io, limit).await?;
    let mut message = Vec::with_capacity(length.min(FIRST_ALLOCATION));
    let mut held: Option<OwnedSemaphorePermit> = None;
    while message.len() < length {
        let part = (length - message.len()).min(if message.is_empty() { FIRST_ALLOCATION } else { PART });
        if !message.is_empty() {
            let permit = u32::try_from(part)
                .ok()
                .and_then(|part| Arc::clone(&budget.0).try_acquire_many_owned(part).ok());
            let permit = permit.ok_or_else(|| io::Error::other("other messages take all the room"))?;
            match &mut held {
                Some(held) => held.merge(permit),
                none => *none = Some(permit),
            }
        }
        if (&mut *io).take(part as u64).read_to_end(&mut message).await? < part {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((message, Room { _held: held.map(Arc::new) }))
}

/// Reads one message of at most `limit` bytes.
pub(crate) async fn read<T: AsyncRead + Unpin + Send>(io: &mut T, limit: usize) -> io::Result<Vec<u8>> {
    let length = read_length_within(io, limit).await?;
    let mut message = Vec::with_capacity(length.min(FIRST_ALLOCATION));
    io.take(length as u64).read_to_end(&mut message).await?;
    if message.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(message) }
}

async fn read_length_within<T: AsyncRead + Unpin + Send>(io: &mut T, limit: usize) -> io::Result<usize> {
    let length = read_length(io).await?;
    let length = usize::try_from(length).ok().filter(|length| *length <= limit);
    length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the message is longer than is allowed"))
}

/// Writes one message and flushes it.
pub(crate) async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, message: &[u8]) -> io::Result<()> {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    io.write_all(unsigned_varint::encode::u64(message.len() as u64, &mut buffer)).await?;
    io.write_all(message).await?;
    io.flush().await
}

/// An error for a message that arrived whole and cannot be understood.
pub(crate) fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn read_length<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<u64> {
    let mut bytes = Vec::with_capacity(MAX_VARINT);
    while bytes.len() < MAX_VARINT {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        bytes.extend(byte);
        if unsigned_varint::decode::is_last(byte[0]) {
            let (length, _) = unsigned_varint::decode::u64(&bytes).map_err(malformed)?;
            return Ok(length);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the length of the message cannot be read"))
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn messages_follow_each_other() {
        let mut stream = Cursor::new(Vec::new());
        write(&mut stream, b"one").await.unwrap();
        write(&mut stream, &[7; 300]).await.unwrap();
        stream.set_position(0);
        assert_eq!(read(&mut stream, 300).await.unwrap(), b"one");
        assert_eq!(read(&mut stream, 300).await.unwrap(), [7; 300]);
    }

    #[tokio::test]
    async fn long_messages_share_a_budget_and_short_ones_need_none() {
        let budget = Budget::new(100_000);
        let body = vec![7; 70_000];
        let mut length = unsigned_varint::encode::u32_buffer();
        let long = [unsigned_varint::encode::u32(70_000, &mut length), &body].concat();
        let (message, room) = read_within(&mut Cursor::new(&long), 100_000, &budget).await.unwrap();
        assert_eq!(message, body);
        assert!(read_within(&mut Cursor::new(&long), 100_000, &budget).await.is_err());
        assert!(read_within(&mut Cursor::new([2, 1, 2]), 100_000, &budget).await.is_ok());
        drop(room);
        assert!(read_within(&mut Cursor::new(&long), 100_000, &budget).await.is_ok());
    }

    #[tokio::test]
    async fn bad_lengths_are_errors() {
        let too_long = read(&mut Cursor::new(vec![0x05, 1, 2, 3, 4, 5]), 4).await.unwrap_err();
        assert_eq!(too_long.kind(), io::ErrorKind::InvalidData);
        let cut_off = read(&mut Cursor::new(vec![0x05, 1, 2]), 16).await.unwrap_err();
        assert_eq!(cut_off.kind(), io::ErrorKind::UnexpectedEof);
        let endless = read(&mut Cursor::new(vec![0xff; 32]), 16).await.unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::InvalidData);
    }
}
