//! Why a reference means what it means here: what each tree says of it, in the order in which they are asked.

use sampan_storage::{Reference, RepositoryName, StoreError, Tree, layout};
use serde::{Deserialize, Serialize};

use super::manifests::read_tag;
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
            let mut all = Vec::new();
            let mut decided = false;
            for tree in store.trees() {
                let said = says(&tree, &repository, &reference);
                let found = matches!(said, Ok(Some(_)));
                let wins = found && !decided;
                decided |= found || (said.is_err() && matches!(reference, Reference::Tag(_)));
                let theirs = tree.lens().theirs(repository.as_str());
                all.push(Explained {
                    tree: tree.name().map(str::to_owned),
                    root: tree.root().to_string(),
                    theirs: theirs.filter(|theirs| *theirs != repository.as_str()).map(str::to_owned),
                    error: said.as_ref().err().map(ToString::to_string),
                    digest: said.ok().flatten(),
                    wins,
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
