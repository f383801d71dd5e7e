//! DAG-CBOR, as far as headers of CAR files, links and paths need it (IPLD spec, "DAG-CBOR").
//!
//! Nothing here recurses: bytes of strangers say how deep they are.

use cid::Cid;

use crate::dag::Malformed;
use crate::dag::pb::MAX_LINKS;

/// Multicodec of blocks in DAG-CBOR.
pub const DAG_CBOR: u64 = 0x71;

// Major types, and the tag of a CID.
pub(crate) const UNSIGNED: u8 = 0;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const ARRAY: u8 = 4;
pub(crate) const MAP: u8 = 5;
pub(crate) const TAG: u8 = 6;
pub(crate) const CID_TAG: u64 = 42;

const BROKEN: Malformed = Malformed("it is no DAG-CBOR");

/// Where one step of a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below<'a> {
    Link(Cid),
    /// Another value of the same block.
    Value(&'a [u8]),
    Nothing,
}

/// Every link of a block, in the order in which they stand.
pub(crate) fn links(block: &[u8]) -> Result<Vec<Cid>, Malformed> {
    let mut links = Vec::new();
    let rest = pass(block, &mut |cid| {
        links.push(cid);
        links.len() <= MAX_LINKS
    })?;
    if rest.is_empty() { Ok(links) } else { Err(BROKEN) }
}

/// From a value to what its map has under `name`, or its list at that place.
pub(crate) fn step<'a>(value: &'a [u8], name: &str) -> Result<Below<'a>, Malformed> {
    let mut rest = value;
    let (major, count) = head(&mut rest).ok_or(BROKEN)?;
    match major {
        MAP => {
            for _ in 0..count {
                let key = string(&mut rest, TEXT).ok_or(BROKEN)?;
                if key == name.as_bytes() {
                    return below(rest);
                }
                rest = pass(rest, &mut |_| true)?;
            }
            Ok(Below::Nothing)
        }
        ARRAY => {
            let Some(place) = name.parse::<u64>().ok().filter(|place| *place < count) else {
                return Ok(Below::Nothing);
            };
            for _ in 0..place {
                rest = pass(rest, &mut |_| true)?;
            }
            below(rest)
        }
        _ => Ok(Below::Nothing),
    }
}

/// The first value of `from`.
fn below(from: &[u8]) -> Result<Below<'_>, Malformed> {
    let rest = pass(from, &mut |_| true)?;
    let value = from.get(..from.len() - rest.len()).ok_or(BROKEN)?;
    let mut inside = value;
    if head(&mut inside) == Some((TAG, CID_TAG)) {
        return link(&mut inside).map(Below::Link).ok_or(BROKEN);
    }
    Ok(Below::Value(value))
}

/// Passes over one value and shows its links; what stands behind it is returned.
fn pass<'a>(from: &'a [u8], see: &mut dyn FnMut(Cid) -> bool) -> Result<&'a [u8], Malformed> {
    let mut rest = from;
    let mut expected: u64 = 1;
    while expected > 0 {
        // Each value takes a byte at least.
        if expected > rest.len() as u64 {
            return Err(BROKEN);
        }
        expected -= 1;
        let at = rest;
        let (major, value) = head(&mut rest).ok_or(BROKEN)?;
        match major {
            BYTES | TEXT => {
                rest = at;
                string(&mut rest, major).ok_or(BROKEN)?;
            }
            ARRAY => expected = expected.saturating_add(value),
            MAP => expected = expected.saturating_add(value.saturating_mul(2)),
            TAG if value == CID_TAG => {
                let goes_on = see(link(&mut rest).ok_or(BROKEN)?);
                goes_on.then_some(()).ok_or(Malformed("the block has too many links"))?;
            }
            TAG => expected += 1,
            _ => {}
        }
    }
    Ok(rest)
}

/// The bytes of a link, behind its tag.
pub(crate) fn link(from: &mut &[u8]) -> Option<Cid> {
    // The multibase prefix for binary stands in front.
    let mut bytes = string(from, BYTES)?.strip_prefix(&[0])?;
    Cid::read_bytes(&mut bytes).ok().filter(|_| bytes.is_empty())
}

pub(crate) fn head(from: &mut &[u8]) -> Option<(u8, u64)> {
    let (first, rest) = from.split_first()?;
    let width = match first & 0x1f {
        value @ 0..=23 => {
            *from = rest;
            return Some((first >> 5, u64::from(value)));
        }
        width @ 24..=27 => 1_usize << (width - 24),
        _ => return None,
    };
    let (bytes, rest) = rest.split_at_checked(width)?;
    *from = rest;
    Some((first >> 5, bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))))
}

pub(crate) fn string<'a>(from: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    let (major, length) = head(from)?;
    let (bytes, rest) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = rest;
    (major == wanted).then_some(bytes)
}

pub(crate) fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
    match value {
        0..=23 => out.push(major << 5 | value as u8),
        24..=0xff => out.extend([major << 5 | 0x18, value as u8]),
        _ => {
            out.push(major << 5 | 0x19);
            out.extend((value.min(u64::from(u16::MAX)) as u16).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::{RAW, cid_of};

    /// `{"list": [1, link], "text": "x"}`.
    fn block(cid: &Cid) -> Vec<u8> {
        let mut out = vec![0xa2];
        out.extend(b"\x64list\x82\x01\xd8\x2a");
        put_head(&mut out, BYTES, cid.to_bytes().len() as u64 + 1);
        out.push(0);
        out.extend(cid.to_bytes());
        out.extend(b"\x64text\x61x");
        out
    }

    #[test]
    fn links_are_found_and_paths_lead_to_them() {
        let cid = cid_of(RAW, b"x");
        let block = block(&cid);
        assert_eq!(links(&block), Ok(vec![cid]));
        let Ok(Below::Value(list)) = step(&block, "list") else { panic!("no list") };
        assert_eq!(step(list, "1"), Ok(Below::Link(cid)));
        assert_eq!(step(list, "0"), Ok(Below::Value(&[1])));
        for nothing in ["2", "-1", "x", ""] {
            assert_eq!(step(list, nothing), Ok(Below::Nothing), "{nothing}");
        }
        assert_eq!(step(&block, "text"), Ok(Below::Value(b"\x61x")));
        assert_eq!(step(&block, "other"), Ok(Below::Nothing));
        assert_eq!(step(&[0x61, b'x'], "0"), Ok(Below::Nothing));
    }

    #[test]
    fn depth_and_counts_cost_nothing() {
        assert!(links(&vec![0x81; 1_000_000]).is_err());
        assert!(links(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x00").is_err());
        assert!(links(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00").is_err());
        let deep = [vec![0x81; 100_000], vec![0x80]].concat();
        assert_eq!(links(&deep), Ok(Vec::new()));
        assert!(links(b"\x01\x01").is_err(), "two values are no block");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(block: Vec<u8>, name: String) {
            let _ = (links(&block), step(&block, &name));
        }
    }
}
