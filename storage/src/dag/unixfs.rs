//! The UnixFS message in a dag-pb node's data (specs.ipfs.tech, "UnixFS").
//!
//! `mode` and `mtime` are read over and never written: they would change CIDs.

use bytes::Bytes;

use super::Malformed;
use super::pb::MAX_LINKS;
use super::wire::{Fields, Value, put_bytes, put_number, read_varint};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A leaf of a file, the older way to say it.
    Raw,
    Directory,
    File,
    Metadata,
    Symlink,
    HamtShard,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    pub kind: Kind,
    pub data: Option<Bytes>,
    pub filesize: Option<u64>,
    /// Bytes of the file under each link, in the order of the links.
    pub blocksizes: Vec<u64>,
    pub hash_type: Option<u64>,
    pub fanout: Option<u64>,
}

impl Data {
    /// A message that says its kind and nothing else.
    pub fn new(kind: Kind) -> Self {
        Self { kind, data: None, filesize: None, blocksizes: Vec::new(), hash_type: None, fanout: None }
    }

    /// The message in a node's data, which must be there.
    pub fn of(data: Option<&Bytes>) -> Result<Self, Malformed> {
        Self::decode(data.ok_or(Malformed("the node carries no UnixFS"))?)
    }

    /// Fields that are not known are passed over.
    pub fn decode(message: &Bytes) -> Result<Self, Malformed> {
        let mut out = Self::new(Kind::Raw);
        let mut kind = None;
        for field in Fields::new(message) {
            match field? {
                (TYPE, Value::Varint(value)) => kind = Some(Kind::from_number(value)?),
                (DATA, Value::Bytes(data)) => out.data = Some(message.slice_ref(data)),
                (FILESIZE, Value::Varint(value)) => out.filesize = Some(value),
                (BLOCKSIZES, Value::Varint(value)) => out.push_blocksize(value)?,
                (BLOCKSIZES, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let value =
                            read_varint(&mut packed).ok_or(Malformed("a packed blocksize is cut off"))?;
                        out.push_blocksize(value)?;
                    }
                }
                (HASH_TYPE, Value::Varint(value)) => out.hash_type = Some(value),
                (FANOUT, Value::Varint(value)) => out.fanout = Some(value),
                (TYPE..=FANOUT, _) => return Err(Malformed("a UnixFS field has the wrong wire type")),
                _ => {}
            }
        }
        out.kind = kind.ok_or(Malformed("the UnixFS message has no type"))?;
        Ok(out)
    }

    pub fn encode(&self) -> Bytes {
        let inline = self.data.as_ref().map_or(0, Bytes::len);
        let mut out = Vec::with_capacity(32 + inline + self.blocksizes.len() * 4);
        put_number(&mut out, TYPE, self.kind.number());
        if let Some(data) = &self.data {
            put_bytes(&mut out, DATA, data);
        }
        if let Some(filesize) = self.filesize {
            put_number(&mut out, FILESIZE, filesize);
        }
        for blocksize in &self.blocksizes {
            put_number(&mut out, BLOCKSIZES, *blocksize);
        }
        if let Some(hash_type) = self.hash_type {
            put_number(&mut out, HASH_TYPE, hash_type);
        }
        if let Some(fanout) = self.fanout {
            put_number(&mut out, FANOUT, fanout);
        }
        out.into()
    }

    fn push_blocksize(&mut self, value: u64) -> Result<(), Malformed> {
        if self.blocksizes.len() >= MAX_LINKS {
            return Err(Malformed("the file node has too many blocksizes"));
        }
        self.blocksizes.push(value);
        Ok(())
    }
}

impl Kind {
    fn number(self) -> u64 {
        match self {
            Self::Raw => 0,
            Self::Directory => 1,
            Self::File => 2,
            Self::Metadata => 3,
            Self::Symlink => 4,
            Self::HamtShard => 5,
        }
    }

    fn from_number(number: u64) -> Result<Self, Malformed> {
        Ok(match number {
            0 => Self::Raw,
            1 => Self::Directory,
            2 => Self::File,
            3 => Self::Metadata,
            4 => Self::Symlink,
            5 => Self::HamtShard,
            _ => return Err(Malformed("the UnixFS type is not known")),
        })
    }
}

const TYPE: u64 = 1;
const DATA: u64 = 2;
const FILESIZE: u64 = 3;
const BLOCKSIZES: u64 = 4;
const HASH_TYPE: u64 = 5;
const FANOUT: u64 = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_directory_is_two_bytes() {
        assert_eq!(Data::new(Kind::Directory).encode(), [0x08, 0x01].as_slice());
    }

    #[test]
    fn packed_blocksizes_mode_and_mtime_are_read() {
        let message = [
            0x08, 0x02, 0x18, 0x05, 0x22, 0x02, 0x02, 0x03, // File, filesize 5, blocksizes packed
            0x38, 0xa4, 0x03, 0x42, 0x07, 0x08, 0x01, 0x15, 1, 0, 0, 0, // mode, mtime with a fraction
        ];
        let data = Data::decode(&Bytes::copy_from_slice(&message)).unwrap();
        assert_eq!(data, Data { filesize: Some(5), blocksizes: vec![2, 3], ..Data::new(Kind::File) });
    }

    #[test]
    fn a_message_without_a_known_type_is_refused() {
        assert!(Data::decode(&Bytes::new()).is_err());
        assert!(Data::decode(&Bytes::from_static(&[0x08, 0x06])).is_err());
        assert!(Data::decode(&Bytes::from_static(&[0x0a, 0x00])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = Data::decode(&message.into());
        }

        #[test]
        fn messages_come_back(blocksizes in prop::collection::vec(any::<u64>(), 0..8), filesize: u64, inline: Vec<u8>) {
            let data = Data { data: Some(inline.into()), filesize: Some(filesize), blocksizes, ..Data::new(Kind::File) };
            prop_assert_eq!(Data::decode(&data.encode()).unwrap(), data);
        }
    }
}
