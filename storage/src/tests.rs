//! The store as a whole: what is acknowledged is there, whatever is thrown away in between.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;

use crate::block::{Block, BlockError, Blocks, DAG_PB, MemoryBlocks, RAW, cid_of};
use crate::dag::directory;
use crate::dag::file::from_bytes;
use crate::dag::pb::{Link, Node};
use crate::lens::Lens;
use crate::tree::{Change, Diff, apply};
use crate::view::Tree;
use crate::{
    Adoption, Algorithm, Commit, Digest, OpenError, RepositoryName, Store, StoreError, StoredBlob, Sweep,
    Tag, layout,
};

pub(crate) struct Image {
    pub(crate) layer: StoredBlob,
    pub(crate) manifest: StoredBlob,
}

pub(crate) fn repository() -> RepositoryName {
    "foo/bar".parse().unwrap()
}

pub(crate) fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8 ^ seed).collect()
}

pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

/// A layer, a manifest and a tag, as a registry commits them.
pub(crate) fn push(store: &Store, tag: &str, seed: u8, len: usize) -> Image {
    let repository = repository();
    let content = bytes(seed, len);
    let mut upload = store.begin_upload(&repository, None).unwrap();
    content.chunks(70_000).for_each(|part| upload.write(part).unwrap());
    let layer = upload.finish(&Digest::of(Algorithm::Sha256, &content)).unwrap();
    let mut commit = Commit::new();
    commit.put_blob(&layer);
    commit.put_link(layout::layer(&repository, &layer.digest), &layer.digest);
    now(store.commit(commit)).unwrap();

    let manifest =
        store.put_blob(Algorithm::Sha256, format!("manifest of {}", layer.digest).as_bytes()).unwrap();
    let tag: Tag = tag.parse().unwrap();
    let mut commit = Commit::new();
    commit.put_blob(&manifest);
    commit.put_link(layout::revision(&repository, &manifest.digest), &manifest.digest);
    commit.put_link(layout::tag_index(&repository, &tag, &manifest.digest), &manifest.digest);
    commit.put_link(layout::tag(&repository, &tag), &manifest.digest);
    now(store.commit(commit)).unwrap();
    Image { layer, manifest }
}

pub(crate) fn check(store: &Store, tag: &str, image: &Image) {
    let repository = repository();
    let mine = store.mine();
    let link =
        mine.read(&layout::tag(&repository, &tag.parse().unwrap()), layout::MAX_LINK).unwrap().unwrap();
    assert_eq!(layout::parse_link(&link), Some(image.manifest.digest));
    for blob in [&image.layer, &image.manifest] {
        let entry = mine.lookup(&layout::blob(&blob.digest)).unwrap().unwrap();
        assert_eq!(entry.cid, blob.root.cid);
        assert_eq!(mine.size(&entry).unwrap(), blob.size);
        assert_eq!(store.blob(&blob.digest).unwrap().unwrap().size, blob.size);
        // The same bytes by way of the tree, as an IPFS peer reads them.
        let read = mine.read_entry(&entry, u64::MAX).unwrap();
        assert_eq!(Digest::of(Algorithm::Sha256, &read), blob.digest);
    }
    assert!(mine.has_repository(&repository).unwrap());
    assert_eq!(store.mine().repositories(None, 9).unwrap(), ["foo/bar"]);
    assert!(store.mine().tags(&repository, None, 99).unwrap().contains(&tag.to_owned()));
    assert_eq!(store.mine().tags_of(&repository, &image.manifest.digest).unwrap(), [tag.parse().unwrap()]);
}

#[test]
fn a_push_is_there_before_and_after_a_fold_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image = push(&store, "v1", 1, 3_000_000);
    check(&store, "v1", &image);
    now(store.fold()).unwrap();
    check(&store, "v1", &image);
    let (root, sequence) = (store.root(), store.state().sequence);
    store.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!((store.root(), store.state().sequence), (root, sequence));
    check(&store, "v1", &image);
}

#[test]
fn a_stop_without_warning_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = push(&store, "v1", 1, 100);
    now(store.fold()).unwrap();
    let second = push(&store, "v2", 2, 2_500_000);
    // A copy is what a crash leaves, but for the page cache.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    drop(store);
    let store = Store::open(copy.path()).unwrap();
    check(&store, "v1", &first);
    check(&store, "v2", &second);
}

