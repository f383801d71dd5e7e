//! The index: where the leaves of blobs lie, and the ordered lists of repositories, tags and referrers.
//!
//! The only room that knows sled. Everything here is derived from blobs, packs and journal; whoever deletes `db/`
//! loses time, not data. Values stay small and the cache too (sled keeps large values badly), and a commit point is
//! made by syncing sled's file ourselves, because its own flush is none.
//!
//! One failed write poisons sled until it is opened anew. Then the index is *down*: writes are passed over, lists are
//! refused, leaves are not found, and the keeper ([`crate::keeper`]) begins an empty one and fills it from the trees.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use cid::Cid;
use multihash::Multihash;

use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::files::is_full;
use crate::journal::Position;

/// Pages that sled keeps in memory: one or two in each of its 256 parts. Others come from the system's own cache.
const CACHE: u64 = 1024 * 1024;
/// Rows a batch: a batch holds a lock that readers wait for.
const BATCH: usize = 512;
/// Rows of another form are rebuilt.
const FORMAT: &[u8] = b"1";

/// Tells the trees apart: mine is all zeros, a followed name the start of its SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TreeKey([u8; 8]);

impl TreeKey {
    pub(crate) const MINE: Self = Self([0; 8]);

    pub(crate) fn followed(name: &str) -> Self {
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

#[derive(Clone, Debug)]
pub(crate) struct Index {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    standing: RwLock<Standing>,
    /// Wakes the keeper; `None` when the store closes.
    keeper: Mutex<Option<SyncSender<()>>>,
    /// How many rows the lists of a tree have, of those trees of which somebody has asked.
    counts: Mutex<HashMap<TreeKey, usize>>,
}

#[derive(Clone, Debug)]
enum Standing {
    Up(Db),
    /// Begun anew: rows are written, and lists are not whole yet.
    Filling(Db),
    Down,
}

#[derive(Clone, Debug)]
struct Db {
    sled: sled::Db,
    blocks: sled::Tree,
    lists: sled::Tree,
    meta: sled::Tree,
}

impl Index {
    /// Opens the index, or begins an empty one where it is missing, damaged or of another form. Where not even that
    /// succeeds it is down, and the keeper is told.
    pub(crate) fn open(path: &Path, keeper: SyncSender<()>) -> Self {
        let standing = RwLock::new(Standing::Down);
        let keeper = Mutex::new(Some(keeper));
        let index = Self {
            shared: Arc::new(Shared { path: path.to_owned(), standing, keeper, counts: Mutex::default() }),
        };
        let opened = Db::open(path).or_else(|error| {
            tracing::warn!(%error, "the index does not open and is built anew");
            Db::anew(path)
        });
        match opened {
            Ok(db) => index.stand(Standing::Up(db)),
            Err(error) => index.give_up(&error),
        }
        index
    }

    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        self.counts().clear();
        self.write(Db::clear)
    }

    /// Throws away what there is and begins to fill an empty index.
    pub(crate) fn begin_anew(&self) -> Result<(), StoreError> {
        self.stand(Standing::Down);
        self.counts().clear();
        let db = Db::anew(&self.shared.path)?;
        self.stand(Standing::Filling(db));
        Ok(())
    }

    /// Everything up to this entry is in the index: lists are whole again.
    pub(crate) fn end_filling(&self, applied: Position) -> Result<(), StoreError> {
        let mut standing = self.shared.standing.write().unwrap_or_else(PoisonError::into_inner);
        if let Standing::Filling(db) = &*standing {
            db.set_applied(applied).map_err(failed)?;
            let db = db.clone();
            *standing = Standing::Up(db);
        }
        Ok(())
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.standing(), Standing::Up(_))
    }

