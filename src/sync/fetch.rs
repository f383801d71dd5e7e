//! Blobs that only a followed name has: fetched when someone asks, once for all who ask at the same time, read by
//! them while they arrive, and kept when the OCI digest is right.
//!
//! A fetch has three parts. The walk goes along the file's DAG and asks a bitswap session for as many leaves as its
//! window allows: in their order for whoever reads along, in any order where nobody does, so that followers that fetch
//! the same blob at the same time have different parts to give each other. A writer on a blocking thread puts what arrives into the partial file. Readers follow the whole
//! beginning of that file; the last of it is held back until the digest is known to be right, so that a blob that
//! turns out wrong never looks complete. When the last reader goes, the fetch ends.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use sampan_node::bitswap::{SessionOptions, Turns};
use sampan_node::{Node, PeerId};
use sampan_storage::block::RAW;
use sampan_storage::dag::file::{LeafForm, Leaves, Step, leaf_bytes};
use sampan_storage::{
    BlobFile, Block, BlockError, Blocks, Cid, Digest, MemoryBlocks, Partial, Store, StoreError,
};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;

use super::arrivals::Arrivals;
use super::blocking;
use super::seek::{SeekError, Seeker};
use crate::registry::{BlobStream, Origin, OriginError, RemoteBlob};

/// Bytes on their way at once: enough to keep a gigabit busy through a round trip of 100 ms.
const WINDOW: usize = 16 * 1024 * 1024;
/// dag-pb blocks asked for ahead; each may turn out to be a leaf of 256 KiB.
const NODES_AHEAD: usize = 32;
/// Fewer where they are large.
const NODES_AHEAD_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of dag-pb blocks that are in memory until the blob is whole, or until they are passed: enough for 150 GiB in
/// leaves of 256 KiB. A hostile one could have nodes without end.
const MAX_NODES: usize = 32 * 1024 * 1024;
/// What such a block is taken for in the window.
const NODE: u32 = 256 * 1024;
/// Blocks between network and disk.
const WRITES: usize = 8;
/// Without a block for this long the fetch has failed; a client waits no longer for its first byte.
const PATIENCE: Duration = Duration::from_secs(20);
/// Leaves that are known ahead where somebody reads along.
const AHEAD: usize = 64;
/// Leaves that are known ahead where nobody reads along, so that each of many followers begins with others and they
/// give each other what they have: 4 GiB of leaves of 1 MiB, some 300 KiB of memory.
const SCATTERED: usize = 4096;
/// Bytes handed to a client at once.
const CHUNK: u64 = 256 * 1024;

/// Fetches blobs. Clones share what is in flight.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    store: Store,
    node: Node,
    flights: Arc<Mutex<HashMap<Digest, Weak<Flight>>>>,
    arrivals: Arrivals,
    /// Fetches run here and not on the thread of the request that began them.
    runtime: Handle,
}

/// A fetch as its readers see it. It goes on as long as one of them holds it.
#[derive(Debug)]
struct Flight {
    file: Arc<File>,
    size: u64,
    progress: watch::Receiver<Progress>,
    /// Those who read along: for them the beginning comes first.
    readers: Arc<AtomicUsize>,
}

/// Counts as a reader while it is held.
#[derive(Debug)]
struct Reading(Arc<AtomicUsize>);

#[derive(Clone, Debug, Default)]
struct Progress {
    /// Length of the whole beginning that is in the file.
    contiguous: u64,
    outcome: Option<Result<(), OriginError>>,
}

/// Bytes for the partial file.
struct Write {
    offset: u64,
    cid: Cid,
    block: Bytes,
    bytes: Bytes,
}

impl Fetcher {
    pub(crate) fn new(store: Store, node: Node) -> Self {
        let (flights, arrivals) = (Arc::default(), Arrivals::default());
        Self { store, node, flights, arrivals, runtime: Handle::current() }
    }

    /// What has come of each tree.
    pub(crate) fn arrivals(&self) -> Arrivals {
        self.arrivals.clone()
    }