#[test]
fn without_its_index_the_store_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = push(&store, "v1", 1, 3_000_000);
    now(store.fold()).unwrap();
    let second = push(&store, "v2", 2, 0);
    now(store.fold()).unwrap();
    let root = store.root();
    store.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("db")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.root(), root);
    check(&store, "v1", &first);
    check(&store, "v2", &second);
    store.close().unwrap();
}

#[test]
fn a_deleted_tag_is_gone_from_tree_and_lists() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image = push(&store, "v1", 1, 10);
    now(store.fold()).unwrap();
    let before = store.root();
    push(&store, "v2", 2, 10);
    let mut commit = Commit::new();
    commit.remove(layout::tag_dir(&repository(), &"v2".parse().unwrap()));
    now(store.commit(commit)).unwrap();
    let gone = |store: &Store| {
        assert!(store.mine().lookup(&layout::tag(&repository(), &"v2".parse().unwrap())).unwrap().is_none());
        assert_eq!(store.mine().tags(&repository(), None, 9).unwrap(), ["v1"]);
        check(store, "v1", &image);
    };
    gone(&store);
    now(store.fold()).unwrap();
    gone(&store);
    assert_ne!(store.root(), before);
    let mut commit = Commit::new();
    commit.remove(layout::revision_dir(&repository(), &image.manifest.digest));
    now(store.commit(commit)).unwrap();
    assert_eq!(store.mine().repositories(None, 9).unwrap(), ["foo/bar"], "v2's manifest is still there");
}

#[test]
fn a_followed_root_is_adopted_with_its_lists_and_survives() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let publisher = Store::open(theirs.path()).unwrap();
    let image = push(&publisher, "v1", 1, 2_000_000);
    now(publisher.fold()).unwrap();
    let first = publisher.root();
    push(&publisher, "v2", 2, 5);
    now(publisher.fold()).unwrap();
    let second = publisher.root();

    let store = Store::open(ours.path()).unwrap();
    let (name, eager) = ("k51", 16 * 1024);
    adopt(&store, &publisher, name, None, first, 1, eager);
    adopt(&store, &publisher, name, Some(first), second, 2, eager);
    let look = |store: &Store| {
        let tree = store.trees().into_iter().nth(1).unwrap();
        assert_eq!(tree.name(), Some(name));
        assert_eq!(tree.tags(&repository(), None, 9).unwrap(), ["v1", "v2"]);
        assert_eq!(tree.repositories(None, 9).unwrap(), ["foo/bar"]);
        assert!(store.mine().tags(&repository(), None, 9).unwrap().is_empty());
        let link = tree.read(&layout::tag(&repository(), &"v1".parse().unwrap()), 256).unwrap().unwrap();
        assert_eq!(layout::parse_link(&link), Some(image.manifest.digest));
        let entry = tree.lookup(&layout::blob(&image.layer.digest)).unwrap().unwrap();
        assert_eq!(tree.size(&entry).unwrap(), image.layer.size);
    };
    look(&store);
    store.close().unwrap();
    std::fs::remove_dir_all(ours.path().join("db")).unwrap();
    let store = Store::open(ours.path()).unwrap();
    look(&store);
    now(store.unfollow(name)).unwrap();
    assert_eq!(store.trees().len(), 1);
}

pub(crate) fn adopt(
    store: &Store,
    publisher: &Store,
    name: &str,
    old: Option<cid::Cid>,
    new: cid::Cid,
    sequence: u64,
    eager: u64,
) {
    let blocks = publisher.blocks_between(old, new, eager, 1 << 20).unwrap().unwrap();
    store.put_blocks(&blocks).unwrap();
    store.sync_blocks().unwrap();
    let missing = Diff::new(old, new, eager).advance(store, &mut |_| {}).unwrap();
    assert!(missing.is_empty(), "what lies between two roots is all that a follower lacks");
    let record = bytes::Bytes::from_static(b"record");
    now(store.adopt(Adoption { name: name.to_owned(), before: old, root: new, sequence, record })).unwrap();
}

