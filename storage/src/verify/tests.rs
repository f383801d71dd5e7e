//! Each kind of damage is found, told, and made good where that is possible; and what is sound is left alone.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;
use crate::block::{Blocks, cid_of};
use crate::index::{Form, Holder, Row, TreeKey};
use crate::tests::{Image, adopt, bytes, check, now, push, repository};
use crate::{Algorithm, Commit, Entry, OpenError, StoredBlob, layout};

/// A store with an image of several leaves under `v1`, and one of a single leaf under `v2`.
fn store(dir: &Path) -> (Store, Image, Image) {
    let store = Store::open(dir).unwrap();
    let large = push(&store, "v1", 1, 3_000_000);
    let small = push(&store, "v2", 2, 1000);
    now(store.fold()).unwrap();
    (store, large, small)
}

fn look(store: &Store, repair: bool) -> Report {
    let options = Verify { repair, ..Verify::default() };
    store.verify(options, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Looks without and then with repair, and is sure that nothing is left after that.
#[track_caller]
fn repairs(store: &Store, kind: Kind, subject: &str) {
    let found = look(store, false);
    let due = Finding { kind, subject: subject.to_owned(), outcome: Outcome::Left };
    assert_eq!(found.findings, [due], "without repair");
    assert_eq!(found.bad(), 1);
    let repaired = look(store, true);
    assert!(repaired.findings.iter().any(|finding| finding.kind == kind && finding.subject == subject));
    assert_eq!(repaired.bad(), 0, "{:?}", repaired.findings);
    assert_eq!(look(store, false).findings, []);
}

fn flip(path: &Path, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 1;
    fs::write(path, content).unwrap();
}

/// Damages these bytes wherever they stand in the packs.
fn flip_in_packs(dir: &Path, bytes: &[u8]) {
    let packs = fs::read_dir(dir.join("packs")).unwrap().map(|item| item.unwrap().path());
    for pack in packs.filter(|path| path.extension().is_some_and(|it| it == "car")) {
        let content = fs::read(&pack).unwrap();
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            flip(&pack, at + bytes.len() / 2);
        }
    }
}

fn blob_path(dir: &Path, image: &StoredBlob) -> PathBuf {
    let hex = image.digest.hex();
    dir.join("blobs/sha256").join(&hex[..2]).join(hex)
}

#[test]
fn a_sound_store_has_no_findings() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, small) = store(dir.path());
    let mut stages = Vec::new();
    let report = store
        .verify(Verify::default(), &mut |progress| {
            if stages.last() != Some(&progress.stage) {
                stages.push(progress.stage);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(stages, [Stage::Packs, Stage::Journal, Stage::Blobs, Stage::Trees]);
    assert_eq!(report.blobs, 4);
    assert!(report.bytes > large.layer.size + small.layer.size);
    assert!(report.entries >= 8 && report.rows >= 5 && report.blocks > 10);
    // Nor has one with changes that are not folded, nor one that was opened again without its index.
    push(&store, "v3", 3, 2_000_000);
    assert_eq!(look(&store, true).findings, []);
    store.close().unwrap();
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    assert_eq!(look(&Store::open(dir.path()).unwrap(), false).findings, []);
}

#[test]
fn a_flipped_byte_of_a_blob_puts_it_into_quarantine_until_it_is_pushed_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, small) = store(dir.path());
    for image in [&large.layer, &small.layer] {
        flip(&blob_path(dir.path(), image), 900);
    }
    let generation = store.generation();
    let report = look(&store, false);
    let mut found: Vec<String> = report.findings.iter().map(|finding| finding.subject.clone()).collect();
    let mut due = [large.layer.digest.to_string(), small.layer.digest.to_string()];
    found.sort_unstable();
    due.sort_unstable();
    assert_eq!(found, due);
    assert!(
        report
            .findings
            .iter()
            .all(|finding| { (finding.kind, finding.outcome) == (Kind::BlobContent, Outcome::Quarantined) })
    );
    assert_eq!(report.lost().len(), 2);
    assert_ne!(store.generation(), generation);
    for image in [&large.layer, &small.layer] {
        assert!(store.blob(&image.digest).unwrap().is_none());
        // Bitswap's way to the same bytes.
        assert!(!matches!(store.get(&cid_of(crate::block::RAW, &bytes(2, 1000))), Ok(Some(_))));
        assert!(dir.path().join("quarantine").join(format!("sha256-{}", image.digest.hex())).exists());
    }
    assert!(store.mine().read_entry(&entry(&store, &large.layer), u64::MAX).is_err());

    // It stays told as long as it is missing.
    let missing = look(&store, true);
    assert!(missing.findings.iter().all(|finding| finding.kind == Kind::BlobMissing));
    assert_eq!((missing.bad(), missing.lost().len()), (2, 2));
    push(&store, "v1", 1, 3_000_000);
    push(&store, "v2", 2, 1000);
    assert_eq!(look(&store, false).findings, []);
    check(&store, "v1", &large);
}