    /// What it says is wrong, or could not be written: from here on it says nothing, until it is built anew.
    pub(crate) fn give_up(&self, error: &StoreError) {
        {
            let mut standing = self.shared.standing.write().unwrap_or_else(PoisonError::into_inner);
            if matches!(*standing, Standing::Up(_) | Standing::Filling(_)) {
                tracing::error!(%error, "the index failed and is built anew");
            }
            *standing = Standing::Down;
        }
        if let Some(keeper) = &*self.shared.keeper.lock().unwrap_or_else(PoisonError::into_inner) {
            // A full queue holds a signal that is as good as this one.
            let _ = keeper.try_send(());
        }
    }

    /// Ends the keeper.
    pub(crate) fn close(&self) {
        self.shared.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.shared.keeper.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Journal entries up to here are in the index.
    pub(crate) fn applied(&self) -> Result<Position, StoreError> {
        let Standing::Up(db) = self.standing() else { return Ok(0) };
        Ok(number(db.meta.get("applied").map_err(|error| self.failed(error))?))
    }

    /// While the index is being filled it holds no whole beginning of the journal, and says so.
    pub(crate) fn set_applied(&self, position: Position) -> Result<(), StoreError> {
        let Standing::Up(db) = self.standing() else { return Ok(()) };
        db.set_applied(position).map_err(|error| self.failed(error))
    }

    /// Bytes of the packs after their last compaction; 0 where that is not known.
    pub(crate) fn live(&self) -> Result<u64, StoreError> {
        let Some(db) = self.db() else { return Ok(0) };
        Ok(number(db.meta.get("live").map_err(|error| self.failed(error))?))
    }

    pub(crate) fn set_live(&self, bytes: u64) -> Result<(), StoreError> {
        self.write(|db| db.meta.insert("live", &bytes.to_be_bytes()))
    }

    /// Makes what was written so far durable.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        self.write(|db| db.sled.flush())?;
        if matches!(self.standing(), Standing::Down) {
            return Ok(());
        }
        // sled 0.34 keeps its log in this one file and only starts the write-back of it.
        let synced = File::open(self.shared.path.join("db")).and_then(|file| file.sync_data());
        synced.map_err(|error| {
            let error = StoreError::from(error);
            self.give_up(&error);
            error
        })
    }

    pub(crate) fn put_blocks(&self, rows: &[(Cid, Holder)]) -> Result<(), StoreError> {
        for rows in rows.chunks(BATCH) {
            self.write(|db| {
                let mut batch = sled::Batch::default();
                for (cid, holder) in rows {
                    batch.insert(block_key(cid.hash(), holder), holder.encode());
                }
                db.blocks.apply_batch(batch)
            })?;
        }
        Ok(())
    }

    /// Removes the rows whose holder is not wanted any more. Walks all rows.
    pub(crate) fn retain_blocks(&self, keep: &mut dyn FnMut(&Holder) -> bool) -> Result<(), StoreError> {
        self.write(|db| {
            let mut batch = sled::Batch::default();
            let mut rows = 0;
            for row in walk(&db.blocks, db.blocks.iter()) {
                let (key, value) = row?;
                if Holder::decode(&value).is_none_or(|holder| !keep(&holder)) {
                    batch.remove(key);
                    rows += 1;
                }
                if rows == BATCH {
                    db.blocks.apply_batch(std::mem::take(&mut batch))?;
                    rows = 0;
                }
            }
            db.blocks.apply_batch(batch)
        })
    }

    /// Removes one of the rows that [`Self::leaves`] has shown.
    pub(crate) fn remove_leaf(&self, hash: &Multihash<64>, holder: &Holder) -> Result<(), StoreError> {
        self.write(|db| db.blocks.remove(block_key(hash, holder)))
    }

    /// Everyone who holds the bytes of this hash.
    pub(crate) fn holders(
        &self,
        hash: &Multihash<64>,
    ) -> impl Iterator<Item = Result<Holder, StoreError>> + use<> {
        let index = self.clone();
        let rows = self.db().map(|db| db.blocks.scan_prefix(hash.to_bytes()).values());
        rows.into_iter().flatten().filter_map(move |value| match value {
            Ok(value) => Holder::decode(&value).map(Ok),
            Err(error) => Some(Err(index.failed(error))),
        })
    }

