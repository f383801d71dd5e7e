//! Makes a bundle: finds what is to go, counts it, and sends it part by part.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use sampan_node::ipns::{Record, Verified};
use sampan_node::{Audience, Name, Records};
use sampan_storage::increment::{BlobWalk, Carried, Increment, NewBlob};
use sampan_storage::{Block, BlockError, Blocks, Cid, Pin, Store, car};
use tokio::time::{Instant, sleep};

use super::description::MAX_PARTS;
use super::split::{LEAST_PART, Share, Splitter};
use super::stream::Head;
use super::{Bundles, Made, Wish, filter};
use crate::content::parse_cid;
use crate::control::{Output, Tell};
use crate::pattern::Pattern;
use crate::registry::RemoteBlob;
use crate::sync::{EAGER, blocking};

/// A root is signed behind the fold that made it, within milliseconds unless the disk is full.
const SIGNED: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Bytes that go to the command together.
const PIECE: usize = 256 * 1024;

/// What is to go. Nothing of it is collected while this lives.
struct Load {
    increment: Increment,
    pin: Pin,
}

/// The same, counted.
struct Count {
    shares: Vec<Share>,
    blocks: u64,
}

/// Blocks on their way to the command, in parts.
struct Freight {
    output: Output,
    told: Box<dyn Fn(String) + Send>,
    head: Head,
    shares: Vec<Share>,
    /// How many parts have begun.
    begun: usize,
    /// Blocks that are still to come in this one.
    left: u64,
    piece: Vec<u8>,
    sent: u64,
    total: u64,
}

impl Bundles {
    /// Sends the parts, each with its length before it. The bytes are the command's to keep.
    pub(crate) async fn create(&self, wish: Wish, output: Output, tell: Tell) -> anyhow::Result<Made> {
        let pattern = wish.repositories.as_deref().map(Pattern::of_repositories).transpose()?;
        let base = match &wish.since {
            Some(text) => Some(parse_cid(text).with_context(|| format!("{text} is no CID of a root"))?),
            None => None,
        };
        if wish.split.is_some_and(|split| split < LEAST_PART) {
            bail!("a part has at least {LEAST_PART} bytes");
        }
        // From here on no directory goes away.
        let whole = self.store.adopting().await;
        let record = self.record(wish.name.unwrap_or(self.mine)).await?;
        let root = record.cid().with_context(|| format!("{} points to no tree", record.name()))?;
        tell.tell("comparing directories".to_owned());
        let store = self.store.clone();
        let load = blocking(move || find(&store, base, root, pattern.as_ref())).await??;
        self.complete(record.name(), &load.increment, &tell).await?;
        let head = Head::new(record.clone(), root, base, &wish);
        let store = self.store.clone();
        let (blocks, bytes, parts) = blocking(move || {
            let Load { increment, pin } = load;
            let room = wish.split.map_or(u64::MAX, |split| split.saturating_sub(head.room()));
            let count = count(&store, &increment, room)?;
            let sent = send(&store, &increment, head, count, output, Box::new(move |text| tell.tell(text)))?;
            // The next increment may begin here.
            store.keep_base(root)?;
            drop((pin, whole));
            anyhow::Ok(sent)
        })
        .await??;
        Ok(Made {
            name: record.name().to_string(),
            sequence: record.sequence(),
            root: root.to_string(),
            base: base.map(|base| base.to_string()),
            repositories: wish.repositories,
            blocks,
            bytes,
            parts,
        })
    }

