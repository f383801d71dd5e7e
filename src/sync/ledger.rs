//! Whose the blobs are that lie here: what each followed name keeps, and what is only cached and may go. Reads trees and
//! files; removes nothing.

use std::collections::HashSet;

use sampan_storage::{Cid, Digest, Holding, Roots, Store, StoreError, Survey};

use super::following::Following;

/// The first bytes of a digest. Of two that share them both are kept, which does no harm.
type Short = u64;

/// What is followed, at the roots of one moment.
pub(super) struct Ledger {
    roots: Roots,
    /// In the order of the roots.
    trees: Vec<Listed>,
    /// In the order in which they are read.
    owners: Vec<Owner>,
}

/// A name as it is followed: several trees may stand in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) quota: Option<u64>,
}

struct Listed {
    /// Its place among the owners.
    owner: usize,
    keeps: Keeps,
}

/// What of a tree stays whatever is short.
enum Keeps {
    Nothing,
    All,
    These(HashSet<Short>),
}

/// What is to be said of one blob. Owners are meant by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody but garbage collection takes it away, for instance because I pushed it.
    Other,
    /// These keep it.
    Kept(Vec<usize>),
    /// The first that has it would answer for it, so it is counted there. It may go.
    Cached(usize),
}

impl Ledger {
    /// `places` are the trees that the configuration leads to, in their order.
    pub(super) fn read(store: &Store, places: &[(String, Following)]) -> Result<Self, StoreError> {
        let mut owners: Vec<Owner> = Vec::new();
        let mut place_of = |name: String, quota| {
            let known = owners.iter().position(|owner| owner.name == name);
            known.unwrap_or_else(|| {
                owners.push(Owner { name, quota });
                owners.len() - 1
            })
        };
        for (_, following) in places {
            place_of(following.whom.to_string(), following.quota);
        }
        let roots = store.roots_now();
        let mut trees = Vec::new();
        for (tree, root) in roots.followed() {
            let following = places.iter().find(|(name, _)| name == tree).map(|(_, following)| following);
            let name = following.map_or_else(|| tree.clone(), |following| following.whom.to_string());
            let owner = place_of(name, following.and_then(|following| following.quota));
            let keeps = match following {
                Some(following) => Keeps::of(store, *root, following)?,
                None => Keeps::Nothing,
            };
            trees.push(Listed { owner, keeps });
        }
        Ok(Self { roots, trees, owners })
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    pub(super) fn owners(&self) -> &[Owner] {
        &self.owners
    }

    /// Shows each blob that is here.
    pub(super) fn each(
        &self,
        store: &Store,
        visit: &mut dyn FnMut(Holding, Standing),
    ) -> Result<(), StoreError> {
        store.holdings(&self.roots, &mut |holding| {
            let standing = self.judge(&holding);
            visit(holding, standing);
            true
        })
    }

    fn judge(&self, holding: &Holding) -> Standing {
        let trees = || holding.trees.iter().filter_map(|place| self.trees.get(*place));
        let mut keepers: Vec<usize> =
            trees().filter(|tree| tree.keeps.has(&holding.digest)).map(|tree| tree.owner).collect();
        keepers.sort_unstable();
        keepers.dedup();
        match trees().map(|tree| tree.owner).min() {
            _ if !keepers.is_empty() => Standing::Kept(keepers),
            Some(owner) if !holding.mine => Standing::Cached(owner),
            _ => Standing::Other,
        }
    }
}

impl Keeps {
    fn of(store: &Store, root: Cid, following: &Following) -> Result<Self, StoreError> {
        if following.keeps_all() {
            return Ok(Self::All);
        }
        if !following.is_mirror() {
            return Ok(Self::Nothing);
        }
        let survey = Survey::new(store, root);
        let mut these = HashSet::new();
        survey.repositories(&mut |repository| {
            if following.keeps(repository.as_str()) {
                these.extend(survey.layers(&repository)?.iter().map(short));
                these.extend(survey.revisions(&repository)?.iter().map(short));
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(Self::These(these))
    }

    fn has(&self, digest: &Digest) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::These(these) => these.contains(&short(digest)),
        }
    }
}

/// Bytes of blobs that are here and that these trees keep.
pub(super) fn kept_bytes(store: &Store, places: &[(String, Following)]) -> Result<u64, StoreError> {
    let ledger = Ledger::read(store, places)?;
    let mut bytes: u64 = 0;
    ledger.each(store, &mut |holding, standing| {
        if matches!(standing, Standing::Kept(_)) {
            bytes = bytes.saturating_add(holding.size);
        }
    })?;
    Ok(bytes)
}

fn short(digest: &Digest) -> Short {
    digest.as_bytes().first_chunk().map_or(0, |bytes| Short::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use sampan_storage::{Adoption, Algorithm, Commit, layout};

    use super::*;
    use crate::pattern::Pattern;
    use crate::sync::Policy;

    const NAME: &str = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";

    /// Commits a blob of a repository, and gives its digest.
    async fn commit(store: &Store, repository: &str, content: &[u8]) -> Digest {
        let stored = store.put_blob(Algorithm::Sha256, content).unwrap();
        let mut commit = Commit::new();
        commit.put_blob(&stored);
        commit.put_link(layout::layer(&repository.parse().unwrap(), &stored.digest), &stored.digest);
        store.commit(commit).await.unwrap();
        stored.digest
    }

    /// Makes what my tree is now that of a followed name.
    async fn give_away(store: &Store, name: &str) {
        store.fold().await.unwrap();
        let (name, root, record) = (name.to_owned(), store.root(), bytes::Bytes::new());
        store.adopt(Adoption { name, before: None, root, sequence: 1, record }).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_kept_is_told_from_what_is_cached_and_from_what_is_mine() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let pinned = commit(&store, "base/os", b"pinned").await;
        let both = commit(&store, "boat", b"of both").await;
        give_away(&store, "k51first").await;
        let second = commit(&store, "boat", b"of the second").await;
        give_away(&store, "k51second").await;
        let mut removal = Commit::new();
        removal.remove("docker".to_owned());
        store.commit(removal).await.unwrap();
        let mine = commit(&store, "boat", b"of the second").await;
        assert_eq!(mine, second);
        let orphan = store.put_blob(Algorithm::Sha256, b"nobody's").unwrap().digest;
        store.fold().await.unwrap();

        let plain = Following::plain(NAME.parse().unwrap());
        let patterns = vec![Pattern::of_repositories("base/*").unwrap()];
        let pins = Following { pinned: patterns.clone(), quota: Some(7), ..plain.clone() };
        let standings = |places: &[(String, Following)]| {
            let ledger = Ledger::read(&store, places).unwrap();
            let mut standings = HashMap::new();
            ledger
                .each(&store, &mut |holding, standing| drop(standings.insert(holding.digest, standing)))
                .unwrap();
            let names: Vec<String> = ledger.owners().iter().map(|owner| owner.name.clone()).collect();
            (names, standings)
        };

        // The second comes first; the first one is not in the configuration.
        let places = [("k51second".to_owned(), pins)];
        let (names, found) = standings(&places);
        assert_eq!(names, [NAME, "k51first"]);
        assert_eq!(found[&pinned], Standing::Kept(vec![0]));
        assert_eq!(found[&both], Standing::Cached(0), "it counts for the first that has it");
        assert_eq!((&found[&mine], &found[&orphan]), (&Standing::Other, &Standing::Other));
        assert_eq!(kept_bytes(&store, &places).unwrap(), 6);

        let mirror = Following { policy: Policy::Mirror, ..plain.clone() };
        let (_, found) = standings(&[("k51first".to_owned(), mirror)]);
        assert_eq!((&found[&pinned], &found[&both]), (&Standing::Kept(vec![0]), &Standing::Kept(vec![0])));
        // What a mirror does not show it does not keep.
        let some = Following { policy: Policy::Mirror, repositories: patterns, ..plain };
        let (_, found) = standings(&[("k51first".to_owned(), some)]);
        assert_eq!((&found[&pinned], &found[&both]), (&Standing::Kept(vec![0]), &Standing::Cached(0)));
    }
}
