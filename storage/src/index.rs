//! The index: where the leaves of blobs lie, and the ordered lists of repositories, tags and referrers.
//!
//! The only room that knows sled. Everything here is derived from blobs, packs and journal; whoever deletes `db/`
//! loses time, not data. Values stay small and the cache too (sled keeps large values badly), and a commit point is
//! made by syncing sled's file ourselves, because its own flush is none.

use std::fs::File;
use std::path::{Path, PathBuf};

use cid::Cid;
use multihash::Multihash;

use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::journal::Position;

/// Pages that sled keeps in memory.
const CACHE: u64 = 4 * 1024 * 1024;
/// Rows a batch: a batch holds a lock that readers wait for.
const BATCH: usize = 512;
/// Rows of another form are rebuilt.
const FORMAT: &[u8] = b"1";

/// Tells the trees apart: mine is all zeros, a followed name the start of its SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TreeKey([u8; 8]);

impl TreeKey {
    pub const MINE: Self = Self([0; 8]);

    pub fn followed(name: &str) -> Self {
        let digest = Digest::of(Algorithm::Sha256, name.as_bytes());
        Self(digest.as_bytes().first_chunk().copied().unwrap_or_default())
    }
}

/// How the bytes of a range become the block again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// They are the block.
    Raw,
    /// Inline data of a dag-pb node of UnixFS type File.
    File,
    /// The same of type Raw.
    RawNode,
}

/// The bytes of a blob that are a leaf's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) digest: Digest,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    pub(crate) form: Form,
}

/// A row of the lists.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Row<'a> {
    Repository(&'a str),
    Revision(&'a str, &'a Digest),
    Tag(&'a str, &'a str),
    Referrer(&'a str, &'a Digest, &'a Digest),
}

#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    db: sled::Db,
    blocks: sled::Tree,
    lists: sled::Tree,
    meta: sled::Tree,
}

