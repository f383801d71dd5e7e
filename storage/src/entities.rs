//! What others look for by CID: roots, what is pinned, repositories and manifests. Page by page, because a registry
//! may have a million of them; and first what one root has over another. Leaves and layers are none: who has a
//! manifest asks the one who gave it. Whoever hears of an entity may ask for it, so only what strangers may have is
//! told: where my tree is divided that is the public tree, and nothing of followed trees and pins.

use std::collections::BTreeSet;

use cid::Cid;

use crate::block::{BlockError, Blocks};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::layout::{self, Item, REPOSITORIES};
use crate::name::RepositoryName;
use crate::public::Public;
use crate::store::Store;
use crate::tree::{self, Diff, Entry};
use crate::view::Tree;

/// Some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub cids: Vec<Cid>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Place>,
}

/// Where a page of entities ended. What comes or goes meanwhile is met in the next round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Stage);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// So many of the roots and pins are told.
    Roots(usize),
    /// In the tree of this name, mine has none: after this repository, or within it after this manifest.
    Tree { name: Option<String>, repository: String, manifest: Option<Digest> },
}

/// A page that is being filled.
struct Gathering {
    public: Public,
    /// Of the public tree, where my tree is divided.
    divided: Option<Cid>,
    found: Vec<Cid>,
    /// How many more may be looked at, whether they are here or not.
    left: usize,
}

impl Store {
    /// The entities after a place that lie here and strangers may have, at most `limit`, and where to go on; there may
    /// be none on a page and more to come. `None` while it is being made out what strangers may have. Blocks on the
    /// disk.
    pub fn entities(&self, after: Option<Place>, limit: usize) -> Result<Option<Page>, StoreError> {
        let public = self.public();
        let Some((root, _)) = public.root() else { return Ok(None) };
        let divided = self.is_divided().then_some(root);
        let mut page = Gathering { public, divided, found: Vec::new(), left: limit };
        let stage = after.map_or(Stage::Roots(0), |place| place.0);
        let next = match stage {
            Stage::Roots(told) => Some(self.roots(told, &mut page)),
            Stage::Tree { name, repository, manifest } => {
                self.in_tree(name.as_deref(), repository, manifest, &mut page)?
            }
        };
        Ok(Some(Page { cids: page.found, next: next.map(Place) }))
    }

    /// The repositories that are not in `new` what they were in `old`, and the manifests that are new, as far as
    /// strangers may have them, at most `limit`. Blocks on the disk.
    pub fn entities_between(&self, old: Cid, new: Cid, limit: usize) -> Result<Vec<Cid>, StoreError> {
        let (mut repositories, mut manifests) = (BTreeSet::new(), BTreeSet::new());
        let missing = Diff::new(Some(old), new, 0).advance(self.inner().as_ref(), &mut |difference| {
            if repositories.len() + manifests.len() >= limit {
                return;
            }
            let Some(item) = layout::parse(&difference.path) else { return };
            if let Item::Revision(_, digest) = &item
                && difference.new.is_some()
            {
                manifests.insert(digest.to_string());
            }
            if let Some(repository) = item.repository() {
                repositories.insert(repository.to_string());
            }
        })?;
        if let Some(cid) = missing.first() {
            return Err(BlockError::Missing(*cid).into());
        }
        let blobs =
            manifests.iter().filter_map(|digest| digest.parse().ok()).map(|digest| layout::blob(&digest));
        let public = self.public();
        let paths = repositories.iter().map(|name| format!("{REPOSITORIES}/{name}")).chain(blobs);
        let mut found = Vec::new();
        for path in paths.take(limit) {
            let entry = tree::lookup(self.inner().as_ref(), &new, &path)?;
            found.extend(public.offers(entry)?);
        }
        Ok(found)
    }

    fn roots(&self, told: usize, page: &mut Gathering) -> Stage {
        let mut roots = vec![page.divided.unwrap_or_else(|| self.root())];
        if page.divided.is_none() {
            let followed = self.state().follows;
            roots.extend(followed.iter().filter_map(|follow| Some(follow.good.as_ref()?.root.0)));
            roots.extend(self.kept());
        }
        page.found.extend(roots.iter().skip(told).take(page.left));
        let told = told + page.found.len();
        if told < roots.len() { Stage::Roots(told) } else { Stage::of(None) }
    }

