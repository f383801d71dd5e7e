//! Content by CID, path and name, without HTTP: what lies here, and what peers give where that is allowed.
//!
//! It serves what the gateway, delegated routing and the commands for content ask for. Who may ask is not decided here.

mod address;
mod dns;
mod dnslink;
mod domain;
mod error;
mod keep;
mod names;
mod network;
mod reader;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use sampan_storage::dag::path::{Resolved, resolve};
use sampan_storage::dag::walk::{Scope, Step, Walk};
use sampan_storage::{Block, BlockError, Blocks, Cid, MemoryBlocks, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use address::{Address, Root};
pub(crate) use dns::{Dns, Server as DnsServer};
#[cfg(any(fuzzing, test))]
pub(crate) use dnslink::fuzz;
pub(crate) use dnslink::{Domains, LinkError, RETRY as ASK_AGAIN};
pub(crate) use domain::{Domain, Pointer};
pub(crate) use error::ContentError;
pub(crate) use keep::{Imported, PinRoots, as_car};
pub(crate) use names::{Names, PutError, age, left};
pub(crate) use network::{Network, Node};
pub(crate) use reader::{Kind, Stat};

/// Walks at once, with what each may remember: a board serves no more of them any faster.
const MAX_WALKS: usize = 3;
/// Blocks that a walk tells apart so that each comes once; 128 GiB in leaves of 1 MiB, and some 5 MiB of memory.
const TOLD_APART: usize = 128 * 1024;
/// Bytes read before they are handed on; one block more is read always.
const BATCH: usize = 256 * 1024;
/// Blocks asked for together from peers, each of 2 MiB at most.
const AHEAD: usize = 16;
/// Blocks of one path that peers are asked for: the names of a path, and some shards of each.
const MAX_BROUGHT: usize = 512;

/// Letters of a CID: with SHA-512 in base32 some 110, and identity CIDs up to 128 bytes.
const MAX_CID: usize = 256;

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct Content {
    store: Store,
    /// What may be read of it.
    blocks: Arc<dyn Blocks>,
    /// Whom to ask for what is not here; `None` where nobody may be asked.
    network: Option<Arc<dyn Network>>,
    walks: Arc<Semaphore>,
}

/// Blocks with their CIDs.
pub(crate) type BlockStream = BoxStream<'static, Result<(Cid, Bytes), ContentError>>;

/// Where bytes may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// From this disk alone.
    Here,
    /// From peers too, where the configuration allows it.
    Anywhere,
}

/// Blocks that were read together; an error is the last.
type Batch = Vec<Result<(Cid, Bytes), ContentError>>;

/// A walk on its way, and the blocks that peers gave for it.
struct Walking {
    content: Content,
    reach: Reach,
    walk: Walk,
    brought: MemoryBlocks,
    /// What stopped the walk; it is brought before the walk goes on.
    missing: Option<Cid>,
    _permit: OwnedSemaphorePermit,
}

/// Blocks of this disk, then those that peers gave just now.
struct Both<'a>(&'a dyn Blocks, &'a MemoryBlocks);

impl Content {
    pub(crate) fn new(store: Store, network: Option<Arc<dyn Network>>) -> Self {
        let blocks = Arc::new(store.clone());
        Self { store, blocks, network, walks: Arc::new(Semaphore::new(MAX_WALKS)) }
    }

    /// Of this disk only what everyone may have. Where that is not all, nobody is asked for the rest: what this node
    /// gets of others is not for everyone either.
    pub(crate) fn for_strangers(store: Store, network: Option<Arc<dyn Network>>) -> Self {
        let blocks = Arc::new(store.public());
        let network = network.filter(|_| !store.is_divided());
        Self { blocks, ..Self::new(store, network) }
    }

    /// Whether the block is on this disk.
    pub(crate) async fn has(&self, cid: Cid) -> Result<bool, ContentError> {
        let blocks = Arc::clone(&self.blocks);
        Ok(off_thread(move || blocks.size(&cid)).await??.is_some())
    }

    /// One block.
    pub(crate) async fn block(&self, cid: Cid, reach: Reach) -> Result<Bytes, ContentError> {
        let blocks = Arc::clone(&self.blocks);
        if let Some(data) = off_thread(move || blocks.get(&cid)).await?? {
            return Ok(data);
        }
        let brought = self.bring(cid, Vec::new(), reach).await?;
        let found = brought.into_iter().find(|block| block.cid().hash() == cid.hash());
        found.map(|block| block.into_parts().1).ok_or(ContentError::Missing(cid))
    }