    /// The flight for this blob: one that is on its way, or a new one.
    async fn join(&self, want: &RemoteBlob) -> Result<Arc<Flight>, OriginError> {
        if self.store.is_wrong(&want.digest, &want.entry.cid) {
            return Err(OriginError::Wrong("it was fetched lately, and was not kept".into()));
        }
        let mut flights = self.flights.lock().await;
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&want.digest).and_then(Weak::upgrade) {
            return Ok(flight);
        }
        let (store, digest, size) = (self.store.clone(), want.digest, want.size);
        let partial = off_thread(move || store.begin_partial(&digest, size)).await??;
        let file = Arc::clone(partial.file());
        let (sender, progress) = watch::channel(Progress::default());
        let readers = Arc::<AtomicUsize>::default();
        let flight = Arc::new(Flight { file, size, progress, readers: Arc::clone(&readers) });
        self.runtime.spawn(self.clone().fly(want.clone(), partial, sender, readers));
        flights.insert(digest, Arc::downgrade(&flight));
        Ok(flight)
    }

    /// Peers that follow the same name.
    async fn companions(&self, want: &RemoteBlob) -> Vec<PeerId> {
        match want.tree.parse() {
            Ok(name) => self.node.followers(name).await,
            Err(_) => Vec::new(),
        }
    }

    async fn fly(
        self,
        want: RemoteBlob,
        partial: Partial,
        progress: watch::Sender<Progress>,
        readers: Arc<AtomicUsize>,
    ) {
        let outcome = tokio::select! {
            outcome = self.bring(&want, partial, &progress, &readers) => outcome,
            () = progress.closed() => return,
        };
        if matches!(outcome, Err(OriginError::Wrong(_))) {
            self.store.note_wrong(&want.digest, &want.entry.cid);
        }
        if let Err(error) = &outcome {
            tracing::info!(digest = %want.digest, name = want.tree, %error, "a blob could not be fetched");
        }
        progress.send_modify(|progress| progress.outcome = Some(outcome));
    }

    async fn bring(
        &self,
        want: &RemoteBlob,
        mut partial: Partial,
        progress: &watch::Sender<Progress>,
        readers: &AtomicUsize,
    ) -> Result<(), OriginError> {
        let (writes, mut jobs) = mpsc::channel::<Write>(WRITES);
        let told = progress.clone();
        let (bitswap, runtime) = (self.node.bitswap().clone(), self.runtime.clone());
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(job) = jobs.blocking_recv() {
                partial.write(job.offset, &job.cid, &job.block, &job.bytes)?;
                told.send_modify(|progress| progress.contiguous = partial.contiguous());
                // Others may wait for the same.
                runtime.block_on(bitswap.notify(vec![job.cid]));
            }
            Ok::<Partial, StoreError>(partial)
        });
        let walked = self.walk(want, writes, readers).await;
        let partial = writer.await.map_err(|_| OriginError::Unavailable)??;
        walked?;
        let root = want.entry.cid;
        off_thread(move || partial.finish(&root)).await??;
        self.arrivals.add(&want.tree, want.size);
        // Others may wait for the same.
        self.node.bitswap().restocked().await;
        Ok(())
    }

    /// Goes along the DAG, asks for what is not here, and hands what arrives to the writer.
    async fn walk(
        &self,
        want: &RemoteBlob,
        writes: mpsc::Sender<Write>,
        readers: &AtomicUsize,
    ) -> Result<(), OriginError> {
        let turns = Turns::new(self.node.peer_id(), self.companions(want).await);
        let options =
            SessionOptions { turns: turns.clone(), window_bytes: WINDOW, ..SessionOptions::default() };
        let mut seeker = Seeker::open(&self.node, want.entry.cid, options).await?;
        let mut walk = Walk {
            leaves: Leaves::new(want.entry.cid, Some(want.size)),
            nodes: Arc::default(),
            weight: 0,
            known: BTreeMap::new(),
            order: BTreeSet::new(),
            turns,
            ended: false,
            blocked: false,
        };
        let mut leaves: HashMap<Cid, Vec<u64>> = HashMap::new();
        let mut nodes: HashSet<Cid> = HashSet::new();
        let mut asked = 0;
        loop {
            let ahead = if readers.load(Ordering::Relaxed) > 0 { AHEAD } else { SCATTERED };
            if !walk.ended && !walk.blocked && asked < WINDOW && walk.known.len() < ahead / 2 {
                let store = self.store.clone();
                let found;
                (walk, found) = off_thread(move || walk.forward(&store, WINDOW, ahead)).await??;
                let wants: Vec<_> = found.nodes.into_iter().filter(|cid| nodes.insert(*cid)).collect();
                if !wants.is_empty() {
                    seeker.want(wants.into_iter().map(|cid| (cid, NODE)).collect()).await?;
                }
                for write in found.here {
                    writes.send(write).await.map_err(|_| OriginError::Unavailable)?;
                }
            }
            if asked < WINDOW && !walk.known.is_empty() {
                let mut wants = Vec::new();
                while asked < WINDOW
                    && let Some((offset, (cid, len))) = walk.take(readers.load(Ordering::Relaxed) > 0)
                {
                    asked += usize::try_from(len).unwrap_or(WINDOW);
                    let offsets = leaves.entry(cid).or_default();
                    if offsets.is_empty() {
                        wants.push((cid, u32::try_from(len).unwrap_or(NODE)));
                    }
                    offsets.push(offset);
                }
                if !wants.is_empty() {
                    seeker.want(wants).await?;
                }
            }
            if leaves.is_empty() && nodes.is_empty() {
                if walk.ended {
                    return Ok(());
                }
                walk.blocked = false;
                continue;
            }
            let block = seeker.next(PATIENCE).await?;
            let (cid, data) = block.into_parts();
            if let Some(offsets) = leaves.remove(&cid) {
                for offset in offsets {
                    asked = asked.saturating_sub(data.len());
                    let write = Write { offset, cid, block: data.clone(), bytes: data.clone() };
                    writes.send(write).await.map_err(|_| OriginError::Unavailable)?;
                }
            } else if nodes.remove(&cid) {
                walk.take_node(&Block::verified(cid, data).map_err(StoreError::from)?)?;
                walk.blocked = false;
            }
        }
    }
}

