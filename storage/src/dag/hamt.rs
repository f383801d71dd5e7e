//! A directory as a trie of shards: look-ups, walks, and changes that touch only the shards on their paths.

use std::ops::ControlFlow;

use cid::Cid;

use super::directory::{Entries, Entry, entry_len};
use super::pb;
use super::shard::{Fanout, Position, Shard, Slot, follow};
use crate::block::{BlockError, Blocks};

/// Loads one shard a level, as far as the name's path goes.
pub(super) fn lookup(
    blocks: &dyn Blocks,
    root: &Cid,
    fanout: Fanout,
    name: &str,
) -> Result<Option<Entry>, BlockError> {
    let (mut cid, mut position) = (*root, Position::root(fanout));
    loop {
        let block = blocks.need(&cid)?;
        let next = pb::View::parse(&block).and_then(|view| follow(position, &view, name));
        match next.map_err(|malformed| malformed.at(&cid))? {
            Some((Slot::Entry(entry), _)) => return Ok(Some(entry)),
            Some((Slot::Stored { cid: below, .. }, at)) => (cid, position) = (below, at),
            _ => return Ok(None),
        }
    }
}

/// Visits every entry, in the order of their hashes.
pub(super) fn for_each(
    blocks: &dyn Blocks,
    root: &Cid,
    fanout: Fanout,
    visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, BlockError> {
    Shard::load(blocks, root, Position::root(fanout))?.for_each(blocks, visit)
}

impl Shard {
    pub(super) fn load(blocks: &dyn Blocks, cid: &Cid, position: Position) -> Result<Self, BlockError> {
        Self::decode(position, cid, &blocks.need(cid)?)
    }

    pub(super) fn for_each(
        &self,
        blocks: &dyn Blocks,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, BlockError> {
        for (bucket, slot) in &self.slots {
            let flow = match slot {
                Slot::Entry(entry) => visit(entry.clone()),
                Slot::Loaded(shard) => shard.for_each(blocks, visit)?,
                Slot::Stored { cid, .. } => {
                    let position = self.position.below(*bucket).map_err(|malformed| malformed.at(cid))?;
                    Self::load(blocks, cid, position)?.for_each(blocks, visit)?
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Puts an entry in its place and returns the one that stood there under the same name.
    pub(crate) fn insert(&mut self, blocks: &dyn Blocks, entry: Entry) -> Result<Option<Entry>, BlockError> {
        let bucket = self.position.bucket(&entry.name);
        self.load_below(blocks, bucket)?;
        match self.slots.get_mut(&bucket) {
            Some(Slot::Loaded(shard)) => return shard.insert(blocks, entry),
            Some(Slot::Entry(there)) if there.name == entry.name => {
                return Ok(Some(std::mem::replace(there, entry)));
            }
            _ => {}
        }
        let slot = match self.slots.remove(&bucket) {
            // Two names meet in a bucket: both move down, until their hashes part.
            Some(Slot::Entry(there)) => {
                let position = self.position.below(bucket).map_err(|malformed| malformed.at(&entry.cid))?;
                let mut shard = Self::new(position);
                shard.insert(blocks, there)?;
                shard.insert(blocks, entry)?;
                Slot::Loaded(Box::new(shard))
            }
            _ => Slot::Entry(entry),
        };
        self.slots.insert(bucket, slot);
        Ok(None)
    }

    /// Takes an entry out. A shard that is left with one entry gives it to the one above, so that the trie is the
    /// same as if the entry had never been there.
    pub(super) fn remove(&mut self, blocks: &dyn Blocks, name: &str) -> Result<Option<Entry>, BlockError> {
        let bucket = self.position.bucket(name);
        self.load_below(blocks, bucket)?;
        match self.slots.get_mut(&bucket) {
            Some(Slot::Loaded(shard)) => {
                let old = shard.remove(blocks, name)?;
                match shard.slots.first_key_value() {
                    None => {
                        self.slots.remove(&bucket);
                    }
                    Some((_, Slot::Entry(last))) if shard.slots.len() == 1 => {
                        let last = Slot::Entry(last.clone());
                        self.slots.insert(bucket, last);
                    }
                    _ => {}
                }
                Ok(old)
            }
            Some(Slot::Entry(there)) if there.name == name => {
                let old = there.clone();
                self.slots.remove(&bucket);
                Ok(Some(old))
            }
            _ => Ok(None),
        }
    }

    /// All entries, or `None` as soon as they are more than a basic directory may hold.
    pub(super) fn entries_within(
        &self,
        blocks: &dyn Blocks,
        limit: usize,
    ) -> Result<Option<Entries>, BlockError> {
        let (mut entries, mut length) = (Entries::new(), 0);
        let flow = self.for_each(blocks, &mut |entry| {
            length += entry_len(&entry);
            if length > limit {
                return ControlFlow::Break(());
            }
            entries.insert(entry.name, (entry.cid, entry.tsize));
            ControlFlow::Continue(())
        })?;
        Ok(flow.is_continue().then_some(entries))
    }

    /// A shard below is read into memory where it is going to change.
    fn load_below(&mut self, blocks: &dyn Blocks, bucket: usize) -> Result<(), BlockError> {
        let Some(slot) = self.slots.get_mut(&bucket) else { return Ok(()) };
        if let Slot::Stored { cid, .. } = slot {
            let position = self.position.below(bucket).map_err(|malformed| malformed.at(cid))?;
            *slot = Slot::Loaded(Box::new(Self::load(blocks, cid, position)?));
        }
        Ok(())
    }
}
