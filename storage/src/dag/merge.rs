//! Changes to a basic directory as bytes: what stays is copied as it stands, and no link is made of it.
//!
//! A directory of the largest size has two thousand links, and each push changes a few of such. Only a directory that
//! is written as this program writes it is changed so; any other goes the long way, by its entries.

use std::collections::BTreeMap;

use cid::Cid;

use super::{Malformed, pb};

/// The changed block and what it and all below it weigh, or `None` where the block is not written as `tail` and
/// links in order in front of it.
pub(super) fn merge(
    block: &[u8],
    tail: &[u8],
    changes: &BTreeMap<String, Option<(Cid, u64)>>,
) -> Result<Option<(Vec<u8>, u64)>, Malformed> {
    let mut out =
        Vec::with_capacity(block.len() + changes.keys().map(|name| name.len() + ADDED).sum::<usize>());
    let mut changes = changes.iter().peekable();
    let (mut rest, mut below) = (block, 0_u64);
    let mut last = None;
    let put = |out: &mut Vec<u8>, name: &str, change: &Option<(Cid, u64)>| {
        let Some((cid, tsize)) = change else { return 0 };
        pb::put_link(out, cid, name, *tsize);
        *tsize
    };
    for link in pb::View::parse(block)?.links() {
        let link = link?;
        let name = Some(link.name());
        let Some((own, behind)) = rest.split_at_checked(link.encoded_len()).filter(|_| last < name) else {
            return Ok(None);
        };
        (rest, last) = (behind, name);
        while let Some((name, change)) = changes.next_if(|(name, _)| name.as_bytes() < link.name()) {
            below = below.saturating_add(put(&mut out, name, change));
        }
        if let Some((name, change)) = changes.next_if(|(name, _)| name.as_bytes() == link.name()) {
            below = below.saturating_add(put(&mut out, name, change));
        } else {
            out.extend_from_slice(own);
            below = below.saturating_add(link.tsize());
        }
    }
    for (name, change) in changes {
        below = below.saturating_add(put(&mut out, name, change));
    }
    out.extend_from_slice(tail);
    let tsize = below.saturating_add(out.len() as u64);
    Ok((rest == tail).then_some((out, tsize)))
}

/// Room for a link without its name: a sha2-256 CID, a size and the fields' heads.
const ADDED: usize = 64;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::block::{RAW, cid_of};

    const TAIL: &[u8] = &[0x0a, 0x02, 0x08, 0x01];

    fn value(number: u64) -> (Cid, u64) {
        (cid_of(RAW, &number.to_le_bytes()), number)
    }

    fn block(names: &[&str]) -> Bytes {
        let link = |name: &&str| {
            let (cid, tsize) = value(name.len() as u64);
            pb::Link { cid, name: (*name).to_owned(), tsize }
        };
        pb::Node { links: names.iter().map(link).collect(), data: Some(Bytes::from_static(&TAIL[2..])) }
            .encode()
    }

    fn merged(names: &[&str], changes: &[(&str, Option<u64>)]) -> Option<(Bytes, u64)> {
        let changes = changes.iter().map(|(name, change)| ((*name).to_owned(), change.map(value))).collect();
        merge(&block(names), TAIL, &changes).unwrap().map(|(block, tsize)| (block.into(), tsize))
    }

    #[test]
    fn entries_are_added_replaced_and_removed_in_their_places() {
        let (changed, tsize) = merged(
            &["b", "dd", "f"],
            &[("a", Some(1)), ("b", None), ("c", Some(1)), ("dd", Some(2)), ("e", None), ("g", Some(1))],
        )
        .unwrap();
        assert_eq!(changed, block(&["a", "c", "dd", "f", "g"]));
        assert_eq!(tsize, changed.len() as u64 + 6);
        assert_eq!(merged(&["b"], &[("b", None)]).unwrap(), (Bytes::from_static(TAIL), 4));
    }

    #[test]
    fn what_is_not_written_in_this_way_is_left_to_others() {
        for names in [&["b", "a"][..], &["a", "a"]] {
            assert_eq!(merged(names, &[("c", Some(1))]), None);
        }
        // A name that is empty may be left out; a varint may be longer than it must; data may stand in front.
        let link = block(&["a"]);
        let (links, tail) = link.split_at(link.len() - TAIL.len());
        let long = [&links[..links.len() - 1], &[0x81, 0x00], tail].concat();
        let long = [&long[..1], &[long[1] + 1], &long[2..]].concat();
        for block in [[tail, links].concat(), long, [links, &[0x0a, 0x03, 0x08, 0x01, 0x00]].concat()] {
            assert!(pb::Node::decode(&block.clone().into()).is_ok());
            assert!(merge(&block, TAIL, &BTreeMap::new()).unwrap().is_none());
        }
    }
}
