//! Why a reference means what it means here: what each tree says of it, in the order in which they are asked.

use sampan_storage::{Reference, RepositoryName, StoreError, Tree, layout};
use serde::{Deserialize, Serialize};

use super::manifests::resolve;
use super::tags::{last_write, read_tag};
use super::{Registry, RegistryError};

/// What one tree says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Explained {
    /// The name or domain that is followed; nothing for what was pushed here.
    pub(crate) tree: Option<String>,
    /// The root at which it is read.
    pub(crate) root: String,
    /// The publisher's name of the repository, where it is shown under another.
    pub(crate) theirs: Option<String>,
    /// The manifest, if the tree has it.
    pub(crate) digest: Option<String>,
    /// Of a tag that several registries write: how many writes its last writer knew of, its own included.
    pub(crate) counter: Option<u64>,
    /// That write was a delete.
    pub(crate) deleted: bool,
    /// Why nothing is known of it.
    pub(crate) error: Option<String>,
    /// This is the answer that clients get.
    pub(crate) wins: bool,
}

impl Registry {
    /// What my tree says of a reference, and then each that is followed. A tag is never answered by a tree behind one
    /// that cannot be asked; a digest may be.
    pub(crate) async fn explain(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Vec<Explained>, RegistryError> {
        let (repository, reference) = (repository.clone(), reference.clone());
        self.blocking(move |store| {
            let trees = store.trees();
            // An error of one of them stands in its own line.
            let answers = resolve(&trees, &repository, &reference).ok().flatten().map(|(tree, _)| tree);
            let mut all = Vec::new();
            for tree in &trees {
                let said = says(tree, &repository, &reference);
                let write = match &reference {
                    Reference::Tag(tag) if tree.is_member() => {
                        last_write(tree, &repository, tag).ok().flatten()
                    }
                    Reference::Tag(_) | Reference::Digest(_) => None,
                };
                let theirs = tree.lens().theirs(repository.as_str());
                all.push(Explained {
                    tree: tree.name().map(str::to_owned),
                    root: tree.root().to_string(),
                    theirs: theirs.filter(|theirs| *theirs != repository.as_str()).map(str::to_owned),
                    error: said.as_ref().err().map(ToString::to_string),
                    digest: said.ok().flatten(),
                    counter: write.map(|write| write.counter),
                    deleted: write.is_some_and(|write| write.digest.is_none()),
                    wins: answers.is_some_and(|answers| answers.name() == tree.name()),
                });
            }
            Ok::<_, RegistryError>(all)
        })
        .await
    }
}

fn says(
    tree: &Tree,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Option<String>, StoreError> {
    let digest = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(tag) => read_tag(tree, repository, tag)?,
    };
    let Some(digest) = digest else { return Ok(None) };
    // A tag whose manifest was taken away shows nothing.
    let revision = tree.lookup(&layout::revision(repository, &digest))?;
    Ok(revision.map(|_| digest.to_string()))
}
