//! Blobs as a repository shows them, and where their bytes are.

use std::ops::Range;

use bytes::Bytes;
use sampan_storage::{BlobFile, Digest, Entry, RepositoryName, Store, StoreError, Tree, layout};

use super::{BlobStream, OriginError, Registry, RegistryError, RemoteBlob, is_malformed, is_missing};

/// A blob of a followed tree up to this size may be one block that is here although no file of it is; it is read
/// whole. A leaf has at most 1 MiB.
const MAX_SMALL: u64 = 1024 * 1024;

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub(crate) enum Blob {
    /// Whole on this disk.
    File(BlobFile),
    /// A small one, held as a block of a followed tree.
    Small(Bytes),
    /// With peers; [`Registry::open`] streams it.
    Remote(RemoteBlob),
}

impl Blob {
    /// Length in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::File(file) => file.size,
            Self::Small(bytes) => bytes.len() as u64,
            Self::Remote(remote) => remote.size,
        }
    }
}

impl Registry {
    /// A blob that the repository links, in my tree or a followed one.
    pub(crate) async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Blob, RegistryError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.blocking(move |store| {
            // A client that is told that it is here will not push it.
            let pin = store.pin(vec![digest]);
            let found = find_visible(store, &repository, &digest);
            if found.is_err() {
                pin.release();
            }
            found
        })
        .await
    }

    /// Streams a blob that is with peers, while it is being fetched.
    pub(crate) async fn open(
        &self,
        want: RemoteBlob,
        range: Option<Range<u64>>,
    ) -> Result<BlobStream, RegistryError> {
        let digest = want.digest;
        self.origin.open(want, range).await.map_err(|error| match error {
            OriginError::Unavailable => RegistryError::BlobUnavailable(digest),
            OriginError::Wrong(_) => RegistryError::BlobWrong(digest),
            OriginError::Store(error) => error.into(),
        })
    }
}

fn find_visible(store: &Store, repository: &RepositoryName, digest: &Digest) -> Result<Blob, RegistryError> {
    let trees = store.trees();
    if !is_visible(&trees, repository, digest)? {
        return Err(RegistryError::BlobUnknown(*digest));
    }
    let content = find_content(store, &trees, digest)?;
    match content.map(|content| content.blob) {
        Some(Blob::Remote(want)) if store.is_wrong(digest, &want.entry.cid) => {
            Err(RegistryError::BlobWrong(*digest))
        }
        Some(blob) => Ok(blob),
        None => Err(RegistryError::BlobUnknown(*digest)),
    }
}

/// The bytes of a blob, and the entry by which a tree holds them.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) blob: Blob,
    pub(super) entry: Entry,
    /// My tree has that entry.
    pub(super) mine: bool,
}

/// Whether one of the trees links the digest in the repository. A tree that cannot be asked does not hide the next,
/// because a digest means the same everywhere; where no other answers, its error is the answer.
pub(super) fn is_visible(
    trees: &[Tree],
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<bool, StoreError> {
    let mut failed = None;
    for tree in trees {
        match is_linked(tree, repository, digest) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(false), Err)
}

/// Whether this tree links the digest in the repository, as a layer or as a manifest.
pub(super) fn is_linked(
    tree: &Tree,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<bool, StoreError> {
    let links = [layout::layer(repository, digest), layout::revision(repository, digest)];
    for link in links {
        if tree.lookup(&link)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the bytes of a digest are, whichever repository shows it. What the trees say is compared with the digest
/// wherever the bytes are at hand, because a followed tree may hold other bytes under that path.
pub(super) fn find_content(
    store: &Store,
    trees: &[Tree],
    digest: &Digest,
) -> Result<Option<Content>, StoreError> {
    let path = layout::blob(digest);
    let mut failed = None;
    let mut held = Vec::new();
    for tree in trees {
        match tree.lookup(&path) {
            Ok(Some(entry)) => held.push((tree, entry)),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    if let Some((tree, entry)) = held.first()
        && let Some(file) = store.blob(digest)?
        && is_sound(store, &held, digest, &file)?
    {
        let mine = tree.name().is_none();
        if !mine {
            // What is in the cache stays by when it was asked for last.
            file.note_use();
        }
        return Ok(Some(Content { blob: Blob::File(file), entry: entry.clone(), mine }));
    }
    let mut remote: Option<Content> = None;
    for (tree, entry) in held {
        // What is known to be wrong is named only where nobody has it right.
        let is_better = remote.as_ref().is_none_or(|known| store.is_wrong(digest, &known.entry.cid));
        match (read_small(tree, &entry, digest), tree.name()) {
            (Ok((_, Some(bytes))), name) => {
                return Ok(Some(Content { blob: Blob::Small(bytes), entry, mine: name.is_none() }));
            }
            (Ok((size, None)), Some(name)) if is_better => {
                let want = RemoteBlob { tree: name.to_owned(), digest: *digest, entry: entry.clone(), size };
                remote = Some(Content { blob: Blob::Remote(want), entry, mine: false });
            }
            // No file of any size: as one that is fetched and turns out wrong.
            (Err(error), Some(name)) if is_malformed(&error) => {
                store.note_wrong(digest, &entry.cid);
                let want =
                    RemoteBlob { tree: name.to_owned(), digest: *digest, entry: entry.clone(), size: 0 };
                remote.get_or_insert(Content { blob: Blob::Remote(want), entry, mine: false });
            }
            // In my own tree without its file: the file failed a check, so that it is to be pushed again.
            (Ok((_, None)), _) => {}
            (Err(error), _) => failed = Some(error),
        }
    }
    match (remote, failed) {
        (None, Some(error)) => Err(error),
        (remote, _) => Ok(remote),
    }
}

/// Whether the file is as long as a tree says. One that is not is hashed, because trees may be wrong as well, and goes into
/// quarantine if it is no longer what it was. Of a tree that was wrong this is known then, and it has nothing hashed again.
fn is_sound(
    store: &Store,
    held: &[(&Tree, Entry)],
    digest: &Digest,
    file: &BlobFile,
) -> Result<bool, StoreError> {
    let mut differing = Vec::new();
    for (tree, entry) in held {
        match tree.size(entry) {
            Ok(size) if size != file.size => differing.push((tree, entry)),
            // Or its length is not known at once.
            _ => return Ok(true),
        }
    }
    if differing.iter().all(|(_, entry)| store.is_wrong(digest, &entry.cid)) {
        return Ok(true);
    }
    let sound = store.examine(file)?;
    for (_, entry) in differing.iter().filter(|(tree, _)| sound && tree.name().is_some()) {
        store.note_wrong(digest, &entry.cid);
    }
    Ok(sound)
}

/// Size of the entry, and its bytes where they are small, here and right.
fn read_small(tree: &Tree, entry: &Entry, digest: &Digest) -> Result<(u64, Option<Bytes>), StoreError> {
    let size = tree.size(entry)?;
    if size > MAX_SMALL {
        return Ok((size, None));
    }
    match tree.read_entry(entry, MAX_SMALL) {
        Ok(bytes) => {
            let right = Digest::of(digest.algorithm(), &bytes) == *digest;
            Ok((size, right.then_some(bytes)))
        }
        Err(error) if is_missing(&error) => Ok((size, None)),
        Err(error) => Err(error),
    }
}