impl From<SeekError> for OriginError {
    fn from(_: SeekError) -> Self {
        Self::Unavailable
    }
}

/// Where a fetch has come to in the file's DAG.
struct Walk {
    leaves: Leaves,
    /// dag-pb blocks that have arrived and were not passed yet.
    nodes: Arc<MemoryBlocks>,
    /// Bytes of these.
    weight: usize,
    /// Leaves to ask for, by offset, with their lengths.
    known: BTreeMap<u64, (Cid, u64)>,
    /// The same by whose turn they are.
    order: BTreeSet<(usize, u64, u64)>,
    turns: Turns,
    ended: bool,
    /// Nothing more can be known before another node arrives.
    blocked: bool,
}

#[derive(Default)]
struct Found {
    /// dag-pb blocks to ask for.
    nodes: Vec<Cid>,
    /// What is on this disk already.
    here: Vec<Write>,
}

impl Walk {
    /// Steps until so many leaves are known that are not here, or `room` bytes were read that are. Inner nodes that
    /// have arrived are kept at the end, to be served on.
    fn forward(mut self, store: &Store, room: usize, ahead: usize) -> Result<(Self, Found), StoreError> {
        let nodes = Arc::clone(&self.nodes);
        let blocks = Both { store, nodes: &nodes };
        let mut found = Found::default();
        let mut bytes = 0;
        while bytes < room && self.known.len() < ahead {
            match self.leaves.next(&blocks)? {
                Step::End => {
                    self.ended = true;
                    break;
                }
                Step::Missing(first) => {
                    let mut bytes = 0_u64;
                    let fits = |(_, len): &(Cid, u64)| {
                        bytes = bytes.saturating_add(*len);
                        bytes <= NODES_AHEAD_BYTES
                    };
                    let ahead = self.leaves.pending(NODES_AHEAD).into_iter().take_while(fits);
                    let missing = ahead
                        .map(|(cid, _)| cid)
                        .filter(|cid| cid.codec() != RAW && nodes.get(cid).is_ok_and(|it| it.is_none()));
                    found.nodes = std::iter::once(first).chain(missing).collect();
                    self.blocked = true;
                    break;
                }
                Step::Leaf(leaf) => {
                    let (cid, offset) = (leaf.cid, leaf.offset);
                    let here = match leaf.form {
                        LeafForm::Inline(bytes) => Some((bytes.clone(), bytes)),
                        LeafForm::DagPb => {
                            let block = blocks.need(&cid)?;
                            let bytes = leaf_bytes(&cid, &block)?;
                            if nodes.get(&cid)?.is_some() {
                                self.weight = self.weight.saturating_sub(block.len());
                                nodes.remove(&cid);
                            }
                            Some((block, bytes))
                        }
                        LeafForm::Raw => store.get(&cid)?.map(|block| (block.clone(), block)),
                    };
                    if let Some((block, data)) = here {
                        bytes += data.len();
                        found.here.push(Write { offset, cid, block, bytes: data });
                    } else {
                        let (turn, place) = self.turns.of(&cid);
                        self.order.insert((turn, place, offset));
                        self.known.insert(offset, (cid, leaf.len));
                    }
                }
            }
        }
        if self.ended {
            // Leaves were taken out as they were passed; what is left leads to them.
            store.put_blocks(&nodes.take())?;
        }
        Ok((self, found))
    }