    /// All rows that say where leaves lie, by hash. What cannot be read as a row is passed over.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = Result<(Multihash<64>, Holder), StoreError>> + use<> {
        let index = self.clone();
        let rows = self.db().map(|db| walk(&db.blocks, db.blocks.iter()));
        rows.into_iter().flatten().filter_map(move |row| match row {
            Ok((key, value)) => Some(Ok((Multihash::read(&mut key.as_ref()).ok()?, Holder::decode(&value)?))),
            Err(error) => Some(Err(index.failed(error))),
        })
    }

    pub(crate) fn put_row(&self, tree: TreeKey, row: Row<'_>, value: &[u8]) -> Result<(), StoreError> {
        let mut counts = self.counts();
        self.write(|db| {
            let before = db.lists.insert(row_key(tree, row), value)?;
            counts.entry(tree).and_modify(|count| *count += usize::from(before.is_none()));
            Ok(())
        })
    }

    pub(crate) fn remove_row(&self, tree: TreeKey, row: Row<'_>) -> Result<(), StoreError> {
        let mut counts = self.counts();
        self.write(|db| {
            let before = db.lists.remove(row_key(tree, row))?;
            counts.entry(tree).and_modify(|count| *count = count.saturating_sub(before.is_some().into()));
            Ok(())
        })
    }

    /// How many rows the lists of a tree have. They are counted once, and what is written meanwhile waits for that.
    pub(crate) fn count(&self, tree: TreeKey) -> Result<usize, StoreError> {
        let mut counts = self.counts();
        if let Some(count) = counts.get(&tree) {
            return Ok(*count);
        }
        let Some(db) = self.db() else { return Ok(0) };
        let mut count = 0;
        for row in walk(&db.lists, db.lists.scan_prefix(tree.0)) {
            row.map_err(|error| self.failed(error))?;
            count += 1;
        }
        counts.insert(tree, count);
        Ok(count)
    }

    /// The value of a row, if there is one.
    pub(crate) fn row(&self, tree: TreeKey, row: Row<'_>) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.lists()?.get(row_key(tree, row)).map_err(|error| self.unreadable(error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Whether any row begins like this one without its last field.
    pub(crate) fn has_siblings(&self, tree: TreeKey, row: Row<'_>) -> Result<bool, StoreError> {
        let mut key = row_key(tree, row);
        key.truncate(key.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1));
        let Some(db) = self.db() else { return Ok(false) };
        Ok(db.lists.scan_prefix(key).next().transpose().map_err(|error| self.failed(error))?.is_some())
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

    /// Like [`Self::after`] for the manifests of a repository.
    pub(crate) fn revisions_after(
        &self,
        tree: TreeKey,
        repository: &str,
        after: Option<&Digest>,
    ) -> impl Iterator<Item = Result<(String, Vec<u8>), StoreError>> + use<> {
        let last = after.map(Digest::to_string).unwrap_or_default();
        self.after_key(row_key_of(tree, b'm', &[repository, &last]))
    }

    /// Every row of a tree: its kind's letter and its fields. What is no row is passed over.
    pub(crate) fn rows(
        &self,
        tree: TreeKey,
    ) -> impl Iterator<Item = Result<(u8, Vec<String>), StoreError>> + use<> {
        let index = self.clone();
        let rows = self.db().map(|db| walk(&db.lists, db.lists.scan_prefix(tree.0)));
        rows.into_iter().flatten().filter_map(move |row| match row {
            Ok((key, _)) => {
                let (kind, fields) = key.strip_prefix(&tree.0)?.split_first()?;
                let text = String::from_utf8_lossy(fields.strip_prefix(&[0])?).into_owned();
                Some(Ok((*kind, text.split('\0').map(str::to_owned).collect())))
            }
            Err(error) => Some(Err(index.failed(error))),
        })
    }

    pub(crate) fn drop_tree(&self, tree: TreeKey) -> Result<(), StoreError> {
        // Held, so that nobody counts rows that are about to go.
        let mut counts = self.counts();
        counts.remove(&tree);
        self.write(|db| {
            for key in db.lists.scan_prefix(tree.0).keys() {
                db.lists.remove(key?)?;
            }
            Ok(())
        })
    }

    /// Removes at most so many rows of a tree. Whether that was all of them.
    pub(crate) fn drop_some(&self, tree: TreeKey, most: usize) -> Result<bool, StoreError> {
        let mut counts = self.counts();
        counts.remove(&tree);
        let mut rows = 0;
        self.write(|db| {
            for key in db.lists.scan_prefix(tree.0).keys().take(most) {
                db.lists.remove(key?)?;
                rows += 1;
            }
            Ok(())
        })?;
        Ok(rows < most)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<TreeKey, usize>> {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after_key(
        &self,
        start: Vec<u8>,
    ) -> impl Iterator<Item = Result<(String, Vec<u8>), StoreError>> + use<> {
        let prefix = start.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
        let head = start.get(..prefix).unwrap_or_default().to_vec();
        let index = self.clone();
        let (rows, refused) = match self.lists() {
            // An empty last field starts at the beginning; a key that equals it does not exist.
            Ok(lists) => {
                let range = (std::ops::Bound::Excluded(start), std::ops::Bound::Unbounded);
                (Some(walk(&lists, lists.range::<Vec<u8>, _>(range))), None)
            }
            Err(error) => (None, Some(Err(error))),
        };
        let rows = rows.into_iter().flatten().map_while(move |item| match item {
            Ok((key, value)) => {
                let last = key.strip_prefix(head.as_slice())?;
                Some(Ok((String::from_utf8_lossy(last).into_owned(), value.to_vec())))
            }
            Err(error) => Some(Err(index.unreadable(error))),
        });
        refused.into_iter().chain(rows)
    }

    fn standing(&self) -> Standing {
        self.shared.standing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stand(&self, standing: Standing) {
        *self.shared.standing.write().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// Where rows are read and written, whole or not.
    fn db(&self) -> Option<Db> {
        match self.standing() {
            Standing::Up(db) | Standing::Filling(db) => Some(db),
            Standing::Down => None,
        }
    }

    /// Lists are read when they are whole.
    fn lists(&self) -> Result<sled::Tree, StoreError> {
        match self.standing() {
            Standing::Up(db) => Ok(db.lists),
            Standing::Filling(_) | Standing::Down => Err(StoreError::Rebuilding),
        }
    }

    /// An index that is down takes everything: whoever builds it anew finds it in the trees.
    fn write<T>(&self, write: impl FnOnce(&Db) -> sled::Result<T>) -> Result<(), StoreError> {
        let Some(db) = self.db() else { return Ok(()) };
        write(&db).map(drop).map_err(|error| self.failed(error))
    }

    /// For who reads a list in the moment in which the index fails: it is as it will be right after.
    fn unreadable(&self, error: sled::Error) -> StoreError {
        self.failed(error);
        StoreError::Rebuilding
    }

    fn failed(&self, error: sled::Error) -> StoreError {
        let error = failed(error);
        self.give_up(&error);
        error
    }
}

impl Db {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(Some(1000));
        let sled = config.open().map_err(failed)?;
        let tree = |name| sled.open_tree(name).map_err(failed);
        let (blocks, lists, meta) = (tree("blocks")?, tree("lists")?, tree("meta")?);
        let db = Self { sled, blocks, lists, meta };
        if db.meta.get("format").map_err(failed)?.is_none_or(|format| *format != *FORMAT) {
            db.clear().map_err(failed)?;
        }
        Ok(db)
    }

    /// An empty one in place of what lies there, which others may still have open.
    fn anew(path: &Path) -> Result<Self, StoreError> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Self::open(path),
        }
    }

    fn clear(&self) -> sled::Result<()> {
        self.meta.clear()?;
        self.blocks.clear()?;
        self.lists.clear()?;
        self.meta.insert("format", FORMAT)?;
        Ok(())
    }

    fn set_applied(&self, position: Position) -> sled::Result<()> {
        self.meta.insert("applied", &position.to_be_bytes())?;
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

/// Rows of a range. sled looks for pages to give up only after some 64 look-ups in one part of its cache, and its own
/// ranges look each page up once: all that they go through would stay in memory. So each row is looked up too.
fn walk(
    tree: &sled::Tree,
    rows: sled::Iter,
) -> impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>> + use<> {
    let tree = tree.clone();
    rows.map(move |row| {
        let (key, value) = row?;
        tree.contains_key(&key)?;
        Ok((key, value))
    })
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

fn failed(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) if is_full(&error) => StoreError::NoSpace,
        error => StoreError::Index(error.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{RAW, cid_of};

    fn open() -> (tempfile::TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let (keeper, _) = std::sync::mpsc::sync_channel(1);
        let index = Index::open(&dir.path().join("db"), keeper);
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
        let applied = || {
            let (keeper, _) = std::sync::mpsc::sync_channel(1);
            Index::open(&db, keeper).applied().unwrap()
        };
        assert_eq!(applied(), 9);
        std::fs::write(db.join("db"), [0xa5; 4096]).unwrap();
        assert_eq!(applied(), 0);
    }

    #[test]
    fn an_index_that_is_down_refuses_lists_until_it_is_filled_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (keeper, signals) = std::sync::mpsc::sync_channel(1);
        let index = Index::open(&dir.path().join("db"), keeper);
        let row = Row::Tag("repo", "a");
        index.put_row(TreeKey::MINE, row, b"old").unwrap();
        index.set_applied(9).unwrap();
        index.give_up(&StoreError::Closed);
        signals.try_recv().unwrap();
        let listed = |index: &Index| index.after(TreeKey::MINE, Row::Tag("repo", "")).next();
        assert!(matches!(listed(&index), Some(Err(StoreError::Rebuilding))));
        index.put_row(TreeKey::MINE, row, b"passed over").unwrap();
        assert_eq!(index.holders(cid_of(RAW, b"leaf").hash()).count(), 0);

        index.begin_anew().unwrap();
        index.put_row(TreeKey::MINE, row, b"new").unwrap();
        index.set_applied(10).unwrap();
        assert_eq!(index.applied().unwrap(), 0, "it is not whole");
        assert!(matches!(listed(&index), Some(Err(StoreError::Rebuilding))));
        index.end_filling(8).unwrap();
        assert_eq!(listed(&index).unwrap().unwrap(), ("a".into(), b"new".to_vec()));
        assert_eq!(index.applied().unwrap(), 8);
    }

    #[test]
    fn what_the_last_compaction_left_is_known_after_a_restart() {
        let (dir, index) = open();
        assert_eq!(index.live().unwrap(), 0);
        index.set_live(7).unwrap();
        index.checkpoint().unwrap();
        drop(index);
        let (keeper, _) = std::sync::mpsc::sync_channel(1);
        assert_eq!(Index::open(&dir.path().join("db"), keeper).live().unwrap(), 7);
    }

    #[test]
    fn who_reads_a_list_as_the_index_fails_is_told_that_it_is_built_anew() {
        let (_dir, index) = open();
        assert!(index.is_up());
        let error = index.unreadable(sled::Error::Unsupported("no space".into()));
        assert!(matches!(error, StoreError::Rebuilding));
        assert!(!index.is_up());
    }

    #[test]
    fn an_index_that_fails_for_want_of_room_says_so() {
        let error = sled::Error::Io(std::io::ErrorKind::StorageFull.into());
        assert!(matches!(failed(error), StoreError::NoSpace));
    }
}
