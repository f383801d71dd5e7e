//! Trees against the plainest model: a map from paths to files.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cid::Cid;
use proptest::prelude::*;

use super::*;
use crate::block::{Block, DAG_PB, MemoryBlocks, RAW, cid_of};
use crate::dag::file;
use crate::dag::pb::{Link, Node};
use crate::dag::unixfs::{Data, Kind};

type Files = BTreeMap<String, (Cid, u64)>;

fn value(number: u64) -> (Cid, u64) {
    (cid_of(RAW, &number.to_le_bytes()), number + 1)
}

fn empty_tree() -> MemoryBlocks {
    let blocks = MemoryBlocks::default();
    blocks.put(&Block::new(DAG_PB, directory::empty_block()));
    blocks
}

fn applied(blocks: &MemoryBlocks, root: &Cid, changes: &BTreeMap<String, Change>) -> Cid {
    let applied = apply(blocks, root, changes).unwrap();
    for block in &applied.blocks {
        blocks.put(block);
    }
    applied.root
}

fn puts(files: &Files) -> BTreeMap<String, Change> {
    files
        .iter()
        .map(|(path, (cid, tsize))| (path.clone(), Change::Put { cid: *cid, tsize: *tsize }))
        .collect()
}

fn from_scratch(blocks: &MemoryBlocks, files: &Files) -> Cid {
    applied(blocks, &directory::empty(), &puts(files))
}

/// Brings every block that is missing out of `all`, and returns what was reported.
fn run(mut diff: Diff, all: &MemoryBlocks, here: &MemoryBlocks) -> Vec<Difference> {
    let mut seen = Vec::new();
    loop {
        let missing = diff.advance(here, &mut |difference| seen.push(difference)).unwrap();
        if missing.is_empty() {
            return seen;
        }
        for cid in missing {
            assert!(here.get(&cid).unwrap().is_none(), "asked for what is here");
            here.put(&Block::verified(cid, all.need(&cid).unwrap()).unwrap());
        }
    }
}

fn as_map(differences: Vec<Difference>) -> BTreeMap<String, (Option<Cid>, Option<Cid>)> {
    let count = differences.len();
    let cid = |entry: Option<Entry>| entry.map(|entry| entry.cid);
    let map: BTreeMap<_, _> =
        differences.into_iter().map(|found| (found.path, (cid(found.old), cid(found.new)))).collect();
    assert_eq!(map.len(), count, "each path is reported once");
    map
}

/// What makes the new tree out of the old one.
fn changes_of(differences: &[Difference]) -> BTreeMap<String, Change> {
    let put = |entry: &Entry| Change::Put { cid: entry.cid, tsize: entry.tsize };
    let change = |found: &Difference| (found.path.clone(), found.new.as_ref().map_or(Change::Remove, put));
    differences.iter().map(change).collect()
}

fn expected(old: &Files, new: &Files) -> BTreeMap<String, (Option<Cid>, Option<Cid>)> {
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let cid = |files: &Files, path: &String| files.get(path).map(|(cid, _)| *cid);
    let pairs = paths.into_iter().map(|path| (path.clone(), (cid(old, path), cid(new, path))));
    pairs.filter(|(_, (old, new))| old != new).collect()
}

#[test]
fn what_is_put_is_found_and_what_is_removed_leaves_no_directory() {
    let blocks = empty_tree();
    let files = Files::from([("a/b/c".into(), value(1)), ("a/d".into(), value(2)), ("e".into(), value(3))]);
    let root = from_scratch(&blocks, &files);
    for (path, (cid, tsize)) in &files {
        let entry = lookup(&blocks, &root, path).unwrap().unwrap();
        assert_eq!((entry.cid, entry.tsize), (*cid, *tsize));
    }
    for path in ["", "/", "a/", "/a", "a//d", "x", "a/d/x", "e/x/y", "a/../e"] {
        assert_eq!(lookup(&blocks, &root, path).unwrap(), None, "{path}");
    }
    let root = applied(&blocks, &root, &BTreeMap::from([("a/b/c".into(), Change::Remove)]));
    assert_eq!(lookup(&blocks, &root, "a/b").unwrap(), None);
    let root = applied(
        &blocks,
        &root,
        &BTreeMap::from([("a".into(), Change::Remove), ("e".into(), Change::Remove)]),
    );
    assert_eq!(root, directory::empty());
}

