//! What strangers get, and above all what they do not.

use std::collections::HashSet;
use std::path::Path;

use cid::Cid;

use super::*;
use crate::dag::walk::links;
use crate::tests::{bytes, copy_dir, now};
use crate::{Algorithm, Commit, Digest, Store, StoredBlob, Tag};

/// Repositories under `open` are public, but for one that is below another.
fn open(dir: &Path) -> Store {
    let rule = PublicRule::new(b"1".to_vec(), |name| {
        name.as_str().starts_with("open") && name.as_str() != "open/secret"
    });
    Store::open_for(dir, Some(rule)).unwrap()
}

fn with(dir: &Path, fingerprint: &[u8], public: &'static [&'static str]) -> Store {
    let admits = move |name: &RepositoryName| public.contains(&name.as_str());
    Store::open_for(dir, Some(PublicRule::new(fingerprint.to_vec(), admits))).unwrap()
}

/// A layer, a manifest and a tag, as a registry commits them.
fn push(store: &Store, repository: &str, tag: &str, layer: &[u8]) -> [StoredBlob; 2] {
    let repository: RepositoryName = repository.parse().unwrap();
    let mut upload = store.begin_upload(&repository, None).unwrap();
    layer.chunks(70_000).for_each(|part| upload.write(part).unwrap());
    let layer = upload.finish(&Digest::of(Algorithm::Sha256, layer)).unwrap();
    let mut commit = Commit::new();
    commit.put_blob(&layer);
    commit.put_link(layout::layer(&repository, &layer.digest), &layer.digest);
    now(store.commit(commit)).unwrap();
    let manifest = format!("manifest {tag} of {} in {repository}", layer.digest);
    let manifest = store.put_blob(Algorithm::Sha256, manifest.as_bytes()).unwrap();
    let tag: Tag = tag.parse().unwrap();
    let mut commit = Commit::new();
    commit.put_blob(&manifest);
    commit.put_link(layout::revision(&repository, &manifest.digest), &manifest.digest);
    commit.put_link(layout::tag(&repository, &tag), &manifest.digest);
    commit.put_link(layout::referrer(&repository, &manifest.digest, &layer.digest), &layer.digest);
    now(store.commit(commit)).unwrap();
    [layer, manifest]
}

fn remove(store: &Store, path: String) {
    let mut commit = Commit::new();
    commit.remove(path);
    now(store.commit(commit)).unwrap();
}

/// Every block below a root, whoever may have it.
fn reach(store: &Store, root: Cid) -> HashSet<Cid> {
    let mut seen = HashSet::new();
    let mut pending = vec![root];
    while let Some(cid) = pending.pop() {
        if seen.insert(cid) {
            let data = store.get(&cid).unwrap().unwrap_or_else(|| panic!("{cid} is lost"));
            pending.extend(links(&cid, &data).unwrap());
        }
    }
    seen
}

fn public_root(store: &Store) -> Cid {
    store.public().root().unwrap().0
}

/// Strangers get the whole of the public tree, and nothing else; it holds none of these words.
fn check(store: &Store, words: &[&str]) {
    let public = store.public();
    let theirs = reach(store, public_root(store));
    for cid in &theirs {
        let data = public.get(cid).unwrap().unwrap_or_else(|| panic!("{cid} is public and refused"));
        assert_eq!(public.size(cid).unwrap(), Some(data.len()));
        assert_eq!(Some(&data), store.get(cid).unwrap().as_ref());
        for word in words {
            assert!(!data.windows(word.len()).any(|window| window == word.as_bytes()), "{word}");
        }
    }
    for cid in reach(store, store.root()).difference(&theirs) {
        assert_eq!(public.get(cid).unwrap(), None, "{cid} is private");
        assert_eq!(public.size(cid).unwrap(), None);
        // Whatever codec they ask with: bitswap looks at the hash alone.
        for codec in [RAW, DAG_PB] {
            assert_eq!(public.get(&Cid::new_v1(codec, *cid.hash())).unwrap(), None);
        }
    }
}

