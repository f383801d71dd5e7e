//! Walks a DAG depth first, in the order in which a CAR has it: whole, one entity of it, or some bytes of a file
//! (trustless gateway specification, "dag-scope" and "entity-bytes").
//!
//! A work-list that goes on where it stopped. Nothing here fetches: a block that is not here is told to the caller.

use std::collections::HashSet;

use bytes::Bytes;
use cid::Cid;

use super::file::{file_size, is_file};
use super::path::Resolved;
use super::shard::Fanout;
use super::unixfs::{Data, Kind};
use super::{Malformed, pb};
use crate::block::{BlockError, Blocks, DAG_PB, identity_data};
use crate::cbor::{self, DAG_CBOR};

/// Blocks that wait at once, some 140 bytes each: along the way down, each node adds its links, of which a block of
/// 2 MiB has some 47,000.
const MAX_PENDING: usize = 49_152;
/// Blocks of one walk. 16 TiB in leaves of 1 MiB; a DAG that repeats itself for ever is hostile.
const MAX_BLOCKS: u64 = 16 * 1024 * 1024;

/// How much of what a path leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The block alone.
    Block,
    /// A whole file or some bytes of it; what lists a directory; of anything else the block.
    Entity(ByteRange),
    /// Everything below.
    #[default]
    All,
}

/// Bytes of a file, both ends included. Negative ones count from the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    pub from: i64,
    /// `None`: to the end.
    pub to: Option<i64>,
}

/// Where the walk has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Block(Cid, Bytes),
    /// This block is needed to go on. Bring it, then ask for the next step again.
    Missing(Cid),
    End,
}

/// The work-list. After an error it is of no more use.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The next is the last.
    pending: Vec<Item>,
    repeats: Repeats,
    left: u64,
}

/// What becomes of a block that was met before.
#[derive(Clone, Debug)]
enum Repeats {
    /// It comes again.
    Sent,
    /// It does not; so many are remembered by the start of their hash.
    Dropped { seen: HashSet<[u8; 16]>, most: usize },
}

#[derive(Clone, Copy, Debug)]
struct Item {
    cid: Cid,
    way: Way,
}

/// What is wanted below a block.
#[derive(Clone, Copy, Debug)]
enum Way {
    Nothing,
    Everything,
    /// What the path leads to: what it is, is not known yet.
    Entity(ByteRange),
    /// A node of a file, beginning at `offset` of it, of which bytes `from` to `to` are wanted.
    File {
        offset: u64,
        from: u64,
        to: u64,
    },
    /// A shard of a directory with so many digits before the names of its links.
    Shard {
        digits: usize,
    },
}

impl ByteRange {
    /// `from:to`, where either may be negative and `*` means the end.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| -> Option<i64> {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse().ok())?
        };
        let (from, to) = text.split_once(':')?;
        let from = number(from)?;
        let to = if to == "*" { None } else { Some(number(to)?) };
        let turned = to.is_some_and(|to| (from < 0) == (to < 0) && to < from);
        (!turned).then_some(Self { from, to })
    }

    /// Whether it begins behind the end of a file of `size` bytes.
    pub fn begins_after(self, size: u64) -> bool {
        u64::try_from(self.from).is_ok_and(|from| from >= size)
    }

    /// First and last byte of a file of `size` bytes; `None` where none of its bytes are meant.
    pub fn of(self, size: u64) -> Option<(u64, u64)> {
        let place = |number: i64| match u64::try_from(number) {
            Ok(place) => Some(place),
            Err(_) => size.checked_sub(number.unsigned_abs()),
        };
        let last = size.checked_sub(1)?;
        let from = place(self.from).unwrap_or(0);
        let to = self.to.map_or(Some(last), place)?.min(last);
        (from <= to).then_some((from, to))
    }
}

impl Walk {
    /// The blocks that prove a path, then what it leads to. With `most` a block comes once, and so many are
    /// remembered; without, it comes as often as it is met.
    pub fn new(resolved: &Resolved, scope: Scope, most: Option<usize>) -> Self {
        let way = match scope {
            _ if resolved.within => Way::Nothing,
            Scope::Block => Way::Nothing,
            Scope::Entity(range) => Way::Entity(range),
            Scope::All => Way::Everything,
        };
        let end = Item { cid: resolved.cid, way };
        let proof = resolved.blocks.iter().rev().map(|cid| Item { cid: *cid, way: Way::Nothing });
        let repeats = most.map_or(Repeats::Sent, |most| Repeats::Dropped { seen: HashSet::new(), most });
        Self { pending: std::iter::once(end).chain(proof).collect(), repeats, left: MAX_BLOCKS }
    }

    /// Everything below a root, each block once.
    pub fn whole(root: Cid, most: usize) -> Self {
        let resolved = Resolved { cid: root, within: false, roots: vec![root], blocks: Vec::new() };
        Self::new(&resolved, Scope::All, Some(most))
    }

