//! Lists of tags and repositories, merged over my tree and the followed ones, a page at a time.

use std::collections::BTreeSet;

use sampan_storage::{RepositoryName, Store, StoreError, TreeKey};

use super::{Registry, RegistryError};

/// Items of a page, whatever the client asks for (CVE-2023-2253).
pub(crate) const MAX_PAGE: usize = 1000;

/// A page of names in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) items: Vec<String>,
    /// There are more behind the last item.
    pub(crate) more: bool,
}

impl Registry {
    /// Tags of a repository that come after `after`.
    pub(crate) async fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, RegistryError> {
        let repository = repository.clone();
        self.blocking(move |store| {
            let list = |tree: &TreeKey, limit| store.tags(tree, &repository, after.as_deref(), limit);
            let page = merge(store, limit, list)?;
            if page.items.is_empty() && !is_known(store, &repository)? {
                return Err(RegistryError::RepositoryUnknown(repository));
            }
            Ok(page)
        })
        .await
    }

    /// Repositories that hold a manifest and come after `after`.
    pub(crate) async fn repositories(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, RegistryError> {
        self.blocking(move |store| {
            merge(store, limit, |tree, limit| store.repositories(tree, after.as_deref(), limit))
        })
        .await
    }
}

/// Each tree gives a page and one more, so that the merged page is right and knows whether it is the last.
fn merge(
    store: &Store,
    limit: usize,
    list: impl Fn(&TreeKey, usize) -> Result<Vec<String>, StoreError>,
) -> Result<Page, StoreError> {
    let limit = limit.min(MAX_PAGE);
    if limit == 0 {
        return Ok(Page { items: Vec::new(), more: false });
    }
    let mut names = BTreeSet::new();
    for tree in store.trees() {
        names.extend(list(tree.key(), limit + 1)?);
    }
    let more = names.len() > limit;
    Ok(Page { items: names.into_iter().take(limit).collect(), more })
}

fn is_known(store: &Store, repository: &RepositoryName) -> Result<bool, StoreError> {
    for tree in store.trees() {
        if tree.has_repository(repository)? {
            return Ok(true);
        }
    }
    Ok(false)
}
