//! What others have published: the profile's vectors (IPIP-499), the spec's own nodes, a tree of the seed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use cid::Cid;

use super::directory::{self, Entry};
use super::file::{self, CHUNK, FileBuilder};
use super::shard::{Fanout, Position, Shard};
use crate::block::{Block, Blocks, DAG_PB, MemoryBlocks, RAW, cid_of, verify};
use crate::car::Reader;
use crate::digest::{Algorithm, Digest};
use crate::tree;

/// The vectors' input: ChaCha20 with a zero nonce, keyed by the SHA-256 of a word (RFC 8439, section 2.3).
fn stream(word: &str, len: usize) -> Vec<u8> {
    fn quarter(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
        for (x, y, z, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
            state[x] = state[x].wrapping_add(state[y]);
            state[z] = (state[z] ^ state[x]).rotate_left(turn);
        }
    }
    let key = Digest::of(Algorithm::Sha256, word.as_bytes());
    let mut start = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (word, bytes) in start[4..12].iter_mut().zip(key.as_bytes().as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        let mut state = start;
        for _ in 0..10 {
            for column in 0..4 {
                quarter(&mut state, [column, column + 4, column + 8, column + 12]);
            }
            for diagonal in 0..4 {
                let at = |row: usize| row * 4 + (diagonal + row) % 4;
                quarter(&mut state, [at(0), at(1), at(2), at(3)]);
            }
        }
        for (word, first) in state.iter().zip(start) {
            out.extend(word.wrapping_add(first).to_le_bytes());
        }
        start[12] += 1;
    }
    out.truncate(len);
    out
}