    fn take_node(&mut self, node: &Block) -> Result<(), OriginError> {
        self.weight += node.data().len();
        if self.weight > MAX_NODES {
            return Err(OriginError::Wrong("a file with more nodes than can be held".into()));
        }
        self.nodes.put(node);
        Ok(())
    }

    /// The next leaf to ask for: the first in the file, or the one whose turn it is.
    fn take(&mut self, first: bool) -> Option<(u64, (Cid, u64))> {
        let offset = if first { *self.known.first_key_value()?.0 } else { self.order.first()?.2 };
        let (offset, (cid, len)) = self.known.remove_entry(&offset)?;
        let (turn, place) = self.turns.of(&cid);
        self.order.remove(&(turn, place, offset));
        Some((offset, (cid, len)))
    }
}

impl Reading {
    fn begin(readers: &Arc<AtomicUsize>) -> Self {
        readers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(readers))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What has arrived, then what is on disk.
struct Both<'a> {
    store: &'a Store,
    nodes: &'a MemoryBlocks,
}

impl Blocks for Both<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        match self.nodes.get(cid)? {
            Some(data) => Ok(Some(data)),
            None => self.store.get(cid),
        }
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        match self.nodes.size(cid)? {
            Some(size) => Ok(Some(size)),
            None => self.store.size(cid),
        }
    }
}

impl Origin for Fetcher {
    fn open(
        &self,
        want: RemoteBlob,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'_, Result<BlobStream, OriginError>> {
        Box::pin(async move {
            let flight = self.join(&want).await?;
            let range = range.unwrap_or(0..flight.size);
            let reading = Reading::begin(&flight.readers);
            let end = range.end.min(flight.size);
            let mut reader = Reader { at: range.start, end, flight, _reading: reading };
            // A failure before the first byte can still be answered with a status.
            let first = reader.next().await.transpose()?;
            let size = reader.end.saturating_sub(range.start);
            let rest = stream::unfold(reader, |mut reader| async move {
                let item = reader.next().await?;
                Some((item, reader))
            });
            let body = stream::iter(first.map(Ok)).chain(rest).boxed();
            Ok(BlobStream { size, body })
        })
    }

    fn fetch(&self, want: RemoteBlob) -> BoxFuture<'_, Result<BlobFile, OriginError>> {
        Box::pin(async move {
            let flight = self.join(&want).await?;
            let mut progress = flight.progress.clone();
            let done = progress.wait_for(|progress| progress.outcome.is_some()).await;
            done.map_err(|_| OriginError::Unavailable)?
                .outcome
                .clone()
                .unwrap_or(Err(OriginError::Unavailable))?;
            let store = self.store.clone();
            let blob = off_thread(move || store.blob(&want.digest)).await??;
            blob.ok_or(OriginError::Unavailable)
        })
    }
}

/// One client's way through a blob that is arriving.
struct Reader {
    flight: Arc<Flight>,
    at: u64,
    end: u64,
    _reading: Reading,
}

impl Reader {
    /// The next bytes; `None` at the end. After an error there is nothing more.
    async fn next(&mut self) -> Option<Result<Bytes, OriginError>> {
        if self.at >= self.end {
            return None;
        }
        let (at, size) = (self.at, self.flight.size);
        let mut progress = self.flight.progress.clone();
        let ready =
            timeout(PATIENCE * 2, progress.wait_for(|now| now.outcome.is_some() || now.readable(size) > at));
        let readable = match ready.await {
            Ok(Ok(now)) => match &now.outcome {
                Some(Err(error)) => Err(error.clone()),
                _ => Ok(now.readable(size)),
            },
            _ => Err(OriginError::Unavailable),
        };
        let len = match readable {
            Ok(readable) => readable.min(self.end).saturating_sub(at).min(CHUNK),
            Err(error) => {
                self.at = self.end;
                return Some(Err(error));
            }
        };
        let file = Arc::clone(&self.flight.file);
        let read = off_thread(move || {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
            file.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes))
        });
        self.at += len;
        Some(match read.await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(StoreError::from(error).into()),
            Err(error) => Err(error),
        })
    }
}

impl Progress {
    /// The last byte waits for the verdict on all of them.
    fn readable(&self, size: u64) -> u64 {
        match self.outcome {
            Some(Ok(())) => size,
            _ => self.contiguous.min(size.saturating_sub(1)),
        }
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, OriginError> {
    blocking(work).await.map_err(|_| OriginError::Unavailable)
}