#[test]
fn a_removal_comes_before_what_is_put_below_it() {
    let blocks = empty_tree();
    let old = Files::from([("a/b".into(), value(1)), ("a/c".into(), value(2))]);
    let root = from_scratch(&blocks, &old);
    let mut changes = puts(&Files::from([("a/d".into(), value(3))]));
    changes.insert("a".into(), Change::Remove);
    let root = applied(&blocks, &root, &changes);
    assert_eq!(root, from_scratch(&blocks, &Files::from([("a/d".into(), value(3))])));
}

#[test]
fn a_file_in_the_way_gives_way_to_what_is_put_but_not_to_a_removal() {
    let blocks = empty_tree();
    let root = from_scratch(&blocks, &Files::from([("a".into(), value(1))]));
    assert_eq!(applied(&blocks, &root, &BTreeMap::from([("a/b".into(), Change::Remove)])), root);
    let below = Files::from([("a/b".into(), value(2))]);
    assert_eq!(applied(&blocks, &root, &puts(&below)), from_scratch(&blocks, &below));
}

#[test]
fn only_the_directories_on_the_path_are_read_and_written() {
    let all = empty_tree();
    let files = Files::from([("a/b/c".into(), value(1)), ("x/y/z".into(), value(2))]);
    let root = from_scratch(&all, &files);
    let here = MemoryBlocks::default();
    for cid in [
        root,
        lookup(&all, &root, "a").unwrap().unwrap().cid,
        lookup(&all, &root, "a/b").unwrap().unwrap().cid,
    ] {
        here.put(&Block::verified(cid, all.need(&cid).unwrap()).unwrap());
    }
    let (cid, tsize) = value(3);
    let change = BTreeMap::from([("a/b/d".into(), Change::Put { cid, tsize })]);
    assert_eq!(apply(&here, &root, &change).unwrap().blocks.len(), 3);
}

#[test]
fn an_empty_directory_that_was_put_stays() {
    let blocks = empty_tree();
    let uploads = Change::Put { cid: directory::empty(), tsize: 4 };
    let root = applied(&blocks, &directory::empty(), &BTreeMap::from([("a/_uploads".into(), uploads)]));
    assert_eq!(lookup(&blocks, &root, "a/_uploads").unwrap().unwrap().cid, directory::empty());
    assert_eq!(applied(&blocks, &root, &BTreeMap::from([("a/_uploads/x".into(), Change::Remove)])), root);
}

#[test]
fn paths_that_no_tree_may_hold_are_refused() {
    let blocks = empty_tree();
    let deep = "a/".repeat(MAX_DEPTH) + "a";
    for path in ["", "/a", "a/", "a//b", ".", "a/..", "a/\n", &"a".repeat(256), &deep] {
        assert!(
            apply(&blocks, &directory::empty(), &BTreeMap::from([(path.to_owned(), Change::Remove)]))
                .is_err()
        );
    }
}

#[test]
fn small_raw_files_are_wanted_before_they_are_reported() {
    let all = empty_tree();
    let (small, _) = file::from_bytes(b"small");
    all.put(&Block::new(RAW, Bytes::from_static(b"small")));
    let files = Files::from([("a".into(), (small.cid, 5)), ("b".into(), (value(9).0, 6))]);
    let root = from_scratch(&all, &files);
    let here = MemoryBlocks::default();
    let mut diff = Diff::new(None, root, 5);
    let mut seen = Vec::new();
    assert_eq!(diff.advance(&here, &mut |found| seen.push(found.path)).unwrap(), [root]);
    here.put(&Block::verified(root, all.need(&root).unwrap()).unwrap());
    assert_eq!(diff.advance(&here, &mut |found| seen.push(found.path)).unwrap(), [small.cid]);
    assert_eq!(seen, ["b"]);
    here.put(&Block::verified(small.cid, all.need(&small.cid).unwrap()).unwrap());
    assert_eq!(diff.advance(&here, &mut |found| seen.push(found.path)).unwrap(), []);
    assert_eq!(seen, ["b", "a"]);
}

/// A file as the profile `unixfs-v0-2015` writes it: a node above leaves that are nodes, too.
fn wrapped(blocks: &MemoryBlocks, parts: &[&'static [u8]]) -> Vec<Cid> {
    let block = |data: Option<&'static [u8]>, links: &[(Cid, u64)]| {
        let blocksizes: Vec<u64> = links.iter().map(|(_, len)| *len).collect();
        let filesize = data.map_or(0, |data| data.len() as u64) + blocksizes.iter().sum::<u64>();
        let data = data.map(Bytes::from_static);
        let data = Data { data, filesize: Some(filesize), blocksizes, ..Data::new(Kind::File) };
        let links = links.iter().map(|(cid, tsize)| Link { cid: *cid, name: String::new(), tsize: *tsize });
        let node = Node { links: links.collect(), data: Some(data.encode()) };
        let block = Block::new(DAG_PB, node.encode());
        blocks.put(&block);
        *block.cid()
    };
    let leaves: Vec<_> = parts.iter().map(|part| (block(Some(part), &[]), part.len() as u64)).collect();
    let mut all = vec![block(None, &leaves)];
    all.extend(leaves.iter().map(|(cid, _)| *cid));
    all
}

