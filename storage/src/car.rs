//! CAR: blocks one after the other in a file (IPLD specs, CARv1; of CARv2 the payload is read).
//!
//! Sections are not verified here: whoever reads a file that another wrote checks each block against its CID.

use std::io::{self, BufRead, Read};

use bytes::Bytes;
use cid::Cid;

use crate::block::MAX_BLOCK;
use crate::cbor::{self, ARRAY, BYTES, CID_TAG, MAP, TAG, TEXT, UNSIGNED};

/// A section is a CID and a block; no CID that is understood is longer than this.
pub const MAX_SECTION: usize = MAX_BLOCK + 256;
/// A header names its roots; more bytes than these are none of ours.
const MAX_HEADER: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CarError {
    #[error("reading the CAR failed")]
    Io(#[from] io::Error),
    /// The bytes up to here are whole sections, what follows is the start of one, or zeros that a power cut left.
    #[error("the CAR is cut off after byte {at}")]
    Truncated { at: u64 },
    #[error("the CAR is malformed at byte {at}: {reason}")]
    Malformed { at: u64, reason: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub cid: Cid,
    /// Where the block's bytes begin, counted from the start of the file.
    pub offset: u64,
    pub data: Bytes,
}

/// Reads section by section. After an error it yields nothing more.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    roots: Vec<Cid>,
    position: u64,
    /// Where the payload ends; a CARv2 has an index behind it.
    end: Option<u64>,
    failed: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header, and steps over that of a CARv2.
    pub fn new(input: R) -> Result<Self, CarError> {
        let mut reader = Self { input, roots: Vec::new(), position: 0, end: None, failed: false };
        if reader.read_header()? == 2 {
            reader.enter_payload()?;
        }
        Ok(reader)
    }

    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// Up to where whole sections have been read, counted from the start of the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next section, or `None` at the end.
    pub fn next_section(&mut self) -> Result<Option<Section>, CarError> {
        if self.failed {
            return Ok(None);
        }
        let section = self.read_section();
        self.failed = section.is_err();
        section
    }

    /// Keeps the roots, returns the version.
    fn read_header(&mut self) -> Result<u64, CarError> {
        let at = self.position;
        let malformed = CarError::Malformed { at, reason: "it is no CAR header" };
        let Some((length, prefix)) = self.read_length(at)? else { return Err(CarError::Truncated { at }) };
        if length > MAX_HEADER {
            return Err(malformed);
        }
        let body = self.read_exactly(length as usize, at)?;
        self.position += prefix + length;
        match parse_header(&mut body.as_slice()) {
            Some((version @ 1..=2, roots)) => {
                self.roots = roots;
                Ok(version)
            }
            Some(_) => Err(CarError::Malformed { at, reason: "only CAR versions 1 and 2 are known" }),
            None => Err(malformed),
        }
    }

    /// The CARv2 header: characteristics (16 bytes), data offset, data size, index offset.
    fn enter_payload(&mut self) -> Result<(), CarError> {
        let at = self.position;
        let header = self.read_exactly(40, at)?;
        self.position += 40;
        let number = |from: usize| {
            let bytes = header.get(from..from + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let (offset, size) = (number(16), number(24));
        let Some(gap) = offset.checked_sub(self.position) else {
            return Err(CarError::Malformed { at, reason: "the payload begins before the header ends" });
        };
        let end =
            offset.checked_add(size).ok_or(CarError::Malformed { at, reason: "the payload has no end" })?;
        if io::copy(&mut self.input.by_ref().take(gap), &mut io::sink())? < gap {
            return Err(CarError::Truncated { at });
        }
        self.position = offset;
        if self.read_header()? != 1 {
            return Err(CarError::Malformed { at: offset, reason: "the payload of a CARv2 is a CARv1" });
        }
        self.end = Some(end);
        Ok(())
    }

    fn read_section(&mut self) -> Result<Option<Section>, CarError> {
        let at = self.position;
        if self.end.is_some_and(|end| at >= end) {
            return Ok(None);
        }
        let Some((length, prefix)) = self.read_length(at)? else { return Ok(None) };
        let length = match usize::try_from(length) {
            // Where a file system kept the length of a file but not its bytes, they read as zeros.
            Ok(0) => return Err(CarError::Truncated { at }),
            Ok(length) if length <= MAX_SECTION => length,
            _ => return Err(CarError::Malformed { at, reason: "the section is longer than a block may be" }),
        };
        let section = Bytes::from(self.read_exactly(length, at)?);
        let mut rest: &[u8] = &section;
        let cid = Cid::read_bytes(&mut rest)
            .map_err(|_| CarError::Malformed { at, reason: "the section does not begin with a CID" })?;
        let data = section.slice_ref(rest);
        self.position = at + prefix + length as u64;
        if self.end.is_some_and(|end| self.position > end) {
            return Err(CarError::Malformed { at, reason: "the section goes beyond the payload" });
        }
        Ok(Some(Section { cid, offset: self.position - data.len() as u64, data }))
    }

    /// A length and how many bytes it took; `None` at the end of the input.
    fn read_length(&mut self, at: u64) -> Result<Option<(u64, u64)>, CarError> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut buffer = unsigned_varint::encode::u64_buffer();
        for index in 0..buffer.len() {
            let byte = *self.read_exactly(1, at)?.first().unwrap_or(&0);
            if let Some(place) = buffer.get_mut(index) {
                *place = byte;
            }
            if unsigned_varint::decode::is_last(byte) {
                let (value, _) = unsigned_varint::decode::u64(&buffer)
                    .map_err(|_| CarError::Malformed { at, reason: "a length is no minimal varint" })?;
                return Ok(Some((value, index as u64 + 1)));
            }
        }
        Err(CarError::Malformed { at, reason: "a length does not fit 64 bits" })
    }

    /// The caller has checked the length against its bound.
    fn read_exactly(&mut self, length: usize, at: u64) -> Result<Vec<u8>, CarError> {
        let mut bytes = vec![0; length];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(CarError::Truncated { at }),
            Err(error) => Err(error.into()),
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Section, CarError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_section().transpose()
    }
}

impl From<CarError> for io::Error {
    fn from(error: CarError) -> Self {
        match error {
            CarError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// One section as it stands in a file.
pub fn section(cid: &Cid, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    write_section(&mut out, cid, data);
    out
}

/// What stands before a block of `length` bytes, so that the block itself need not be copied.
pub fn section_head(cid: &Cid, length: usize) -> Vec<u8> {
    let cid = cid.to_bytes();
    let mut out = Vec::with_capacity(cid.len() + 10);
    put_length(&mut out, cid.len() + length);
    out.extend_from_slice(&cid);
    out
}

/// Appends a section.
pub fn write_section(out: &mut Vec<u8>, cid: &Cid, data: &[u8]) {
    out.extend(section_head(cid, data.len()));
    out.extend_from_slice(data);
}

/// A file's first bytes, the header with these roots.
pub fn header(roots: &[Cid]) -> Vec<u8> {
    let mut body = vec![0xa2];
    body.extend(b"\x65roots");
    cbor::put_head(&mut body, ARRAY, roots.len() as u64);
    for root in roots {
        let bytes = root.to_bytes();
        cbor::put_head(&mut body, TAG, CID_TAG);
        cbor::put_head(&mut body, BYTES, bytes.len() as u64 + 1);
        body.push(0); // The multibase prefix for binary.
        body.extend(bytes);
    }
    body.extend(b"\x67version\x01");
    let mut out = Vec::with_capacity(body.len() + 2);
    put_length(&mut out, body.len());
    out.extend(body);
    out
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let mut buffer = unsigned_varint::encode::usize_buffer();
    out.extend_from_slice(unsigned_varint::encode::usize(length, &mut buffer));
}

/// The version and the roots. The pragma of a CARv2 has no roots.
fn parse_header(from: &mut &[u8]) -> Option<(u64, Vec<Cid>)> {
    let (MAP, fields @ 1..=2) = cbor::head(from)? else { return None };
    let (mut version, mut roots) = (None, Vec::new());
    for _ in 0..fields {
        match cbor::string(from, TEXT)? {
            b"version" => match cbor::head(from)? {
                (UNSIGNED, number) => version = Some(number),
                _ => return None,
            },
            b"roots" => {
                let (ARRAY, count) = cbor::head(from)? else { return None };
                for _ in 0..count {
                    let (TAG, CID_TAG) = cbor::head(from)? else { return None };
                    roots.push(cbor::link(from)?);
                }
            }
            _ => return None,
        }
    }
    version.filter(|_| from.is_empty()).map(|version| (version, roots))
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;
    use crate::block::{RAW, cid_of};

    fn car(blocks: &[&[u8]]) -> Vec<u8> {
        let mut file = header(&[cid_of(RAW, b"root")]);
        for block in blocks {
            write_section(&mut file, &cid_of(RAW, block), block);
        }
        file
    }

    #[test]
    fn a_header_is_dag_cbor() {
        let encoded = header(&[]);
        assert_eq!(encoded, b"\x11\xa2\x65roots\x80\x67version\x01");
        let roots: Vec<Cid> = (0..300_u32).map(|number| cid_of(RAW, &number.to_le_bytes())).collect();
        assert_eq!(Reader::new(header(&roots).as_slice()).unwrap().roots(), roots);
    }

    #[test]
    fn sections_say_where_their_blocks_lie() {
        let file = car(&[b"one", b"", b"three"]);
        let mut reader = Reader::new(file.as_slice()).unwrap();
        assert_eq!(reader.roots(), [cid_of(RAW, b"root")]);
        for block in [b"one".as_slice(), b"", b"three"] {
            let section = reader.next_section().unwrap().unwrap();
            assert_eq!((section.cid, section.data.as_ref()), (cid_of(RAW, block), block));
            let from = section.offset as usize;
            assert_eq!(&file[from..from + block.len()], block);
        }
        assert!(reader.next_section().unwrap().is_none());
        assert_eq!(reader.position(), file.len() as u64);
    }

    #[test]
    fn a_torn_tail_says_where_the_whole_sections_end() {
        let whole = car(&[b"one", b"two"]);
        let full = car(&[b"one", b"two", b"three"]);
        for cut in whole.len() + 1..full.len() {
            let sections: Vec<_> = Reader::new(&full[..cut]).unwrap().collect();
            assert_eq!(sections.len(), 3);
            let Err(CarError::Truncated { at }) = sections[2] else { panic!("not truncated: {sections:?}") };
            assert_eq!(at, whole.len() as u64);
        }
        let zeros = [whole.as_slice(), &[0; 100]].concat();
        assert!(matches!(
            Reader::new(zeros.as_slice()).unwrap().nth(2),
            Some(Err(CarError::Truncated { .. }))
        ));
        assert!(matches!(Reader::new(&whole[..9]), Err(CarError::Truncated { at: 0 })));
    }

    #[test]
    fn the_payload_of_a_version_two_file_is_read() {
        let payload = car(&[b"one"]);
        let mut file = b"\x0a\xa1\x67version\x02".to_vec();
        file.extend([0; 16]);
        file.extend(60_u64.to_le_bytes());
        file.extend((payload.len() as u64).to_le_bytes());
        file.extend([0; 8]);
        file.extend([0; 9]);
        file.extend(&payload);
        file.extend(b"an index");
        let sections: Vec<_> = Reader::new(file.as_slice()).unwrap().map(Result::unwrap).collect();
        assert_eq!(sections.len(), 1);
        assert_eq!(&file[sections[0].offset as usize..][..3], b"one");
    }

    #[test]
    fn lengths_are_bounded() {
        let mut file = header(&[]);
        put_length(&mut file, MAX_SECTION + 1);
        let error = Reader::new(file.as_slice()).unwrap().next();
        assert!(matches!(error, Some(Err(CarError::Malformed { .. }))));
        assert!(Reader::new([0xff; 12].as_slice()).is_err());
        assert!(Reader::new([0xff, 0xff, 0xff, 0x7f].as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, tail: Vec<u8>) {
            let mut file = Vec::new();
            put_length(&mut file, body.len());
            file.extend(body);
            let _ = Reader::new(file.as_slice());
            let file = [header(&[]), tail].concat();
            prop_assert!(Reader::new(file.as_slice()).unwrap().count() <= file.len());
        }
    }
}
