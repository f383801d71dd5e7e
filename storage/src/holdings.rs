//! What lies in `blobs/`, which trees name it, and when it was asked for last: what goes by it is decided elsewhere.
//!
//! One fan-out directory at a time, so that memory stays small however many blobs there are.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::PoisonError;
use std::time::SystemTime;

use cid::Cid;

use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::inner::Inner;
use crate::survey::Survey;

/// A blob that is here whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// When somebody asked for it last, to the hour; or when it came.
    pub used: SystemTime,
    /// My tree names it, or a pin holds it.
    pub mine: bool,
    /// The followed trees that name it, by their places in [`Roots::followed`].
    pub trees: Vec<usize>,
}

/// The roots that are read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    mine: Cid,
    /// Names with the roots at which they are read.
    followed: Vec<(String, Cid)>,
}

impl Roots {
    pub(crate) fn now(inner: &Inner) -> Self {
        let view = inner.view.read().unwrap_or_else(PoisonError::into_inner);
        let follows = view.state.follows.iter();
        let followed = follows.filter_map(|follow| Some((follow.name.clone(), follow.good.as_ref()?.root.0)));
        Self { mine: view.base, followed: followed.collect() }
    }

    pub fn followed(&self) -> &[(String, Cid)] {
        &self.followed
    }

    /// Whether followed names still have these roots.
    pub(crate) fn are_current(&self, inner: &Inner) -> bool {
        Self::now(inner).followed == self.followed
    }
}

/// Shows each blob to `visit`, which says `false` to end early.
pub(crate) fn holdings(
    inner: &Inner,
    roots: &Roots,
    visit: &mut dyn FnMut(Holding) -> bool,
) -> Result<(), StoreError> {
    for algorithm in Algorithm::ALL {
        for fan_out in 0..=u8::MAX {
            let here = inner.blobs.list(algorithm, fan_out)?;
            if here.is_empty() {
                continue;
            }
            let blobs = |root: &Cid| Survey::new(inner, *root).blobs(algorithm, fan_out);
            let mut named: HashMap<Digest, (bool, Vec<usize>)> =
                here.into_iter().map(|digest| (digest, (inner.kept.holds(&digest), Vec::new()))).collect();
            for digest in blobs(&roots.mine)? {
                named.entry(digest).and_modify(|(mine, _)| *mine = true);
            }
            for (place, (_, root)) in roots.followed.iter().enumerate() {
                for digest in blobs(root)? {
                    named.entry(digest).and_modify(|(_, trees)| trees.push(place));
                }
            }
            for (digest, (mine, trees)) in named {
                let metadata = match fs::metadata(inner.blobs.path(&digest)) {
                    Ok(metadata) => metadata,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error.into()),
                };
                let holding =
                    Holding { digest, size: metadata.len(), used: metadata.accessed()?, mine, trees };
                if !visit(holding) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::tests::{adopt, bytes, now, push};
    use crate::{Commit, Store, layout};

    const LEN: usize = 3_000_000;

    fn holding(store: &Store, digest: &Digest) -> Option<Holding> {
        let mut found = None;
        store
            .holdings(&store.roots_now(), &mut |holding| {
                if holding.digest == *digest {
                    found = Some(holding);
                }
                true
            })
            .unwrap();
        found
    }

    /// A blob of a followed tree, which lies here as after a pull.
    fn cached(store: &Store, publisher: &Store, seed: u8) -> Digest {
        let before = store.roots_now().followed().first().map(|(_, root)| *root);
        let image = push(publisher, &format!("v{seed}"), seed, LEN);
        now(publisher.fold()).unwrap();
        let sequence = publisher.state().sequence;
        adopt(store, publisher, "k51", before, publisher.root(), sequence, 16 * 1024);
        store.put_blob(Algorithm::Sha256, &bytes(seed, LEN)).unwrap();
        image.layer.digest
    }

    #[test]
    fn what_followed_trees_name_is_evicted_and_what_is_mine_or_in_use_stays() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, publisher) = (Store::open(ours.path()).unwrap(), Store::open(theirs.path()).unwrap());
        let digests = [1, 2, 3].map(|seed| cached(&store, &publisher, seed));
        let [theirs, taken, read] = digests;
        let roots = store.roots_now();
        let found = holding(&store, &theirs).unwrap();
        assert_eq!((found.size, found.mine, found.trees), (LEN as u64, false, vec![0]));
        let orphan = store.put_blob(Algorithm::Sha256, b"nobody's").unwrap().digest;
        assert_eq!(holding(&store, &orphan).unwrap().trees, [0; 0]);
        // A push takes one into my tree after the choice was made.
        let stored = store.put_blob(Algorithm::Sha256, &bytes(2, LEN)).unwrap();
        let mut commit = Commit::new();
        commit.put_blob(&stored);
        drop(stored);
        now(store.commit(commit)).unwrap();
        let pin = store.pin(vec![read]);
        let open = store.blob(&theirs).unwrap().unwrap();
        let since = Instant::now();
        let gone = store.evict(&digests, since, &roots).unwrap().unwrap();
        assert_eq!(gone.iter().map(|gone| gone.digest).collect::<Vec<_>>(), [theirs]);
        assert_eq!(open.read_all(LEN as u64).unwrap(), bytes(1, LEN), "whoever reads it reads on");
        assert!(store.blob(&theirs).unwrap().is_none() && holding(&store, &theirs).is_none());
        assert!(store.blob(&taken).unwrap().is_some());
        drop(pin);
        assert!(store.evict(&[read], since, &roots).unwrap().unwrap().is_empty(), "it was read since");
        assert_eq!(store.evict(&[read], Instant::now(), &roots).unwrap().unwrap().len(), 1);
        // Their leaves are not here any more, and come back with the blob.
        store.forget_evicted().unwrap();
        let tree = store.trees().pop().unwrap();
        let entry = tree.lookup(&layout::blob(&theirs)).unwrap().unwrap();
        assert!(tree.read_entry(&entry, LEN as u64).is_err());
        store.put_blob(Algorithm::Sha256, &bytes(1, LEN)).unwrap();
        assert!(holding(&store, &theirs).is_some());
    }

    #[test]
    fn nothing_goes_by_a_choice_that_was_made_for_other_roots() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, publisher) = (Store::open(ours.path()).unwrap(), Store::open(theirs.path()).unwrap());
        let first = cached(&store, &publisher, 1);
        let roots = store.roots_now();
        cached(&store, &publisher, 2);
        assert_eq!(store.evict(&[first], Instant::now(), &roots).unwrap(), None);
        assert!(store.blob(&first).unwrap().is_some());
        assert_eq!(store.evict(&[first], Instant::now(), &store.roots_now()).unwrap().unwrap().len(), 1);
    }
}
