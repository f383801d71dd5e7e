//! Fuzz targets for what a bundle says.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a target is there to panic"
)]

use std::io::Read;

use sampan_storage::increment::{BlobOrder, NewBlob, TreeOrder};
use sampan_storage::{Algorithm, Block, BlockError, Digest, Entry, car};

use super::description::Description;
use super::stream::{Part, peek};

/// Bytes of a file that are followed further with one block.
const MAX_PIECES: u32 = 4096;

/// A part, or the description of one.
pub fn bundle(data: &[u8]) {
    if let Ok(description) = Description::parse(data) {
        let again = Description::parse(&description.encode().unwrap()).unwrap();
        assert_eq!(again, description);
        assert!(again.is_of(&description));
    }
    if let Ok((mut part, opening)) = Part::open(data.take(data.len() as u64), "a part".to_owned()) {
        let said = &opening.description;
        assert_eq!(peek(data).as_ref(), Some(said));
        assert_eq!(opening.record.cid(), Some(said.root));
        let mut taken = 0;
        while let Ok(Some(_)) = part.next() {
            taken += 1;
        }
        assert!(taken <= said.tree.saturating_add(said.blobs));
    }
    order(data);
}

/// The same blocks as if their hashes were right: each is taken at its place or refused, and the bytes of a blob come
/// without a gap.
fn order(data: &[u8]) {
    let Ok(mut reader) = car::Reader::new(data) else { return };
    let (mut tree, mut blob) = (None, None);
    while let Ok(Some(section)) = reader.next_section() {
        let size = section.data.len() as u64;
        let block = Block::new(section.cid.codec(), section.data);
        let _ = tree.get_or_insert_with(|| TreeOrder::new(*block.cid())).take(&block);
        let entry = Entry { name: String::new(), cid: *block.cid(), tsize: size };
        let new = NewBlob { digest: Digest::of(Algorithm::Sha256, b""), entry, size };
        let (order, arrived) = if let Some(open) = &mut blob {
            open
        } else {
            let Ok(order) = BlobOrder::new(&new) else { continue };
            blob.insert((order, 0_u64))
        };
        let mut left = MAX_PIECES;
        let taken = order.take(&block, &mut |piece| {
            assert_eq!(piece.offset, *arrived);
            *arrived += piece.bytes.len() as u64;
            // A small block can name a file of any size.
            left -= 1;
            if left == 0 { Err(BlockError::TooLarge(0)) } else { Ok(()) }
        });
        if taken.is_err() || order.awaits().is_none() {
            blob = None;
        }
    }
}
