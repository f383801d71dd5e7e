//! The table of a closed pack: keys in order with their places, on the disk.
//!
//! Of it a filter and every 128th key are in memory, some 11 bits a row: most keys that are not here cost no read, and
//! each that is costs one. Derived from the pack; one that is missing, of an older form or does not fit the pack is
//! written again.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::filter::Filter;
use super::{Key, Span};
use crate::files::write_whole;

/// Form of the file: this, the pack's length and the number of rows (8 bytes each, little-endian), the rows, the
/// filter, the fences.
const MAGIC: &[u8; 8] = b"sampidx2";
const HEADER: usize = 24;
/// Key, offset, length.
const ROW: usize = 24;
/// Rows between two fences, which are read at once: 3 KiB.
const WINDOW: usize = 128;

#[derive(Debug)]
pub(super) struct Table {
    file: File,
    rows: usize,
    filter: Filter,
    /// The first key of each window.
    fences: Box<[Key]>,
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
        let mut header = [0; HEADER];
        if len < HEADER as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let (_, rows) = header.split_at(HEADER - 8);
        let rows = rows.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // No more than the file has room for, so that what follows cannot overflow.
        let Some(rows) = usize::try_from(rows).ok().filter(|rows| *rows as u64 <= len / ROW as u64) else {
            return Ok(None);
        };
        let filter = Filter::encoded_len(rows);
        let mut tail = vec![0; filter + rows.div_ceil(WINDOW) * size_of::<Key>()];
        let start = (HEADER + rows * ROW) as u64;
        if header != Self::header(pack_len, rows) || len != start + tail.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut tail, start)?;
        let (filter, fences) = tail.split_at(filter);
        let fences = fences.as_chunks().0.into();
        Ok(Some(Self { file, rows, filter: Filter::decode(filter), fences }))
    }

    pub(super) fn write(path: &Path, pack_len: u64, spans: &HashMap<Key, Span>) -> io::Result<Self> {
        let mut sorted: Vec<(&Key, &Span)> = spans.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| **key);
        let rows = sorted.len();
        let fences: Box<[Key]> = sorted.iter().step_by(WINDOW).map(|(key, _)| **key).collect();
        let mut filter = Filter::new(rows);
        let len = HEADER + rows * ROW + Filter::encoded_len(rows) + fences.len() * size_of::<Key>();
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&Self::header(pack_len, rows));
        for (key, span) in sorted {
            filter.insert(key);
            out.extend_from_slice(key);
            out.extend_from_slice(&span.offset.to_le_bytes());
            out.extend_from_slice(&span.len.to_le_bytes());
        }
        filter.encode(&mut out);
        out.extend(fences.iter().flatten());
        write_whole(path, &out, 0o644)?;
        Ok(Self { file: File::open(path)?, rows, filter, fences })
    }

    /// All rows.
    pub(super) fn rows(&self) -> io::Result<Vec<(Key, Span)>> {
        let mut bytes = vec![0; self.rows * ROW];
        self.file.read_exact_at(&mut bytes, HEADER as u64)?;
        let (rows, _) = bytes.as_chunks::<ROW>();
        let key = |row: &[u8; ROW]| row.first_chunk().copied().unwrap_or_default();
        Ok(rows.iter().map(|row| (key(row), span_of(row))).collect())
    }

    pub(super) fn find(&self, key: &Key) -> io::Result<Option<Span>> {
        if !self.filter.may_hold(key) {
            return Ok(None);
        }
        // The last window that begins no later than the key.
        let windows = self.fences.partition_point(|fence| fence <= key);
        let Some(start) = windows.checked_sub(1).map(|window| window * WINDOW) else { return Ok(None) };
        let mut window = [0; WINDOW * ROW];
        let len = (self.rows - start).min(WINDOW) * ROW;
        let Some(bytes) = window.get_mut(..len) else { return Ok(None) };
        self.file.read_exact_at(bytes, (HEADER + start * ROW) as u64)?;
        let (rows, _) = bytes.as_chunks::<ROW>();
        let found = rows.binary_search_by(|row| key_of(row).cmp(key)).ok();
        Ok(found.and_then(|at| rows.get(at)).map(span_of))
    }

    fn header(pack_len: u64, rows: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let fields = MAGIC.iter().copied().chain(pack_len.to_le_bytes()).chain((rows as u64).to_le_bytes());
        header.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
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
    use std::fs;

    use super::*;

    #[test]
    fn every_key_is_found_and_no_other_also_when_they_are_not_spread() {
        for spread in [false, true] {
            for count in [0_u32, 1, 2, 127, 128, 129, 5000] {
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
                let again = Table::open(&path, 9).unwrap().unwrap();
                assert!(
                    (0..count)
                        .all(|number| again.find(&key(number)).unwrap() == table.find(&key(number)).unwrap())
                );
                assert!(Table::open(&path, 10).unwrap().is_none());
                let mut content = fs::read(&path).unwrap();
                content[7] = b'1';
                fs::write(&path, &content).unwrap();
                assert!(Table::open(&path, 9).unwrap().is_none(), "another form");
            }
        }
    }
}
