//! dag-pb: a node with named links and bytes (IPLD spec, "DAG-PB").
//!
//! Written canonically: links before data, in a link Hash, Name and Tsize, the Name also where it is empty,
//! as kubo does and the spec's own vectors need. Read leniently: either order, Name and Tsize may be missing.

use bytes::Bytes;
use cid::Cid;

use super::Malformed;
use super::wire::{Fields, Value, put_bytes, put_number, put_varint, varint_len};

/// A block of 2 MiB holds some 47,000 links with a sha2-256 hash; more are an attack on memory.
pub const MAX_LINKS: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub cid: Cid,
    pub name: String,
    /// Bytes of all blocks below, as the writer says: a hint, never to be trusted.
    pub tsize: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub links: Vec<Link>,
    pub data: Option<Bytes>,
}

/// A link as it stands in a block, its CID not parsed yet.
#[derive(Clone, Copy, Debug)]
pub struct LinkRef<'a> {
    hash: &'a [u8],
    name: &'a [u8],
    tsize: u64,
}

/// A block of which only the outline has been read: enough to find one link among thousands.
#[derive(Clone, Debug)]
pub struct View<'a> {
    block: &'a [u8],
    data: Option<&'a [u8]>,
    links: usize,
}

impl Node {
    /// The data is a slice of the same buffer.
    pub fn decode(block: &Bytes) -> Result<Self, Malformed> {
        let view = View::parse(block)?;
        let mut links = Vec::with_capacity(view.links);
        for link in view.links() {
            links.push(link?.to_link()?);
        }
        Ok(Self { links, data: view.data.map(|data| block.slice_ref(data)) })
    }

    /// Links are written in the order in which they stand here.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        for link in &self.links {
            put_link(&mut out, &link.cid, &link.name, link.tsize);
        }
        if let Some(data) = &self.data {
            put_bytes(&mut out, DATA, data);
        }
        out.into()
    }

    /// Length of the block without making it.
    pub fn encoded_len(&self) -> usize {
        let links: usize = self.links.iter().map(|link| link_len(&link.cid, &link.name, link.tsize)).sum();
        links + self.data.as_ref().map_or(0, |data| 1 + varint_len(data.len() as u64) + data.len())
    }

    /// Bytes of this block, which is `own` long, and of all below it.
    pub fn cumulative(&self, own: usize) -> u64 {
        self.links.iter().fold(own as u64, |sum, link| sum.saturating_add(link.tsize))
    }
}

impl<'a> LinkRef<'a> {
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    pub fn tsize(&self) -> u64 {
        self.tsize
    }

    pub fn cid(&self) -> Result<Cid, Malformed> {
        let mut rest = self.hash;
        match Cid::read_bytes(&mut rest) {
            Ok(cid) if rest.is_empty() => Ok(cid),
            _ => Err(Malformed("a link's hash is no CID")),
        }
    }

    /// Bytes of the link in a block, if it was written as here.
    pub(super) fn encoded_len(&self) -> usize {
        encoded_len(self.hash.len(), self.name.len(), self.tsize)
    }

    fn to_link(self) -> Result<Link, Malformed> {
        let name = str::from_utf8(self.name).map_err(|_| Malformed("a link's name is not UTF-8"))?;
        Ok(Link { cid: self.cid()?, name: name.to_owned(), tsize: self.tsize })
    }

    fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let (mut hash, mut name, mut tsize) = (None, None, None);
        for field in Fields::new(message) {
            let twice = match field? {
                (HASH, Value::Bytes(value)) => hash.replace(value).is_some(),
                (NAME, Value::Bytes(value)) => name.replace(value).is_some(),
                (TSIZE, Value::Varint(value)) => tsize.replace(value).is_some(),
                _ => return Err(Malformed("a link has a field that dag-pb does not know")),
            };
            if twice {
                return Err(Malformed("a link has a field twice"));
            }
        }
        let hash = hash.ok_or(Malformed("a link has no hash"))?;
        Ok(Self { hash, name: name.unwrap_or_default(), tsize: tsize.unwrap_or_default() })
    }
}

impl<'a> View<'a> {
    pub fn parse(block: &'a [u8]) -> Result<Self, Malformed> {
        let mut view = Self { block, data: None, links: 0 };
        for field in Fields::new(block) {
            match field? {
                (LINKS, Value::Bytes(_)) => view.links += 1,
                (DATA, Value::Bytes(data)) if view.data.is_none() => view.data = Some(data),
                _ => {
                    return Err(Malformed(
                        "the node has a field that dag-pb does not know, or its data twice",
                    ));
                }
            }
        }
        if view.links > MAX_LINKS {
            return Err(Malformed("the node has too many links"));
        }
        Ok(view)
    }

