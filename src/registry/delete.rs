//! Deleting tags, manifests and blobs of my tree. What only a followed name has cannot be deleted here, but for a tag of one
//! who writes tags together with me.

use std::collections::BTreeSet;

use sampan_storage::{Commit, Digest, Reference, RepositoryName, Store, StoreError, Tree, layout};

use super::blobs::{Blob, find_content, is_linked};
use super::manifest::{Document, MAX_MANIFEST};
use super::tags::{self, Whose, read_tag, remove_tag};
use super::{Registry, RegistryError};

/// What is gone from my tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// A followed name that still has it, so that it is still seen here.
    pub(crate) unmasked: Option<String>,
}

impl Registry {
    /// Deletes a tag, or a manifest with every tag that points to it.
    pub(crate) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Deleted, RegistryError> {
        let (repository, reference) = (repository.clone(), reference.clone());
        self.delete(move |store, trees, commit| {
            let has = |tree: &Tree| match &reference {
                Reference::Tag(tag) => Ok(read_tag(tree, &repository, tag)?.is_some()),
                Reference::Digest(digest) => {
                    Ok(tree.lookup(&layout::revision(&repository, digest))?.is_some())
                }
            };
            let unknown = || RegistryError::ManifestUnknown(reference.clone());
            let mut found = find(trees, has, Tree::is_member, unknown)?;
            match &reference {
                Reference::Tag(tag) => {
                    remove_tag(trees, commit, &repository, tag, Whose::Everyones)?;
                    // Members see that it was deleted.
                    let mut others = trees.iter().filter(|tree| !tree.is_member());
                    let other = others.find(|tree| matches!(has(tree), Ok(true)));
                    found.unmasked = other.and_then(|tree| tree.name().map(str::to_owned));
                }
                Reference::Digest(digest) => remove_manifest(store, trees, &repository, digest, commit)?,
            }
            Ok(found)
        })
        .await
    }

    /// Takes a blob out of the repository. Its bytes go when nothing links them any more.
    pub(crate) async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Deleted, RegistryError> {
        let (repository, digest) = (repository.clone(), *digest);
        self.delete(move |_, trees, commit| {
            let link = layout::layer(&repository, &digest);
            let found = find(
                trees,
                // A followed tree shows a manifest as a blob too; mine gives up only what was pushed as one.
                |tree| match tree.name() {
                    None => Ok(tree.lookup(&link)?.is_some()),
                    Some(_) => is_linked(tree, &repository, &digest),
                },
                |tree| tree.name().is_none(),
                || RegistryError::BlobUnknown(digest),
            )?;
            commit.remove(link.strip_suffix("/link").unwrap_or(&link).to_owned());
            Ok(found)
        })
        .await
    }

    /// The one gate of every delete.
    async fn delete(
        &self,
        plan: impl FnOnce(&Store, &[Tree], &mut Commit) -> Result<Deleted, RegistryError> + Send + 'static,
    ) -> Result<Deleted, RegistryError> {
        if !self.policy.delete {
            return Err(RegistryError::DeleteDisabled);
        }
        let (deleted, commit) = self
            .blocking(move |store| {
                let mut commit = Commit::new();
                plan(store, &store.trees(), &mut commit).map(|deleted| (deleted, commit))
            })
            .await?;
        self.store.commit(commit).await?;
        Ok(deleted)
    }
}

/// Mine has it, or another that gives it up, and perhaps a followed tree too; or it is an error that says who has it.
fn find(
    trees: &[Tree],
    has: impl Fn(&Tree) -> Result<bool, StoreError>,
    gives: impl Fn(&Tree) -> bool,
    unknown: impl FnOnce() -> RegistryError,
) -> Result<Deleted, RegistryError> {
    let (mut mine, mut theirs) = (false, None);
    for tree in trees {
        match (tree.name(), has(tree)) {
            (None, has) => mine = has?,
            (Some(name), Ok(true)) => {
                mine |= gives(tree);
                theirs.get_or_insert_with(|| name.to_owned());
            }
            // What a followed tree has does not matter to a delete of mine.
            (Some(_), Ok(false) | Err(_)) => {}
        }
    }
    match (mine, theirs) {
        (true, unmasked) => Ok(Deleted { unmasked }),
        (false, Some(tree)) => Err(RegistryError::OnlyFollowed { tree }),
        (false, None) => Err(unknown()),
    }
}

fn remove_manifest(
    store: &Store,
    trees: &[Tree],
    repository: &RepositoryName,
    digest: &Digest,
    commit: &mut Commit,
) -> Result<(), RegistryError> {
    let mut tags = BTreeSet::new();
    for tree in trees.iter().filter(|tree| tree.is_member()) {
        tags.extend(tree.tags_of(repository, digest)?);
    }
    for tag in tags {
        // Of a tag that another member has pointed elsewhere only what is mine goes.
        let stands = tags::resolve(trees, repository, &tag)?.is_some_and(|it| it.digest == *digest);
        remove_tag(trees, commit, repository, &tag, if stands { Whose::Everyones } else { Whose::Mine })?;
    }
    // Where the bytes are lost, the link from the subject stays and leads to nothing, which a list leaves out.
    remove_revision(commit, repository, digest, subject_of(store, trees, digest).as_ref());
    Ok(())
}

/// Takes a manifest that no tag points to out of the repository.
pub(super) fn remove_revision(
    commit: &mut Commit,
    repository: &RepositoryName,
    digest: &Digest,
    subject: Option<&Digest>,
) {
    if let Some(subject) = subject {
        let link = layout::referrer(repository, subject, digest);
        commit.remove(link.strip_suffix("/link").unwrap_or(&link).to_owned());
    }
    commit.remove(layout::revision_dir(repository, digest));
}

fn subject_of(store: &Store, trees: &[Tree], digest: &Digest) -> Option<Digest> {
    let bytes = match find_content(store, trees, digest).ok()??.blob {
        Blob::File(file) => file.read_all(MAX_MANIFEST).ok()?,
        Blob::Small(bytes) => bytes,
        Blob::Remote(_) => return None,
    };
    Some(Document::parse(&bytes, None).ok()?.subject?.digest)
}