#[test]
fn strangers_get_the_public_tree_and_no_word_of_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    push(&store, "open/a", "v1", &bytes(1, 3_000_000));
    push(&store, "hidden/b", "v1", &bytes(2, 3_000_000));
    push(&store, "open/secret", "v1", &bytes(3, 2_500_000));
    push(&store, "open", "tiny", b"small");
    push(&store, "hidden/b", "tiny", b"other");
    // Nothing of what is not folded, whoever's it is.
    let all: Vec<Cid> = reach(&store, now(async { store.fold().await.map(|()| store.root()) }).unwrap())
        .into_iter()
        .collect();
    assert!(all.len() > 40);
    check(&store, &["hidden", "secret"]);
    now(store.fold()).unwrap();
    check(&store, &["hidden", "secret"]);
    store.close().unwrap();
    check(&open(dir.path()), &["hidden", "secret"]);
}

#[test]
fn a_blob_is_public_as_soon_as_a_public_repository_links_it_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content = bytes(1, 3_000_000);
    let [layer, _] = push(&store, "hidden", "v1", &content);
    now(store.fold()).unwrap();
    let public = store.public();
    assert_eq!(public.get(&layer.root.cid).unwrap(), None);
    // Put once more, as a repair does.
    let mut commit = Commit::new();
    commit.put_blob(&layer);
    now(store.commit(commit)).unwrap();
    now(store.fold()).unwrap();
    assert_eq!(public.get(&layer.root.cid).unwrap(), None);
    let sequence = public.root().unwrap().1;
    push(&store, "hidden", "v2", b"more");
    now(store.fold()).unwrap();
    assert_eq!(public.root().unwrap().1, sequence, "what is private does not even count");
    // A mount links it and puts nothing.
    let name = "open/a".parse().unwrap();
    let mut commit = Commit::new();
    commit.put_link(layout::layer(&name, &layer.digest), &layer.digest);
    now(store.commit(commit)).unwrap();
    assert_eq!(public.get(&layer.root.cid).unwrap(), None, "not folded yet");
    now(store.fold()).unwrap();
    assert!(public.get(&layer.root.cid).unwrap().is_some());
    assert!(public.root().unwrap().1 > sequence);
    check(&store, &["hidden"]);
    // Nodes of past roots stay for those who are half-way; the bytes of a blob go with it.
    let leaf = reach(&store, layer.root.cid).into_iter().find(|cid| cid.codec() == RAW).unwrap();
    assert!(public.get(&leaf).unwrap().is_some());
    remove(&store, layout::blob(&layer.digest));
    now(store.fold()).unwrap();
    assert_eq!(public.get(&leaf).unwrap(), None);
}

#[test]
fn what_is_pushed_and_deleted_leaves_the_tree_that_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (at, repository) in ["open/a", "hidden", "open/a/b", "open/secret", "open/a"].iter().enumerate() {
        push(&store, repository, &format!("v{at}"), &bytes(u8::try_from(at).unwrap(), 400_000 * at));
        now(store.fold()).unwrap();
    }
    let [_, manifest] = push(&store, "open/gone", "v1", b"gone");
    now(store.fold()).unwrap();
    let name: RepositoryName = "open/gone".parse().unwrap();
    for part in ["_layers", "_manifests", "_referrers"] {
        remove(&store, format!("{REPOSITORIES}/{name}/{part}"));
    }
    remove(&store, layout::blob(&manifest.digest));
    remove(&store, layout::blob(&Digest::of(Algorithm::Sha256, b"gone")));
    now(store.fold()).unwrap();
    check(&store, &["hidden", "secret", "gone"]);
    let root = public_root(&store);
    let sequence = store.state().sequence;
    store.close().unwrap();
    // An open without a rule, as an offline command does.
    let store = Store::open(dir.path()).unwrap();
    now(store.fold()).unwrap();
    assert_eq!(store.state().public, None, "nobody keeps it up");
    store.close().unwrap();
    let store = open(dir.path());
    now(store.fold()).unwrap();
    assert_eq!(public_root(&store), root);
    assert!(store.public().root().unwrap().1 > sequence);
    check(&store, &["hidden", "secret", "gone"]);
}