impl Index {
    /// Opens the index, or begins an empty one where it is missing, damaged or of another form.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        match Self::try_open(path) {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::warn!(%error, "the index does not open and is built anew");
                std::fs::remove_dir_all(path)?;
                Self::try_open(path)
            }
        }
    }

    fn try_open(path: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(Some(1000));
        let db = config.open().map_err(failed)?;
        let tree = |name| db.open_tree(name).map_err(failed);
        let (blocks, lists, meta) = (tree("blocks")?, tree("lists")?, tree("meta")?);
        let index = Self { path: path.to_owned(), db, blocks, lists, meta };
        if index.meta.get("format").map_err(failed)?.is_none_or(|format| *format != *FORMAT) {
            index.clear()?;
        }
        Ok(index)
    }

    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        self.meta.clear().map_err(failed)?;
        self.blocks.clear().map_err(failed)?;
        self.lists.clear().map_err(failed)?;
        self.meta.insert("format", FORMAT).map_err(failed)?;
        Ok(())
    }

    /// Journal entries up to here are in the index.
    pub(crate) fn applied(&self) -> Result<Position, StoreError> {
        Ok(number(self.meta.get("applied").map_err(failed)?))
    }

    pub(crate) fn set_applied(&self, position: Position) -> Result<(), StoreError> {
        self.meta.insert("applied", &position.to_be_bytes()).map_err(failed)?;
        Ok(())
    }

    /// Makes what was written so far durable.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(failed)?;
        // sled 0.34 keeps its log in this one file and only starts the write-back of it.
        File::open(self.path.join("db"))?.sync_data()?;
        Ok(())
    }

    pub(crate) fn put_blocks(&self, rows: &[(Cid, Holder)]) -> Result<(), StoreError> {
        for rows in rows.chunks(BATCH) {
            let mut batch = sled::Batch::default();
            for (cid, holder) in rows {
                batch.insert(block_key(cid.hash(), holder), holder.encode());
            }
            self.blocks.apply_batch(batch).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes the rows whose holder is not wanted any more. Walks all rows.
    pub(crate) fn retain_blocks(&self, keep: &mut dyn FnMut(&Holder) -> bool) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let mut rows = 0;
        for row in &self.blocks {
            let (key, value) = row.map_err(failed)?;
            if Holder::decode(&value).is_none_or(|holder| !keep(&holder)) {
                batch.remove(key);
                rows += 1;
            }
            if rows == BATCH {
                self.blocks.apply_batch(std::mem::take(&mut batch)).map_err(failed)?;
                rows = 0;
            }
        }
        self.blocks.apply_batch(batch).map_err(failed)
    }

    /// Everyone who holds the bytes of this hash.
    pub(crate) fn holders(
        &self,
        hash: &Multihash<64>,
    ) -> impl Iterator<Item = Result<Holder, StoreError>> + use<> {
        self.blocks.scan_prefix(hash.to_bytes()).values().filter_map(|value| match value {
            Ok(value) => Holder::decode(&value).map(Ok),
            Err(error) => Some(Err(failed(error))),
        })
    }

    pub(crate) fn put_row(&self, tree: TreeKey, row: Row<'_>, value: &[u8]) -> Result<(), StoreError> {
        self.lists.insert(row_key(tree, row), value).map_err(failed)?;
        Ok(())
    }

    pub(crate) fn remove_row(&self, tree: TreeKey, row: Row<'_>) -> Result<(), StoreError> {
        self.lists.remove(row_key(tree, row)).map_err(failed)?;
        Ok(())
    }

    /// Whether any row begins like this one without its last field.
    pub(crate) fn has_siblings(&self, tree: TreeKey, row: Row<'_>) -> Result<bool, StoreError> {
        let mut key = row_key(tree, row);
        key.truncate(key.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1));
        Ok(self.lists.scan_prefix(key).next().transpose().map_err(failed)?.is_some())
    }

    /// The last fields and values of the rows that begin like `row` without its last field, in byte order, from
    /// after that last field on.
    pub(crate) fn after(
        &self,
        tree: TreeKey,
        row: Row<'_>,
    ) -> impl Iterator<Item = Result<(String, Vec<u8>), StoreError>> + use<> {
        self.after_key(row_key(tree, row))
    }

    fn after_key(
        &self,
        start: Vec<u8>,
    ) -> impl Iterator<Item = Result<(String, Vec<u8>), StoreError>> + use<> {
        let prefix = start.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
        let head = start.get(..prefix).unwrap_or_default().to_vec();
        // An empty last field starts at the beginning; a key that equals it does not exist.
        let range = (std::ops::Bound::Excluded(start), std::ops::Bound::Unbounded);
        self.lists.range::<Vec<u8>, _>(range).map_while(move |item| match item {
            Ok((key, value)) => {
                let last = key.strip_prefix(head.as_slice())?;
                Some(Ok((String::from_utf8_lossy(last).into_owned(), value.to_vec())))
            }
            Err(error) => Some(Err(failed(error))),
        })
    }

    /// Like [`Self::after`] for the referrers of a subject.
    pub(crate) fn referrers_after(
        &self,
        tree: TreeKey,
        repository: &str,
        subject: &Digest,
        after: Option<&Digest>,
    ) -> impl Iterator<Item = Result<(String, Vec<u8>), StoreError>> + use<> {
        let subject = subject.to_string();
        let last = after.map(Digest::to_string).unwrap_or_default();
        self.after_key(row_key_of(tree, b'f', &[repository, &subject, &last]))
    }

    pub(crate) fn drop_tree(&self, tree: TreeKey) -> Result<(), StoreError> {
        for key in self.lists.scan_prefix(tree.0).keys() {
            self.lists.remove(key.map_err(failed)?).map_err(failed)?;
        }
        Ok(())
    }
}

impl Holder {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        out.push(algorithm_byte(self.digest.algorithm()));
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        out.push(self.form as u8);
        out.extend_from_slice(self.digest.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (algorithm, rest) = bytes.split_first()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (form, digest) = rest.split_first()?;
        let algorithm = Algorithm::ALL.into_iter().find(|known| algorithm_byte(*known) == *algorithm)?;
        let form = [Form::Raw, Form::File, Form::RawNode].into_iter().find(|known| *known as u8 == *form)?;
        let digest = Digest::from_bytes(algorithm, digest)?;
        Some(Self { digest, offset: u64::from_be_bytes(*offset), len: u32::from_be_bytes(*len), form })
    }
}