fn entry(store: &Store, blob: &StoredBlob) -> Entry {
    store.mine().lookup(&layout::blob(&blob.digest)).unwrap().unwrap()
}

#[test]
fn a_shorter_blob_is_found_bad_when_it_is_examined() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, small) = store(dir.path());
    let path = blob_path(dir.path(), &large.layer);
    fs::File::options().write(true).open(path).unwrap().set_len(2_999_999).unwrap();
    assert!(!store.examine(&store.blob(&large.layer.digest).unwrap().unwrap()).unwrap());
    assert!(store.blob(&large.layer.digest).unwrap().is_none());
    assert!(store.examine(&store.blob(&small.layer.digest).unwrap().unwrap()).unwrap());
    assert_eq!(store.losses(), 1);
}

#[test]
fn a_file_that_is_no_blob_and_one_that_is_gone_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, _) = store(dir.path());
    fs::write(dir.path().join("blobs/sha256/00/notes.txt"), b"x").unwrap();
    fs::remove_file(blob_path(dir.path(), &large.layer)).unwrap();
    let report = look(&store, true);
    let of = |kind| report.findings.iter().find(|finding| finding.kind == kind).unwrap().clone();
    assert_eq!(report.findings.len(), 2);
    assert_eq!(of(Kind::BlobName).subject, "blobs/sha256/00/notes.txt");
    assert_eq!(of(Kind::BlobMissing).subject, large.layer.digest.to_string());
    assert_eq!(report.lost(), [large.layer.digest]);
}

#[test]
fn a_damaged_node_of_a_blob_is_made_again_from_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, _) = store(dir.path());
    let node = large.layer.root.nodes[0].clone();
    store.inner().cache.clear();
    flip_in_packs(dir.path(), node.data());
    let found = look(&store, false);
    let kinds: Vec<Kind> = found.findings.iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&Kind::PackBlock) && kinds.contains(&Kind::BlobDag), "{kinds:?}");
    assert!(found.findings.iter().all(|finding| finding.outcome == Outcome::Left));
    let repaired = look(&store, true);
    assert_eq!(repaired.bad(), 0, "{:?}", repaired.findings);
    assert_eq!(store.need(node.cid()).unwrap(), *node.data());
    assert_eq!(look(&store, false).findings, []);
    check(&store, "v1", &large);
}