    /// The record that is to go along: of this registry's own names one that signs all that was pushed before.
    async fn record(&self, name: Name) -> anyhow::Result<Verified> {
        let is_members = self.members.as_ref().is_some_and(|members| members.name() == name);
        let mut least = 0;
        if name == self.mine || is_members {
            self.store.fold().await?;
            least = if is_members {
                self.store.state().sequence
            } else {
                let public = self.store.public().root();
                public.context("what everyone may have is being made; try again in a moment")?.1
            };
        }
        let deadline = Instant::now() + SIGNED;
        loop {
            let (records, of) = (Arc::clone(&self.records), name);
            let known = blocking(move || {
                let record = records.record(&of, Audience::Members)?;
                Record::decode(record).and_then(|record| record.verify_signature(&of)).ok()
            });
            match known.await? {
                Some(record) if record.sequence() >= least => {
                    if let Some(target) = record.target() {
                        bail!("{name} has moved to {target}; give that name");
                    }
                    return Ok(record);
                }
                None if name != self.mine && !is_members => {
                    bail!("{name} is neither this registry's own nor one whose tree is here; follow it first")
                }
                _ if Instant::now() >= deadline => {
                    bail!("the newest root is not signed yet; see the registry's log, and try again")
                }
                _ => sleep(POLL).await,
            }
        }
    }

    /// Brings blobs that a followed tree names and nobody has pulled here.
    async fn complete(&self, name: &Name, increment: &Increment, tell: &Tell) -> anyhow::Result<()> {
        for blob in increment.blobs() {
            let (store, digest) = (self.store.clone(), blob.digest);
            if blocking(move || store.blob(&digest)).await??.is_some() {
                continue;
            }
            tell.tell(format!("fetching {digest}"));
            let want =
                RemoteBlob { tree: name.to_string(), digest, entry: blob.entry.clone(), size: blob.size };
            let fetched = self.origin.fetch(want).await;
            fetched.with_context(|| {
                format!("the blob {digest} is not here, and a bundle has all that its repositories name")
            })?;
        }
        Ok(())
    }
}

/// All of it without a registry around it: finds, counts and sends. Returns blocks, bytes and parts.
#[cfg(test)]
pub(super) fn pack(
    store: &Store,
    base: Option<Cid>,
    head: Head,
    room: u64,
    output: Output,
) -> anyhow::Result<(u64, u64, u32)> {
    let load = find(store, base, head.root, None)?;
    let count = count(store, &load.increment, room)?;
    send(store, &load.increment, head, count, output, Box::new(|_| {}))
}

fn find(store: &Store, base: Option<Cid>, root: Cid, pattern: Option<&Pattern>) -> anyhow::Result<Load> {
    if let Some(base) = base.filter(|base| !store.size(base).is_ok_and(|size| size.is_some())) {
        bail!("the directories of {base} are not here, so what came since cannot be told; leave --since out");
    }
    let mut increment = match Increment::find(store, base, root, EAGER) {
        Err(BlockError::Missing(cid)) => {
            bail!(
                "the block {cid} is not here; `sampan verify` says what is missing, and without --since less is needed"
            )
        }
        found => found?,
    };
    if let Some(pattern) = pattern {
        let chosen = filter(store, root, pattern)?;
        increment.retain_blobs(|blob| chosen.contains(&blob.digest));
    }
    let pin = store.pin(increment.blobs().iter().map(|blob| blob.digest).collect());
    Ok(Load { increment, pin })
}

/// Reads no leaf: directories say how long they are.
fn count(store: &Store, increment: &Increment, room: u64) -> anyhow::Result<Count> {
    let mut splitter = Splitter::new(room);
    let mut shares = Vec::new();
    let mut blocks = 0;
    let mut tree = increment.walk();
    while let Some((cid, data)) = tree.next(store)? {
        blocks += 1;
        shares.extend(splitter.take(section(&cid, data.len() as u64), true));
    }
    for blob in increment.blobs() {
        let mut lengths = Vec::new();
        carry(store, blob, &mut |carried| {
            lengths.push(match carried {
                Carried::Node(cid, data) => section(&cid, data.len() as u64),
                Carried::Leaf(leaf) => section(&leaf.cid, leaf.len),
            });
            Ok(())
        })?;
        blocks += lengths.len() as u64;
        shares.extend(splitter.begin_blob(lengths.iter().sum()));
        for bytes in lengths {
            shares.extend(splitter.take(bytes, false));
        }
    }
    shares.push(splitter.finish());
    if shares.len() > MAX_PARTS as usize {
        bail!("that makes {} parts, and a bundle has {MAX_PARTS} at most; make them larger", shares.len());
    }
    Ok(Count { shares, blocks })
}