#[test]
fn small_files_of_any_form_are_whole_before_they_are_reported() {
    let all = empty_tree();
    let small = wrapped(&all, &[b"sm", b"all"]);
    let large = wrapped(&all, &[b"lar", b"ger"]);
    let files = Files::from([("a".into(), (small[0], 99)), ("b".into(), (large[0], 99))]);
    let root = from_scratch(&all, &files);
    let here = MemoryBlocks::default();
    let seen = run(Diff::new(None, root, 5), &all, &here);
    assert_eq!(seen.len(), 2);
    assert_eq!(file::read_all(&here, &small[0], 5).unwrap(), "small");
    assert_eq!(here.get(&large[0]).unwrap(), all.get(&large[0]).unwrap());
    assert!(
        large[1..].iter().all(|leaf| here.get(leaf).unwrap().is_none()),
        "large files come when they are asked for"
    );
}

#[test]
fn a_malformed_small_file_does_not_keep_its_tree_away() {
    let all = empty_tree();
    let small = wrapped(&all, &[b"sm", b"all"]);
    let mut node = Node::decode(&all.need(&small[0]).unwrap()).unwrap();
    node.links.swap(0, 1);
    let swapped = Block::new(DAG_PB, node.encode());
    all.put(&swapped);
    let files = Files::from([("a".into(), (*swapped.cid(), 99))]);
    let root = from_scratch(&all, &files);
    let here = MemoryBlocks::default();
    let seen = run(Diff::new(None, root, 5), &all, &here);
    assert_eq!(seen.len(), 1);
    assert!(file::read_all(&here, swapped.cid(), 5).is_err());
}

/// A directory with these links, whatever their names.
fn node(blocks: &MemoryBlocks, links: &[(&str, Cid)]) -> Cid {
    let link = |(name, cid): &(&str, Cid)| Link { cid: *cid, name: (*name).to_owned(), tsize: 1 };
    let mut node = Node::decode(&directory::empty_block()).unwrap();
    node.links = links.iter().map(link).collect();
    let block = Block::new(DAG_PB, node.encode());
    blocks.put(&block);
    *block.cid()
}

#[test]
fn names_and_codecs_that_no_tree_may_hold_are_passed_over() {
    let blocks = empty_tree();
    let (file, long) = (value(1).0, "a".repeat(256));
    let unknown = Cid::new_v1(0x71, *file.hash());
    let names = ["", ".", "..", "a/b", "a\0", long.as_str(), "good"];
    let mut links: Vec<_> = names.into_iter().map(|name| (name, file)).collect();
    links.push(("unknown", unknown));
    let root = node(&blocks, &links);
    let found = run(Diff::new(None, root, 0), &blocks, &blocks);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "good");
}

#[test]
fn hostile_trees_end() {
    let blocks = empty_tree();
    // Deeper than is followed: the file at the end is not reported.
    let mut deep = node(&blocks, &[("f", value(1).0)]);
    for _ in 0..MAX_DEPTH + 10 {
        deep = node(&blocks, &[("d", deep)]);
    }
    assert_eq!(run(Diff::new(None, deep, 0), &blocks, &blocks), []);
    // Each level links the next many times: sixty blocks, endless paths.
    let names: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
    let mut wide = node(&blocks, &[("f", value(1).0)]);
    for _ in 0..60 {
        wide = node(&blocks, &names.iter().map(|name| (name.as_str(), wide)).collect::<Vec<_>>());
    }
    let mut diff = Diff::new(None, wide, 0);
    diff.budget /= 64;
    assert!(diff.advance(&blocks, &mut |_| {}).is_err());
    assert!(Diff::new(None, value(1).0, 0).advance(&blocks, &mut |_| {}).is_err(), "a file is no tree");
}