#[test]
fn other_rules_divide_anew_and_nothing_of_before_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let store = with(dir.path(), b"1", &["a", "b"]);
    push(&store, "a", "v1", &bytes(1, 3_000_000));
    push(&store, "a/b", "v1", &bytes(2, 2_000_000));
    push(&store, "b", "v1", &bytes(3, 2_000_000));
    now(store.fold()).unwrap();
    push(&store, "b", "v2", &bytes(3, 2_000_000));
    now(store.fold()).unwrap();
    let before = reach(&store, public_root(&store));
    let told = store.public().root().unwrap().1;
    check(&store, &["a/b"]);
    store.close().unwrap();

    let store = with(dir.path(), b"2", &["a/b", "b"]);
    now(store.fold()).unwrap();
    let told = (told, store.public().root().unwrap().1);
    assert!(told.1 > told.0);
    let told = told.1;
    check(&store, &[]);
    let theirs = reach(&store, public_root(&store));
    for cid in before.difference(&theirs) {
        assert_eq!(store.public().get(cid).unwrap(), None, "{cid} was public once");
    }
    store.close().unwrap();

    // And everything to everyone, under a number that is above all before.
    let store = Store::open(dir.path()).unwrap();
    now(store.fold()).unwrap();
    assert_eq!(store.public().root().unwrap().0, store.root());
    assert!(store.public().root().unwrap().1 > told);
    for cid in reach(&store, store.root()) {
        assert!(store.public().get(&cid).unwrap().is_some());
    }
}

#[test]
fn a_stop_at_any_time_gives_nobody_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = with(dir.path(), b"1", &["a"]);
    push(&store, "a", "v1", &bytes(1, 100_000));
    push(&store, "b", "v1", &bytes(2, 100_000));
    now(store.fold()).unwrap();
    push(&store, "b", "v2", &bytes(3, 100_000));
    push(&store, "a", "v2", &bytes(4, 100_000));
    // A copy is what a crash leaves, but for the page cache.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    let again = with(copy.path(), b"1", &["a"]);
    now(again.fold()).unwrap();
    check(&again, &["repositories/b"]);
    again.close().unwrap();
    // The first thing after a change of rules is that the old tree is no more.
    let other = with(copy.path(), b"2", &["b"]);
    assert!(other.public().root().is_none() || other.state().public.unwrap().rules == b"2".to_vec());
    now(other.fold()).unwrap();
    check(&other, &[]);
}

#[test]
fn a_public_tree_that_is_lost_is_made_again_from_mine() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    push(&store, "open", "v1", &bytes(1, 100_000));
    push(&store, "hidden", "v1", &bytes(2, 100_000));
    now(store.fold()).unwrap();
    let (root, sequence) = store.public().root().unwrap();
    store.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("packs/public")).unwrap();
    let store = open(dir.path());
    now(store.fold()).unwrap();
    assert_eq!(public_root(&store), root);
    assert!(store.public().root().unwrap().1 > sequence);
    check(&store, &["hidden"]);
}

#[test]
fn without_an_index_strangers_get_less_and_never_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [open_layer, _] = push(&store, "open", "v1", &bytes(1, 3_000_000));
    push(&store, "hidden", "v1", &bytes(2, 3_000_000));
    now(store.fold()).unwrap();
    let theirs = reach(&store, public_root(&store));
    let all = reach(&store, store.root());
    store.inner().index.close();
    let public = store.public();
    assert!(public.get(&open_layer.root.cid).unwrap().is_some(), "a node needs no index");
    for cid in all.difference(&theirs) {
        assert!(!matches!(public.get(cid), Ok(Some(_))));
    }
}

