//! A block: bytes under the CID that names them, and the port through which trees read blocks.
//!
//! CIDs are made and checked here and nowhere else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cid::Cid;
use multihash::Multihash;

use crate::digest::{Algorithm, Digest, Hasher};

/// Multicodec of raw leaves.
pub const RAW: u64 = 0x55;
/// Multicodec of dag-pb nodes (UnixFS files and directories).
pub const DAG_PB: u64 = 0x70;
/// Multihash codes that are understood.
pub const IDENTITY: u64 = 0x00;
pub const SHA2_256: u64 = 0x12;
pub const SHA2_512: u64 = 0x13;

/// No block is larger: what bitswap carries and what kubo accepts (bitswap spec, "Block Sizes").
pub const MAX_BLOCK: usize = 2 * 1024 * 1024;
/// Identity CIDs above this are refused, as boxo does (its `verifcid` allow-list).
pub const MAX_IDENTITY: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("the block {0} is not here")]
    Missing(Cid),
    #[error("the bytes do not match the CID {0}")]
    Mismatch(Cid),
    #[error("the CID {0} uses a hash that is not supported (sha2-256, sha2-512 and identity are)")]
    UnsupportedHash(Cid),
    #[error("a block of {0} bytes is larger than the 2 MiB that IPFS allows")]
    TooLarge(usize),
    #[error("the block {cid} is malformed: {reason}")]
    Malformed { cid: Cid, reason: &'static str },
    #[error("reading a block failed")]
    Io(#[from] std::io::Error),
    #[error("the index failed: {0}")]
    Index(String),
}

/// Bytes that match their CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    data: Bytes,
}

impl Block {
    /// Wraps bytes of which the caller does not know yet that they match: they are hashed.
    pub fn verified(cid: Cid, data: Bytes) -> Result<Self, BlockError> {
        verify(&cid, &data)?;
        Ok(Self { cid, data })
    }

    /// Names bytes by CIDv1 with sha2-256.
    pub fn new(codec: u64, data: Bytes) -> Self {
        let cid = cid_of(codec, &data);
        Self { cid, data }
    }

    /// For bytes that were verified before they were stored here.
    pub(crate) fn trusted(cid: Cid, data: Bytes) -> Self {
        Self { cid, data }
    }

    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }

    pub fn into_parts(self) -> (Cid, Bytes) {
        (self.cid, self.data)
    }
}

/// Where a tree reads its blocks. The disk implements it, and [`MemoryBlocks`] for tests.
///
/// Lookups go by multihash: a CIDv0, and CIDv1s of any codec over the same hash, find the same bytes.
pub trait Blocks: Send + Sync {
    /// The whole block, or `None` if it is not here. Identity CIDs answer from themselves.
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError>;

    /// The block's length in bytes without reading it.
    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError>;

    /// The whole block, or [`BlockError::Missing`].
    fn need(&self, cid: &Cid) -> Result<Bytes, BlockError> {
        self.get(cid)?.ok_or(BlockError::Missing(*cid))
    }
}

/// Blocks in memory: the twin for tests, and scratch space while a tree is rebuilt.
#[derive(Debug, Default)]
pub struct MemoryBlocks {
    blocks: Mutex<HashMap<Vec<u8>, Block>>,
}

impl MemoryBlocks {
    pub fn put(&self, block: &Block) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.insert(block.cid.hash().to_bytes(), block.clone());
    }

    pub fn remove(&self, cid: &Cid) {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).remove(&cid.hash().to_bytes());
    }

    /// Takes everything out.
    pub fn take(&self) -> Vec<Block> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.drain().map(|(_, block)| block).collect()
    }

    pub fn len(&self) -> usize {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Blocks for MemoryBlocks {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        if let Some(data) = identity_data(cid) {
            return Ok(Some(data));
        }
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(blocks.get(&cid.hash().to_bytes()).map(|block| block.data.clone()))
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        Ok(self.get(cid)?.map(|data| data.len()))
    }
}

/// CIDv1 with sha2-256 over `data`.
pub fn cid_of(codec: u64, data: &[u8]) -> Cid {
    cid_from_sha256(codec, &Digest::of(Algorithm::Sha256, data))
}

/// CIDv1 around a SHA-256 that is known already. A digest of another algorithm keeps its own hash code.
pub fn cid_from_sha256(codec: u64, digest: &Digest) -> Cid {
    let code = match digest.algorithm() {
        Algorithm::Sha256 => SHA2_256,
        Algorithm::Sha512 => SHA2_512,
    };
    // A digest is at most 64 bytes, which is what a multihash holds.
    let hash = Multihash::<64>::wrap(code, digest.as_bytes()).unwrap_or_default();
    Cid::new_v1(codec, hash)
}

/// The bytes that an identity CID carries in itself.
pub fn identity_data(cid: &Cid) -> Option<Bytes> {
    let hash = cid.hash();
    (hash.code() == IDENTITY && hash.digest().len() <= MAX_IDENTITY)
        .then(|| Bytes::copy_from_slice(hash.digest()))
}

/// Hashes `data` and compares it with what the CID says.
pub fn verify(cid: &Cid, data: &[u8]) -> Result<(), BlockError> {
    if data.len() > MAX_BLOCK {
        return Err(BlockError::TooLarge(data.len()));
    }
    let hash = cid.hash();
    let matches = match hash.code() {
        SHA2_256 => hash.digest() == Hasher::digest(Algorithm::Sha256, data).as_bytes(),
        SHA2_512 => hash.digest() == Hasher::digest(Algorithm::Sha512, data).as_bytes(),
        IDENTITY if hash.digest().len() <= MAX_IDENTITY => hash.digest() == data,
        _ => return Err(BlockError::UnsupportedHash(*cid)),
    };
    if matches { Ok(()) } else { Err(BlockError::Mismatch(*cid)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_cids_of_empty_data() {
        assert_eq!(
            cid_of(RAW, b"").to_string(),
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
        );
    }

    #[test]
    fn a_wrong_byte_is_refused() {
        let cid = cid_of(RAW, b"hello");
        assert!(Block::verified(cid, Bytes::from_static(b"hello")).is_ok());
        assert!(matches!(Block::verified(cid, Bytes::from_static(b"hellp")), Err(BlockError::Mismatch(_))));
    }

    #[test]
    fn an_identity_cid_answers_from_itself() {
        let cid: Cid = "bafkqaaa".parse().unwrap();
        assert_eq!(MemoryBlocks::default().get(&cid).unwrap(), Some(Bytes::new()));
    }
}