    /// What comes next as far as it is known now, so that it can be fetched together.
    pub fn ahead(&self, max: usize) -> impl Iterator<Item = Cid> {
        self.pending.iter().rev().take(max).map(|item| item.cid)
    }

    /// The next block. What an identity CID carries is in its parent already and does not come.
    pub fn next(&mut self, blocks: &dyn Blocks) -> Result<Step, BlockError> {
        while let Some(Item { cid, way }) = self.pending.last().copied() {
            let is_new = self.repeats.is_new(&cid);
            if !is_new && way.is_the_same_again() {
                self.pending.pop();
                self.count(&cid)?;
                continue;
            }
            let inline = identity_data(&cid);
            let Some(data) = inline.clone().map_or_else(|| blocks.get(&cid), |data| Ok(Some(data)))? else {
                return Ok(Step::Missing(cid));
            };
            self.pending.pop();
            self.count(&cid)?;
            let before = self.pending.len();
            below(&cid, &data, way, &mut self.pending).map_err(|malformed| malformed.at(&cid))?;
            if self.pending.len() > MAX_PENDING {
                return Err(Malformed("the DAG is too wide").at(&cid));
            }
            if let Some(below) = self.pending.get_mut(before..) {
                below.reverse();
            }
            if inline.is_none() && is_new {
                self.repeats.remember(&cid)?;
                return Ok(Step::Block(cid, data));
            }
        }
        Ok(Step::End)
    }

    fn count(&mut self, cid: &Cid) -> Result<(), BlockError> {
        self.left = self.left.checked_sub(1).ok_or(Malformed("the DAG has too many blocks").at(cid))?;
        Ok(())
    }
}

impl Way {
    /// Whether whatever comes below a block was all there when it was met before.
    fn is_the_same_again(self) -> bool {
        !matches!(self, Self::File { .. } | Self::Entity(_))
    }
}

impl Repeats {
    fn is_new(&self, cid: &Cid) -> bool {
        match self {
            Self::Sent => true,
            Self::Dropped { seen, .. } => !seen.contains(&short(cid)),
        }
    }

    fn remember(&mut self, cid: &Cid) -> Result<(), BlockError> {
        if let Self::Dropped { seen, most } = self {
            if seen.len() >= *most {
                return Err(Malformed("the DAG has more blocks than can be told apart").at(cid));
            }
            seen.insert(short(cid));
        }
        Ok(())
    }
}

/// Every link of a block. One whose codec is not known, as that of raw bytes, has none.
pub fn links(cid: &Cid, block: &[u8]) -> Result<Vec<Cid>, Malformed> {
    match cid.codec() {
        DAG_PB => pb::View::parse(block)?.links().map(|link| link?.cid()).collect(),
        DAG_CBOR => cbor::links(block),
        _ => Ok(Vec::new()),
    }
}

/// Adds what is wanted below a block, in its order.
fn below(cid: &Cid, block: &Bytes, way: Way, items: &mut Vec<Item>) -> Result<(), Malformed> {
    match way {
        Way::Nothing => {}
        Way::Everything if cid.codec() == DAG_PB => {
            let node = pb::View::parse(block)?;
            items.reserve(node.width());
            for link in node.links() {
                items.push(Item { cid: link?.cid()?, way });
            }
        }
        Way::Everything => items.extend(links(cid, block)?.into_iter().map(|cid| Item { cid, way })),
        _ if cid.codec() != DAG_PB => {}
        Way::Entity(range) => {
            let node = pb::Node::decode(block)?;
            // dag-pb that is no UnixFS is one block.
            let Ok(data) = Data::of(node.data.as_ref()) else { return Ok(()) };
            match data.kind {
                kind if is_file(kind) => {
                    if let Some((from, to)) = range.of(file_size(&data)?) {
                        items.extend(parts(&node, &data, 0, from, to)?);
                    }
                }
                Kind::HamtShard => items.extend(shards(&node, Fanout::of(&data)?.digits())),
                _ => {}
            }
        }
        Way::Shard { digits } => items.extend(shards(&pb::Node::decode(block)?, digits)),
        Way::File { offset, from, to } => {
            let node = pb::Node::decode(block)?;
            let data = Data::of(node.data.as_ref())?;
            if !is_file(data.kind) {
                return Err(Malformed("it is no file"));
            }
            items.extend(parts(&node, &data, offset, from, to)?);
        }
    }
    Ok(())
}

