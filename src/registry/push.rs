//! A manifest comes in: checked, linked with all it names, and committed in one step.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use futures::{StreamExt, stream};
use sampan_storage::{
    Algorithm, Commit, Digest, Entry, Pin, Reference, RepositoryName, Store, StoreError, Tag, layout,
};

use super::blobs::{Blob, Content, find_content, is_linked};
use super::descriptor::Descriptor;
use super::manifest::{Document, MAX_MANIFEST, ManifestError, Role, is_manifest_type};
use super::sight::Search;
use super::tags::put_tag;
use super::{OriginError, Registry, RegistryError, RemoteBlob, Sight};

/// Blobs of followed trees that one push fetches at a time.
const FETCHES: usize = 4;
/// Manifests of other trees that one push links: the platforms of an index and what those name.
const MAX_LINKED_MANIFESTS: usize = 256;

/// A manifest that a client sends.
#[derive(Clone, Debug)]
pub(crate) struct ManifestPush {
    pub(crate) reference: Reference,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Bytes,
    /// Tags beside the reference (distribution-spec, "Pushing Manifests", `tag` parameters).
    pub(crate) tags: Vec<Tag>,
}

/// A manifest that is durable and visible.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
}

/// How a named piece of content stands to my repository.
enum Standing {
    Linked,
    /// On this disk, but not in this repository.
    Here(Content),
    /// With peers of a followed name.
    Remote(RemoteBlob, Entry),
    Missing,
}

impl Registry {
    /// Stores a manifest and links what it names, and what is seen, into the repository. What only a followed name has
    /// is fetched.
    pub(crate) async fn put_manifest(
        &self,
        repository: &RepositoryName,
        push: ManifestPush,
        sight: &Sight,
    ) -> Result<Pushed, RegistryError> {
        if push.bytes.len() as u64 > MAX_MANIFEST {
            return Err(RegistryError::ManifestTooLarge { limit: MAX_MANIFEST });
        }
        // The parser looks only at the texts that it reads. What was stored with others is still read.
        std::str::from_utf8(&push.bytes).map_err(ManifestError::Text)?;
        let document = Document::parse(&push.bytes, push.content_type.as_deref())?;
        let (algorithm, mut tags) = match &push.reference {
            Reference::Digest(digest) => (digest.algorithm(), Vec::new()),
            Reference::Tag(tag) => (Algorithm::default(), vec![tag.clone()]),
        };
        let digest = Digest::of(algorithm, &push.bytes);
        if let Reference::Digest(expected) = push.reference
            && expected != digest
        {
            return Err(RegistryError::DigestMismatch { expected, actual: digest });
        }
        tags.extend(push.tags);

        let mut commit = Commit::new();
        let _pins = self.link_references(repository, &document, sight, &mut commit).await?;
        link_manifest(&mut commit, repository, &digest, &document);
        let (bytes, repository, policy) = (push.bytes, repository.clone(), self.policy);
        let commit = self
            .blocking(move |store| {
                // The commit keeps it from being collected.
                commit.put_blob(&store.put_blob(algorithm, &bytes)?);
                let trees = store.trees();
                for tag in &tags {
                    put_tag(&trees, policy, &mut commit, &repository, tag, &digest)?;
                }
                Ok::<_, StoreError>(commit)
            })
            .await?;
        self.store.commit(commit).await?;
        Ok(Pushed { digest, subject: document.subject.map(|subject| subject.digest) })
    }

    /// Links all that the manifest names and that is not linked yet, following manifests of other trees down. All of
    /// it stays here as long as the pins live.
    async fn link_references(
        &self,
        repository: &RepositoryName,
        document: &Document,
        sight: &Sight,
        commit: &mut Commit,
    ) -> Result<Vec<Pin>, RegistryError> {
        let mut search = sight.search();
        let mut pins = Vec::new();
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        let mut manifests = 0;
        let mut documents = VecDeque::from([document.references.clone()]);
        while let Some(mut references) = documents.pop_front() {
            references.retain(|(_, descriptor)| seen.insert(descriptor.digest));
            let (pin, settled);
            (pin, settled, search) = self.settle(repository, references, search).await?;
            pins.push(pin);
            for (role, descriptor, content) in settled {
                let Some(content) = content else {
                    if !self.policy.sparse && !descriptor.is_foreign() {
                        missing.push(descriptor.digest);
                    }
                    continue;
                };
                if !content.mine {
                    commit.put_entry(layout::blob(&descriptor.digest), &content.entry);
                }
                match (role, content.blob) {
                    (Role::Child, blob) if is_manifest_type(&descriptor.media_type) => {
                        let child = self.read_child(&descriptor, blob).await?;
                        link_manifest(commit, repository, &descriptor.digest, &child);
                        manifests += 1;
                        if manifests > MAX_LINKED_MANIFESTS {
                            let limit = MAX_LINKED_MANIFESTS;
                            return Err(ManifestError::TooManyManifests { limit }.into());
                        }
                        documents.push_back(child.references);
                    }
                    _ => commit.put_link(layout::layer(repository, &descriptor.digest), &descriptor.digest),
                }
            }
        }
        if missing.is_empty() { Ok(pins) } else { Err(RegistryError::ManifestBlobUnknown(missing)) }
    }