#[test]
fn a_damaged_link_is_written_again_and_a_damaged_directory_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (first, large, _) = store(dir.path());
    // As after a restart: what was read before the damage is not in memory.
    first.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let link = layout::link(&large.layer.digest);
    flip_in_packs(dir.path(), &link);
    let found = look(&store, false);
    assert!(found.findings.iter().any(|finding| finding.kind == Kind::PackBlock), "{:?}", found.findings);
    assert_eq!(look(&store, true).bad(), 0);
    assert_eq!(look(&store, false).findings, []);
    check(&store, "v1", &large);

    let path = format!("{}/foo/bar/_manifests", layout::REPOSITORIES);
    let manifests = store.mine().lookup(&path).unwrap().unwrap().cid;
    let node = store.need(&manifests).unwrap();
    store.inner().cache.clear();
    flip_in_packs(dir.path(), &node);
    let report = look(&store, true);
    assert_eq!(report.wanted, [manifests]);
    let missing = report.findings.iter().find(|finding| finding.kind == Kind::TreeMissing).unwrap();
    assert_eq!((missing.subject.as_str(), missing.outcome), (path.as_str(), Outcome::Left));
    // A peer gives it back.
    store.put_blocks(&[crate::Block::verified(manifests, node).unwrap()]).unwrap();
    let trees_only = Verify { repair: true, trees_only: true, rate: None };
    let later = store.verify(trees_only, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((later.findings, later.wanted.len()), (Vec::new(), 0));
    assert_eq!(look(&store, false).findings, []);
}

#[test]
fn a_table_of_a_pack_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, _) = store(dir.path());
    store.inner().packs.begin_rewrite().unwrap();
    store.inner().packs.end_rewrite();
    push(&store, "v3", 3, 10);
    now(store.fold()).unwrap();
    store.close().unwrap();
    // The key of the first row.
    flip(&dir.path().join("packs/00000001.idx"), 28);
    let store = Store::open(dir.path()).unwrap();
    let report = look(&store, true);
    assert!(report.findings.contains(&Finding {
        kind: Kind::PackTable,
        subject: "packs/00000001.idx".into(),
        outcome: Outcome::Repaired,
    }));
    assert_eq!(look(&store, false).findings, []);
    check(&store, "v1", &large);
}

#[test]
fn a_pack_whose_lengths_are_lost_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, _) = store(dir.path());
    flip(&dir.path().join("packs/00000001.car"), 0);
    let report = look(&store, true);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].kind, Kind::PackCut);
    // What lies in it is still found, and can be copied out.
    check(&store, "v1", &large);
}

#[test]
fn a_damaged_journal_would_stop_the_next_start_and_is_folded_away() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, small) = store(dir.path());
    let journal = || fs::read_dir(dir.path().join("journal")).unwrap().map(|item| item.unwrap().path());
    let file = journal().next().unwrap();
    assert_eq!(look(&store, false).findings, []);
    flip(&file, 40);
    let subject = "journal/0000000000000001.log, byte 0";
    // As it is, it would not do.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("journal")).unwrap();
    fs::write(copy.path().join("VERSION"), "1\n").unwrap();
    fs::copy(&file, copy.path().join("journal/0000000000000001.log")).unwrap();
    fs::copy(&file, copy.path().join("journal/0000000000000002.log")).unwrap();
    assert!(matches!(Store::open(copy.path()), Err(OpenError::Damaged { .. })));

    repairs(&store, Kind::Journal, subject);
    assert!(!file.exists() && journal().count() == 1);
    let root = store.root();
    store.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.root(), root);
    check(&store, "v1", &large);
    check(&store, "v2", &small);
}

#[test]
fn rows_of_the_lists_are_what_the_tree_says() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, small) = store(dir.path());
    let index = &store.inner().index;
    let (name, other) = (repository(), Digest::of(Algorithm::Sha256, b"other"));
    let tag = |tag: &str| layout::tag(&repository(), &tag.parse().unwrap());
    let mine = TreeKey::MINE;

    index.remove_row(mine, Row::Tag(name.as_str(), "v1")).unwrap();
    repairs(&store, Kind::IndexList, &tag("v1"));
    index.put_row(mine, Row::Tag(name.as_str(), "v1"), other.to_string().as_bytes()).unwrap();
    repairs(&store, Kind::IndexList, &tag("v1"));
    index.put_row(mine, Row::Tag(name.as_str(), "v9"), other.to_string().as_bytes()).unwrap();
    repairs(&store, Kind::IndexList, &tag("v9"));
    index.remove_row(mine, Row::Revision(name.as_str(), &small.manifest.digest)).unwrap();
    repairs(&store, Kind::IndexList, &layout::revision(&name, &small.manifest.digest));
    index.put_row(mine, Row::Referrer(name.as_str(), &small.manifest.digest, &other), b"").unwrap();
    repairs(&store, Kind::IndexList, &layout::referrer(&name, &small.manifest.digest, &other));
    index.put_row(mine, Row::Repository("nobody/has/it"), b"").unwrap();
    repairs(&store, Kind::IndexList, "nobody/has/it");
    // The row of the repository is found wrong with each of its manifests.
    index.remove_row(mine, Row::Repository(name.as_str())).unwrap();
    assert_eq!(look(&store, true).bad(), 0);
    assert_eq!(look(&store, false).findings, []);
    check(&store, "v1", &large);
}