#[test]
fn a_root_is_left_only_by_an_adoption_that_was_compared_with_it() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let publisher = Store::open(theirs.path()).unwrap();
    let mut roots = Vec::new();
    for (seed, tag) in [(1, "v1"), (2, "v2")] {
        push(&publisher, tag, seed, 100_000);
        now(publisher.fold()).unwrap();
        roots.push(publisher.root());
    }
    let store = Store::open(ours.path()).unwrap();
    adopt(&store, &publisher, "k51other", None, roots[1], 2, 16 * 1024);
    let late = Adoption {
        name: "k51other".to_owned(),
        before: None,
        root: roots[0],
        sequence: 1,
        record: bytes::Bytes::new(),
    };
    assert!(matches!(now(store.adopt(late)), Err(StoreError::Changed)));
    let state = store.state();
    assert_eq!(state.follow("k51other").unwrap().good.as_ref().unwrap().root.0, roots[1]);
}

#[test]
fn a_fetched_blob_answers_to_its_cid_and_a_wrong_digest_is_dropped() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let publisher = Store::open(theirs.path()).unwrap();
    let image = push(&publisher, "v1", 1, 2_500_000);
    let store = Store::open(ours.path()).unwrap();
    store.put_blocks(&image.layer.root.nodes).unwrap();
    for digest in [Digest::of(Algorithm::Sha256, b"other"), image.layer.digest] {
        let mut partial = store.begin_partial(&digest, image.layer.size).unwrap();
        let mut leaves = crate::dag::file::Leaves::new(image.layer.root.cid, None);
        let mut all = Vec::new();
        while let crate::dag::file::Step::Leaf(leaf) = leaves.next(&publisher).unwrap() {
            all.push(leaf);
        }
        // Out of order, as peers send them.
        all.rotate_left(1);
        for leaf in &all {
            let block = publisher.need(&leaf.cid).unwrap();
            partial.write(leaf.offset, &leaf.cid, &block, &block).unwrap();
        }
        let finished = partial.finish(&image.layer.root.cid);
        if digest == image.layer.digest {
            assert_eq!(finished.unwrap().size, image.layer.size);
            assert_eq!(store.need(&all[0].cid).unwrap().len() as u64, all[0].len);
        } else {
            assert!(finished.is_err());
            assert!(store.blob(&digest).unwrap().is_none());
        }
    }
    assert_eq!(std::fs::read_dir(ours.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn compaction_leaves_what_can_be_read_and_takes_what_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut images = Vec::new();
    for seed in 0..40 {
        images.push(push(&store, &format!("v{seed}"), seed, 1_500_000));
        now(store.fold()).unwrap();
    }
    store.close().unwrap();
    // A restart forgets the roots of the last hour.
    let store = Store::open(dir.path()).unwrap();
    let packs = || std::fs::read_dir(dir.path().join("packs")).unwrap();
    let size = || packs().map(|item| item.unwrap().metadata().unwrap().len()).sum::<u64>();
    let before = size();
    assert!(store.compact().unwrap());
    assert!(size() * 2 < before, "{before} bytes became {}", size());
    let look = |store: &Store| {
        for (seed, image) in images.iter().enumerate() {
            check(store, &format!("v{seed}"), image);
        }
        assert!(store.blocks_between(None, store.root(), 1000, 1 << 24).unwrap().is_some());
    };
    look(&store);
    push(&store, "v1", 1, 1_500_000);
    now(store.fold()).unwrap();
    look(&store);
    store.close().unwrap();
    std::fs::remove_dir_all(dir.path().join("db")).unwrap();
    look(&Store::open(dir.path()).unwrap());
}

#[test]
fn a_second_opener_a_newer_format_and_a_foreign_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(OpenError::Locked { .. })));
    store.close().unwrap();
    std::fs::write(dir.path().join("VERSION"), "2\n").unwrap();
    assert!(matches!(Store::open(dir.path()), Err(OpenError::Newer { found: 2, .. })));
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("thesis.txt"), "x").unwrap();
    assert!(matches!(Store::open(foreign.path()), Err(OpenError::Foreign { .. })));
    assert_eq!(std::fs::read_dir(foreign.path()).unwrap().count(), 1);
}

