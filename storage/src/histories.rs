//! Random histories of a store against the plainest model: whatever happened, and whatever was folded, lost or begun
//! anew in between, the same content has the same root and the same lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use cid::Cid;
use proptest::prelude::*;

use crate::block::{Block, DAG_PB, MemoryBlocks, RAW, cid_of};
use crate::dag::directory;
use crate::tests::{copy_dir, now};
use crate::tree::{self, Change};
use crate::{Algorithm, Commit, Digest, RepositoryName, Store, Tag, layout};

#[derive(Clone, Debug)]
enum Step {
    Push {
        repository: usize,
        tag: u8,
        manifest: u8,
        subject: Option<u8>,
    },
    Untag {
        repository: usize,
        tag: u8,
    },
    Delete {
        repository: usize,
        manifest: u8,
    },
    Fold,
    Compact,
    /// In order, or as a power cut ends it; with or without the index.
    Restart {
        in_order: bool,
        lose_index: bool,
    },
}

/// My tree as it must be: where each path leads.
#[derive(Default)]
struct Model {
    files: BTreeMap<String, (Cid, u64)>,
    /// What each link holds.
    links: BTreeMap<String, Digest>,
}

const REPOSITORIES: [&str; 3] = ["a", "a/b", "b"];

impl Model {
    fn link(&mut self, commit: &mut Commit, path: String, digest: &Digest) {
        let content: Bytes = layout::link(digest);
        self.files.insert(path.clone(), (cid_of(RAW, &content), content.len() as u64));
        self.links.insert(path.clone(), *digest);
        commit.put_link(path, digest);
    }

    fn remove(&mut self, commit: &mut Commit, dir: String) {
        let below = format!("{dir}/");
        self.files.retain(|path, _| !path.starts_with(&below));
        self.links.retain(|path, _| !path.starts_with(&below));
        commit.remove(dir);
    }

    /// Tags of a repository and what they mean.
    fn tags(&self, repository: &RepositoryName) -> BTreeMap<String, Digest> {
        let tag = |(path, digest): (&String, &Digest)| match layout::parse(path) {
            Some(layout::Item::Tag(of, tag)) if of == *repository => Some((tag.to_string(), *digest)),
            _ => None,
        };
        self.links.iter().filter_map(tag).collect()
    }

    fn repositories(&self) -> BTreeSet<String> {
        let repository = |path: &String| match layout::parse(path) {
            Some(layout::Item::Revision(repository, _)) => Some(repository.to_string()),
            _ => None,
        };
        self.links.keys().filter_map(repository).collect()
    }

    fn referrers(&self, repository: &RepositoryName, subject: &Digest) -> BTreeSet<Digest> {
        let referrer = |path: &String| match layout::parse(path) {
            Some(layout::Item::Referrer { repository: of, subject: to, referrer })
                if of == *repository && to == *subject =>
            {
                Some(referrer)
            }
            _ => None,
        };
        self.links.keys().filter_map(referrer).collect()
    }

    fn root(&self) -> Cid {
        let blocks = MemoryBlocks::default();
        blocks.put(&Block::new(DAG_PB, directory::empty_block()));
        let put = |(path, &(cid, tsize)): (&String, &(Cid, u64))| (path.clone(), Change::Put { cid, tsize });
        tree::apply(&blocks, &directory::empty(), &self.files.iter().map(put).collect()).unwrap().root
    }

    /// What a registry does for one step, here and in the store.
    fn step(&mut self, store: &Store, step: &Step) {
        let mut commit = Commit::new();
        match *step {
            Step::Push { repository, tag, manifest, subject } => {
                let (repository, tag) = (name(repository), tag_of(tag));
                let stored = store.put_blob(Algorithm::Sha256, &content(manifest)).unwrap();
                let digest = stored.digest;
                self.files.insert(layout::blob(&digest), (stored.root.cid, stored.root.tsize));
                commit.put_blob(&stored);
                self.link(&mut commit, layout::revision(&repository, &digest), &digest);
                self.link(&mut commit, layout::tag_index(&repository, &tag, &digest), &digest);
                self.link(&mut commit, layout::tag(&repository, &tag), &digest);
                if let Some(subject) = subject {
                    let path = layout::referrer(&repository, &digest_of(subject), &digest);
                    self.link(&mut commit, path, &digest);
                }
                now(store.commit(commit)).unwrap();
            }
            Step::Untag { repository, tag } => {
                self.remove(&mut commit, layout::tag_dir(&name(repository), &tag_of(tag)));
                now(store.commit(commit)).unwrap();
            }
            Step::Delete { repository, manifest } => {
                let (repository, digest) = (name(repository), digest_of(manifest));
                for (tag, _) in self.tags(&repository).into_iter().filter(|(_, of)| *of == digest) {
                    self.remove(&mut commit, layout::tag_dir(&repository, &tag.parse().unwrap()));
                }
                self.remove(&mut commit, layout::revision_dir(&repository, &digest));
                now(store.commit(commit)).unwrap();
            }
            Step::Fold => now(store.fold()).unwrap(),
            Step::Compact => drop(store.compact().unwrap()),
            Step::Restart { .. } => {}
        }
    }