    /// Follows a path. Where it ends need not be here.
    pub(crate) async fn find(
        &self,
        root: Cid,
        names: Vec<String>,
        reach: Reach,
    ) -> Result<Resolved, ContentError> {
        let (names, brought) = (Arc::new(names), Arc::new(MemoryBlocks::default()));
        loop {
            let (blocks, names, held) = (Arc::clone(&self.blocks), Arc::clone(&names), Arc::clone(&brought));
            let found = off_thread(move || resolve(&Both(blocks.as_ref(), &held), &root, &names)).await?;
            match found {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => return Err(ContentError::NoPath),
                Err(BlockError::Missing(cid)) if brought.len() < MAX_BROUGHT => {
                    self.bring(cid, Vec::new(), reach).await?.iter().for_each(|block| brought.put(block));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Blocks in the order of a CAR. Nothing is read before somebody asks for it, and nothing when the stream is
    /// dropped. The first error ends it.
    pub(crate) fn walk(
        &self,
        found: &Resolved,
        scope: Scope,
        repeats: bool,
        reach: Reach,
    ) -> Result<BlockStream, ContentError> {
        let permit = Arc::clone(&self.walks).try_acquire_owned().map_err(|_| ContentError::Busy)?;
        let walking = Walking {
            content: self.clone(),
            reach,
            walk: Walk::new(found, scope, (!repeats).then_some(TOLD_APART)),
            brought: MemoryBlocks::default(),
            missing: None,
            _permit: permit,
        };
        let batches = stream::unfold(Some(walking), |walking| async move {
            let (batch, next) = walking?.step().await;
            Some((batch, next))
        });
        Ok(batches.flat_map(stream::iter).boxed())
    }

    /// Blocks from peers: the first, and such of the others as come along.
    async fn bring(&self, cid: Cid, others: Vec<Cid>, reach: Reach) -> Result<Vec<Block>, ContentError> {
        let network = self.network.as_ref().filter(|_| reach == Reach::Anywhere);
        let network = network.ok_or(ContentError::Missing(cid))?;
        let blocks = network.bring(std::iter::once(cid).chain(others).collect()).await;
        if blocks.iter().any(|block| block.cid().hash() == cid.hash()) {
            Ok(blocks)
        } else {
            Err(ContentError::Timeout(cid))
        }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Walking {
    /// The next blocks, or why there are none; and the walk, unless it is over.
    async fn step(mut self) -> (Batch, Option<Self>) {
        let brought = match self.missing.take() {
            Some(cid) => self.bring(cid).await,
            None => Ok(()),
        };
        if let Err(error) = brought {
            return (vec![Err(error)], None);
        }
        let read = off_thread(move || {
            let mut batch = Vec::new();
            let goes_on = self.read(&mut batch);
            (batch, goes_on.then_some(self))
        });
        read.await.unwrap_or_else(|error| (vec![Err(error)], None))
    }

    async fn bring(&mut self, cid: Cid) -> Result<(), ContentError> {
        let ahead: Vec<Cid> = self.walk.ahead(AHEAD).filter(|other| *other != cid).collect();
        let here = Arc::clone(&self.content.blocks);
        let absent = move || {
            let is_absent = |cid: &Cid| !here.size(cid).is_ok_and(|size| size.is_some());
            ahead.into_iter().filter(is_absent).collect()
        };
        let others = if self.reach == Reach::Anywhere { off_thread(absent).await? } else { Vec::new() };
        let blocks = self.content.bring(cid, others, self.reach).await?;
        // Those before have been passed; one that is met again is asked for again.
        self.brought = MemoryBlocks::default();
        for block in &blocks {
            self.brought.put(block);
        }
        Ok(())
    }

    /// Reads a batch. Returns whether there is more.
    fn read(&mut self, batch: &mut Batch) -> bool {
        let blocks = Both(self.content.blocks.as_ref(), &self.brought);
        let mut bytes = 0;
        while bytes < BATCH {
            match self.walk.next(&blocks) {
                Ok(Step::Block(cid, data)) => {
                    bytes += data.len();
                    batch.push(Ok((cid, data)));
                }
                Ok(Step::Missing(cid)) => {
                    self.missing = Some(cid);
                    return true;
                }
                Ok(Step::End) => return false,
                Err(error) => {
                    batch.push(Err(error.into()));
                    return false;
                }
            }
        }
        true
    }
}

impl Blocks for Both<'_> {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        let here = self.0.get(cid)?;
        here.map_or_else(|| self.1.get(cid), |data| Ok(Some(data)))
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        let here = self.0.size(cid)?;
        here.map_or_else(|| self.1.size(cid), |size| Ok(Some(size)))
    }
}

/// A CID as people and clients write it; longer text costs time to decode.
pub(crate) fn parse_cid(text: &str) -> Option<Cid> {
    if text.len() > MAX_CID { None } else { text.parse().ok() }
}

/// A disk operation off the async threads.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ContentError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ContentError::Stopping)
}