#[test]
fn an_unknown_block_is_not_here() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let cid = crate::block::cid_of(crate::block::RAW, b"nobody has this");
    assert!(store.get(&cid).unwrap().is_none() && store.size(&cid).unwrap().is_none());
    assert!(matches!(store.need(&cid), Err(BlockError::Missing(_))));
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_dir(&item.path(), &target);
        } else {
            std::fs::copy(item.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_commit_with_a_condition_happens_only_while_that_holds() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    push(&store, "v1", 1, 5);
    let path = layout::tag(&repository(), &"v1".parse().unwrap());
    let removal = |cid| {
        let mut commit = Commit::new();
        commit.expect(path.clone(), cid);
        commit.remove(layout::tag_dir(&repository(), &"v1".parse().unwrap()));
        commit
    };
    let before = store.mine().lookup(&path).unwrap().unwrap().cid;
    push(&store, "v1", 2, 5);
    assert!(matches!(now(store.commit(removal(before))), Err(StoreError::Changed)));
    let tag = store.mine().lookup(&path).unwrap().unwrap();
    assert_ne!(tag.cid, before);
    store.commit_blocking(removal(tag.cid)).unwrap();
    assert!(matches!(now(store.commit(removal(tag.cid))), Err(StoreError::Changed)), "it is gone");
    assert_eq!(store.mine().lookup(&path).unwrap(), None);
}

#[test]
fn a_sweep_leaves_what_a_followed_tree_names() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let publisher = Store::open(theirs.path()).unwrap();
    let digest = push(&publisher, "v1", 1, 5).layer.digest;
    now(publisher.fold()).unwrap();
    let store = Store::open(ours.path()).unwrap();
    adopt(&store, &publisher, "k51", None, publisher.root(), 1, 16 * 1024);
    // Their layer lies here as a file, as after a pull, and so does one that nobody names.
    assert_eq!(store.put_blob(Algorithm::Sha256, &bytes(1, 5)).unwrap().digest, digest);
    let orphan = store.put_blob(Algorithm::Sha256, b"nobody's").unwrap().digest;
    let swept = |dry_run| {
        let mut swept = Vec::new();
        let options = Sweep { since: std::time::Instant::now(), dry_run };
        store
            .sweep(options, &mut |one| {
                swept.extend(one.map(|one| one.digest));
                true
            })
            .unwrap();
        swept
    };
    assert_eq!(swept(true), [orphan]);
    assert_eq!(swept(false), [orphan]);
    assert!(store.blob(&orphan).unwrap().is_none() && store.blob(&digest).unwrap().is_some());
    now(store.unfollow("k51")).unwrap();
    assert_eq!(swept(false), [digest]);
}

#[test]
fn a_closed_store_ends_its_threads_whoever_holds_a_clone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let clone = store.clone();
    store.close().unwrap();
    assert!(matches!(now(clone.commit(Commit::new())), Err(StoreError::Closed)));
    assert!(matches!(clone.fold_blocking(), Err(StoreError::Closed)));
}

/// A followed name at a root that names what is not here, beside a tree of my own.
fn follows_a_hole(dir: &Path) -> (Store, Image) {
    let store = Store::open(dir).unwrap();
    let image = push(&store, "v1", 1, 1_500_000);
    now(store.fold()).unwrap();
    let link = |name: &str, cid| Link { cid, name: name.to_owned(), tsize: 1 };
    let hole = cid_of(DAG_PB, b"nobody has it");
    let mut node = Node::decode(&directory::empty_block()).unwrap();
    node.links = vec![link("..", hole), link("docker", hole)];
    let root = Block::new(DAG_PB, node.encode());
    store.put_blocks(std::slice::from_ref(&root)).unwrap();
    let record = Bytes::from_static(b"record");
    let name = "k51hole".to_owned();
    let adoption = Adoption { name, before: None, root: *root.cid(), sequence: 1, record };
    now(store.adopt(adoption)).unwrap();
    (store, image)
}

#[test]
fn a_followed_tree_with_a_hole_keeps_packs_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, image) = follows_a_hole(dir.path());
    assert!(store.compact().unwrap());
    check(&store, "v1", &image);
    let followed = store.state().follow("k51hole").unwrap().good.as_ref().unwrap().root.0;
    assert!(store.get(&followed).unwrap().is_some());
}