/// The links of a file's node under which the bytes from `from` to `to` lie.
fn parts(node: &pb::Node, data: &Data, offset: u64, from: u64, to: u64) -> Result<Vec<Item>, Malformed> {
    if node.links.len() != data.blocksizes.len() {
        return Err(Malformed("the file node has not as many blocksizes as links"));
    }
    let mut at = offset.saturating_add(data.data.as_ref().map_or(0, |data| data.len() as u64));
    let mut items = Vec::new();
    for (link, size) in node.links.iter().zip(&data.blocksizes) {
        let end = at.checked_add(*size).ok_or(Malformed("the file's size does not fit 64 bits"))?;
        if at <= to && end > from && *size > 0 {
            items.push(Item { cid: link.cid, way: Way::File { offset: at, from, to } });
        }
        at = end;
    }
    Ok(items)
}

/// The shards below a shard, whose links carry no name behind their digits.
fn shards(node: &pb::Node, digits: usize) -> Vec<Item> {
    let is_shard = |link: &&pb::Link| link.name.len() == digits;
    let item = |link: &pb::Link| Item { cid: link.cid, way: Way::Shard { digits } };
    node.links.iter().filter(is_shard).map(item).collect()
}

/// Enough of a hash that nobody finds a second with it.
fn short(cid: &Cid) -> [u8; 16] {
    let digest = cid.hash().digest();
    let mut key = [0; 16];
    key.iter_mut().zip(digest).for_each(|(key, byte)| *key = *byte);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, MemoryBlocks, RAW};
    use crate::dag::pb::{Link, Node};

    fn node(links: &[&Block]) -> Block {
        let link = |block: &&Block| Link { cid: *block.cid(), name: String::new(), tsize: 0 };
        let node = Node { links: links.iter().map(link).collect(), data: None };
        Block::new(DAG_PB, node.encode())
    }

    fn range(text: &str, size: u64) -> Option<(u64, u64)> {
        ByteRange::parse(text).and_then(|range| range.of(size))
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        for (text, expected) in [
            ("0:*", Some((0, 1025))),
            ("512:1023", Some((512, 1023))),
            ("512:-256", Some((512, 770))),
            ("-5:*", Some((1021, 1025))),
            ("-9999:*", Some((0, 1025))),
            ("-9999:-3", Some((0, 1023))),
            ("0:0", Some((0, 0))),
            ("1000:5000", Some((1000, 1025))),
            ("1026:*", None),
            ("0:-1027", None),
        ] {
            assert_eq!(range(text, 1026), expected, "{text}");
        }
        assert_eq!(range("0:*", 0), None);
        for bad in
            ["", ":", "1", "1:", ":1", "*:1", "a:1", "1:b", "2:1", "-1:-2", "--1:2", "1:2:3", "+1:2", "1: 2"]
        {
            assert_eq!(ByteRange::parse(bad), None, "{bad}");
        }
        assert_eq!(range(&format!("{}:*", i64::MIN), 5), Some((0, 4)));
        assert_eq!(range(&format!("0:{}", i64::MAX), u64::MAX), Some((0, i64::MAX as u64)));
        assert!(ByteRange::parse("0:99999999999999999999").is_none());
    }

    #[test]
    fn a_block_that_is_not_here_is_told_and_the_walk_goes_on_when_it_is() {
        let (one, two) =
            (Block::new(RAW, Bytes::from_static(b"1")), Block::new(RAW, Bytes::from_static(b"2")));
        let root = node(&[&one, &two]);
        let blocks = MemoryBlocks::default();
        blocks.put(&root);
        blocks.put(&two);
        let mut walk = Walk::whole(*root.cid(), 10);
        assert!(matches!(walk.next(&blocks).unwrap(), Step::Block(cid, _) if cid == *root.cid()));
        assert_eq!(walk.next(&blocks).unwrap(), Step::Missing(*one.cid()));
        assert_eq!(walk.ahead(9).collect::<Vec<_>>(), [*one.cid(), *two.cid()]);
        blocks.put(&one);
        assert!(matches!(walk.next(&blocks).unwrap(), Step::Block(cid, _) if cid == *one.cid()));
        assert!(matches!(walk.next(&blocks).unwrap(), Step::Block(cid, _) if cid == *two.cid()));
        assert_eq!(walk.next(&blocks).unwrap(), Step::End);
    }

    #[test]
    fn a_dag_that_repeats_itself_costs_what_it_has() {
        let blocks = MemoryBlocks::default();
        let mut block = Block::new(RAW, Bytes::from_static(b"x"));
        blocks.put(&block);
        for _ in 0..64 {
            block = node(&[&block; 8]);
            blocks.put(&block);
        }
        let mut walk = Walk::whole(*block.cid(), 100);
        let mut count = 0;
        while let Step::Block(..) = walk.next(&blocks).unwrap() {
            count += 1;
        }
        assert_eq!(count, 65);
        let mut short = Walk::whole(*block.cid(), 10);
        assert!(std::iter::repeat_with(|| short.next(&blocks)).take(20).any(|step| step.is_err()));
    }
}
