//! Which manifests refer to a subject, merged over my tree and the followed ones.
//!
//! A descriptor is made from the referring manifest itself. Clients that knew no referrers API kept an index under a
//! tag made of the subject's digest; what such an index names is part of the list (distribution-spec, "Enabling the
//! Referrers API").

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use sampan_storage::{Digest, RepositoryName, Store, Tag, Tree};

use super::blobs::{Blob, find_content, is_visible};
use super::cache::ManifestCache;
use super::descriptor::Descriptor;
use super::manifest::{Document, MAX_MANIFEST, Role};
use super::tags::read_tag;
use super::{Registry, RegistryError, RemoteBlob};

/// Manifests that are read for one page.
const MAX_REFERRERS: usize = 500;
/// JSON of a page. Clients read no more than a manifest's 4 MiB; one descriptor may exceed this and stands alone.
const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;
/// Manifests that are fetched from peers at a time for a list, and how long a list waits for them.
const FETCHES: usize = 8;
const FETCH_TIME: Duration = Duration::from_secs(5);
/// The hex part of a fallback tag (distribution-spec, "Referrers Tag Schema").
const FALLBACK_HEX: usize = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct ReferrersQuery {
    pub(crate) artifact_type: Option<String>,
    /// The last digest of the page before.
    pub(crate) after: Option<Digest>,
    pub(crate) limit: Option<usize>,
}

/// A page of referrers, in the order of their digests.
#[derive(Clone, Debug)]
pub(crate) struct Referrers {
    pub(crate) descriptors: Vec<Descriptor>,
    /// Where the next page begins: after this digest.
    pub(crate) next: Option<Digest>,
    /// Manifests that refer to the subject but whose bytes no peer gives now, so that they are left out.
    pub(crate) unread: usize,
}

/// A referring manifest, as far as it was to be had here.
enum Referrer {
    Read(Descriptor),
    Remote(RemoteBlob),
    /// It refers to something else, or is no manifest.
    Other,
}

impl Registry {
    pub(crate) async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        query: ReferrersQuery,
    ) -> Result<Referrers, RegistryError> {
        let limit = query.limit.map_or(MAX_REFERRERS, |limit| limit.clamp(1, MAX_REFERRERS));
        let (repository, subject, after) = (repository.clone(), *subject, query.after);
        let cache = Arc::clone(&self.manifests);
        let (found, more) = self
            .blocking(move |store| gather(store, &cache, &repository, &subject, after.as_ref(), limit))
            .await?;

        let waits_until = tokio::time::Instant::now() + FETCH_TIME;
        let reads = found.into_iter().map(|(digest, referrer)| async move {
            match referrer {
                Referrer::Read(descriptor) => (digest, Ok(Some(descriptor))),
                Referrer::Other => (digest, Ok(None)),
                Referrer::Remote(want) => {
                    let read =
                        tokio::time::timeout_at(waits_until, self.fetch_referrer(want, &subject)).await;
                    (digest, read.unwrap_or(Err(())))
                }
            }
        });
        let reads: Vec<_> = stream::iter(reads).buffered(FETCHES).collect().await;

        let mut page = Referrers { descriptors: Vec::new(), next: None, unread: 0 };
        let (mut bytes, mut last) = (0, None);
        for (digest, read) in reads {
            match read {
                Ok(Some(descriptor)) if is_wanted(&descriptor, query.artifact_type.as_deref()) => {
                    bytes += weigh(&descriptor);
                    if bytes > MAX_PAGE_BYTES && !page.descriptors.is_empty() {
                        page.next = last;
                        return Ok(page);
                    }
                    page.descriptors.push(descriptor);
                }
                Ok(_) => {}
                Err(()) => page.unread += 1,
            }
            last = Some(digest);
        }
        page.next = last.filter(|_| more);
        Ok(page)
    }

    async fn fetch_referrer(&self, want: RemoteBlob, subject: &Digest) -> Result<Option<Descriptor>, ()> {
        let digest = want.digest;
        let bytes = self.fetch_manifest(want).await.map_err(drop)?;
        Ok(describe(&bytes, digest, subject))
    }
}

