//! A network in memory, and content over it.

use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt, ready};
use sampan_node::{Multiaddr, Name, Offered, PeerId};
use sampan_storage::block::{DAG_PB, RAW};
use sampan_storage::dag::file::from_bytes;
use sampan_storage::dag::pb;
use sampan_storage::{Digest, Sweep, car};

use super::dns::{DnsError, Texts, Txt};
use super::*;

/// Gives what it was given.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) me: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) peers: Vec<(PeerId, Vec<Multiaddr>)>,
    pub(crate) providers: Vec<PeerId>,
    pub(crate) blocks: MemoryBlocks,
    pub(crate) record: Mutex<Option<Bytes>>,
    /// A name that is followed, and the records of it that were offered.
    pub(crate) follows: Option<Name>,
    pub(crate) offered: AtomicUsize,
    /// Blocks that were asked for.
    pub(crate) asked: AtomicUsize,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            me: PeerId::random(),
            addresses: Vec::new(),
            peers: Vec::new(),
            providers: Vec::new(),
            blocks: MemoryBlocks::default(),
            record: Mutex::default(),
            follows: None,
            offered: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        }
    }
}

impl Network for Scripted {
    fn bring(&self, wants: Vec<Cid>) -> BoxFuture<'_, Vec<Block>> {
        self.asked.fetch_add(wants.len(), Ordering::SeqCst);
        let get = |cid: Cid| Some(Block::verified(cid, self.blocks.get(&cid).unwrap()?).unwrap());
        ready(wants.into_iter().filter_map(get).collect()).boxed()
    }

    fn providers(&self, _: Cid) -> BoxFuture<'_, Vec<PeerId>> {
        ready(self.providers.clone()).boxed()
    }

    fn resolve(&self, _: Name) -> BoxFuture<'_, Option<Bytes>> {
        ready(self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()).boxed()
    }

    fn offer(&self, name: Name, _: Bytes) -> BoxFuture<'_, Offered> {
        self.offered.fetch_add(1, Ordering::SeqCst);
        ready(if self.follows == Some(name) { Offered::Taken } else { Offered::NotFollowed }).boxed()
    }

    fn me(&self) -> PeerId {
        self.me
    }

    fn addresses(&self) -> BoxFuture<'_, Vec<Multiaddr>> {
        ready(self.addresses.clone()).boxed()
    }

    fn peers(&self) -> BoxFuture<'_, Vec<(PeerId, Vec<Multiaddr>)>> {
        ready(self.peers.clone()).boxed()
    }
}

/// A DNS in which one domain has a link: `docs.example` to `bafkqaaa`.
#[derive(Debug)]
struct Zone;

impl Txt for Zone {
    fn txt(&self, name: String) -> BoxFuture<'_, Result<Texts, DnsError>> {
        let link = (name == "_dnslink.docs.example.").then(|| "dnslink=/ipfs/bafkqaaa".to_owned());
        let ttl = std::time::Duration::from_mins(2);
        ready(Ok(Texts { values: link.into_iter().collect(), ttl })).boxed()
    }
}

pub(crate) fn domains() -> Domains {
    Domains::new(Arc::new(Zone))
}

fn open() -> (tempfile::TempDir, Store, Content) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let content = Content::new(store.clone(), None);
    (dir, store, content)
}

/// A file of several leaves, as a CAR with its root at the end.
fn file(length: usize) -> (Cid, Vec<u8>, Vec<u8>) {
    let bytes: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
    let (root, leaves) = from_bytes(&bytes);
    let mut file = car::header(&[]);
    leaves
        .iter()
        .chain(&root.nodes)
        .for_each(|block| car::write_section(&mut file, block.cid(), block.data()));
    (root.cid, bytes, file)
}

