//! Fuzz targets for what storage reads from others: each takes any bytes and checks what must hold for all of them.
//!
//! `fuzz/` runs them under libFuzzer, the unit test below runs them over the seeds. They are in no other build.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target is there to panic"
)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use cid::Cid;
use multihash::Multihash;

use crate::block::{BlockError, Blocks, DAG_PB, MemoryBlocks, SHA2_256, identity_data};
use crate::dag::directory::{self, Entry};
use crate::dag::file::{Leaves, Step, read_all};
use crate::dag::{pb, unixfs};
use crate::name::{MAX_REPOSITORY, MAX_TAG};
use crate::tree::{self, Diff, Difference, MAX_MISSING};
use crate::{Digest, Reference, RepositoryName, Tag, car, journal, layout};

/// Steps of a walk that is followed no further: a small block can name a file of any size.
const MAX_STEPS: u32 = 4096;
/// Bytes of a file that is read whole.
const MAX_READ: u64 = 64 * 1024;
/// Entries that a comparison of trees may look at.
const MAX_VISITS: usize = 1 << 14;

/// Names of repositories, tags and references.
pub fn reference(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= MAX_REPOSITORY);
        for component in text.split('/') {
            assert!(tree::is_path(component) && !component.starts_with(['.', '_', '-']), "{text}");
        }
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(text.len() <= MAX_TAG && tree::is_path(text) && !text.contains('/'), "{text}");
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
}

/// Digests, and the links that hold one.
pub fn digest(data: &[u8]) {
    if let Some(linked) = layout::parse_link(data) {
        assert_eq!(layout::parse_link(&layout::link(&linked)), Some(linked));
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_bytes(digest.algorithm(), digest.as_bytes()), Some(digest));
    }
}

/// Paths of the registry tree.
pub fn layout_path(data: &[u8]) {
    let Ok(path) = str::from_utf8(data) else { return };
    let Some(item) = layout::parse(path) else { return };
    let written = match &item {
        layout::Item::Blob(digest) => layout::blob(digest),
        layout::Item::Layer(repository, digest) => layout::layer(repository, digest),
        layout::Item::Revision(repository, digest) => layout::revision(repository, digest),
        layout::Item::Tag(repository, tag) => layout::tag(repository, tag),
        layout::Item::Referrer { repository, subject, referrer } => {
            layout::referrer(repository, subject, referrer)
        }
    };
    assert_eq!(written, path, "one thing has one path");
}

/// dag-pb nodes.
pub fn dag_pb(data: &[u8]) {
    let block = Bytes::copy_from_slice(data);
    let Ok(node) = pb::Node::decode(&block) else { return };
    let view = pb::View::parse(&block).unwrap();
    assert_eq!((view.width(), view.data()), (node.links.len(), node.data.as_deref()));
    for (link, whole) in view.links().zip(&node.links) {
        let link = link.unwrap();
        assert_eq!((link.name(), link.tsize()), (whole.name.as_bytes(), whole.tsize));
        assert_eq!(link.cid(), Ok(whole.cid));
    }
    let written = node.encode();
    assert_eq!(written.len(), node.encoded_len());
    assert_eq!(pb::Node::decode(&written), Ok(node));
}

/// UnixFS messages.
pub fn unixfs_data(data: &[u8]) {
    let Ok(message) = unixfs::Data::decode(&Bytes::copy_from_slice(data)) else { return };
    assert_eq!(unixfs::Data::decode(&message.encode()), Ok(message));
}