/// Referrers after `after`, at most `limit`, and whether there are more.
fn gather(
    store: &Store,
    cache: &ManifestCache,
    repository: &RepositoryName,
    subject: &Digest,
    after: Option<&Digest>,
    limit: usize,
) -> Result<(Vec<(Digest, Referrer)>, bool), RegistryError> {
    let trees = store.trees();
    let mut digests = BTreeSet::new();
    for tree in &trees {
        digests.extend(tree.referrers(repository, subject, after, limit + 1)?);
    }
    let mut listed = fallback(store, &trees, repository, subject)?;
    listed.retain(|digest, _| after.is_none_or(|after| digest > after));
    digests.extend(listed.keys());

    let more = digests.len() > limit;
    let mut found = Vec::new();
    for digest in digests.into_iter().take(limit) {
        let referrer = if is_visible(&trees, repository, &digest)? {
            read(store, &trees, cache, &digest, subject)?
        } else {
            Referrer::Other
        };
        found.push((digest, referrer));
    }
    Ok((found, more))
}

fn read(
    store: &Store,
    trees: &[Tree],
    cache: &ManifestCache,
    digest: &Digest,
    subject: &Digest,
) -> Result<Referrer, RegistryError> {
    let bytes = match cache.bytes(digest, store.losses()) {
        Some(bytes) => bytes,
        None => match find_content(store, trees, digest)?.map(|content| content.blob) {
            Some(Blob::File(file)) if file.size <= MAX_MANIFEST => file.read_all(MAX_MANIFEST)?,
            Some(Blob::Small(bytes)) => bytes,
            Some(Blob::Remote(want)) => return Ok(Referrer::Remote(want)),
            Some(Blob::File(_)) | None => return Ok(Referrer::Other),
        },
    };
    Ok(describe(&bytes, *digest, subject).map_or(Referrer::Other, Referrer::Read))
}

fn describe(bytes: &[u8], digest: Digest, subject: &Digest) -> Option<Descriptor> {
    let document = Document::parse(bytes, None).ok()?;
    let refers = document.subject.as_ref().is_some_and(|it| it.digest == *subject);
    refers.then(|| document.describe(digest, bytes.len() as u64))
}

/// What the indexes under the subject's fallback tag name, in every tree that has one.
fn fallback(
    store: &Store,
    trees: &[Tree],
    repository: &RepositoryName,
    subject: &Digest,
) -> Result<BTreeMap<Digest, Descriptor>, RegistryError> {
    let hex = subject.hex();
    let name = format!("{}-{}", subject.algorithm(), hex.get(..FALLBACK_HEX).unwrap_or(&hex));
    let Ok(tag) = name.parse::<Tag>() else { return Ok(BTreeMap::new()) };
    let mut listed = BTreeMap::new();
    for tree in trees {
        let Some(digest) = read_tag(tree, repository, &tag)? else { continue };
        let bytes = match find_content(store, trees, &digest)?.map(|content| content.blob) {
            Some(Blob::File(file)) if file.size <= MAX_MANIFEST => file.read_all(MAX_MANIFEST)?,
            Some(Blob::Small(bytes)) => bytes,
            Some(Blob::File(_) | Blob::Remote(_)) | None => continue,
        };
        let Ok(document) = Document::parse(&bytes, None) else { continue };
        let children = document.references.into_iter().filter(|(role, _)| *role == Role::Child);
        listed.extend(children.map(|(_, descriptor)| (descriptor.digest, descriptor)));
    }
    Ok(listed)
}

fn is_wanted(descriptor: &Descriptor, artifact_type: Option<&str>) -> bool {
    artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
}

/// Bytes of the descriptor in the page's JSON.
fn weigh(descriptor: &Descriptor) -> usize {
    serde_json::to_vec(descriptor).map_or(0, |json| json.len() + 1)
}
