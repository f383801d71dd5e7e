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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cid::Cid;

    use crate::block::{Block, Blocks, DAG_PB};
    use crate::dag::pb::{Link, Node};
    use crate::dag::unixfs::{Data, Kind};
    use crate::index::Form;
    use crate::inner::wrap;
    use crate::{Algorithm, Digest, Store};

    /// A file as older writers make it, of dag-pb leaves: its node, and the leaves with their bytes.
    fn file(parts: &[Bytes]) -> (Block, Vec<(Block, Bytes)>) {
        let leaf = |part: &Bytes| (Block::new(DAG_PB, wrap(Form::File, part.clone())), part.clone());
        let leaves: Vec<_> = parts.iter().map(leaf).collect();
        let link = |(block, _): &(Block, Bytes)| Link {
            cid: *block.cid(),
            name: String::new(),
            tsize: block.data().len() as u64,
        };
        let sizes: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let data = Data { filesize: Some(sizes.iter().sum()), blocksizes: sizes, ..Data::new(Kind::File) };
        let node = Node { links: leaves.iter().map(link).collect(), data: Some(data.encode()) };
        (Block::new(DAG_PB, node.encode()), leaves)
    }

    #[test]
    fn a_leaf_is_given_while_its_blob_comes_and_when_it_is_here_and_not_when_it_was_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let parts = [Bytes::from(vec![1; 300_000]), Bytes::from(vec![2; 200_000])];
        let (root, leaves) = file(&parts);
        let digest = Digest::of(Algorithm::Sha256, &parts.concat());
        let has = |cid: &Cid| store.get(cid).unwrap().is_some();
        store.put_blocks(std::slice::from_ref(&root)).unwrap();
        let mut partial = store.begin_partial(&digest, 500_000).unwrap();
        partial.write(300_000, leaves[1].0.cid(), leaves[1].0.data(), &leaves[1].1).unwrap();
        assert_eq!(store.get(leaves[1].0.cid()).unwrap().as_ref(), Some(leaves[1].0.data()));
        assert!(!has(leaves[0].0.cid()));
        drop(partial);
        assert!(!has(leaves[1].0.cid()));

        let mut partial = store.begin_partial(&digest, 500_000).unwrap();
        for (offset, (leaf, bytes)) in [0, 300_000].into_iter().zip(&leaves) {
            partial.write(offset, leaf.cid(), leaf.data(), bytes).unwrap();
        }
        partial.finish(root.cid()).unwrap();
        for (leaf, _) in &leaves {
            assert_eq!(store.get(leaf.cid()).unwrap().as_ref(), Some(leaf.data()));
        }
    }
}