fn algorithm_byte(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha256 => b'B',
        Algorithm::Sha512 => b'C',
    }
}

/// Multihash, then who holds it: equal leaves of two blobs are two rows, and one goes without the other.
fn block_key(hash: &Multihash<64>, holder: &Holder) -> Vec<u8> {
    let mut key = hash.to_bytes();
    key.push(algorithm_byte(holder.digest.algorithm()));
    key.extend(holder.digest.as_bytes().iter().take(8));
    key
}

fn row_key(tree: TreeKey, row: Row<'_>) -> Vec<u8> {
    match row {
        Row::Repository(repository) => row_key_of(tree, b'r', &[repository]),
        Row::Revision(repository, digest) => row_key_of(tree, b'm', &[repository, &digest.to_string()]),
        Row::Tag(repository, tag) => row_key_of(tree, b't', &[repository, tag]),
        Row::Referrer(repository, subject, referrer) => {
            row_key_of(tree, b'f', &[repository, &subject.to_string(), &referrer.to_string()])
        }
    }
}

fn row_key_of(tree: TreeKey, kind: u8, fields: &[&str]) -> Vec<u8> {
    let mut key = tree.0.to_vec();
    key.push(kind);
    for field in fields {
        key.push(0);
        key.extend_from_slice(field.as_bytes());
    }
    key
}

fn number(value: Option<sled::IVec>) -> u64 {
    value.and_then(|value| value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))).unwrap_or(0)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where map_err wants a function of the error")]
fn failed(error: sled::Error) -> StoreError {
    StoreError::Index(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RAW, cid_of};

    fn open() -> (tempfile::TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("db")).unwrap();
        (dir, index)
    }

    #[test]
    fn equal_leaves_of_two_holders_are_two_rows() {
        let (_dir, index) = open();
        let cid = cid_of(RAW, b"leaf");
        let blob = |text: &[u8], form| {
            let digest = Digest::of(Algorithm::Sha512, text);
            Holder { digest, offset: 7, len: 4, form }
        };
        let (one, two) = (blob(b"1", Form::Raw), blob(b"2", Form::RawNode));
        index.put_blocks(&[(cid, one), (cid, two), (cid, two)]).unwrap();
        let found: Vec<_> = index.holders(cid.hash()).map(Result::unwrap).collect();
        assert_eq!(found.len(), 2);
        assert!(found.contains(&one) && found.contains(&two));
    }

    #[test]
    fn lists_are_in_byte_order_and_page_by_value() {
        let (_dir, index) = open();
        for tag in ["b", "a", "B", "a1"] {
            index.put_row(TreeKey::MINE, Row::Tag("repo", tag), b"").unwrap();
        }
        index.put_row(TreeKey::MINE, Row::Tag("repo2", "z"), b"").unwrap();
        index.put_row(TreeKey::followed("k51"), Row::Tag("repo", "z"), b"").unwrap();
        let names = |after: &str| -> Vec<String> {
            index.after(TreeKey::MINE, Row::Tag("repo", after)).map(|row| row.unwrap().0).collect()
        };
        assert_eq!(names(""), ["B", "a", "a1", "b"]);
        assert_eq!(names("a"), ["a1", "b"]);
        assert_eq!(names("aa"), ["b"]);
        index.drop_tree(TreeKey::followed("k51")).unwrap();
        assert!(!index.has_siblings(TreeKey::followed("k51"), Row::Tag("repo", "")).unwrap());
        assert!(index.has_siblings(TreeKey::MINE, Row::Tag("repo2", "")).unwrap());
    }

    #[test]
    fn a_damaged_index_is_begun_anew() {
        let (dir, index) = open();
        index.set_applied(9).unwrap();
        index.checkpoint().unwrap();
        drop(index);
        let db = dir.path().join("db");
        assert_eq!(Index::open(&db).unwrap().applied().unwrap(), 9);
        std::fs::write(db.join("db"), [0xa5; 4096]).unwrap();
        assert_eq!(Index::open(&db).unwrap().applied().unwrap(), 0);
    }
}
