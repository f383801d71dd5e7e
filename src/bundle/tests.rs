//! A bundle without a network: it is counted, sent and taken in, whole or in parts of any size.

use std::time::SystemTime;

use bytes::Bytes;
use proptest::prelude::*;
use sampan_node::Keypair;
use sampan_node::ipns::{Draft, Record};
use sampan_storage::{Algorithm, Commit, Digest, Store, car, layout};

use super::create::pack;
use super::description::Description;
use super::intake::{Standing, Taken, run};
use super::stream::Head;
use super::{MAX_DESCRIPTION, Wish};

/// A store with some blobs, and the key of its name.
struct Site {
    _dir: tempfile::TempDir,
    store: Store,
    key: Keypair,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        Self { _dir: dir, store, key: Keypair::generate() }
    }

    async fn push(&self, seed: u8, length: usize) -> Digest {
        let content: Vec<u8> = (0..length).map(|at| (at / 7) as u8 ^ seed).collect();
        let digest = Digest::of(Algorithm::Sha256, &content);
        let repository = "team/boat".parse().unwrap();
        let mut upload = self.store.begin_upload(&repository, None).unwrap();
        upload.write(&content).unwrap();
        let blob = upload.finish(&digest).unwrap();
        let mut commit = Commit::new();
        commit.put_blob(&blob);
        commit.put_link(layout::layer(&repository, &digest), &digest);
        self.store.commit(commit).await.unwrap();
        digest
    }

    /// The parts, each with its length before it.
    async fn bundle(&self, room: u64) -> Vec<Vec<u8>> {
        self.store.fold().await.unwrap();
        let root = self.store.root();
        let draft = Draft::new(root, self.store.state().sequence, SystemTime::now());
        let record = Record::sign(&self.key, &draft).unwrap();
        let wish = Wish { name: None, since: None, repositories: None, split: None };
        let head = Head::new(record, root, None, &wish);
        let mut stream = Vec::new();
        let store = self.store.clone();
        let (output, mut pieces) = crate::control::Output::new();
        let made = tokio::task::spawn_blocking(move || pack(&store, None, head, room, output));
        while let Some(piece) = pieces.recv().await {
            stream.extend_from_slice(&piece);
        }
        let (_, _, parts) = made.await.unwrap().unwrap();
        let mut rest = stream.as_slice();
        let mut all = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk() {
            let (part, behind) = behind.split_at(u64::from_be_bytes(*length) as usize);
            all.push(part.to_vec());
            rest = behind;
        }
        assert_eq!(all.len(), parts as usize);
        all
    }

    fn take(&self, parts: &[Vec<u8>]) -> anyhow::Result<Taken> {
        let framed = |part: &Vec<u8>| [(part.len() as u64).to_be_bytes().as_slice(), part].concat();
        let stream: Vec<u8> = parts.iter().flat_map(framed).collect();
        let names: Vec<String> = (1..=parts.len()).map(|part| format!("part {part}")).collect();
        run(
            &self.store,
            stream.as_slice(),
            &names,
            &|_| Ok(Standing { current: None, restores: false }),
            &|_| {},
        )
    }
}

/// What a part carries, behind its head.
fn load(part: &[u8]) -> Vec<(String, Bytes)> {
    let sections = car::Reader::new(part).unwrap().map(Result::unwrap);
    sections.skip(2).map(|section| (section.cid.to_string(), section.data)).collect()
}

#[test]
fn parts_of_any_size_join_to_the_same() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let here = Site::new();
    let mut digests = Vec::new();
    for (seed, length) in [(1, 20_000), (2, 1_500_000), (3, 3_200_000), (4, 100), (5, 1_048_576)] {
        digests.push(runtime.block_on(here.push(seed, length)));
    }
    let whole = runtime.block_on(here.bundle(u64::MAX));
    assert_eq!(whole.len(), 1);
    let expected = load(&whole[0]);
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(room in 1_049_000_u64..5_000_000)| {
        let parts = runtime.block_on(here.bundle(room));
        let joined: Vec<_> = parts.iter().flat_map(|part| load(part)).collect();
        prop_assert!(joined == expected, "parts of {} carry something else", room);
        let there = Site::new();
        let taken = there.take(&parts).unwrap();
        prop_assert!(taken.whole && taken.blobs == 4, "{:?}", taken);
        for digest in &digests {
            let small = there.store.blob(digest).unwrap().is_none();
            prop_assert_eq!(small, *digest == digests[3], "the small ones belong to the tree");
        }
        // And each for itself where nothing goes on from one to the next.
        let continues = |part: &Vec<u8>| {
            let first = car::Reader::new(part.as_slice()).unwrap().next().unwrap().unwrap();
            Description::parse(&first.data).unwrap().continues
        };
        let third = Site::new();
        for (at, part) in parts.iter().enumerate() {
            match third.take(std::slice::from_ref(part)) {
                Ok(taken) => prop_assert!(!continues(part) && (!taken.whole || at + 1 == parts.len())),
                Err(error) => prop_assert!(continues(part), "{}", error),
            }
        }
    });
}

#[test]
fn a_description_is_read_back_and_a_newer_one_is_refused() {
    let cid = sampan_storage::block::cid_of(sampan_storage::block::RAW, b"x");
    let description = Description {
        version: 1,
        name: Keypair::generate().name(),
        sequence: 7,
        root: cid,
        base: Some(cid),
        record: cid,
        repositories: Some("team/*".to_owned()),
        part: 2,
        parts: 3,
        continues: true,
        tree: 0,
        tree_left: 0,
        blobs: 9,
    };
    let bytes = description.encode().unwrap();
    assert!(bytes.len() * 2 < MAX_DESCRIPTION);
    assert_eq!(Description::parse(&bytes).unwrap(), description);
    assert!(Description { part: 1, blobs: 0, continues: false, ..description.clone() }.is_of(&description));
    assert!(!Description { base: None, ..description.clone() }.is_of(&description));
    let refused = |text: &str| Description::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(refused(r#"{"sampan-bundle": 2, "other": 1}"#).contains("upgrade sampan"));
    assert_eq!(refused("{}"), "it is no bundle");
    assert_eq!(refused(r#"{"sampan-bundle": 1}"#), "its description cannot be read");
    for (part, parts) in [(0, 1), (2, 1), (1, 1_000_000)] {
        let bytes = Description { part, parts, ..description.clone() }.encode().unwrap();
        Description::parse(&bytes).unwrap_err();
    }
}
