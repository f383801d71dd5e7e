//! Parts on their way through the control socket, one behind the other, each with its length before it; and what is
//! read of them: every block is checked against its CID, every part against its description.

use std::io::{BufReader, Read, Take};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use sampan_node::ipns::{MAX_RECORD, Record, Verified};
use sampan_storage::block::{RAW, cid_of};
use sampan_storage::car::{self, CarError, Reader};
use sampan_storage::{Block, Cid};

use super::description::{Description, VERSION};
use super::split::Share;
use super::{MAX_DESCRIPTION, Wish};

/// Instead of a length: all that comes.
pub(crate) const WHOLE: u64 = u64::MAX;
/// What is read at once of a part.
const BUFFER: usize = 256 * 1024;

/// What stands before the sections of each part.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) record: Verified,
    pub(super) root: Cid,
    pub(super) base: Option<Cid>,
    pub(super) repositories: Option<String>,
}

/// The head of a part that was read.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) description: Description,
    pub(super) record: Verified,
}

/// One part that is being read.
pub(super) struct Part<R> {
    reader: Reader<BufReader<Take<R>>>,
    /// What it is called in messages.
    name: String,
    left: u64,
}

impl Head {
    pub(super) fn new(record: Verified, root: Cid, base: Option<Cid>, wish: &Wish) -> Self {
        Self { record, root, base, repositories: wish.repositories.clone() }
    }

    /// Bytes that it takes at most.
    pub(super) fn room(&self) -> u64 {
        let description = MAX_DESCRIPTION + 64;
        (car::header(&self.roots()).len() + description + self.record_section().len()) as u64
    }

    /// The first bytes of a part.
    pub(super) fn encode(
        &self,
        part: u32,
        parts: u32,
        share: &Share,
        tree_left: u64,
    ) -> anyhow::Result<Vec<u8>> {
        let description = Description {
            version: VERSION,
            name: *self.record.name(),
            sequence: self.record.sequence(),
            root: self.root,
            base: self.base,
            record: self.record_cid(),
            repositories: self.repositories.clone(),
            part,
            parts,
            continues: share.continues,
            tree: share.tree,
            tree_left,
            blobs: share.blobs,
        };
        let description = Block::new(RAW, Bytes::from(description.encode()?));
        let mut out = car::header(&self.roots());
        car::write_section(&mut out, description.cid(), description.data());
        out.extend(self.record_section());
        Ok(out)
    }

    /// What whoever imports it pins.
    fn roots(&self) -> [Cid; 2] {
        [self.root, self.record_cid()]
    }

    fn record_cid(&self) -> Cid {
        cid_of(RAW, self.record.bytes())
    }

    fn record_section(&self) -> Vec<u8> {
        car::section(&self.record_cid(), self.record.bytes())
    }
}

impl<R: Read> Part<R> {
    /// Reads up to the first block. `input` gives the bytes of this part and no more.
    pub(super) fn open(input: Take<R>, name: String) -> anyhow::Result<(Self, Opening)> {
        let reader = Reader::new(BufReader::with_capacity(BUFFER, input))
            .map_err(|error| anyhow!("{name} is no bundle: {error}"))?;
        let mut part = Self { reader, name, left: 0 };
        let opening = part.head().with_context(|| format!("{} cannot be taken", part.name))?;
        part.left = opening.description.tree.saturating_add(opening.description.blobs);
        Ok((part, opening))
    }

    /// The next block; `None` when all that were announced have come, and nothing more.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Block>> {
        let block = self.section()?;
        match (&block, self.left) {
            (Some(_), 0) => bail!("{} has more blocks than it says", self.name),
            (None, 1..) => bail!("{} is cut off: {} blocks are missing at its end", self.name, self.left),
            (Some(_), _) => self.left -= 1,
            (None, 0) => {}
        }
        Ok(block)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn head(&mut self) -> anyhow::Result<Opening> {
        let first = self.section()?.context("it is empty")?;
        let description = Description::parse(first.data())?;
        let second = self.section()?.context("it has no record")?;
        if *second.cid() != description.record || second.data().len() > MAX_RECORD {
            bail!("it has no record");
        }
        let record = Record::decode(second.data().clone())
            .and_then(|record| record.verify_signature(&description.name))
            .with_context(|| format!("its record is not signed by {}", description.name))?;
        let agrees = record.cid() == Some(description.root) && record.sequence() == description.sequence;
        if !agrees {
            bail!("its record does not sign the root that it is said to bring");
        }
        if self.reader.roots() != [description.root, description.record] {
            bail!("its header names other roots than its description");
        }
        Ok(Opening { description, record })
    }

    fn section(&mut self) -> anyhow::Result<Option<Block>> {
        let at = self.reader.position();
        let section = self.reader.next_section().map_err(|error| match error {
            CarError::Truncated { at } => anyhow!("{} is cut off after byte {at}", self.name),
            CarError::Io(error) => anyhow!("{} cannot be read: {error}", self.name),
            CarError::Malformed { at, reason } => {
                anyhow!("{} is damaged at byte {at}: {reason}", self.name)
            }
        })?;
        let Some(section) = section else { return Ok(None) };
        let block = Block::verified(section.cid, section.data)
            .map_err(|error| anyhow!("{} is damaged at byte {at}: {error}", self.name))?;
        Ok(Some(block))
    }
}

impl<R> std::fmt::Debug for Part<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("name", &self.name).field("left", &self.left).finish_non_exhaustive()
    }
}

/// What a file says of itself, as far as its beginning can be read.
pub(crate) fn peek(input: impl Read) -> Option<Description> {
    let mut reader = Reader::new(BufReader::new(input)).ok()?;
    let first = reader.next_section().ok()??;
    Description::parse(&first.data).ok()
}