#[test]
fn rows_of_leaves_lead_to_the_right_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, _) = store(dir.path());
    let index = &store.inner().index;
    let (hash, holder) = index.leaves().next().unwrap().unwrap();
    index.remove_leaf(&hash, &holder).unwrap();
    repairs(&store, Kind::IndexLeaf, &large.layer.digest.to_string());

    let cid = cid_of(crate::block::RAW, b"elsewhere");
    let stray = Holder { digest: large.layer.digest, offset: 5, len: 9, form: Form::Raw };
    index.put_blocks(&[(cid, stray)]).unwrap();
    assert!(store.get(&cid).unwrap().is_some(), "wrong bytes under a CID");
    repairs(&store, Kind::IndexLeaf, &large.layer.digest.to_string());
    assert!(store.get(&cid).unwrap().is_none());
    check(&store, "v1", &large);
}

#[test]
fn a_link_to_nothing_is_told_in_my_tree_and_counted_in_theirs() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let publisher = Store::open(theirs.path()).unwrap();
    push(&publisher, "v1", 1, 2_000_000);
    now(publisher.fold()).unwrap();
    let store = Store::open(ours.path()).unwrap();
    adopt(&store, &publisher, "k51", None, publisher.root(), 1, 16 * 1024);
    let report = look(&store, true);
    // The manifest came with the root, the layer did not.
    assert_eq!((report.findings, report.sparse), (Vec::new(), 1));

    let (name, tag) = (repository(), "dangling".parse().unwrap());
    let nothing = Digest::of(Algorithm::Sha256, b"nothing");
    let mut commit = Commit::new();
    commit.put_link(layout::tag(&name, &tag), &nothing);
    commit.put_link(layout::layer(&name, &nothing), &nothing);
    now(store.commit(commit)).unwrap();
    let report = look(&store, true);
    let mut subjects: Vec<_> = report.findings.iter().map(|it| (it.kind, it.subject.clone())).collect();
    subjects.sort_by(|one, other| one.1.cmp(&other.1));
    let mut due = [(Kind::Link, layout::tag(&name, &tag)), (Kind::Link, layout::layer(&name, &nothing))];
    due.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(subjects, due);
}