    fn check(&self, store: &Store) {
        let mine = store.mine();
        for (path, (cid, _)) in &self.files {
            assert_eq!(mine.lookup(path).unwrap().map(|entry| entry.cid), Some(*cid), "{path}");
        }
        let repositories: Vec<String> = self.repositories().into_iter().collect();
        assert_eq!(store.mine().repositories(None, 99).unwrap(), repositories);
        for repository in (0..REPOSITORIES.len()).map(name) {
            let tags = self.tags(&repository);
            let names: Vec<String> = tags.keys().cloned().collect();
            assert_eq!(store.mine().tags(&repository, None, 99).unwrap(), names);
            for digest in (0..4).map(digest_of) {
                let of = tags.iter().filter(|(_, of)| **of == digest).map(|(tag, _)| tag.parse().unwrap());
                let of: Vec<Tag> = of.collect();
                assert_eq!(store.mine().tags_of(&repository, &digest).unwrap(), of);
                let referrers: Vec<Digest> = self.referrers(&repository, &digest).into_iter().collect();
                assert_eq!(store.mine().referrers(&repository, &digest, None, 99).unwrap(), referrers);
            }
        }
    }
}

fn restart(store: Store, dir: &mut tempfile::TempDir, in_order: bool, lose_index: bool) -> Store {
    if in_order {
        store.close().unwrap();
    } else {
        // A copy is what a crash leaves, but for the page cache.
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        drop(store);
        *dir = copy;
    }
    if lose_index {
        std::fs::remove_dir_all(dir.path().join("db")).unwrap();
    }
    open(dir.path())
}

fn open(dir: &Path) -> Store {
    Store::open(dir).unwrap()
}

fn name(number: usize) -> RepositoryName {
    REPOSITORIES[number].parse().unwrap()
}

fn tag_of(number: u8) -> Tag {
    format!("t{number}").parse().unwrap()
}

fn content(manifest: u8) -> Vec<u8> {
    format!("manifest {manifest}").into_bytes()
}

fn digest_of(manifest: u8) -> Digest {
    Digest::of(Algorithm::Sha256, &content(manifest))
}

fn step() -> impl Strategy<Value = Step> {
    let repository = || 0..REPOSITORIES.len();
    prop_oneof![
        8 => (repository(), 0..3_u8, 0..4_u8, prop::option::of(0..4_u8))
            .prop_map(|(repository, tag, manifest, subject)| Step::Push { repository, tag, manifest, subject }),
        2 => (repository(), 0..3_u8).prop_map(|(repository, tag)| Step::Untag { repository, tag }),
        2 => (repository(), 0..4_u8).prop_map(|(repository, manifest)| Step::Delete { repository, manifest }),
        3 => Just(Step::Fold),
        1 => Just(Step::Compact),
        2 => any::<(bool, bool)>().prop_map(|(in_order, lose_index)| Step::Restart { in_order, lose_index }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_same_content_has_the_same_root_and_lists_whatever_happened(
        steps in prop::collection::vec(step(), 1..20),
    ) {
        let mut dir = tempfile::tempdir().unwrap();
        let (mut store, mut model) = (open(dir.path()), Model::default());
        for step in &steps {
            if let Step::Restart { in_order, lose_index } = *step {
                store = restart(store, &mut dir, in_order, lose_index);
            } else {
                model.step(&store, step);
            }
            model.check(&store);
        }
        now(store.fold()).unwrap();
        prop_assert_eq!(store.root(), model.root());
        model.check(&store);
    }
}