async fn cat(content: &Content, cid: Cid) -> Result<Vec<u8>, ContentError> {
    let mut bytes = Vec::new();
    let mut stream = content.cat(cid);
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

fn sweep(store: &Store) -> Vec<Digest> {
    let mut swept = Vec::new();
    let options =
        Sweep { since: std::time::Instant::now() + std::time::Duration::from_mins(1), dry_run: false };
    store
        .sweep(options, &mut |file| {
            swept.extend(file.map(|file| file.digest));
            true
        })
        .unwrap();
    swept
}

#[tokio::test]
async fn what_came_in_a_car_is_pinned_and_read_back_after_a_restart() {
    let (dir, store, content) = open();
    let (root, bytes, file) = file(2_500_000);
    let imported = content.import(Cursor::new(file), PinRoots::Last, |_| {}).await.unwrap();
    assert_eq!((imported.blocks, imported.roots.as_slice()), (4, [root.to_string()].as_slice()));
    assert_eq!(content.pins(), [root]);
    assert_eq!(cat(&content, root).await.unwrap(), bytes);
    assert_eq!(content.stat(root).await.unwrap().size, 2_500_000);
    assert_eq!(sweep(&store), [], "its leaves are held");
    drop(content);
    tokio::task::spawn_blocking(move || store.close()).await.unwrap().unwrap();
    std::fs::remove_dir_all(dir.path().join("data/db")).unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let content = Content::new(store.clone(), None);
    assert_eq!(content.pins(), [root]);
    assert_eq!(sweep(&store), []);
    assert_eq!(cat(&content, root).await.unwrap(), bytes);
    assert!(content.unpin(root).await.unwrap());
    assert!(!content.unpin(root).await.unwrap());
    assert_eq!(sweep(&store).len(), 3);
    assert!(matches!(cat(&content, root).await, Err(ContentError::Missing(_))));
}

#[tokio::test]
async fn a_car_that_breaks_off_or_lies_pins_nothing() {
    let (_dir, _store, content) = open();
    let (root, _, whole) = file(2_500_000);
    let cut = whole[..whole.len() - 1].to_vec();
    assert!(content.import(Cursor::new(cut), PinRoots::Last, |_| {}).await.is_err());
    let mut wrong = whole.clone();
    wrong[100_000] ^= 1;
    let error = content.import(Cursor::new(wrong), PinRoots::Last, |_| {}).await.unwrap_err();
    assert!(matches!(error, ContentError::Malformed(_)), "{error}");
    // The root alone is not whole.
    let mut lacking = car::header(&[root]);
    let (_, leaves) = from_bytes(b"x");
    car::write_section(&mut lacking, leaves[0].cid(), leaves[0].data());
    let error = content.import(Cursor::new(lacking), PinRoots::Named, |_| {}).await.unwrap_err();
    assert!(matches!(error, ContentError::Missing(cid) if cid == root), "{error}");
    assert_eq!(content.pins(), []);
}

#[tokio::test]
async fn a_dag_that_peers_have_is_fetched_and_pinned() {
    let (dir, store, _) = open();
    let bytes: Vec<u8> = (0..2_200_000_usize).map(|at| (at % 249) as u8).collect();
    let (file, leaves) = from_bytes(&bytes);
    let network = Scripted::default();
    leaves.iter().chain(&file.nodes).for_each(|block| network.blocks.put(block));
    let network = Arc::new(network);
    let content = Content::new(store.clone(), Some(Arc::clone(&network) as _));
    content.pin(file.cid, |_| {}).await.unwrap();
    let asked = network.asked.load(Ordering::SeqCst);
    let alone = Content::new(store, None);
    assert_eq!(cat(&alone, file.cid).await.unwrap(), bytes);
    content.pin(file.cid, |_| {}).await.unwrap();
    assert_eq!(network.asked.load(Ordering::SeqCst), asked, "all is here");
    let absent = Block::new(RAW, Bytes::from_static(b"nobody has it"));
    let error = content.pin(*absent.cid(), |_| {}).await.unwrap_err();
    assert!(matches!(error, ContentError::Timeout(_)), "{error}");
    drop(dir);
}

#[tokio::test]
async fn a_walk_breaks_off_with_an_error_where_a_block_is_missing() {
    let (_dir, store, content) = open();
    let (one, two) = (Block::new(RAW, Bytes::from_static(b"1")), Block::new(RAW, Bytes::from_static(b"2")));
    let link = |block: &Block| pb::Link { cid: *block.cid(), name: String::new(), tsize: 1 };
    let node = pb::Node { links: vec![link(&one), link(&two)], data: None };
    let root = Block::new(DAG_PB, node.encode());
    store.put_blocks(&[root.clone(), one]).unwrap();
    let found = content.find(*root.cid(), Vec::new(), Reach::Here).await.unwrap();
    let walk = content.walk(&found, Scope::All, false, Reach::Here).unwrap();
    let blocks: Vec<_> = walk.collect().await;
    assert_eq!(blocks.len(), 3);
    assert!(matches!(blocks[2], Err(ContentError::Missing(cid)) if cid == *two.cid()));
}

#[tokio::test]
async fn walks_are_few_at_once_and_give_their_place_back() {
    let (_dir, _store, content) = open();
    let (root, _, file) = file(10);
    content.import(Cursor::new(file), PinRoots::Last, |_| {}).await.unwrap();
    let found = content.find(root, Vec::new(), Reach::Here).await.unwrap();
    let begin = || content.walk(&found, Scope::All, false, Reach::Here);
    let mut walks: Vec<_> = (0..MAX_WALKS).map(|_| begin().unwrap()).collect();
    assert!(matches!(begin(), Err(ContentError::Busy)));
    walks.pop();
    assert!(begin().is_ok());
}

#[test]
fn addresses_are_read_in_every_form() {
    let name = "k51qzi5uqu5dlkw8pxuw9qmqayfdeh4kfebhmreauqdc6a7c3y7d5i9fi8mk9w";
    let parse = |text: &str| text.parse::<Address>();
    for same in ["bafkqaaa/a/b", "/ipfs/bafkqaaa/a/b", "ipfs/bafkqaaa/a/b/", "/bafkqaaa//a/b"] {
        let address = parse(same).unwrap();
        assert_eq!(address.root, Root::Cid("bafkqaaa".parse().unwrap()), "{same}");
        assert_eq!(address.path, ["a", "b"]);
    }
    assert_eq!(parse(&format!("/ipns/{name}")).unwrap().root, Root::Name(name.parse().unwrap()));
    let deep = format!("bafkqaaa/{}", "a/".repeat(65));
    for bad in ["", "/", "/ipfs", "/ipns/", "x", "/ipns/bafkqaaa", "/ipfs/k51", &deep, &"b".repeat(300)] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