    /// What of these is to be linked, with its content brought to this disk; `None` where it is not to be had.
    async fn settle(
        &self,
        repository: &RepositoryName,
        references: Vec<(Role, Descriptor)>,
        mut search: Search,
    ) -> Result<(Pin, Vec<(Role, Descriptor, Option<Content>)>, Search), RegistryError> {
        let repository = repository.clone();
        let (pin, standings, search) = self
            .blocking(move |store| {
                // Before the look, so that what is found is not collected until it is linked.
                let pin = store.pin(references.iter().map(|(_, descriptor)| descriptor.digest).collect());
                let stand = |(role, it): (Role, Descriptor)| {
                    stand(store, &repository, &it.digest, &mut search).map(|standing| (role, it, standing))
                };
                let standings =
                    references.into_iter().map(stand).collect::<Result<Vec<_>, RegistryError>>()?;
                Ok::<_, RegistryError>((pin, standings, search))
            })
            .await?;
        let fetches = standings.into_iter().map(|(role, descriptor, standing)| async move {
            let content = match standing {
                Standing::Linked => return Ok(None),
                Standing::Here(content) => Some(content),
                Standing::Missing => None,
                Standing::Remote(want, entry) => match self.origin.fetch(want).await {
                    Ok(file) => Some(Content { blob: Blob::File(file), entry, mine: false }),
                    Err(OriginError::Unavailable | OriginError::Wrong(_)) => None,
                    Err(OriginError::Store(error)) => return Err(RegistryError::from(error)),
                },
            };
            Ok(Some((role, descriptor, content)))
        });
        let settled: Vec<_> = stream::iter(fetches).buffered(FETCHES).collect().await;
        let settled = settled.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok((pin, settled, search))
    }

    /// A manifest of another repository or tree that an index names.
    async fn read_child(&self, descriptor: &Descriptor, blob: Blob) -> Result<Document, RegistryError> {
        let bytes = match blob {
            Blob::File(file) => self.blocking(move |_| file.read_all(MAX_MANIFEST)).await?,
            Blob::Small(bytes) => bytes,
            Blob::Remote(want) => self.fetch_manifest(want).await?,
        };
        Ok(Document::parse(&bytes, Some(&descriptor.media_type))?)
    }
}

fn stand(
    store: &Store,
    repository: &RepositoryName,
    digest: &Digest,
    search: &mut Search,
) -> Result<Standing, RegistryError> {
    let trees = store.trees();
    let linked = match trees.first() {
        Some(mine) => is_linked(mine, repository, digest)?,
        None => false,
    };
    Ok(match find_content(store, &trees, digest)? {
        // Linked, but its file failed a check: it is fetched again or pushed again.
        None => Standing::Missing,
        Some(Content { blob: Blob::File(_) | Blob::Small(_), .. }) if linked => Standing::Linked,
        // What the caller does not see is not there.
        Some(_) if !linked && !search.may_link(store, &trees, repository, digest)? => Standing::Missing,
        Some(Content { blob: Blob::Remote(want), entry, .. }) => Standing::Remote(want, entry),
        Some(content) => Standing::Here(content),
    })
}

/// Makes a manifest visible in the repository, and in the list of its subject's referrers.
fn link_manifest(commit: &mut Commit, repository: &RepositoryName, digest: &Digest, document: &Document) {
    commit.put_link(layout::revision(repository, digest), digest);
    if !document.declares_media_type {
        let media_type = Bytes::from(document.media_type.clone());
        commit.put_bytes(layout::media_type(repository, digest), media_type);
    }
    if let Some(subject) = &document.subject {
        commit.put_link(layout::referrer(repository, &subject.digest, digest), digest);
    }
}