/// A file whose DAG somebody made up.
pub fn file_walk(data: &[u8]) {
    let (choice, blocks) = Unhashed::read(data);
    let mut leaves = Leaves::new(block_name(0), None);
    leaves.seek(u64::from(choice));
    let mut reached = None;
    for _ in 0..MAX_STEPS {
        assert!(leaves.pending(8).len() <= 8);
        match leaves.next(&blocks) {
            Ok(Step::Leaf(leaf)) => {
                assert!(leaf.len > 0 && leaf.offset + leaf.len > u64::from(choice));
                // Only what was to be passed over lies before the first.
                assert!(reached.is_none_or(|reached| reached == leaf.offset));
                reached = Some(leaf.offset + leaf.len);
                assert!(reached <= leaves.size());
            }
            Ok(Step::Missing(cid)) => {
                assert!(blocks.get(&cid).is_ok_and(|block| block.is_none()));
                break;
            }
            Ok(Step::End) => {
                assert!(reached.is_none() || reached == leaves.size());
                break;
            }
            Err(_) => break,
        }
    }
    if let Ok(bytes) = read_all(&blocks, &block_name(0), MAX_READ) {
        assert!(bytes.len() as u64 <= MAX_READ);
    }
}

/// A directory, HAMT or not, that somebody made up: listed, looked into and changed.
pub fn directory(data: &[u8]) {
    let (choice, blocks) = Unhashed::read(data);
    let root = block_name(0);
    let _ = directory::lookup(&blocks, &root, "hello");
    let Some(mut listed) = list(&blocks, &root) else { return };
    for (name, entry) in &listed {
        let found = directory::lookup(&blocks, &root, name).unwrap();
        assert!(found.as_ref() == Some(entry) || name.is_empty(), "{name}: {found:?}");
    }
    let new = Entry { name: format!("new {choice}"), cid: block_name(choice), tsize: u64::from(choice) };
    let gone = listed.keys().nth(usize::from(choice)).filter(|name| !name.is_empty()).cloned();
    let mut changes = BTreeMap::from([(new.name.clone(), Some((new.cid, new.tsize)))]);
    changes.extend(gone.iter().map(|name| (name.clone(), None)));
    let mut made = Vec::new();
    if let Ok((changed, _)) = directory::update(&blocks, Some(&root), &changes, &mut made) {
        let both = Over { above: MemoryBlocks::default(), below: blocks };
        for block in &made {
            both.above.put(block);
        }
        listed.retain(|name, _| Some(name) != gone.as_ref());
        listed.insert(new.name.clone(), new);
        assert_eq!(list(&both, &changed), Some(listed));
    }
}

/// What differs between two trees that somebody made up.
pub fn tree_diff(data: &[u8]) {
    let (choice, blocks) = Unhashed::read(data);
    let (old, new) = ((choice & 1 == 1).then(|| block_name(1)), block_name(0));
    let mut diff = Diff::new(old, new, u64::from(choice));
    diff.budget = MAX_VISITS;
    let mut seen: BTreeMap<String, Difference> = BTreeMap::new();
    let mut note = |found: Difference| {
        let path = found.path.clone();
        assert!(seen.insert(path.clone(), found).is_none(), "{path} twice");
    };
    let Ok(missing) = diff.advance(&blocks, &mut note) else { return };
    assert!(missing.len() <= MAX_MISSING);
    if !missing.is_empty() {
        // Nothing has come: the same is missing, and there is nothing new to say.
        let again = diff.advance(&blocks, &mut |found| panic!("{found:?} although nothing has come"));
        assert!(again.is_ok_and(|again| again.len() == missing.len()));
    }
    for (path, found) in seen.into_iter().filter(|(path, _)| !path.is_empty()) {
        assert!(tree::is_path(&path), "{path}");
        for (root, entry) in [(old, found.old), (Some(new), found.new)] {
            if let (Some(root), Some(entry)) = (root, entry) {
                assert_eq!(tree::lookup(&blocks, &root, &path).unwrap().unwrap(), entry, "{path}");
            }
        }
    }
}