    pub fn data(&self) -> Option<&'a [u8]> {
        self.data
    }

    /// How many links there are.
    pub fn width(&self) -> usize {
        self.links
    }

    pub fn links(&self) -> impl Iterator<Item = Result<LinkRef<'a>, Malformed>> + use<'a> {
        Fields::new(self.block).filter_map(|field| match field {
            Ok((LINKS, Value::Bytes(message))) => Some(LinkRef::parse(message)),
            Ok(_) => None,
            Err(malformed) => Some(Err(malformed)),
        })
    }
}

/// What a link adds to the length of its block.
pub fn link_len(cid: &Cid, name: &str, tsize: u64) -> usize {
    encoded_len(cid.encoded_len(), name.len(), tsize)
}

pub(super) fn put_link(out: &mut Vec<u8>, cid: &Cid, name: &str, tsize: u64) {
    put_varint(out, LINKS << 3 | 2);
    put_varint(out, body_len(cid.encoded_len(), name.len(), tsize) as u64);
    put_bytes(out, HASH, &cid.to_bytes());
    put_bytes(out, NAME, name.as_bytes());
    put_number(out, TSIZE, tsize);
}

const HASH: u64 = 1;
const NAME: u64 = 2;
const TSIZE: u64 = 3;
const DATA: u64 = 1;
const LINKS: u64 = 2;

fn encoded_len(cid: usize, name: usize, tsize: u64) -> usize {
    let body = body_len(cid, name, tsize);
    1 + varint_len(body as u64) + body
}

fn body_len(cid: usize, name: usize, tsize: u64) -> usize {
    3 + varint_len(cid as u64) + cid + varint_len(name as u64) + name + varint_len(tsize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::{RAW, cid_of};

    fn link(name: &str, tsize: u64) -> Link {
        Link { cid: cid_of(RAW, name.as_bytes()), name: name.to_owned(), tsize }
    }

    #[test]
    fn an_empty_name_is_written() {
        let node = Node { links: vec![link("", 0)], data: None };
        let block = node.encode();
        assert!(block.ends_with(&[0x12, 0x00, 0x18, 0x00]));
        assert_eq!(Node::decode(&block).unwrap(), node);
    }

    #[test]
    fn a_missing_name_and_size_and_data_before_links_are_read() {
        let cid = cid_of(RAW, b"");
        let mut block = vec![0x0a, 0x01, b'x', 0x12, 0x26, 0x0a, 0x24];
        block.extend(cid.to_bytes());
        let node = Node::decode(&block.into()).unwrap();
        assert_eq!(node.data.as_deref(), Some(b"x".as_slice()));
        assert_eq!(node.links, [Link { cid, name: String::new(), tsize: 0 }]);
    }

    #[test]
    fn what_is_no_node_is_refused() {
        let twice: &[u8] = &[0x0a, 0x00, 0x0a, 0x00];
        let no_hash: &[u8] = &[0x12, 0x02, 0x12, 0x00];
        let no_cid: &[u8] = &[0x12, 0x03, 0x0a, 0x01, 0x01];
        let cut: &[u8] = &[0x0a, 0x05, 0x00];
        let group: &[u8] = &[0x0b];
        for block in [twice, no_hash, no_cid, cut, group] {
            assert!(Node::decode(&Bytes::from_static(block)).is_err(), "{block:?}");
        }
        assert_eq!(Node::decode(&Bytes::new()).unwrap(), Node::default());
    }

    #[test]
    fn too_many_links_are_refused_before_they_are_kept() {
        let block = [0x12, 0x00].repeat(MAX_LINKS + 1);
        assert_eq!(Node::decode(&block.into()), Err(Malformed("the node has too many links")));
    }

    proptest! {
        #[test]
        fn nodes_come_back(
            links in prop::collection::vec((".{0,20}", any::<u64>()), 0..8),
            data in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
        ) {
            let links = links.iter().map(|(name, tsize)| link(name, *tsize)).collect();
            let node = Node { links, data: data.map(Bytes::from) };
            let block = node.encode();
            prop_assert_eq!(block.len(), node.encoded_len());
            prop_assert_eq!(Node::decode(&block).unwrap(), node);
        }

        #[test]
        fn no_bytes_make_it_panic(block in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Node::decode(&block.into());
        }
    }
}