/// Returns blocks, bytes and parts.
fn send(
    store: &Store,
    increment: &Increment,
    head: Head,
    count: Count,
    output: Output,
    told: Box<dyn Fn(String) + Send>,
) -> anyhow::Result<(u64, u64, u32)> {
    let Count { shares, blocks } = count;
    let total = shares.iter().map(|share| share.bytes).sum();
    let mut freight =
        Freight { output, told, head, shares, begun: 0, left: 0, piece: Vec::new(), sent: 0, total };
    freight.begin()?;
    let mut tree = increment.walk();
    while let Some((cid, data)) = tree.next(store)? {
        // What lies on the disk may have changed by itself; whoever applies it would find out too late.
        freight.block(&checked(cid, data)?)?;
    }
    for blob in increment.blobs() {
        let gone = || format!("the blob {} is not here any more", blob.digest);
        let file = store.blob(&blob.digest)?.with_context(gone)?;
        carry(store, blob, &mut |carried| match carried {
            Carried::Node(cid, data) => freight.block(&checked(cid, data)?),
            Carried::Leaf(leaf) => {
                let mut data = vec![0; usize::try_from(leaf.len)?];
                file.file().read_exact_at(&mut data, leaf.offset)?;
                freight.block(&checked(leaf.cid, data.into())?)
            }
        })?;
    }
    let bytes = freight.finish()?;
    Ok((blocks, bytes.0, bytes.1))
}

fn carry(
    store: &Store,
    blob: &NewBlob,
    visit: &mut dyn FnMut(Carried) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut walk = BlobWalk::new(blob);
    loop {
        let carried = walk.next(store)?;
        if carried.is_empty() {
            return Ok(());
        }
        carried.into_iter().try_for_each(&mut *visit)?;
    }
}

fn checked(cid: Cid, data: Bytes) -> anyhow::Result<Block> {
    Block::verified(cid, data).with_context(|| {
        format!("the block {cid} is damaged on this disk; `sampan verify --repair`, and try again")
    })
}

/// Bytes that a block takes with its framing.
fn section(cid: &Cid, length: u64) -> u64 {
    let length = usize::try_from(length).unwrap_or(usize::MAX / 2);
    (car::section_head(cid, length).len() + length) as u64
}

impl Freight {
    fn block(&mut self, block: &Block) -> anyhow::Result<()> {
        if self.left == 0 {
            self.begin()?;
        }
        self.left = self.left.saturating_sub(1);
        let before = self.sent;
        self.put(&car::section_head(block.cid(), block.data().len()))?;
        self.put(block.data())?;
        let mib = |bytes: u64| bytes / (1024 * 1024);
        if mib(before) != mib(self.sent) {
            (self.told)(format!("{} of {} MiB", mib(self.sent), mib(self.total)));
        }
        Ok(())
    }

    /// Begins the next part: its length, and its head.
    fn begin(&mut self) -> anyhow::Result<()> {
        let share = *self.shares.get(self.begun).context("there are more blocks than were counted")?;
        self.begun += 1;
        let tree_left = self.shares.iter().skip(self.begun).map(|share| share.tree).sum();
        let (part, parts) = (u32::try_from(self.begun)?, u32::try_from(self.shares.len())?);
        let head = self.head.encode(part, parts, &share, tree_left)?;
        let length = head.len() as u64 + share.bytes;
        self.left = share.tree + share.blobs;
        self.flush()?;
        self.output.send_blocking(Bytes::copy_from_slice(&length.to_be_bytes()))?;
        self.put(&head)
    }

    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.piece.extend_from_slice(bytes);
        self.sent += bytes.len() as u64;
        if self.piece.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.piece.is_empty() {
            Ok(())
        } else {
            self.output.send_blocking(std::mem::take(&mut self.piece).into())
        }
    }

    /// Returns bytes and parts.
    fn finish(mut self) -> anyhow::Result<(u64, u32)> {
        self.flush()?;
        if self.left > 0 || self.begun < self.shares.len() {
            bail!("there are fewer blocks than were counted");
        }
        Ok((self.sent, u32::try_from(self.begun)?))
    }
}
