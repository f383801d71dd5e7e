//! Takes the parts of a bundle in, block by block. What came stays; nothing of it is visible before the root is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;

use anyhow::{Context, anyhow, bail};
use sampan_storage::dag::file::read_all;
use sampan_storage::increment::{BlobOrder, Increment, NewBlob, TreeOrder};
use sampan_storage::{
    Algorithm, Block, BlockError, Cid, Partial, Pin, Store, StoreError, Survey, layout, tree,
};

use super::description::Description;
use super::filter;
use super::stream::{Opening, Part};
use crate::pattern::Pattern;
use crate::sync::EAGER;

/// Bytes of blocks put down together.
const BATCH: usize = 4 * 1024 * 1024;

/// How the registry stands to what is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// The root of the name that is read now.
    pub(super) current: Option<Cid>,
    /// It is my own name, and my tree is empty: it becomes my tree again.
    pub(super) restores: bool,
}

/// What has been taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) opening: Opening,
    pub(super) restores: bool,
    /// All that the bundle brings is here.
    pub(super) whole: bool,
    /// Nothing of it was new.
    pub(super) present: bool,
    pub(super) lacking: u64,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    pub(super) blobs: u64,
    /// Keeps the blobs until the root that names them is read.
    pub(super) pins: Vec<Pin>,
}

/// Everything that is known between two blocks.
struct Intake<'a> {
    store: &'a Store,
    told: &'a dyn Fn(String),
    description: Description,
    restores: bool,
    seen: BTreeSet<u32>,
    last: u32,
    tree: TreeOrder,
    batch: Vec<Block>,
    waiting: usize,
    cargo: Option<Cargo>,
    open: Option<Open>,
    blocks: u64,
    bytes: u64,
    blobs: u64,
}

/// The blobs that the bundle has, known when its tree is here.
struct Cargo {
    blobs: Vec<NewBlob>,
    tops: HashMap<Cid, Vec<usize>>,
    pin: Pin,
}

/// The blob that is coming.
struct Open {
    blob: NewBlob,
    order: BlobOrder,
    /// `None` where it is here already.
    partial: Option<Partial>,
}