#[test]
fn small_files_of_the_profile() {
    let cid = |data: &[u8]| file::from_bytes(data).0.cid.to_string();
    assert_eq!(cid(b"hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
    let data = stream("chunk-v1-seed", CHUNK + 1);
    assert_eq!(cid(&data[..CHUNK]), "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta");
    assert_eq!(cid(&data), "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64");
}

/// The file of 1 GiB and a byte is not made here, only named: its 1,025 leaf hashes lie beside, and the published
/// CIDs prove them.
#[test]
fn files_at_and_over_the_width_of_the_profile() {
    let hashes = include_bytes!("../../tests/fixtures/unixfs/v1-2025-leaves.bin").as_chunks::<32>().0;
    assert_eq!(hashes.len(), 1025);
    let leaf = |hash: &[u8; 32]| {
        let digest = Digest::from_bytes(Algorithm::Sha256, hash).unwrap();
        crate::block::cid_from_sha256(RAW, &digest)
    };
    assert_eq!(cid_of(RAW, &stream("v1-2025-seed", CHUNK)), leaf(&hashes[0]));

    let mut builder = FileBuilder::new();
    for hash in &hashes[..1024] {
        builder.push_leaf(leaf(hash), CHUNK as u64);
    }
    let full = builder.clone().finish();
    assert_eq!(full.cid.to_string(), "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm");
    assert_eq!((full.size, full.nodes.len()), (1 << 30, 1));

    builder.push_leaf(leaf(&hashes[1024]), 1);
    let over = builder.finish();
    assert_eq!(over.cid.to_string(), "bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe");
    assert_eq!((over.size, over.nodes.len()), ((1 << 30) + 1, 3));
}

#[test]
fn directories_at_and_over_the_threshold_of_the_profile() {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
    let value = (cid_of(RAW, b"x"), 1);
    let letters = stream("hamt-unixfs-v1-2025", 4765 * 11 + 22);
    let name = |bytes: &[u8]| {
        bytes.iter().map(|byte| ALPHABET[usize::from(*byte) % ALPHABET.len()] as char).collect()
    };
    for (last, cid) in [
        (21, "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4"),
        (22, "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu"),
    ] {
        let (short, long) = letters[..4765 * 11 + last].split_at(4765 * 11);
        let names = short.chunks(11).chain([long]).map(name);
        let changes: BTreeMap<String, _> = names.map(|name| (name, Some(value))).collect();
        let mut out = Vec::new();
        let made = directory::update(&MemoryBlocks::default(), None, &changes, &mut out).unwrap();
        assert_eq!(made.0.to_string(), cid);
        assert_eq!(out.len() > 1, last == 22);
    }
}

/// `multiblock.txt` of the UnixFS spec's appendix: 1,026 bytes in leaves of 256. With empty names it has 245 bytes.
fn multiblock() -> Block {
    let mut builder = FileBuilder::new();
    for (leaf, len) in [
        ("bafkreie5noke3mb7hqxukzcy73nl23k6lxszxi5w3dtmuwz62wnvkpsscm", 256),
        ("bafkreih4ephajybraj6wnxsbwjwa77fukurtpl7oj7t7pfq545duhot7cq", 256),
        ("bafkreigu7buvm3cfunb35766dn7tmqyh2um62zcio63en2btvxuybgcpue", 256),
        ("bafkreicll3huefkc3qnrzeony7zcfo7cr3nbx64hnxrqzsixpceg332fhe", 256),
        ("bafkreifst3pqztuvj57lycamoi7z34b4emf7gawxs74nwrc2c7jncmpaqm", 2),
    ] {
        builder.push_leaf(leaf.parse().unwrap(), len);
    }
    let root = builder.finish();
    assert_eq!((root.size, root.tsize), (1026, 1271));
    root.nodes.into_iter().next().unwrap()
}

#[test]
fn the_specs_file_of_many_blocks() {
    let node = multiblock();
    assert_eq!(node.cid().to_string(), "bafybeigcisqd7m5nf3qmuvjdbakl5bdnh4ocrmacaqkpuh77qjvggmt2sa");
    assert_eq!(node.data().len(), 245);
}

/// The HAMT of the gateway conformance suite: that file, a thousand times.
#[test]
fn the_hamt_of_the_gateway_suite() {
    let blocks = MemoryBlocks::default();
    let mut root = Shard::new(Position::root(Fanout::WRITTEN));
    for number in 1..=1000 {
        let entry = Entry { name: format!("{number}.txt"), cid: *multiblock().cid(), tsize: 1271 };
        root.insert(&blocks, entry).unwrap();
    }
    let mut out = Vec::new();
    let (cid, _) = root.encode(&mut out);
    assert_eq!(cid.to_string(), "bafybeidbclfqleg2uojchspzd4bob56dqetqjsj27gy2cq3klkkgxtpn4i");
    assert_eq!(out.last().unwrap().data().len(), 12_046);
    for block in &out {
        blocks.put(block);
    }
    assert!(directory::lookup(&blocks, &cid, "685.txt").unwrap().is_some());
    assert!(directory::lookup(&blocks, &cid, "1001.txt").unwrap().is_none());
    let mut count = 0;
    directory::for_each(&blocks, &cid, &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(count, 1000);
}

#[test]
fn empty_files_and_directories() {
    let blocks = MemoryBlocks::default();
    blocks.put(&Block::new(DAG_PB, directory::empty_block()));
    let old: Cid = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn".parse().unwrap();
    assert!(directory::is_directory(&blocks, &old).unwrap());

    let dag_pb = Block::new(DAG_PB, Bytes::from_static(&[0x0a, 0x04, 0x08, 0x02, 0x18, 0x00]));
    assert_eq!(dag_pb.cid().to_string(), "bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y");
    blocks.put(&dag_pb);
    for cid in [*dag_pb.cid(), "bafkqaaa".parse().unwrap()] {
        assert_eq!(file::read_all(&blocks, &cid, 0).unwrap(), Bytes::new());
    }
}

/// A tree as the seed published it: CIDv0, dag-pb leaves of the type Raw below each file.
#[test]
fn a_tree_of_the_seed_reads() {
    let blocks = MemoryBlocks::default();
    for section in Reader::new(include_bytes!("../../tests/fixtures/seed/tree.car").as_slice()).unwrap() {
        let section = section.unwrap();
        blocks.put(&Block::verified(section.cid, section.data).unwrap());
    }
    assert_eq!(blocks.len(), 40);
    let list = include_str!("../../tests/fixtures/seed/tree.txt");
    let root: Cid = list.lines().find_map(|line| line.strip_prefix("root\t")).unwrap().parse().unwrap();
    let mut files = 0;
    for line in list.lines().filter(|line| line.starts_with('/')) {
        let [path, cid, size] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let (path, size): (_, u64) = (&path[1..], size.parse().unwrap());
        let entry = tree::lookup(&blocks, &root, path).unwrap().unwrap();
        assert_eq!(entry.cid.to_string(), cid, "{path}");
        if size == 0 {
            assert!(directory::is_directory(&blocks, &entry.cid).unwrap(), "{path}");
            continue;
        }
        let data = file::read_all(&blocks, &entry.cid, size).unwrap();
        assert_eq!(data.len() as u64, size, "{path}");
        assert_eq!(file::root_size(&entry.cid, &blocks.need(&entry.cid).unwrap()).unwrap(), size);
        // A blob lies below its digest, which says whether these are the right bytes in the right order.
        if let Some(hex) = path.strip_suffix("/data").and_then(|path| path.rsplit('/').next()) {
            assert_eq!(Digest::of(Algorithm::Sha256, &data).hex(), hex);
        }
        files += 1;
    }
    assert_eq!(files, 8);
    verify(&root, &blocks.need(&root).unwrap()).unwrap();
}