    fn in_tree(
        &self,
        name: Option<&str>,
        mut repository: String,
        mut manifest: Option<Digest>,
        page: &mut Gathering,
    ) -> Result<Option<Stage>, StoreError> {
        let mut trees = if page.divided.is_some() { vec![self.mine()] } else { self.trees() };
        trees.sort_by_key(|tree| tree.name().map(str::to_owned));
        let next = trees.iter().find(|tree| tree.name() > name).map(|tree| Stage::of(tree.name()));
        // A tree that is no longer followed.
        let Some(tree) = trees.iter().find(|tree| tree.name() == name) else { return Ok(next) };
        while page.left > 0 {
            if !repository.is_empty() {
                manifest = self.manifests(tree, &repository, manifest, page)?;
                if manifest.is_some() {
                    break;
                }
            }
            let Some(name) = tree.repositories(Some(&repository), 1)?.pop() else {
                return Ok(next);
            };
            repository = name;
            page.left -= 1;
            page.take(self, tree, &format!("{REPOSITORIES}/{repository}"))?;
        }
        Ok(Some(Stage::Tree { name: name.map(str::to_owned), repository, manifest }))
    }

    /// Returns where it stopped when the page was full before the repository was done.
    fn manifests(
        &self,
        tree: &Tree,
        repository: &str,
        mut after: Option<Digest>,
        page: &mut Gathering,
    ) -> Result<Option<Digest>, StoreError> {
        let Ok(name) = repository.parse::<RepositoryName>() else { return Ok(None) };
        while page.left > 0 {
            let batch = tree.revisions(&name, after.as_ref(), page.left)?;
            if batch.is_empty() {
                return Ok(None);
            }
            page.left -= batch.len();
            for digest in &batch {
                page.take(self, tree, &layout::blob(digest))?;
            }
            after = batch.last().copied();
        }
        Ok(after)
    }
}

impl Gathering {
    /// What stands at a path, if strangers may have it. My lists know of all repositories, and the public tree only of
    /// the public ones.
    fn take(&mut self, store: &Store, tree: &Tree, path: &str) -> Result<(), StoreError> {
        let entry = match &self.divided {
            Some(root) => tree::lookup(store.inner().as_ref(), root, path)?,
            None => tree.lookup(path)?,
        };
        self.found.extend(self.public.offers(entry)?);
        Ok(())
    }
}

impl Public {
    fn offers(&self, entry: Option<Entry>) -> Result<Option<Cid>, StoreError> {
        let Some(entry) = entry else { return Ok(None) };
        Ok(self.size(&entry.cid)?.map(|_| entry.cid))
    }
}

impl Stage {
    fn of(tree: Option<&str>) -> Self {
        Self::Tree { name: tree.map(str::to_owned), repository: String::new(), manifest: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Commit;
    use crate::tests::{now, push};

    fn all(store: &Store, limit: usize) -> Vec<Cid> {
        let (mut found, mut place) = (Vec::new(), None);
        loop {
            let Page { cids: page, next } = store.entities(place, limit).unwrap().unwrap();
            assert!(page.len() <= limit);
            found.extend(page);
            match next {
                Some(next) => place = Some(next),
                None => return found,
            }
        }
    }

    fn repository_node(store: &Store) -> Cid {
        store.mine().lookup(&format!("{REPOSITORIES}/foo/bar")).unwrap().unwrap().cid
    }

    #[test]
    fn pages_of_any_size_tell_root_repositories_and_manifests_once_each() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let images = [1, 2, 3, 4, 5].map(|seed| push(&store, &format!("v{seed}"), seed, 1000));
        now(store.fold()).unwrap();
        let mut expected: Vec<Cid> = images.iter().map(|image| image.manifest.root.cid).collect();
        expected.extend([store.root(), repository_node(&store)]);
        expected.sort();
        for limit in [1, 2, 3, 100] {
            let mut found = all(&store, limit);
            assert_eq!(found.first(), Some(&store.root()), "the root comes first");
            found.sort();
            assert_eq!(found, expected, "{limit} on a page");
        }
    }

    #[test]
    fn what_a_push_brought_is_told_without_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        push(&store, "v1", 1, 1000);
        now(store.fold()).unwrap();
        let before = store.root();
        let image = push(&store, "v2", 2, 1000);
        now(store.fold()).unwrap();
        let news = store.entities_between(before, store.root(), 9).unwrap();
        assert_eq!(news, [repository_node(&store), image.manifest.root.cid]);
        assert_eq!(store.entities_between(before, store.root(), 1).unwrap().len(), 1);
        // A tag alone makes the repository another one.
        let before = store.root();
        let mut commit = Commit::new();
        commit.put_link(
            layout::tag(&"foo/bar".parse().unwrap(), &"v3".parse().unwrap()),
            &image.manifest.digest,
        );
        now(store.commit(commit)).unwrap();
        now(store.fold()).unwrap();
        assert_eq!(store.entities_between(before, store.root(), 9).unwrap(), [repository_node(&store)]);
    }
}
