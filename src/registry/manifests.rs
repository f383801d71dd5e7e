//! Manifests as a repository shows them, by tag or by digest.

use std::sync::Arc;

use bytes::Bytes;
use sampan_storage::{Digest, Reference, RepositoryName, Store, StoreError, Tree, layout};

use super::blobs::{Blob, find_content};
use super::manifest::{MAX_MANIFEST, is_media_type, sniff};
use super::tags::{self, Meaning};
use super::{OriginError, Registry, RegistryError, RemoteBlob};

/// A media type file of a tree; the type itself is shorter.
const MAX_MEDIA_TYPE_FILE: u64 = 512;

/// A manifest as it was pushed, to the byte.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: Arc<str>,
    pub(crate) bytes: Bytes,
}

enum Located {
    Here(Manifest),
    Remote(RemoteBlob, Box<Tree>),
}

impl Registry {
    /// The manifest that a reference stands for. A tag means what the first tree says that has it; a tree that
    /// cannot be asked is an error and never passed over.
    pub(crate) async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Manifest, RegistryError> {
        // Read first, so that an answer is never newer than what it is filed under.
        let (losses, generation) = (self.store.losses(), self.store.generation());
        let key = (repository.clone(), reference.clone());
        // A client that is told that a manifest is here will not push it, and will name it in an index.
        let named = |reference: &Reference| match reference {
            Reference::Digest(digest) => Some(vec![*digest]),
            Reference::Tag(_) => None,
        };
        let pin = named(reference).map(|named| self.store.try_pin(named));
        match (self.manifests.get(&key, generation), pin) {
            (Some(manifest), None | Some(Some(_))) => return Ok(manifest),
            (_, Some(Some(pin))) => pin.release(),
            (_, None | Some(None)) => {}
        }
        let (repository, reference) = key.clone();
        let cache = Arc::clone(&self.manifests);
        let (_pin, located) = self
            .blocking(move |store| {
                let pin = named(&reference).map(|named| store.pin(named));
                match locate(store, &repository, &reference, |digest| cache.bytes(digest, losses)) {
                    Ok(located) => Ok((pin, located)),
                    Err(error) => {
                        pin.into_iter().for_each(sampan_storage::Pin::release);
                        Err(error)
                    }
                }
            })
            .await?;
        let manifest = match located {
            Located::Here(manifest) => manifest,
            Located::Remote(want, tree) => {
                let (digest, repository) = (want.digest, key.0.clone());
                let bytes = self.fetch_manifest(want).await?;
                self.blocking(move |_| typed(&tree, &repository, digest, bytes)).await?
            }
        };
        self.manifests.put(key, generation, losses, &manifest);
        Ok(manifest)
    }

    /// Brings a manifest of a followed tree to this disk.
    pub(super) async fn fetch_manifest(&self, want: RemoteBlob) -> Result<Bytes, RegistryError> {
        let digest = want.digest;
        if want.size > MAX_MANIFEST {
            return Err(RegistryError::ManifestUnknown(Reference::Digest(digest)));
        }
        match self.origin.fetch(want).await {
            Ok(file) => self.blocking(move |_| file.read_all(MAX_MANIFEST)).await,
            Err(OriginError::Store(error)) => Err(error.into()),
            Err(OriginError::Unavailable) => Err(RegistryError::ManifestUnavailable(digest)),
            Err(OriginError::Wrong(_)) => Err(RegistryError::ManifestWrong(digest)),
        }
    }
}

fn locate(
    store: &Store,
    repository: &RepositoryName,
    reference: &Reference,
    cached: impl FnOnce(&Digest) -> Option<Bytes>,
) -> Result<Located, RegistryError> {
    let unknown = || RegistryError::ManifestUnknown(reference.clone());
    let trees = store.trees();
    let (tree, digest) = resolve(&trees, repository, reference)?.ok_or_else(unknown)?;
    let bytes = match cached(&digest) {
        Some(bytes) => bytes,
        None => match find_content(store, &trees, &digest)?.ok_or_else(unknown)?.blob {
            Blob::File(file) => {
                let bytes = file.read_all(MAX_MANIFEST)?;
                // It is small, and stays in memory from here on: it is hashed each time that it comes from the disk.
                if Digest::of(digest.algorithm(), &bytes) != digest && !store.examine(&file)? {
                    return Err(unknown());
                }
                bytes
            }
            Blob::Small(bytes) => bytes,
            Blob::Remote(want) => return Ok(Located::Remote(want, Box::new(tree.clone()))),
        },
    };
    Ok(Located::Here(typed(tree, repository, digest, bytes)?))
}

/// The tree that shows the manifest in this repository, and its digest.
pub(super) fn resolve<'a>(
    trees: &'a [Tree],
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Option<(&'a Tree, Digest)>, StoreError> {
    let digest = match reference {
        Reference::Digest(digest) => *digest,
        Reference::Tag(tag) => {
            let meaning = tags::resolve(trees, repository, tag)?;
            return Ok(meaning.map(|Meaning { tree, digest }| (tree, digest)));
        }
    };
    let mut failed = None;
    for tree in trees {
        match tree.lookup(&layout::revision(repository, &digest)) {
            Ok(Some(_)) => return Ok(Some((tree, digest))),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Adds the media type: the body's word, else the file beside it, else what the body looks like.
fn typed(
    tree: &Tree,
    repository: &RepositoryName,
    digest: Digest,
    bytes: Bytes,
) -> Result<Manifest, StoreError> {
    let (declared, inferred) = sniff(&bytes);
    let media_type = match declared {
        Some(declared) => declared,
        None => beside(tree, repository, &digest)?.unwrap_or_else(|| inferred.to_owned()),
    };
    Ok(Manifest { digest, media_type: media_type.into(), bytes })
}

fn beside(tree: &Tree, repository: &RepositoryName, digest: &Digest) -> Result<Option<String>, StoreError> {
    let file = tags::small_file(tree, &layout::media_type(repository, digest), MAX_MEDIA_TYPE_FILE)?;
    let text = file.and_then(|file| String::from_utf8(file.into()).ok());
    Ok(text.map(|text| text.trim().to_owned()).filter(|text| is_media_type(text)))
}
