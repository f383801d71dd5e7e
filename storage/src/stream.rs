//! The hashes of a stream of bytes: its digest and those of its leaves, in one pass.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::blobs::StoredBlob;
use crate::block::{RAW, cid_from_sha256};
use crate::dag::file::{CHUNK, FileBuilder, FileRoot};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::pins::Pin;

/// Below this a second thread costs more than it saves.
const PARALLEL: usize = 128 * 1024;
/// A thread that only hashes.
const STACK: usize = 64 * 1024;

/// The digest of a stream and the hashes of its leaves, in one pass.
#[derive(Clone, Debug)]
pub(crate) struct StreamHash {
    pub(crate) whole: Hasher,
    pub(crate) algorithm: Algorithm,
    leaves: LeafHash,
    /// Bytes so far.
    pub(crate) len: u64,
}

/// The hashes of a stream's leaves. Those of the first come from elsewhere where it is hashed anyway.
#[derive(Clone, Debug)]
struct LeafHash {
    hasher: Hasher,
    /// Bytes of the leaf that is not full.
    filled: usize,
    done: Vec<Digest>,
}

impl StreamHash {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self { whole: Hasher::new(algorithm), algorithm, leaves: LeafHash::default(), len: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        let mut rest = bytes;
        if self.is_at_first() {
            // Up to here the stream's SHA-256 is the first leaf's too.
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.leaves.filled));
            self.whole.update(now);
            self.leaves.filled += now.len();
            if self.leaves.filled == CHUNK {
                self.leaves.push(self.whole.clone().finish());
            }
            rest = later;
        }
        self.whole.update(rest);
        self.leaves.update(rest);
    }

    /// Writes the pieces and hashes them. After an error the hashes are what they were before.
    pub(crate) fn write_and_update<B: AsRef<[u8]> + Sync>(
        &mut self,
        pieces: &[B],
        write: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let len: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        if len < PARALLEL || self.is_at_first() || !has_cores() {
            write()?;
            for piece in pieces {
                self.update(piece.as_ref());
            }
            return Ok(());
        }
        let before = self.leaves.mark();
        let (whole, leaves) = (&mut self.whole, &mut self.leaves);
        let written = thread::scope(|scope| {
            let hash = || pieces.iter().for_each(|piece| leaves.update(piece.as_ref()));
            let beside = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, hash);
            let written = write();
            if written.is_ok() && beside.is_ok() {
                for piece in pieces {
                    whole.update(piece.as_ref());
                }
            }
            // Without a second thread nothing was hashed.
            written.map(|()| beside.is_ok())
        });
        match written {
            Ok(hashed) => {
                if hashed {
                    self.len += len as u64;
                } else {
                    for piece in pieces {
                        self.update(piece.as_ref());
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.leaves.go_back(before);
                Err(error)
            }
        }
    }

    /// Whether the leaf being hashed is the first and has the same hash as the stream so far.
    fn is_at_first(&self) -> bool {
        self.leaves.done.is_empty() && self.algorithm == Algorithm::Sha256
    }

    pub(crate) fn stored(self, digest: Digest, pin: Pin) -> StoredBlob {
        StoredBlob { digest, size: self.len, root: self.root(), pin: Arc::new(pin) }
    }

    /// The UnixFS file over the stream.
    pub(crate) fn root(mut self) -> FileRoot {
        let last = self.leaves.filled as u64;
        let first = self.is_at_first();
        let tail = (last > 0 || self.leaves.done.is_empty())
            .then(|| if first { self.whole.clone().finish() } else { self.leaves.take() });
        let mut builder = FileBuilder::new();
        for leaf in &self.leaves.done {
            builder.push_leaf(cid_from_sha256(RAW, leaf), CHUNK as u64);
        }
        if let Some(tail) = tail {
            builder.push_leaf(cid_from_sha256(RAW, &tail), last);
        }
        builder.finish()
    }
}

impl Default for LeafHash {
    fn default() -> Self {
        Self { hasher: Hasher::new(Algorithm::Sha256), filled: 0, done: Vec::new() }
    }
}

impl LeafHash {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - self.filled));
            self.hasher.update(now);
            self.filled += now.len();
            if self.filled == CHUNK {
                let leaf = self.take();
                self.push(leaf);
            }
            bytes = rest;
        }
    }

    fn push(&mut self, leaf: Digest) {
        self.filled = 0;
        self.done.push(leaf);
    }

    fn take(&mut self) -> Digest {
        std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256)).finish()
    }

    fn mark(&self) -> (Hasher, usize, usize) {
        (self.hasher.clone(), self.filled, self.done.len())
    }

    fn go_back(&mut self, (hasher, filled, done): (Hasher, usize, usize)) {
        (self.hasher, self.filled) = (hasher, filled);
        self.done.truncate(done);
    }
}

/// Whether a second thread can run beside this one.
fn has_cores() -> bool {
    static CORES: OnceLock<bool> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().is_ok_and(|cores| cores.get() > 1))
}

/// Visits the bytes of a file in pieces of at most a leaf.
pub(crate) fn read_through(file: &File, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(());
        }
        visit(buffer.get(..read).unwrap_or_default());
        offset += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::file::from_bytes;

    #[test]
    fn pieces_that_cannot_be_written_are_not_hashed() {
        let content: Vec<u8> = (0..4 * CHUNK).map(|at| (at * 31 % 251) as u8).collect();
        let mut hash = StreamHash::new(Algorithm::Sha256);
        let good = || Ok(());
        let bad = || Err(io::ErrorKind::StorageFull.into());
        for part in content.chunks(CHUNK / 2 + 9) {
            let pieces: Vec<&[u8]> = part.chunks(40_000).collect();
            assert!(hash.write_and_update(&pieces, bad).is_err());
            hash.write_and_update(&pieces, good).unwrap();
        }
        let digest = hash.whole.clone().finish();
        assert_eq!(digest, Digest::of(Algorithm::Sha256, &content));
        assert_eq!(hash.root(), from_bytes(&content).0);
    }
}
