//! Manifests in memory, so that a pull of a hot tag touches no disk.
//!
//! What a reference stands for is remembered together with the generation of the trees that said so: any commit, and
//! any change of a followed tree, makes it void. The bytes are remembered by digest and stay right for ever, but are
//! only reached through such an answer, so a deleted link hides them at once. They are void as well when a blob has
//! gone into quarantine since: what is not on the disk is not told to be there, so that it is pushed again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sampan_storage::{Digest, Reference, RepositoryName};

use super::manifests::Manifest;

/// Bytes of manifests that are kept.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Answers that are kept; each is some 300 bytes.
const MAX_ANSWERS: usize = 4096;

#[derive(Debug)]
pub(super) struct ManifestCache {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    answers: TwoAges<(RepositoryName, Reference), Answer>,
    /// With the number of losses that the store had when they were read.
    bytes: TwoAges<Digest, (u64, Bytes)>,
}

#[derive(Clone, Debug)]
struct Answer {
    generation: u64,
    digest: Digest,
    media_type: Arc<str>,
}

impl Default for ManifestCache {
    fn default() -> Self {
        let inner = Inner { answers: TwoAges::new(MAX_ANSWERS), bytes: TwoAges::new(MAX_BYTES) };
        Self { inner: Mutex::new(inner) }
    }
}

impl ManifestCache {
    /// The manifest, if the trees of `generation` said what the reference stands for.
    pub(super) fn get(&self, key: &(RepositoryName, Reference), generation: u64) -> Option<Manifest> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = inner.answers.get(key).filter(|answer| answer.generation == generation)?;
        let (_, bytes) = inner.bytes.get(&answer.digest)?;
        Some(Manifest { digest: answer.digest, media_type: answer.media_type, bytes })
    }

    /// `generation` and `losses` are those of before the manifest was read.
    pub(super) fn put(
        &self,
        key: (RepositoryName, Reference),
        generation: u64,
        losses: u64,
        manifest: &Manifest,
    ) {
        let Manifest { digest, media_type, bytes } = manifest;
        let answer = Answer { generation, digest: *digest, media_type: Arc::clone(media_type) };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.answers.insert(key, answer, 1);
        inner.bytes.insert(*digest, (losses, bytes.clone()), bytes.len());
    }

    /// Bytes of a manifest, whichever repository showed them.
    pub(super) fn bytes(&self, digest: &Digest, losses: u64) -> Option<Bytes> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes.get(digest).filter(|(then, _)| *then == losses).map(|(_, bytes)| bytes)
    }
}

/// A cache in two halves. What is used moves to the young half; when that is full, the old half is dropped and the
/// young one grows old. Near enough to least-recently-used, in a few lines and without a list.
#[derive(Debug)]
struct TwoAges<K, V> {
    half: usize,
    weight: usize,
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
}

impl<K: Hash + Eq + Clone, V: Clone> TwoAges<K, V> {
    fn new(limit: usize) -> Self {
        Self { half: limit / 2, weight: 0, young: HashMap::new(), old: HashMap::new() }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = self.old.remove(key)?;
        self.insert(key.clone(), value.clone(), weight);
        Some(value)
    }

    /// A value heavier than a half is not kept.
    fn insert(&mut self, key: K, value: V, weight: usize) {
        if weight > self.half {
            return;
        }
        self.old.remove(&key);
        if self.weight + weight > self.half {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight;
        if let Some((_, before)) = self.young.insert(key, (value, weight)) {
            self.weight -= before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = TwoAges::new(8);
        for key in 0..100 {
            cache.insert(key, key, 1);
            assert_eq!(cache.get(&0), Some(0));
            assert!(cache.young.len() + cache.old.len() <= 8);
        }
        assert_eq!(cache.get(&50), None);
        assert_eq!(cache.get(&99), Some(99));
    }

    #[test]
    fn weights_are_counted_once_and_giants_are_not_kept() {
        let mut cache = TwoAges::new(10);
        for _ in 0..100 {
            cache.insert("a", 1, 2);
        }
        assert_eq!((cache.weight, cache.young.len()), (2, 1));
        cache.insert("giant", 1, 6);
        assert_eq!(cache.get(&"giant"), None);
        assert_eq!(cache.get(&"a"), Some(1));
    }

    #[test]
    fn an_answer_of_another_generation_is_void() {
        let cache = ManifestCache::default();
        let bytes = Bytes::from_static(b"{}");
        let digest = Digest::of(sampan_storage::Algorithm::Sha256, &bytes);
        let key = ("a".parse().unwrap(), Reference::Digest(digest));
        cache.put(key.clone(), 7, 3, &Manifest { digest, media_type: "a/b".into(), bytes: bytes.clone() });
        assert_eq!(cache.get(&key, 7).unwrap().bytes, bytes);
        assert!(cache.get(&key, 8).is_none());
        assert_eq!(cache.bytes(&digest, 3), Some(bytes));
        assert_eq!(cache.bytes(&digest, 4), None, "a blob was lost since");
    }
}
