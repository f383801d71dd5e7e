//! Leaves of blobs that are being fetched: checked by their CIDs, in files that are not whole yet, and given to others
//! from there. A swarm of followers passes a blob on while it comes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use cid::Cid;

use crate::index::Form;
use crate::inner::wrap;

/// Leaves that are known at once, some 100 bytes each: 128 GiB of leaves of 1 MiB. What is more is given when its blob
/// is whole.
const MAX_LEAVES: usize = 131_072;

#[derive(Debug, Default)]
pub(crate) struct Arriving {
    places: RwLock<HashMap<Vec<u8>, Place>>,
}

/// Where the bytes of a leaf lie.
#[derive(Clone, Debug)]
struct Place {
    file: Arc<File>,
    offset: u64,
    len: usize,
    form: Form,
}

impl Arriving {
    /// The bytes are in the file, and make this block in this form.
    pub(crate) fn put(&self, cid: &Cid, file: &Arc<File>, offset: u64, len: usize, form: Form) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        if places.len() < MAX_LEAVES {
            places.insert(cid.hash().to_bytes(), Place { file: Arc::clone(file), offset, len, form });
        }
    }

    /// Nothing of this file is given any more.
    pub(crate) fn remove(&self, file: &Arc<File>) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, place| !Arc::ptr_eq(&place.file, file));
        places.shrink_to_fit();
    }

    pub(crate) fn get(&self, cid: &Cid) -> io::Result<Option<Bytes>> {
        let Some(Place { file, offset, len, form }) = self.place(cid) else { return Ok(None) };
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(Some(wrap(form, bytes.into())))
    }

    /// The length of the block, where it is the bytes themselves.
    pub(crate) fn size(&self, cid: &Cid) -> Option<usize> {
        self.place(cid).filter(|place| place.form == Form::Raw).map(|place| place.len)
    }

    fn place(&self, cid: &Cid) -> Option<Place> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        if places.is_empty() { None } else { places.get(&cid.hash().to_bytes()).cloned() }
    }
}