#[test]
fn a_followed_tree_with_a_hole_keeps_no_list_of_others_away() {
    let dir = tempfile::tempdir().unwrap();
    let (store, image) = follows_a_hole(dir.path());
    check(&store, "v1", &image);
    store.close().unwrap();
    // At a start, and by the keeper while it runs.
    std::fs::remove_dir_all(dir.path().join("db")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    check(&store, "v1", &image);
    store.inner().index.give_up(&StoreError::Closed);
    while matches!(store.mine().tags(&repository(), None, 9), Err(StoreError::Rebuilding)) {
        std::thread::yield_now();
    }
    check(&store, "v1", &image);
}

#[test]
fn a_blob_that_would_fill_the_disk_is_not_begun_and_a_wrong_one_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"right");
    assert!(matches!(store.begin_partial(&digest, u64::MAX), Err(StoreError::Full { .. })));
    let cid = cid_of(RAW, b"wrong");
    let mut partial = store.begin_partial(&digest, 5).unwrap();
    let wrong = Bytes::from_static(b"wrong");
    partial.write(0, &cid, &wrong, &wrong).unwrap();
    assert!(!store.is_wrong(&digest, &cid));
    assert!(matches!(partial.finish(&cid), Err(StoreError::DigestMismatch { .. })));
    assert!(store.is_wrong(&digest, &cid));
    assert!(store.blob(&digest).unwrap().is_none());
}

/// A tree of so many tags, all of them here.
fn many_tags(store: &Store, count: usize) -> Cid {
    let blocks = MemoryBlocks::default();
    blocks.put(&Block::new(DAG_PB, directory::empty_block()));
    let digest = Digest::of(Algorithm::Sha256, b"manifest");
    let (link, leaves) = from_bytes(&layout::link(&digest));
    for leaf in &leaves {
        blocks.put(leaf);
    }
    let put = Change::Put { cid: link.cid, tsize: link.tsize };
    let tag = |number: usize| layout::tag(&repository(), &format!("t{number:06}").parse().unwrap());
    let changes = (0..count).map(|number| (tag(number), put)).collect();
    let made = apply(&blocks, &directory::empty(), &changes).unwrap();
    store.put_blocks(&made.blocks).unwrap();
    store.put_blocks(&leaves).unwrap();
    made.root
}

#[test]
fn who_pushes_does_not_wait_for_the_lists_of_a_large_tree_and_a_crash_between_them_loses_no_row() {
    const TAGS: usize = 5000;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let root = many_tags(&store, TAGS);
    store.sync_blocks().unwrap();
    let listed = |store: &Store| {
        let followed = Tree::followed(Arc::clone(store.inner()), "k51many", root, Lens::default());
        followed.tags(&repository(), None, TAGS * 2).unwrap().len()
    };
    let copy = tempfile::tempdir().unwrap();
    let record = Bytes::from_static(b"record");
    let adoption = Adoption { name: "k51many".to_owned(), before: None, root, sequence: 1, record };
    now(async {
        let mut adopting = std::pin::pin!(store.adopt(adoption));
        let mut commit = Commit::new();
        commit.put_bytes("a".to_owned(), Bytes::from_static(b"pushed"));
        tokio::select! {
            biased;
            _ = &mut adopting => panic!("the push came behind all rows"),
            pushed = store.commit(commit) => pushed.unwrap(),
        }
        assert!(listed(&store) < TAGS);
        copy_dir(dir.path(), copy.path());
        adopting.await.unwrap();
    });
    assert_eq!(listed(&store), TAGS);
    assert_eq!(store.listed("k51many").unwrap(), TAGS);
    let crashed = Store::open(copy.path()).unwrap();
    assert_eq!(listed(&crashed), TAGS);
    assert!(crashed.mine().lookup("a").unwrap().is_some());

    // What is followed no longer takes no room.
    now(store.unfollow("k51many")).unwrap();
    while store.listed("k51many").unwrap() > 0 {
        std::thread::yield_now();
    }
    store.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(listed(&store), 0);
}

#[test]
fn what_a_commit_is_to_link_is_not_collected_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut commit = Commit::new();
    let digest = {
        let stored = store.put_blob(Algorithm::Sha256, b"a manifest").unwrap();
        commit.put_blob(&stored);
        stored.digest
    };
    let later = std::time::Instant::now() + std::time::Duration::from_hours(1);
    assert!(store.claim(&[digest], later).digests().is_empty());
    now(store.commit(commit)).unwrap();
    // The committer lets go of it right behind its answer.
    while store.claim(&[digest], later).digests().is_empty() {
        std::thread::yield_now();
    }
}
