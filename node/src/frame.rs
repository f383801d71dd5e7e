//! Messages on a stream: a varint length, then that many bytes.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A `u64` varint is at most this long.
const MAX_VARINT: usize = 10;
/// What is set aside before any byte has arrived: a length that is only claimed costs nothing more.
const FIRST_ALLOCATION: usize = 4096;

/// Reads one message of at most `limit` bytes.
pub(crate) async fn read<T: AsyncRead + Unpin + Send>(io: &mut T, limit: usize) -> io::Result<Vec<u8>> {
    let length = read_length(io).await?;
    let length = usize::try_from(length).ok().filter(|length| *length <= limit);
    let Some(length) = length else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is longer than is allowed"));
    };
    let mut message = Vec::with_capacity(length.min(FIRST_ALLOCATION));
    io.take(length as u64).read_to_end(&mut message).await?;
    if message.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(message) }
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
    async fn bad_lengths_are_errors() {
        let too_long = read(&mut Cursor::new(vec![0x05, 1, 2, 3, 4, 5]), 4).await.unwrap_err();
        assert_eq!(too_long.kind(), io::ErrorKind::InvalidData);
        let cut_off = read(&mut Cursor::new(vec![0x05, 1, 2]), 16).await.unwrap_err();
        assert_eq!(cut_off.kind(), io::ErrorKind::UnexpectedEof);
        let endless = read(&mut Cursor::new(vec![0xff; 32]), 16).await.unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::InvalidData);
    }
}
