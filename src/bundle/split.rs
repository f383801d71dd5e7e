//! Where a bundle is cut into parts. Fed with the lengths of its sections twice, it cuts twice in the same places: first
//! to count, then to write.

/// A part holds at least some blocks of 2 MiB and what stands before them.
pub(crate) const LEAST_PART: u64 = 4 * 1024 * 1024;

/// What stands in one part, beside its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) tree: u64,
    pub(super) blobs: u64,
    /// With their framing.
    pub(super) bytes: u64,
    /// It begins within the tree or a blob.
    pub(super) continues: bool,
}

#[derive(Debug)]
pub(super) struct Splitter {
    /// Bytes of sections in one part.
    room: u64,
    current: Share,
    /// The next section is the first of the tree or of a blob.
    fresh: bool,
}

impl Splitter {
    pub(super) fn new(room: u64) -> Self {
        Self { room, current: Share::default(), fresh: true }
    }

    /// Tells that a blob of so many bytes in all its sections comes next. It begins a new part where it does not fit
    /// any more and fits into one of its own. Returns the part that is full.
    pub(super) fn begin_blob(&mut self, bytes: u64) -> Option<Share> {
        self.fresh = true;
        let fits = self.current.bytes.saturating_add(bytes) <= self.room;
        if fits || bytes > self.room { None } else { self.cut() }
    }

    /// Takes a section. Returns the part before it where that is full.
    pub(super) fn take(&mut self, bytes: u64, of_tree: bool) -> Option<Share> {
        let full = if self.current.bytes.saturating_add(bytes) > self.room { self.cut() } else { None };
        if full.is_some() {
            self.current.continues = !self.fresh;
        }
        self.fresh = false;
        self.current.bytes += bytes;
        if of_tree {
            self.current.tree += 1;
        } else {
            self.current.blobs += 1;
        }
        full
    }

    /// The last part.
    pub(super) fn finish(self) -> Share {
        self.current
    }

    /// Ends a part, unless nothing is in it.
    fn cut(&mut self) -> Option<Share> {
        let share = std::mem::take(&mut self.current);
        (share.tree + share.blobs > 0).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_section_is_in_one_part_and_no_part_is_too_large(
            tree in prop::collection::vec(1_u64..50, 1..40),
            blobs in prop::collection::vec(prop::collection::vec(1_u64..50, 1..20), 0..20),
            room in 50_u64..400,
        ) {
            let mut splitter = Splitter::new(room);
            let mut parts = Vec::new();
            for bytes in &tree {
                parts.extend(splitter.take(*bytes, true));
            }
            for blob in &blobs {
                parts.extend(splitter.begin_blob(blob.iter().sum()));
                for bytes in blob {
                    parts.extend(splitter.take(*bytes, false));
                }
            }
            parts.push(splitter.finish());
            let sum = |of: fn(&Share) -> u64| parts.iter().map(of).sum::<u64>();
            prop_assert_eq!(sum(|part| part.tree), tree.len() as u64);
            prop_assert_eq!(sum(|part| part.blobs), blobs.iter().flatten().count() as u64);
            prop_assert_eq!(sum(|part| part.bytes), tree.iter().chain(blobs.iter().flatten()).sum::<u64>());
            prop_assert!(parts.iter().all(|part| part.bytes <= room && part.tree + part.blobs > 0));
            // Only what is larger than a part is cut.
            let large = blobs.iter().filter(|blob| blob.iter().sum::<u64>() > room).count();
            let tree_is_large = tree.iter().sum::<u64>() > room;
            if large == 0 && !tree_is_large {
                prop_assert!(parts.iter().all(|part| !part.continues));
            }
        }
    }
}