#[test]
fn what_travels_with_a_root_is_public_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    push(&store, "open", "v1", b"one");
    push(&store, "hidden", "v1", b"two");
    now(store.fold()).unwrap();
    let before = public_root(&store);
    push(&store, "hidden", "v2", b"three");
    push(&store, "open", "v2", b"four");
    now(store.fold()).unwrap();
    let root = public_root(&store);
    let theirs = reach(&store, root);
    for old in [Some(before), None] {
        let blocks = store.blocks_between(old, root, 16 * 1024, 1024 * 1024).unwrap().unwrap();
        assert!(blocks.iter().any(|block| *block.cid() == root));
        assert!(blocks.iter().all(|block| theirs.contains(block.cid())), "{old:?}");
    }
    store.close().unwrap();
    let store = open(dir.path());
    let blocks = store.blocks_between(Some(before), root, 16 * 1024, 1024 * 1024).unwrap().unwrap();
    assert!(blocks.iter().all(|block| theirs.contains(block.cid())));
}

#[test]
fn what_is_told_of_is_public_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [_, shown] = push(&store, "open/a", "v1", b"one");
    let [_, secret] = push(&store, "open/secret", "v1", b"two");
    let [_, hidden] = push(&store, "hidden/b", "v1", b"three");
    now(store.fold()).unwrap();
    let before = public_root(&store);
    let [_, news] = push(&store, "open/a", "v2", b"four");
    let [_, more] = push(&store, "hidden/b", "v2", b"five");
    now(store.fold()).unwrap();
    let told = |limit| {
        let (mut told, mut place) = (Vec::new(), None);
        loop {
            let page = store.entities(place, limit).unwrap().unwrap();
            told.extend(page.cids);
            place = page.next;
            if place.is_none() {
                return told;
            }
        }
    };
    let root = public_root(&store);
    let repository = tree::lookup(&store, &root, &format!("{REPOSITORIES}/open/a")).unwrap().unwrap().cid;
    for limit in [1, 2, 100] {
        let told = told(limit);
        let mut expected = vec![root, repository, shown.root.cid, news.root.cid];
        assert_eq!(told.first(), Some(&root));
        expected.sort();
        assert_eq!(
            told.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
            expected
        );
    }
    assert_eq!(store.entities_between(before, root, 9).unwrap(), [repository, news.root.cid]);
    // Nor between roots of all of it, should anybody ask.
    let mine = store.entities_between(crate::dag::directory::empty(), store.root(), 9).unwrap();
    for manifest in [secret, hidden, more] {
        assert!(!mine.contains(&manifest.root.cid), "{}", manifest.digest);
    }
}

#[test]
fn while_the_public_tree_is_being_made_nothing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    push(&store, "open", "v1", b"one");
    now(store.fold()).unwrap();
    store.inner().view.write().unwrap().state.public = None;
    assert_eq!(store.entities(None, 9).unwrap(), None);
}

#[test]
fn compaction_keeps_what_strangers_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for at in 0..5_u8 {
        push(&store, "open", &format!("v{at}"), &bytes(at, 2_100_000));
        push(&store, "hidden", &format!("v{at}"), &bytes(at + 9, 100));
        now(store.fold()).unwrap();
    }
    let inner = store.inner();
    let tree = inner.public.as_ref().unwrap();
    let root = public_root(&store);
    *tree.past.lock().unwrap() = PastRoots::default();
    let before = tree.pack_bytes();
    compact::compact_public(inner, &tree.packs, root, &[]).unwrap();
    assert!(tree.pack_bytes() < before);
    check(&store, &["hidden"]);
    store.compact().unwrap();
    check(&store, &["hidden"]);
}

#[test]
fn where_everyone_may_have_everything_nothing_is_written_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    push(&store, "a", "v1", &bytes(1, 2_000_000));
    now(store.fold()).unwrap();
    assert_eq!(store.public().root(), Some((store.root(), store.state().sequence)));
    for cid in reach(&store, store.root()) {
        assert!(store.public().get(&cid).unwrap().is_some());
    }
    store.close().unwrap();
    assert!(!dir.path().join("packs/public").exists());
    for file in std::fs::read_dir(dir.path().join("journal")).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!content.windows(6).any(|window| window == b"public"), "an older program reads all of it");
    }
}