#[test]
fn a_diff_of_a_hostile_tree_stays_small_and_comes_back() {
    let blocks = empty_tree();
    let names: Vec<String> = (0..3000).map(|number| format!("{number:0>200}")).collect();
    let mut wide = node(&blocks, &[("f", value(1).0)]);
    for _ in 0..60 {
        wide = node(&blocks, &names.iter().map(|name| (name.as_str(), wide)).collect::<Vec<_>>());
    }
    let mut diff = Diff::new(None, wide, 0);
    let error = diff.advance(&blocks, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    // Files without end are no frontier; the caller may stop.
    let mut files = node(&blocks, &names.iter().map(|name| (name.as_str(), value(1).0)).collect::<Vec<_>>());
    for _ in 0..3 {
        files = node(&blocks, &[("a", files), ("b", files), ("c", files), ("d", files)]);
    }
    let (mut diff, mut calls, mut seen) = (Diff::new(None, files, 0), 1, 0);
    while diff.advance_within(usize::MAX, &blocks, &mut |_| seen += 1).unwrap() != Progress::Done {
        calls += 1;
    }
    assert_eq!(seen, 64 * 3000);
    assert!(calls > 2, "{calls} calls");
    let mut diff = Diff::new(None, files, 0);
    assert_eq!(diff.advance_within(usize::MAX, &blocks, &mut |_| {}).unwrap(), Progress::More);
    let mut diff = Diff::new(None, files, 0);
    assert_eq!(diff.advance_within(100_000, &blocks, &mut |_| {}).unwrap(), Progress::Full);
}

#[test]
fn the_first_look_at_a_large_tree_is_not_refused_and_holds_little() {
    const REPOSITORIES: u64 = 300;
    const TAGS: u64 = 500;
    let all = empty_tree();
    let path = |repository: u64, tag: u64| format!("v2/repositories/r{repository}/tags/{tag:0>12}");
    let paths = (0..REPOSITORIES).flat_map(|repository| (0..TAGS).map(move |tag| path(repository, tag)));
    let files: Files = paths.zip(0..).map(|(path, number)| (path, value(number))).collect();
    let root = from_scratch(&all, &files);
    let here = MemoryBlocks::default();
    let (mut diff, mut seen) = (Diff::new(None, root, 0), 0_u64);
    loop {
        match diff.advance_within(3 << 20, &here, &mut |_| seen += 1).unwrap() {
            Progress::Done => break,
            Progress::More => {}
            Progress::Missing(missing) => {
                for cid in missing {
                    here.put(&Block::verified(cid, all.need(&cid).unwrap()).unwrap());
                }
            }
            Progress::Full => panic!("it holds more than 3 MiB"),
        }
    }
    assert_eq!(seen, REPOSITORIES * TAGS);
}

#[test]
fn a_diff_skips_equal_shards_and_needs_only_the_path() {
    let all = empty_tree();
    let mut files: Files = (0..2000).map(|number| (format!("tags/{number:0>200}"), value(number))).collect();
    let old = from_scratch(&all, &files);
    let changed = format!("tags/{:0>200}", 7);
    let before = files.clone();
    files.insert(changed.clone(), value(1 << 30));
    let new = from_scratch(&all, &files);
    let here = MemoryBlocks::default();
    let found = run(Diff::new(Some(old), new, 0), &all, &here);
    assert_eq!(as_map(found), expected(&before, &files));
    // Root, HAMT and one shard, old and new.
    assert_eq!(here.len(), 6);
}

#[test]
fn hamts_of_different_fanout_are_compared_by_their_entries() {
    use crate::dag::shard::{Fanout, Position, Shard};
    use crate::dag::unixfs::{Data, Kind};
    let all = empty_tree();
    let narrow = Data { hash_type: Some(0x22), fanout: Some(16), ..Data::new(Kind::HamtShard) };
    let hamt = |fanout, range: std::ops::Range<u64>| {
        let mut shard = Shard::new(Position::root(fanout));
        for number in range {
            let (cid, tsize) = value(number);
            shard.insert(&all, Entry { name: number.to_string(), cid, tsize }).unwrap();
        }
        let mut out = Vec::new();
        let (cid, _) = shard.encode(&mut out);
        for block in &out {
            all.put(block);
        }
        cid
    };
    let old = hamt(Fanout::of(&narrow).unwrap(), 0..300);
    let new = hamt(Fanout::WRITTEN, 10..310);
    let files = |range: std::ops::Range<u64>| -> Files {
        range.map(|number| (number.to_string(), value(number))).collect()
    };
    let found = run(Diff::new(Some(old), new, 0), &all, &MemoryBlocks::default());
    assert_eq!(as_map(found), expected(&files(0..300), &files(10..310)));
    let found = run(Diff::new(Some(new), old, 0), &all, &MemoryBlocks::default());
    assert_eq!(as_map(found), expected(&files(10..310), &files(0..300)));
}

/// Few names, so that paths meet; files and directories of one name as well.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 1..5).prop_map(|names| names.join("/"))
}

