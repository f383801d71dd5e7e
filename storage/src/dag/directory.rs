//! Directories: one node with a link for each entry, or a HAMT where that node would be too large.
//!
//! Which of the two is decided by the size of the block alone, so that a directory's CID depends on its entries
//! and not on how it came to hold them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use cid::Cid;

use super::merge::merge;
use super::shard::{Fanout, Position, Shard};
use super::unixfs::{Data, Kind};
use super::{Malformed, hamt, pb};
use crate::block::{Block, BlockError, Blocks, DAG_PB, cid_of};

/// A basic directory whose block would be larger becomes a HAMT (IPIP-499, `unixfs-v1-2025`, "block-bytes").
pub const HAMT_ABOVE: usize = 256 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub cid: Cid,
    /// Bytes of all blocks below, as the writer of the directory says.
    pub tsize: u64,
}

/// By name: where an entry leads, and its cumulative size.
pub(super) type Entries = BTreeMap<String, (Cid, u64)>;

/// What a block is, as far as a tree cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Basic,
    Sharded(Fanout),
    /// A file, or anything else that has no entries.
    Other,
}

/// The CID of the directory without entries.
pub fn empty() -> Cid {
    cid_of(DAG_PB, EMPTY)
}

/// The block of the directory without entries.
pub fn empty_block() -> Bytes {
    Bytes::from_static(EMPTY)
}

/// Finds an entry, and reads no more than the shards on its path. What is no directory has no entries.
pub fn lookup(blocks: &dyn Blocks, dir: &Cid, name: &str) -> Result<Option<Entry>, BlockError> {
    if dir.codec() != DAG_PB || name.is_empty() {
        return Ok(None);
    }
    let block = blocks.need(dir)?;
    match form(dir, &block)? {
        Form::Other => Ok(None),
        Form::Sharded(fanout) => hamt::lookup(blocks, dir, fanout, name),
        Form::Basic => find(&block, name).map_err(|malformed| malformed.at(dir)),
    }
}

