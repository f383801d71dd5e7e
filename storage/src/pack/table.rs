//! The table of a closed pack: keys in order with their places, searched on disk.
//!
//! Keys are hashes and so spread evenly: where one must stand is guessed from its first bytes, and one or two reads
//! of a page find it. Derived from the pack; one that is missing or does not fit it is written again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Key, Span};
use crate::files::write_whole;

/// Form of the file: this, then the pack's length (8 bytes, little-endian), then the rows.
const MAGIC: &[u8; 8] = b"sampidx1";
const HEADER: u64 = 16;
/// Key, offset, length.
const ROW: usize = 24;
/// Rows read at once: 4 KiB.
const WINDOW: u64 = 170;

#[derive(Debug)]
pub(super) struct Table {
    file: File,
    rows: u64,
}

impl Table {
    /// `None` where there is none for a pack of this length.
    pub(super) fn open(path: &Path, pack_len: u64) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.metadata()?.len();
        let mut header = [0; HEADER as usize];
        if len < HEADER || !(len - HEADER).is_multiple_of(ROW as u64) {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let fits = header == Self::header(pack_len);
        Ok(fits.then_some(Self { file, rows: (len - HEADER) / ROW as u64 }))
    }

    pub(super) fn write(path: &Path, pack_len: u64, spans: &HashMap<Key, Span>) -> io::Result<Self> {
        let mut sorted: Vec<(&Key, &Span)> = spans.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| **key);
        let mut out = Vec::with_capacity(HEADER as usize + sorted.len() * ROW);
        out.extend_from_slice(&Self::header(pack_len));
        for (key, span) in sorted {
            out.extend_from_slice(key);
            out.extend_from_slice(&span.offset.to_le_bytes());
            out.extend_from_slice(&span.len.to_le_bytes());
        }
        write_whole(path, &out, 0o644)?;
        let rows = (fs::metadata(path)?.len() - HEADER) / ROW as u64;
        Ok(Self { file: File::open(path)?, rows })
    }

    /// All rows.
    pub(super) fn rows(&self) -> io::Result<Vec<(Key, Span)>> {
        let mut bytes = vec![0; usize::try_from(self.rows).unwrap_or(0).saturating_mul(ROW)];
        self.file.read_exact_at(&mut bytes, HEADER)?;
        let (rows, _) = bytes.as_chunks::<ROW>();
        let key = |row: &[u8; ROW]| row.first_chunk().copied().unwrap_or_default();
        Ok(rows.iter().map(|row| (key(row), span_of(row))).collect())
    }

    pub(super) fn find(&self, key: &Key) -> io::Result<Option<Span>> {
        // Rows in [low, high) may hold the key.
        let (mut low, mut high) = (0, self.rows);
        let guess = key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let mut at = ((u128::from(guess) * u128::from(self.rows)) >> 64) as u64;
        let mut window = vec![0; ROW * WINDOW as usize];
        while low < high {
            let start = at.saturating_sub(WINDOW / 2).clamp(low, high - 1);
            let count = WINDOW.min(high - start);
            let bytes = window.get_mut(..ROW * count as usize).unwrap_or_default();
            self.file.read_exact_at(bytes, HEADER + start * ROW as u64)?;
            let (rows, _) = bytes.as_chunks::<ROW>();
            match (rows.first(), rows.last()) {
                (Some(first), _) if key.as_slice() < key_of(first) => high = start,
                (_, Some(last)) if key.as_slice() > key_of(last) => low = start + count,
                _ => {
                    let found = rows.binary_search_by(|row| key_of(row).cmp(key)).ok();
                    return Ok(found.and_then(|at| rows.get(at)).map(span_of));
                }
            }
            at = low + (high - low) / 2;
        }
        Ok(None)
    }

    fn header(pack_len: u64) -> [u8; HEADER as usize] {
        let mut header = [0; HEADER as usize];
        for (to, from) in header.iter_mut().zip(MAGIC.iter().chain(&pack_len.to_le_bytes())) {
            *to = *from;
        }
        header
    }
}

fn key_of(row: &[u8; ROW]) -> &[u8] {
    row.split_at(16).0
}

fn span_of(row: &[u8; ROW]) -> Span {
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let (_, place) = row.split_at(16);
    let (offset, len) = place.split_at(4);
    Span { offset: number(offset), len: number(len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_no_other_also_when_they_are_not_spread() {
        for spread in [false, true] {
            for count in [0_u32, 1, 2, 169, 170, 171, 5000] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("x.idx");
                let key = |number: u32| {
                    let mut key = Key::default();
                    let hash = number.wrapping_mul(2_654_435_761).to_be_bytes();
                    key[if spread { 0..4 } else { 12..16 }].copy_from_slice(&hash);
                    key
                };
                let spans = (0..count).map(|number| (key(number), Span { offset: number, len: 1 })).collect();
                let table = Table::write(&path, 9, &spans).unwrap();
                for number in 0..count {
                    assert_eq!(table.find(&key(number)).unwrap(), Some(Span { offset: number, len: 1 }));
                }
                assert_eq!(table.find(&key(count + 1)).unwrap(), None);
                assert_eq!(table.find(&[0xff; 16]).unwrap(), None);
                assert!(Table::open(&path, 9).unwrap().is_some());
                assert!(Table::open(&path, 10).unwrap().is_none());
            }
        }
    }
}