fn put(model: &mut Files, path: &str, value: (Cid, u64)) {
    for (at, _) in path.match_indices('/') {
        model.remove(&path[..at]);
    }
    model.insert(path.to_owned(), value);
}

fn remove(model: &mut Files, path: &str) {
    let below = format!("{path}/");
    model.retain(|other, _| other != path && !other.starts_with(&below));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn applying_changes_leads_where_the_model_does(
        batches in prop::collection::vec(
            prop::collection::btree_map(path(), prop::option::weighted(0.7, 0_u64..9), 1..12),
            1..5,
        ),
    ) {
        let blocks = empty_tree();
        let (mut root, mut model) = (directory::empty(), Files::new());
        for batch in batches {
            let before = model.clone();
            let mut changes = BTreeMap::new();
            // By names rather than bytes, so that a path comes before those below it.
            let mut ordered: Vec<_> = batch.iter().collect();
            ordered.sort_by_key(|(path, _)| path.split('/').collect::<Vec<_>>());
            for (path, change) in ordered {
                remove(&mut model, path);
                let change = match change.map(value) {
                    Some((cid, tsize)) => {
                        put(&mut model, path, (cid, tsize));
                        Change::Put { cid, tsize }
                    }
                    None => Change::Remove,
                };
                changes.insert(path.clone(), change);
            }
            let made = apply(&blocks, &root, &changes).unwrap();
            let distinct: BTreeSet<_> = made.blocks.iter().map(Block::cid).collect();
            prop_assert_eq!(distinct.len(), made.blocks.len());
            for block in &made.blocks {
                blocks.put(block);
            }
            let scratch = apply(&blocks, &directory::empty(), &puts(&model)).unwrap();
            prop_assert_eq!((made.root, made.tsize), (scratch.root, scratch.tsize));
            let found = run(Diff::new(Some(root), made.root, 0), &blocks, &MemoryBlocks::default());
            prop_assert_eq!(applied(&blocks, &root, &changes_of(&found)), made.root);
            prop_assert_eq!(as_map(found), expected(&before, &model));
            root = made.root;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Basic to HAMT, HAMT to basic, HAMT to HAMT, and from nothing.
    #[test]
    fn a_diff_reports_what_the_maps_differ_in(
        sizes in [prop_oneof![0_u64..30, 950_u64..1300], prop_oneof![0_u64..30, 950_u64..1300]],
        shift in 0_u64..40,
        from_nothing: bool,
    ) {
        let all = empty_tree();
        let files = |range: std::ops::Range<u64>| -> Files {
            range.map(|number| (format!("d/{number:0>200}"), value(number / 3))).collect()
        };
        let (mut old, new) = (files(0..sizes[0]), files(shift..shift + sizes[1]));
        let roots = [from_scratch(&all, &old), from_scratch(&all, &new)];
        if from_nothing {
            old.clear();
        }
        let found = run(Diff::new((!from_nothing).then_some(roots[0]), roots[1], 0), &all, &MemoryBlocks::default());
        let changes = changes_of(&found);
        prop_assert_eq!(as_map(found), expected(&old, &new));
        let base = if from_nothing { directory::empty() } else { roots[0] };
        prop_assert_eq!(applied(&all, &base, &changes), roots[1], "one tree and the difference are the other");
    }

    /// In folders that become HAMTs and stop being so.
    #[test]
    fn the_way_to_a_tree_leaves_no_trace_in_its_root(
        batches in prop::collection::vec((0_u32..3, 0_u32..1400, 1_u32..1100, any::<bool>()), 1..6),
        order in any::<u64>(),
    ) {
        let blocks = empty_tree();
        let (mut root, mut model) = (directory::empty(), Files::new());
        for (folder, from, count, keep) in batches {
            let mut changes = BTreeMap::new();
            for number in from..from + count {
                // Scattered, so that neither puts nor removals come in the order of names.
                let number = number.wrapping_mul(order as u32 | 1) % 1500;
                let path = format!("d{folder}/{number:0>200}");
                let (cid, tsize) = value(u64::from(number % 5));
                if keep {
                    model.insert(path.clone(), (cid, tsize));
                } else {
                    model.remove(&path);
                }
                changes.insert(path, if keep { Change::Put { cid, tsize } } else { Change::Remove });
            }
            root = applied(&blocks, &root, &changes);
        }
        prop_assert_eq!(root, from_scratch(&blocks, &model));
        prop_assert_eq!(
            as_map(run(Diff::new(None, root, 0), &blocks, &blocks)),
            expected(&Files::new(), &model)
        );
    }
}