/// CAR files.
pub fn car_file(data: &[u8]) {
    let Ok(mut reader) = car::Reader::new(data) else { return };
    let mut copy = car::header(reader.roots());
    let mut sections = Vec::new();
    while let Ok(Some(section)) = reader.next_section() {
        let from = usize::try_from(section.offset).unwrap();
        assert_eq!(data.get(from..from + section.data.len()), Some(&*section.data));
        assert_eq!(reader.position(), section.offset + section.data.len() as u64);
        car::write_section(&mut copy, &section.cid, &section.data);
        sections.push((section.cid, section.data));
    }
    assert!(reader.position() <= data.len() as u64);
    let again = car::Reader::new(copy.as_slice()).unwrap();
    assert_eq!(again.roots(), reader.roots());
    let again: Vec<_> = again.map(|section| section.map(|it| (it.cid, it.data)).unwrap()).collect();
    assert_eq!(again, sections);
}

/// Frames of the journal, and entries behind a checksum that fits.
pub fn journal_entry(data: &[u8]) {
    if let Some((_, used)) = journal::decode(data) {
        assert!(used <= data.len());
    }
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes();
    let frame = [&length, &crc32fast::hash(data).to_le_bytes(), data].concat();
    let Some((entry, used)) = journal::decode(&frame) else { return };
    assert_eq!(used, frame.len());
    let mut written = Vec::new();
    journal::encode(&entry, &mut written).unwrap();
    assert_eq!(journal::decode(&written).map(|(entry, _)| entry), Some(entry.clone()));
    let mut state = journal::State::default();
    state.apply(&entry);
    state.apply(&journal::Entry::State(state.clone()));
}

/// Blocks that nobody has hashed. The first byte of a hash says which one it names, so that a fuzzer can link them
/// as it likes, also in circles.
struct Unhashed(Vec<Bytes>);

impl Unhashed {
    /// A byte to choose by, then blocks, each behind its length in two bytes.
    fn read(data: &[u8]) -> (u8, Self) {
        let (choice, mut rest) = data.split_first().map_or((0, data), |(choice, rest)| (*choice, rest));
        let mut blocks = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
            let (block, behind) = behind.split_at(length);
            blocks.push(Bytes::copy_from_slice(block));
            rest = behind;
        }
        (choice, Self(blocks))
    }
}

impl Blocks for Unhashed {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        let named = cid.hash().digest().first().and_then(|first| self.0.get(usize::from(*first)));
        Ok(identity_data(cid).or_else(|| named.cloned()))
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        Ok(self.get(cid)?.map(|block| block.len()))
    }
}

/// What was made new, over what was there.
struct Over {
    above: MemoryBlocks,
    below: Unhashed,
}

impl Blocks for Over {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        Ok(self.above.get(cid)?.or(self.below.get(cid)?))
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        Ok(self.get(cid)?.map(|block| block.len()))
    }
}

fn block_name(number: u8) -> Cid {
    Cid::new_v1(DAG_PB, Multihash::wrap(SHA2_256, &[number; 32]).unwrap())
}

/// The entries of a directory, the first where a name stands twice; `None` where it cannot be listed.
fn list(blocks: &dyn Blocks, dir: &Cid) -> Option<BTreeMap<String, Entry>> {
    let mut listed = BTreeMap::new();
    let visited = directory::for_each(blocks, dir, &mut |entry| {
        listed.entry(entry.name.clone()).or_insert(entry);
        ControlFlow::Continue(())
    });
    visited.is_ok().then_some(listed)
}

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &[seeds::Target] = &[
        ("car_file", car_file),
        ("dag_pb", dag_pb),
        ("digest", digest),
        ("directory", directory),
        ("file_walk", file_walk),
        ("journal_entry", journal_entry),
        ("layout_path", layout_path),
        ("reference", reference),
        ("tree_diff", tree_diff),
        ("unixfs_data", unixfs_data),
    ];

    #[test]
    fn what_must_hold_for_all_bytes_holds_for_the_seeds() {
        seeds::run(env!("CARGO_MANIFEST_DIR"), TARGETS);
    }
}
