//! Bytes that go along with a question or its answer, in bounded pieces.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Pieces on their way in each direction.
pub(super) const PIECES: usize = 4;
/// Bytes of a piece that a command sends.
pub(super) const PIECE: usize = 256 * 1024;
/// No piece is longer: a block may be one.
pub(super) const MAX_PIECE: usize = 4 * 1024 * 1024;

/// Both directions, as whoever answers sees them.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// What the command sends. Ends where it has sent all; an error where it broke off.
    pub(crate) input: Input,
    pub(crate) output: Output,
}

#[derive(Debug)]
pub(crate) struct Input(pub(super) mpsc::Receiver<io::Result<Bytes>>);

#[derive(Debug)]
pub(crate) struct Output(pub(super) mpsc::Sender<Bytes>);

/// A command's bytes for code that blocks.
#[derive(Debug)]
pub(crate) struct Blocking {
    input: Input,
    rest: Bytes,
}

impl Input {
    pub(crate) fn blocking(self) -> Blocking {
        Blocking { input: self, rest: Bytes::new() }
    }
}

impl Output {
    /// One whose bytes a test reads.
    #[cfg(test)]
    pub(crate) fn new() -> (Self, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(PIECES);
        (Self(sender), receiver)
    }

    /// Waits while the command does not read. A command that has gone takes its answer with it.
    pub(crate) async fn send(&self, bytes: Bytes) -> anyhow::Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(MAX_PIECE));
            self.0.send(piece).await.map_err(|_| anyhow::anyhow!("the command has gone"))?;
        }
        Ok(())
    }

    /// The same for code that blocks.
    pub(crate) fn send_blocking(&self, bytes: Bytes) -> anyhow::Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(MAX_PIECE));
            self.0.blocking_send(piece).map_err(|_| anyhow::anyhow!("the command has gone"))?;
        }
        Ok(())
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.input.0.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}
