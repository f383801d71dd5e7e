//! A message on a stream: its length as a varint, then its bytes. Bounded in size, in memory and in time.

mod room;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub(super) use room::{Budgets, Permit, Room};

use super::message::{MAX_FRAME, Message, MessageError};

/// A length needs no more bytes: four carry 28 bits, and [`MAX_FRAME`] is 2^22.
const MAX_LENGTH_BYTES: u32 = 4;

/// A frame must pass in the time that boxo grants it: 2 s and its size at 100 kbit/s, within these bounds.
const SLOWEST_BYTES_PER_SECOND: u64 = 100_000 / 8;
const LATENCY: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(2);

/// Where not even this much passes in this time, the other side has stopped. yamux opens its window by 128 KiB at a time,
/// which take 10 s at the slowest.
const PART: usize = 64 * 1024;
const STALLED: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes is longer than the 4 MiB that are allowed")]
    TooLong(usize),
    #[error("there is no room for a frame of {0} bytes that nobody asked for")]
    NoRoom(usize),
    #[error("a frame's length is no varint")]
    Length,
    #[error("a frame did not pass in time")]
    Timeout,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the next message, or `None` where the stream ends between two.
///
/// Room for the frame is taken before a byte of it is read; the permit goes along with the
/// message, so that whoever is slow to take messages stops the reading.
pub(super) async fn read<S>(stream: &mut S, room: &Room) -> Result<Option<(Message, Permit)>, FrameError>
where
    S: AsyncRead + Unpin,
{
    let Some(length) = read_length(stream).await? else { return Ok(None) };
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let permit = room.take(length).await.ok_or(FrameError::NoRoom(length))?;
    let mut frame = vec![0; length];
    let read = async {
        for part in frame.chunks_mut(PART) {
            timeout(STALLED, stream.read_exact(part)).await.map_err(|_| FrameError::Timeout)??;
        }
        Ok::<_, FrameError>(())
    };
    timeout(time_for(length), read).await.map_err(|_| FrameError::Timeout)??;
    Ok(Some((Message::decode(Bytes::from(frame))?, permit)))
}

/// Writes the chunks of one frame and flushes them into the muxer.
pub(super) async fn write<S>(stream: &mut S, chunks: Vec<Bytes>) -> Result<(), FrameError>
where
    S: AsyncWrite + Unpin,
{
    let length = chunks.iter().map(Bytes::len).sum();
    let write = async {
        for chunk in chunks {
            for part in chunk.chunks(PART) {
                timeout(STALLED, stream.write_all(part)).await.map_err(|_| FrameError::Timeout)??;
            }
        }
        Ok::<_, FrameError>(stream.flush().await?)
    };
    timeout(time_for(length), write).await.map_err(|_| FrameError::Timeout)??;
    Ok(())
}

async fn read_length<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<usize>, FrameError> {
    let mut length = 0;
    for at in 0..MAX_LENGTH_BYTES {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            let between = at == 0;
            return if between {
                Ok(None)
            } else {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            };
        }
        let [byte] = byte;
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(length));
        }
    }
    Err(FrameError::Length)
}

fn time_for(length: usize) -> Duration {
    let transfer = Duration::from_secs(length as u64 / SLOWEST_BYTES_PER_SECOND);
    (LATENCY + transfer).clamp(SHORTEST, LONGEST)
}

impl FrameError {
    /// Whether no honest peer sends such a thing.
    pub(super) fn is_offence(&self) -> bool {
        match self {
            Self::TooLong(_) | Self::Length | Self::Message(_) => true,
            Self::NoRoom(_) | Self::Timeout | Self::Io(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    fn budget() -> Room {
        Budgets::default().room(std::sync::Arc::default())
    }

    #[tokio::test]
    async fn a_stream_may_end_between_messages_only() {
        assert!(matches!(read(&mut Cursor::new([]), &budget()).await, Ok(None)));
        assert!(matches!(read(&mut Cursor::new([0x80]), &budget()).await, Err(FrameError::Io(_))));
        assert!(matches!(read(&mut Cursor::new([5, 0x28]), &budget()).await, Err(FrameError::Io(_))));
        assert!(matches!(read(&mut Cursor::new([0]), &budget()).await, Ok(Some(_))));
    }

    #[tokio::test]
    async fn a_frame_above_4_mib_is_refused_before_it_is_read() {
        let bytes = [0x81, 0x80, 0x80, 0x02];
        assert!(matches!(
            read(&mut Cursor::new(bytes), &budget()).await,
            Err(FrameError::TooLong(4_194_305))
        ));
        let endless = [0xff; 12];
        assert!(matches!(read(&mut Cursor::new(endless), &budget()).await, Err(FrameError::Length)));
    }

    #[tokio::test]
    async fn a_message_holds_its_bytes_of_the_budget() {
        let budget = budget();
        let free = budget.free();
        let message = read(&mut Cursor::new([2, 0x28, 1]), &budget).await.unwrap();
        assert_eq!(budget.free(), free - 2);
        drop(message);
        assert_eq!(budget.free(), free);
    }
}
