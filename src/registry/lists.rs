//! Lists of tags and repositories, merged over my tree and the followed ones, a page at a time.

use std::collections::BTreeSet;

use sampan_storage::{RepositoryName, Store, StoreError, Tree};

use super::{Registry, RegistryError, Sight, tags};

/// Items of a page, whatever the client asks for (CVE-2023-2253).
pub(crate) const MAX_PAGE: usize = 1000;
/// Names that are looked at for one page of those that a caller sees. The next page goes on there.
const MAX_WALKED: usize = 10_000;

/// A page of names in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) items: Vec<String>,
    /// There are more behind the last item.
    pub(crate) more: bool,
}

/// A page of the names that a caller sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) items: Vec<String>,
    /// Where the next page begins. It may be a name that the caller does not see.
    pub(crate) next: Option<String>,
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
            let page = tags_after(store, &repository, after, limit)?;
            if page.items.is_empty() && !is_known(store, &repository)? {
                return Err(RegistryError::RepositoryUnknown(repository));
            }
            Ok(page)
        })
        .await
    }

    /// Repositories that hold a manifest, are seen, and come after `after`.
    pub(crate) async fn repositories(
        &self,
        after: Option<String>,
        limit: usize,
        sight: Sight,
    ) -> Result<Walk, RegistryError> {
        self.blocking(move |store| walk(store, after, limit, &sight, MAX_WALKED)).await
    }
}

/// Repositories that hold a manifest, in any tree.
pub(super) fn repositories_after(
    store: &Store,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    merge(store, limit, |tree, limit| tree.repositories(after, limit))
}

/// Tags that stand for a manifest: where members have deleted some, each that any of them has is looked at.
fn tags_after(
    store: &Store,
    repository: &RepositoryName,
    mut after: Option<String>,
    limit: usize,
) -> Result<Page, StoreError> {
    let list =
        |after: Option<&str>, limit| merge(store, limit, |tree, limit| tree.tags(repository, after, limit));
    let trees = store.trees();
    if limit == 0 || !tags::has_counters(&trees, repository)? {
        return list(after.as_deref(), limit);
    }
    let limit = limit.min(MAX_PAGE);
    let mut items = Vec::new();
    loop {
        let page = list(after.as_deref(), MAX_PAGE)?;
        for name in page.items {
            let Ok(tag) = name.parse() else { continue };
            if tags::resolve(&trees, repository, &tag)?.is_some() {
                if items.len() == limit {
                    return Ok(Page { items, more: true });
                }
                items.push(name.clone());
            }
            after = Some(name);
        }
        if !page.more {
            return Ok(Page { items, more: false });
        }
    }
}

fn walk(
    store: &Store,
    mut after: Option<String>,
    limit: usize,
    sight: &Sight,
    max_walked: usize,
) -> Result<Walk, StoreError> {
    let mut items: Vec<String> = Vec::new();
    let mut left = max_walked;
    if limit == 0 {
        return Ok(Walk { items, next: None });
    }
    loop {
        // One more than the page, to know whether there is another.
        let chunk = if matches!(sight, Sight::All) { limit + 1 } else { MAX_PAGE };
        let page = repositories_after(store, after.as_deref(), left.min(chunk))?;
        for name in page.items {
            left = left.saturating_sub(1);
            if name.parse().is_ok_and(|repository| sight.sees(&repository)) {
                if items.len() == limit {
                    let next = items.last().cloned();
                    return Ok(Walk { items, next });
                }
                items.push(name.clone());
            }
            after = Some(name);
        }
        if !page.more {
            break;
        }
        if left == 0 {
            return Ok(Walk { items, next: after });
        }
    }
    Ok(Walk { items, next: None })
}

/// Each tree gives a page and one more, so that the merged page is right and knows whether it is the last.
fn merge(
    store: &Store,
    limit: usize,
    list: impl Fn(&Tree, usize) -> Result<Vec<String>, StoreError>,
) -> Result<Page, StoreError> {
    let limit = limit.min(MAX_PAGE);
    if limit == 0 {
        return Ok(Page { items: Vec::new(), more: false });
    }
    let mut names = BTreeSet::new();
    for tree in store.trees() {
        names.extend(list(&tree, limit + 1)?);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sampan_storage::{Commit, Digest, layout};

    use super::*;

    #[tokio::test]
    async fn a_walk_stops_after_its_steps_and_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        let mut commit = Commit::new();
        for number in 0..100 {
            let name: RepositoryName = format!("r{number:02}").parse().unwrap();
            let digest = Digest::of(sampan_storage::Algorithm::Sha256, b"x");
            commit.put_link(layout::revision(&name, &digest), &digest);
        }
        store.commit(commit).await.unwrap();
        let tens = Sight::Only {
            sees: Arc::new(|name: &RepositoryName| name.as_str().ends_with('0')),
            known: Vec::new(),
        };
        let expected: Vec<String> = (0..10).map(|ten| format!("r{ten}0")).collect();
        for (limit, steps) in
            [(3, 7), (1, 1), (1, 10), (10, 10), (10, 11), (4, 1000), (1000, 1000), (10, 1000)]
        {
            let (mut seen, mut after) = (Vec::new(), None);
            for page in 0.. {
                assert!(page <= 200, "it never ends");
                let walk = walk(&store, after, limit, &tens, steps).unwrap();
                assert!(walk.items.len() <= limit);
                seen.extend(walk.items);
                after = walk.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, expected, "{limit} {steps}");
        }
        let whole = walk(&store, None, 10, &tens, 1000).unwrap();
        assert_eq!(whole.next, None);
        assert_eq!(walk(&store, None, 9, &tens, 1000).unwrap().next.as_deref(), Some("r80"));
        assert_eq!(walk(&store, None, 0, &Sight::All, 1000).unwrap().next, None);
    }
}