/// Reads parts from `input`, as many as there are names. `stand` looks at what the first of them says, and refuses what is
/// not for this registry. Blocks.
pub(super) fn run(
    store: &Store,
    mut input: impl Read,
    names: &[String],
    stand: &dyn Fn(&Opening) -> anyhow::Result<Standing>,
    told: &dyn Fn(String),
) -> anyhow::Result<Taken> {
    let mut begun: Option<(Intake<'_>, Opening)> = None;
    for name in names {
        let mut length = [0; 8];
        input.read_exact(&mut length).with_context(|| format!("{name} cannot be read"))?;
        let length = u64::from_be_bytes(length);
        let (mut part, opening) = Part::open(input.by_ref().take(length), name.clone())?;
        let description = opening.description.clone();
        let (intake, _) = if let Some(begun) = &mut begun {
            begun
        } else {
            let standing = stand(&opening)?;
            let mut intake = Intake::new(store, told, &description);
            intake.restores = standing.restores;
            if standing.current == Some(description.root) && intake.is_all_here()? {
                return Ok(Taken { present: true, ..intake.end(opening)? });
            }
            begun.insert((intake, opening))
        };
        intake.part(&mut part, &description)?;
    }
    let (intake, opening) = begun.context("there is no file")?;
    intake.end(opening)
}

impl<'a> Intake<'a> {
    fn new(store: &'a Store, told: &'a dyn Fn(String), description: &Description) -> Self {
        Self {
            store,
            told,
            description: description.clone(),
            restores: false,
            seen: BTreeSet::new(),
            last: 0,
            tree: TreeOrder::new(description.root),
            batch: Vec::new(),
            waiting: 0,
            cargo: None,
            open: None,
            blocks: 0,
            bytes: 0,
            blobs: 0,
        }
    }

    /// One part, to its end.
    fn part<R: Read>(&mut self, part: &mut Part<R>, description: &Description) -> anyhow::Result<()> {
        let (name, number) = (part.name().to_owned(), description.part);
        if !description.is_of(&self.description) {
            bail!("{name} is a part of another bundle");
        }
        if !self.seen.insert(number) {
            bail!("{name} is part {number} once more");
        }
        let before = number.saturating_sub(1);
        if description.continues && self.last != before {
            bail!("{name} goes on where part {before} ends; give both to one command");
        }
        if !description.continues && self.open.is_some() {
            bail!("{name} does not go on where part {} ends", self.last);
        }
        self.last = number;
        let place = |block: &Block| format!("{name} is damaged at the block {}", block.cid());
        for _ in 0..description.tree {
            let Some(block) = part.next()? else { break };
            self.tree.take(&block).with_context(|| place(&block))?;
            self.count(&block);
            self.waiting += block.data().len();
            self.batch.push(block);
            if self.waiting >= BATCH {
                self.flush()?;
            }
        }
        if description.tree_left == 0 && self.cargo.is_none() {
            self.flush()?;
            self.cargo = Some(self.plan()?);
        }
        while let Some(block) = part.next()? {
            self.of_blob(&block).with_context(|| place(&block))?;
            self.count(&block);
        }
        Ok(())
    }

    /// A block of a blob: of the one that has begun, or the first of another.
    fn of_blob(&mut self, block: &Block) -> anyhow::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(block)?,
        };
        let partial = &mut open.partial;
        open.order.take(block, &mut |piece| match partial {
            Some(partial) => Ok(partial.write(piece.offset, &piece.cid, &piece.block, &piece.bytes)?),
            None => Ok::<_, anyhow::Error>(()),
        })?;
        if open.order.awaits().is_some() {
            self.open = Some(open);
            return Ok(());
        }
        if let Some(partial) = open.partial {
            self.store.put_blocks(&open.order.nodes())?;
            partial.finish(&open.blob.entry.cid)?;
            self.blobs += 1;
        }
        Ok(())
    }

    fn begin(&self, block: &Block) -> anyhow::Result<Open> {
        let cargo = self.cargo.as_ref().context("it comes before the tree is whole")?;
        let at = cargo.tops.get(block.cid()).context("it has no place in this bundle")?;
        let mut candidates = at.iter().filter_map(|at| cargo.blobs.get(*at));
        // Where equal bytes have two digests, the one that is not here.
        let mut chosen = None;
        for blob in candidates.by_ref() {
            let is_here = self.store.blob(&blob.digest)?.is_some();
            chosen = Some((blob, is_here));
            if !is_here {
                break;
            }
        }
        let (blob, is_here) = chosen.context("it has no place in this bundle")?;
        let partial = if is_here {
            None
        } else {
            self.check_space(blob.size)?;
            Some(self.store.begin_partial(&blob.digest, blob.size)?)
        };
        Ok(Open { blob: blob.clone(), order: BlobOrder::new(blob)?, partial })
    }

    /// What the bundle has to bring beside the tree, which must be here.
    fn plan(&self) -> anyhow::Result<Cargo> {
        let Description { base, root, part, parts, .. } = &self.description;
        let increment = Increment::find(self.store, *base, *root, EAGER).map_err(|error| match error {
            BlockError::Missing(_) if *part > 1 && !self.seen.contains(&1) => {
                anyhow!("part 1 of {parts} comes first: without it nobody knows what the others hold")
            }
            BlockError::Missing(cid) => match base {
                Some(base) => anyhow!(
                    "it builds on the root {base}, which is not whole here (the block {cid} is missing): apply the bundle that leads to that root first"
                ),
                None => anyhow!("the bundle lacks the block {cid}: make it again"),
            },
            other => other.into(),
        })?;
        let mut increment = increment;
        if let Some(pattern) = &self.description.repositories {
            let pattern =
                Pattern::of_repositories(pattern).context("its choice of repositories cannot be read")?;
            let chosen: HashSet<_> = filter(self.store, *root, &pattern)?;
            increment.retain_blobs(|blob| chosen.contains(&blob.digest));
        }
        let blobs = increment.blobs().to_vec();
        let mut tops: HashMap<Cid, Vec<usize>> = HashMap::new();
        for (at, blob) in blobs.iter().enumerate() {
            tops.entry(blob.entry.cid).or_default().push(at);
        }
        let pin = self.store.pin(blobs.iter().map(|blob| blob.digest).collect());
        Ok(Cargo { blobs, tops, pin })
    }

    /// Blobs that came with the tree become files, as those of my own tree are.
    fn small(&self) -> anyhow::Result<Vec<Pin>> {
        let mut pins = Vec::new();
        let survey = Survey::new(self.store, self.description.root);
        for algorithm in Algorithm::ALL {
            for fan_out in 0..=u8::MAX {
                for digest in survey.blobs(algorithm, fan_out)? {
                    pins.push(self.store.pin(vec![digest]));
                    if self.store.blob(&digest)?.is_some() {
                        continue;
                    }
                    let path = layout::blob(&digest);
                    let entry = tree::lookup(self.store, &self.description.root, &path)?
                        .with_context(|| format!("{path} has no content"))?;
                    let bytes = read_all(self.store, &entry.cid, EAGER)?;
                    let stored = self.store.put_blob(algorithm, &bytes)?;
                    if stored.digest != digest {
                        bail!("the bytes of {digest} have another digest");
                    }
                }
            }
        }
        Ok(pins)
    }

    /// Whether there is nothing to be taken.
    fn is_all_here(&mut self) -> anyhow::Result<bool> {
        if let Ok(cargo) = self.plan() {
            self.cargo = Some(cargo);
            return Ok(self.lacking()? == 0);
        }
        Ok(false)
    }

    /// Blobs that are not here yet.
    fn lacking(&self) -> Result<u64, StoreError> {
        let mut lacking = 0;
        for blob in self.cargo.iter().flat_map(|cargo| &cargo.blobs) {
            lacking += u64::from(self.store.blob(&blob.digest)?.is_none());
        }
        Ok(lacking)
    }

    fn count(&mut self, block: &Block) {
        const MIB: u64 = 1024 * 1024;
        let before = self.bytes / MIB;
        self.blocks += 1;
        self.bytes += block.data().len() as u64;
        if self.bytes / MIB != before {
            (self.told)(format!("{} MiB checked, {} blobs kept", self.bytes / MIB, self.blobs));
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.check_space(self.waiting as u64)?;
        self.store.put_blocks(&self.batch)?;
        self.batch.clear();
        self.waiting = 0;
        Ok(())
    }

    /// What a bundle brings leaves the same room free as what is pushed.
    fn check_space(&self, bytes: u64) -> Result<(), StoreError> {
        let space = self.store.space()?;
        if space.free < space.reserve.saturating_add(bytes) {
            return Err(StoreError::Full { free: space.free, reserve: space.reserve });
        }
        Ok(())
    }

    fn end(mut self, opening: Opening) -> anyhow::Result<Taken> {
        self.flush()?;
        self.store.sync_blocks()?;
        let lacking = self.lacking()?;
        let whole = self.cargo.is_some() && lacking == 0;
        if !whole && self.seen.len() == self.description.parts as usize {
            bail!("the bundle lacks {lacking} of its blobs: make it again");
        }
        let small = if whole && self.restores { self.small()? } else { Vec::new() };
        let Self { blocks, bytes, blobs, cargo, restores, .. } = self;
        let pins = cargo.into_iter().map(|cargo| cargo.pin).chain(small).collect();
        Ok(Taken { opening, restores, whole, present: false, lacking, blocks, bytes, blobs, pins })
    }
}