/// Visits every entry until told to stop: by name in a basic directory, by hash in a HAMT.
pub fn for_each(
    blocks: &dyn Blocks,
    dir: &Cid,
    visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), BlockError> {
    let block = blocks.need(dir)?;
    match form(dir, &block)? {
        Form::Other => return Err(Malformed("it is no directory").at(dir)),
        Form::Sharded(fanout) => hamt::for_each(blocks, dir, fanout, visit).map(|_| ())?,
        Form::Basic => {
            for entry in entries(dir, &block)? {
                if visit(entry).is_break() {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Adds, replaces and removes entries, and appends the new blocks to `out`. The result is the directory that all
/// its entries would make from scratch, provided that `dir` was so too. Returns its CID and cumulative size.
///
/// In a HAMT only the shards on the paths of the changes are read, unless it may have become small enough for one
/// node; then shards are read until their entries are too many for that.
pub fn update(
    blocks: &dyn Blocks,
    dir: Option<&Cid>,
    changes: &BTreeMap<String, Option<(Cid, u64)>>,
    out: &mut Vec<Block>,
) -> Result<(Cid, u64), BlockError> {
    if changes.contains_key("") {
        return Err(Malformed("an entry without a name cannot be written").at(dir.unwrap_or(&empty())));
    }
    let mut entries = Entries::new();
    if let Some(dir) = dir {
        let block = blocks.need(dir)?;
        match form(dir, &block)? {
            Form::Other => return Err(Malformed("it is no directory").at(dir)),
            Form::Sharded(fanout) if fanout == Fanout::WRITTEN => return reshard(blocks, dir, changes, out),
            Form::Basic => {
                let merged = merge(&block, EMPTY, changes).map_err(|malformed| malformed.at(dir))?;
                if let Some((block, tsize)) = merged.filter(|(block, _)| block.len() <= HAMT_ABOVE) {
                    return Ok((keep(Some(dir), Block::new(DAG_PB, block.into()), out), tsize));
                }
            }
            Form::Sharded(_) => {}
        }
        for_each(blocks, dir, &mut |entry| {
            entries.entry(entry.name).or_insert((entry.cid, entry.tsize));
            ControlFlow::Continue(())
        })?;
    }
    for (name, change) in changes {
        match change {
            Some(value) => entries.insert(name.clone(), *value),
            None => entries.remove(name),
        };
    }
    build(blocks, dir, entries, out)
}

/// Whether there are entries to look for; reads the block where the CID does not tell.
pub fn is_directory(blocks: &dyn Blocks, cid: &Cid) -> Result<bool, BlockError> {
    Ok(cid.codec() == DAG_PB && form(cid, &blocks.need(cid)?)? != Form::Other)
}

/// What kind of node this block is.
pub(crate) fn form(cid: &Cid, block: &Bytes) -> Result<Form, BlockError> {
    if cid.codec() != DAG_PB {
        return Ok(Form::Other);
    }
    let read = || {
        let view = pb::View::parse(block)?;
        let data = Data::of(view.data().map(|data| block.slice_ref(data)).as_ref())?;
        Ok(match data.kind {
            Kind::Directory => Form::Basic,
            Kind::HamtShard => Form::Sharded(Fanout::of(&data)?),
            _ => Form::Other,
        })
    };
    read().map_err(|malformed: Malformed| malformed.at(cid))
}

/// The entries of a basic directory, in the order in which they stand.
pub(crate) fn entries(dir: &Cid, block: &Bytes) -> Result<Vec<Entry>, BlockError> {
    let node = pb::Node::decode(block).map_err(|malformed| malformed.at(dir))?;
    let entry = |link: pb::Link| Entry { name: link.name, cid: link.cid, tsize: link.tsize };
    Ok(node.links.into_iter().map(entry).collect())
}

/// What an entry adds to the block of a basic directory.
pub(super) fn entry_len(entry: &Entry) -> usize {
    pb::link_len(&entry.cid, &entry.name, entry.tsize)
}

/// A node whose data is a UnixFS message of the type directory. Links come in front of it.
const EMPTY: &[u8] = &[0x0a, 0x02, 0x08, 0x01];

fn find(block: &Bytes, name: &str) -> Result<Option<Entry>, Malformed> {
    for link in pb::View::parse(block)?.links() {
        let link = link?;
        if link.name() == name.as_bytes() {
            return Ok(Some(Entry { name: name.to_owned(), cid: link.cid()?, tsize: link.tsize() }));
        }
    }
    Ok(None)
}

fn basic(entries: Entries) -> pb::Node {
    let data = Data::new(Kind::Directory);
    let link = |(name, (cid, tsize))| pb::Link { cid, name, tsize };
    pb::Node { links: entries.into_iter().map(link).collect(), data: Some(data.encode()) }
}

fn build(
    blocks: &dyn Blocks,
    old: Option<&Cid>,
    entries: Entries,
    out: &mut Vec<Block>,
) -> Result<(Cid, u64), BlockError> {
    let length: usize = entries.iter().map(|(name, (cid, tsize))| pb::link_len(cid, name, *tsize)).sum();
    if length + EMPTY.len() > HAMT_ABOVE {
        let mut root = Shard::new(Position::root(Fanout::WRITTEN));
        for (name, (cid, tsize)) in entries {
            root.insert(blocks, Entry { name, cid, tsize })?;
        }
        return Ok(root.encode(out));
    }
    let node = basic(entries);
    let block = Block::new(DAG_PB, node.encode());
    let tsize = node.cumulative(block.data().len());
    Ok((keep(old, block, out), tsize))
}

/// Appends a block, unless it is the one that was read.
fn keep(old: Option<&Cid>, block: Block, out: &mut Vec<Block>) -> Cid {
    if let Some(old) = old.filter(|old| old.hash() == block.cid().hash()) {
        return *old;
    }
    let cid = *block.cid();
    out.push(block);
    cid
}

fn reshard(
    blocks: &dyn Blocks,
    dir: &Cid,
    changes: &BTreeMap<String, Option<(Cid, u64)>>,
    out: &mut Vec<Block>,
) -> Result<(Cid, u64), BlockError> {
    let mut root = Shard::load(blocks, dir, Position::root(Fanout::WRITTEN))?;
    let (mut added, mut removed) = (0, 0);
    for (name, change) in changes {
        let old = match change {
            None => root.remove(blocks, name)?,
            Some((cid, tsize)) => {
                let entry = Entry { name: name.clone(), cid: *cid, tsize: *tsize };
                added += entry_len(&entry);
                root.insert(blocks, entry)?
            }
        };
        removed += old.as_ref().map_or(0, entry_len);
    }
    if removed > added
        && let Some(entries) = root.entries_within(blocks, HAMT_ABOVE - EMPTY.len())?
    {
        return build(blocks, Some(dir), entries, out);
    }
    Ok(root.encode(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::{MemoryBlocks, RAW};

    /// A name so long that a thousand of them cross the threshold.
    fn long(number: u32) -> String {
        format!("{number:0>200}")
    }

    fn value(number: u64) -> (Cid, u64) {
        (cid_of(RAW, &number.to_le_bytes()), number)
    }

    fn from_scratch(entries: &Entries) -> (MemoryBlocks, Cid, u64) {
        let blocks = MemoryBlocks::default();
        let mut out = Vec::new();
        let (cid, tsize) = build(&blocks, None, entries.clone(), &mut out).unwrap();
        for block in &out {
            blocks.put(block);
        }
        (blocks, cid, tsize)
    }

    fn list(blocks: &MemoryBlocks, dir: &Cid) -> Entries {
        let mut entries = Entries::new();
        for_each(blocks, dir, &mut |entry| {
            assert!(entries.insert(entry.name, (entry.cid, entry.tsize)).is_none());
            ControlFlow::Continue(())
        })
        .unwrap();
        entries
    }

    fn is_sharded(blocks: &MemoryBlocks, dir: &Cid) -> bool {
        matches!(form(dir, &blocks.need(dir).unwrap()).unwrap(), Form::Sharded(_))
    }

    #[test]
    fn the_empty_directory_is_known() {
        assert_eq!(basic(Entries::new()).encode(), empty_block());
        assert_eq!(empty().to_string(), "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354");
        let mut out = Vec::new();
        let made = update(&MemoryBlocks::default(), None, &BTreeMap::new(), &mut out).unwrap();
        assert_eq!((made, out.len()), ((empty(), 4), 1));
    }

    #[test]
    fn entries_are_found_in_both_forms() {
        for count in [3, 2000] {
            let entries: Entries = (0..count).map(|number| (long(number), value(number.into()))).collect();
            let (blocks, dir, tsize) = from_scratch(&entries);
            assert_eq!(is_sharded(&blocks, &dir), count > 1000);
            assert_eq!(list(&blocks, &dir), entries);
            for (name, (cid, tsize)) in &entries {
                let entry = Entry { name: name.clone(), cid: *cid, tsize: *tsize };
                assert_eq!(lookup(&blocks, &dir, name).unwrap(), Some(entry));
            }
            for name in ["", "x", &long(count)] {
                assert_eq!(lookup(&blocks, &dir, name).unwrap(), None);
            }
            let below: u64 = entries.values().map(|(_, tsize)| tsize).sum();
            assert!(tsize > below);
        }
    }

    #[test]
    fn a_change_in_a_hamt_writes_and_reads_only_its_path() {
        let entries: Entries = (0..3000).map(|number| (long(number), value(number.into()))).collect();
        let (all, dir, _) = from_scratch(&entries);
        // Only the root and the shard of the one name are here.
        let blocks = MemoryBlocks::default();
        let root = all.need(&dir).unwrap();
        let position = Position::root(Fanout::WRITTEN);
        let shard = Shard::load(&all, &dir, position).unwrap();
        let Some(super::super::shard::Slot::Stored { cid, .. }) = shard.slots.get(&position.bucket(&long(7)))
        else {
            panic!("3000 names over 256 buckets leave each a shard");
        };
        blocks.put(&Block::verified(dir, root).unwrap());
        blocks.put(&Block::verified(*cid, all.need(cid).unwrap()).unwrap());
        let mut out = Vec::new();
        let changes = BTreeMap::from([(long(7), Some(value(1 << 40)))]);
        let (changed, _) = update(&blocks, Some(&dir), &changes, &mut out).unwrap();
        assert_eq!(out.len(), 2);
        let mut expected = entries;
        expected.insert(long(7), value(1 << 40));
        assert_eq!(changed, from_scratch(&expected).1);
    }

    #[test]
    fn what_changes_nothing_writes_nothing() {
        for count in [3, 2000] {
            let entries: Entries = (0..count).map(|number| (long(number), value(number.into()))).collect();
            let (blocks, dir, tsize) = from_scratch(&entries);
            let changes = BTreeMap::from([(long(1), Some(value(1))), ("x".to_owned(), None)]);
            let mut out = Vec::new();
            assert_eq!(update(&blocks, Some(&dir), &changes, &mut out).unwrap(), (dir, tsize));
            assert_eq!(out, []);
        }
    }

    #[test]
    fn a_shard_that_is_linked_everywhere_is_found_out() {
        // Each shard links the one below from all 256 buckets: eight blocks, 256^7 paths.
        let blocks = MemoryBlocks::default();
        let mut below = Block::new(RAW, Bytes::from_static(b"x"));
        for level in 0..8 {
            let link = |bucket: usize| {
                let name = if level == 0 { format!("{bucket:02X}name") } else { format!("{bucket:02X}") };
                pb::Link { cid: *below.cid(), name, tsize: 1 }
            };
            let data = Data {
                data: Some(Bytes::from_static(&[0xff; 32])),
                hash_type: Some(0x22),
                fanout: Some(256),
                ..Data::new(Kind::HamtShard)
            };
            let node = pb::Node { links: (0..256).map(link).collect(), data: Some(data.encode()) };
            below = Block::new(DAG_PB, node.encode());
            blocks.put(&below);
        }
        let result = for_each(&blocks, below.cid(), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(result, Err(BlockError::Malformed { .. })));
        assert!(lookup(&blocks, below.cid(), "other").unwrap().is_none());
    }

    #[test]
    fn a_file_is_no_directory() {
        let blocks = MemoryBlocks::default();
        let file = Block::new(RAW, Bytes::from_static(b"x"));
        blocks.put(&file);
        assert_eq!(lookup(&blocks, file.cid(), "x").unwrap(), None);
        assert!(for_each(&blocks, file.cid(), &mut |_| ControlFlow::Continue(())).is_err());
        assert!(update(&blocks, Some(file.cid()), &BTreeMap::new(), &mut Vec::new()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Starts just below or above the threshold, and crosses it in both directions.
        #[test]
        fn changes_lead_where_building_from_scratch_does(
            start in prop_oneof![0_u32..20, 980_u32..1080],
            batches in prop::collection::vec(
                prop::collection::btree_map(0_u32..1200, prop::option::of(0_u64..1 << 40), 0..150),
                1..4,
            ),
        ) {
            let mut model: Entries = (0..start).map(|number| (long(number), value(number.into()))).collect();
            let (blocks, mut dir, _) = from_scratch(&model);
            for batch in batches {
                let changes = batch.iter().map(|(number, new)| (long(*number), new.map(value))).collect();
                let mut out = Vec::new();
                let (changed, tsize) = update(&blocks, Some(&dir), &changes, &mut out).unwrap();
                for block in &out {
                    blocks.put(block);
                }
                dir = changed;
                for (name, change) in changes {
                    match change {
                        Some(value) => model.insert(name, value),
                        None => model.remove(&name),
                    };
                }
                let (scratch, expected, expected_tsize) = from_scratch(&model);
                prop_assert_eq!((dir, tsize), (expected, expected_tsize));
                prop_assert_eq!(list(&blocks, &dir), model.clone());
                prop_assert_eq!(is_sharded(&scratch, &expected), basic(model.clone()).encoded_len() > HAMT_ABOVE);
            }
        }

        #[test]
        fn deep_tries_lose_entries_without_a_trace(keep in prop::collection::btree_set(0_u32..400, 0..20)) {
            // A HAMT is forced, so that shards are few and collapse often.
            let blocks = MemoryBlocks::default();
            let entry = |number: u32| Entry { name: number.to_string(), cid: value(0).0, tsize: 1 };
            let mut all = Shard::new(Position::root(Fanout::WRITTEN));
            let mut few = all.clone();
            for number in 0..400 {
                all.insert(&blocks, entry(number)).unwrap();
            }
            for number in (0..400).filter(|number| !keep.contains(number)) {
                prop_assert_eq!(all.remove(&blocks, &number.to_string()).unwrap(), Some(entry(number)));
            }
            for number in &keep {
                few.insert(&blocks, entry(*number)).unwrap();
            }
            prop_assert_eq!(all.encode(&mut Vec::new()), few.encode(&mut Vec::new()));
        }
    }
}