#[test]
fn it_ends_when_it_is_told_to_and_holds_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = store(dir.path());
    let mut steps = 0;
    let ended = store.verify(Verify::default(), &mut |_| {
        steps += 1;
        if steps < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(matches!(ended, Err(StoreError::Cancelled)));
    assert_eq!(steps, 3);
    // At a rate that would take days it stops within a nap.
    let slow = Verify { rate: Some(1), ..Verify::default() };
    let mut told = 0;
    let ended = store.verify(slow, &mut |_| {
        told += 1;
        if told < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(matches!(ended, Err(StoreError::Cancelled)));
}

#[test]
fn the_scrub_goes_round_and_remembers_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, _) = store(dir.path());
    let mut go_on = || ControlFlow::Continue(());
    let week = Duration::from_hours(7 * 24);
    let mut scrub = Scrub::open(&store);
    assert!(scrub.wait(week) > Duration::ZERO, "nothing is old");
    flip(&blob_path(dir.path(), &large.layer), 5);
    let place: u64 = u64::from_str_radix(&large.layer.digest.hex()[..2], 16).unwrap();
    for _ in 0..place {
        assert_eq!(scrub.step(None, &mut go_on).unwrap(), []);
    }
    scrub.save().unwrap();
    // A new process goes on there.
    let mut scrub = Scrub::open(&store);
    assert_eq!(scrub.wait(week), Duration::ZERO);
    assert_eq!(scrub.step(None, &mut go_on).unwrap(), [large.layer.digest]);
    assert!(store.blob(&large.layer.digest).unwrap().is_none());
    while scrub.wait(week).is_zero() {
        assert_eq!(scrub.step(None, &mut go_on).unwrap(), []);
    }
    assert!(scrub.wait(week) > Duration::from_hours(7 * 24 - 1));
    fs::write(dir.path().join("SCRUB"), "nonsense").unwrap();
    assert!(!Scrub::open(&store).wait(week).is_zero());
}

#[test]
fn what_was_written_before_a_stop_without_a_word_is_suspect() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, small) = store(dir.path());
    drop(store);
    let store = eventually_open(dir.path());
    let long_ago = SystemTime::now() - Duration::from_hours(48);
    let (old, new) = (blob_path(dir.path(), &small.layer), blob_path(dir.path(), &large.layer));
    flip(&old, 0);
    fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    flip(&new, 0);
    let scrub = Scrub::open(&store);
    assert_eq!(scrub.suspects(None, &mut || ControlFlow::Continue(())).unwrap(), [large.layer.digest]);
    assert_eq!(scrub.suspects(None, &mut || ControlFlow::Continue(())).unwrap(), []);
    drop(scrub);
    assert!(store.blob(&small.layer.digest).unwrap().is_some(), "the scrub comes to it in time");
    store.close().unwrap();
    assert!(!dir.path().join("RUNNING").exists());
}

/// A store that was dropped ends its threads by and by.
fn eventually_open(dir: &Path) -> Store {
    loop {
        match Store::open(dir) {
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn an_index_that_fails_is_built_anew_while_pushes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, large, _) = store(dir.path());
    let publisher_dir = tempfile::tempdir().unwrap();
    let publisher = Store::open(publisher_dir.path()).unwrap();
    push(&publisher, "theirs", 9, 10);
    now(publisher.fold()).unwrap();
    adopt(&store, &publisher, "k51", None, publisher.root(), 1, 16 * 1024);
    push(&store, "v3", 3, 10);
    store.inner().index.give_up(&StoreError::Index("a test".into()));
    let mut pushed = Vec::new();
    let is_refused =
        |store: &Store| matches!(store.mine().tags(&repository(), None, 9), Err(StoreError::Rebuilding));
    let mut number = 0;
    // Tags move and go while it is being built.
    loop {
        let refused = is_refused(&store);
        pushed.push((format!("w{}", number % 5), push(&store, &format!("w{}", number % 5), number, 10)));
        let mut commit = Commit::new();
        commit.remove(layout::tag_dir(&repository(), &"v2".parse().unwrap()));
        now(store.commit(commit)).unwrap();
        number += 1;
        if !refused && number > 5 {
            break;
        }
    }
    assert_eq!(look(&store, false).findings, []);
    check(&store, "v1", &large);
    check(&store, "w0", pushed.iter().rev().find(|(tag, _)| tag == "w0").map(|(_, image)| image).unwrap());
    let tags = store.mine().tags(&repository(), None, 99).unwrap();
    assert_eq!(tags, ["v1", "v3", "w0", "w1", "w2", "w3", "w4"]);
    assert_eq!(store.trees()[1].tags(&repository(), None, 9).unwrap(), ["theirs"]);
    store.close().unwrap();
    assert_eq!(look(&Store::open(dir.path()).unwrap(), false).findings, []);
}
