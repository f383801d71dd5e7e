//! What a tag stands for, over all trees: the first tree that has it says so. Registries that write tags together are one
//! among these: each write and each delete of a tag carries a counter, one more than the highest that its writer has
//! seen, and of all of them the highest counts. So the push that knew of another wins over it, whatever the clocks say.

use bytes::Bytes;
use sampan_storage::{Commit, Digest, RepositoryName, StoreError, Tag, Tree, layout};

use super::{Policy, is_malformed};

/// The text of a counter is shorter.
const MAX_COUNTER_FILE: u64 = 32;
/// No tag is written so often. A higher one would leave no room above it.
const MAX_COUNTER: u64 = 1 << 48;

/// The last that one tree says of a tag. The greatest of several counts: a tie goes to the greater digest, which every
/// member finds alike, and never to a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Write {
    pub(super) counter: u64,
    /// Nothing after a delete.
    pub(super) digest: Option<Digest>,
}

/// What a tag stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meaning<'a> {
    pub(super) tree: &'a Tree,
    pub(super) digest: Digest,
}

/// What the tag points to in this tree, if it has the tag. A link that does not parse is no tag.
pub(super) fn read_tag(
    tree: &Tree,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Option<Digest>, StoreError> {
    let link = small_file(tree, &layout::tag(repository, tag), layout::MAX_LINK)?;
    Ok(link.and_then(|link| layout::parse_link(&link)))
}

/// A file that is small wherever it means something. One of a followed tree that is longer may not even be here; it counts
/// for nothing, as does what is no file.
pub(super) fn small_file(tree: &Tree, path: &str, limit: u64) -> Result<Option<Bytes>, StoreError> {
    let Some(entry) = tree.lookup(path)? else { return Ok(None) };
    if tree.size(&entry).is_ok_and(|size| size > limit) {
        return Ok(None);
    }
    match tree.read_entry(&entry, limit) {
        Err(error) if tree.name().is_some() && is_malformed(&error) => Ok(None),
        read => read.map(Some),
    }
}

/// The last write or delete of a tag in this tree. The first write of all needs no counter beside it.
pub(super) fn last_write(
    tree: &Tree,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Option<Write>, StoreError> {
    let counter = read_counter(tree, repository, tag)?;
    let digest = read_tag(tree, repository, tag)?;
    let known = counter.is_some() || digest.is_some();
    Ok(known.then(|| Write { counter: counter.unwrap_or(1), digest }))
}

/// What a tag stands for, by the trees in their order. One that cannot be asked is an error and never passed over; a tag
/// whose manifest was taken away shows nothing.
pub(super) fn resolve<'a>(
    trees: &'a [Tree],
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Option<Meaning<'a>>, StoreError> {
    let together = are_together(trees);
    let mut members_asked = false;
    for tree in trees {
        let meaning = if !together || !tree.is_member() {
            read_tag(tree, repository, tag)?.map(|digest| Meaning { tree, digest })
        } else if members_asked || last_write(tree, repository, tag)?.is_none() {
            None
        } else {
            // All of them stand where the first does that knows of the tag.
            members_asked = true;
            newest(trees, repository, tag)?
                .and_then(|(tree, write)| write.digest.map(|digest| Meaning { tree, digest }))
        };
        if let Some(Meaning { tree, digest }) = meaning
            && tree.lookup(&layout::revision(repository, &digest))?.is_some()
        {
            return Ok(meaning);
        }
    }
    Ok(None)
}

/// Whether a delete of a tag may hide what another tree has of it.
pub(super) fn has_counters(trees: &[Tree], repository: &RepositoryName) -> Result<bool, StoreError> {
    for tree in trees.iter().filter(|tree| tree.is_member() && are_together(trees)) {
        if tree.has_counters(repository)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Points the tag to a manifest in my tree, above all that is known of it.
pub(super) fn put_tag(
    trees: &[Tree],
    policy: Policy,
    commit: &mut Commit,
    repository: &RepositoryName,
    tag: &Tag,
    digest: &Digest,
) -> Result<(), StoreError> {
    let mine = trees.first().map(|mine| last_write(mine, repository, tag)).transpose()?.flatten();
    if policy.together || mine.is_some_and(|mine| mine.counter > 1) {
        let newest = newest(trees, repository, tag)?;
        // What already counts is not written again.
        let stands = |(tree, write): &(&Tree, Write)| tree.name().is_none() && write.digest == Some(*digest);
        if let Some((_, write)) = newest.filter(|newest| !stands(newest)) {
            put_counter(commit, repository, tag, write.counter.saturating_add(1));
        }
    }
    commit.put_link(layout::tag(repository, tag), digest);
    commit.put_link(layout::tag_index(repository, tag, digest), digest);
    Ok(())
}

/// Takes the tag out of my tree. Where members have anything of it, the delete is one that they see: above all that is
/// known of the tag, or, where only what I have written is to go, as high as that.
pub(super) fn remove_tag(
    trees: &[Tree],
    commit: &mut Commit,
    repository: &RepositoryName,
    tag: &Tag,
    whose: Whose,
) -> Result<(), StoreError> {
    commit.remove(layout::tag_dir(repository, tag));
    let mut others = false;
    let (mut mine, mut highest) = (None, 0);
    for tree in trees.iter().filter(|tree| tree.is_member()) {
        let Some(write) = last_write(tree, repository, tag)? else { continue };
        highest = highest.max(write.counter);
        match tree.name() {
            None => mine = Some(write.counter),
            Some(_) => others = true,
        }
    }
    match (others, whose) {
        (true, Whose::Everyones) => put_counter(commit, repository, tag, highest.saturating_add(1)),
        (true, Whose::Mine) => put_counter(commit, repository, tag, mine.unwrap_or(1)),
        // Nobody else has it, so nothing is to be hidden.
        (false, _) if mine.is_some_and(|counter| counter > 1) => {
            commit.remove(layout::counter(repository, tag));
        }
        (false, _) => {}
    }
    Ok(())
}

/// Which writes of a tag a delete is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// All that are known.
    Everyones,
    /// The one in my tree: another's stays if it is newer.
    Mine,
}

/// The write that counts among those of members, and the tree that has it.
fn newest<'a>(
    trees: &'a [Tree],
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Option<(&'a Tree, Write)>, StoreError> {
    let mut newest: Option<(&Tree, Write)> = None;
    for tree in trees.iter().filter(|tree| tree.is_member()) {
        let Some(write) = last_write(tree, repository, tag)? else { continue };
        if newest.is_none_or(|(_, before)| before < write) {
            newest = Some((tree, write));
        }
    }
    Ok(newest)
}

/// Whether anyone writes tags together with me.
fn are_together(trees: &[Tree]) -> bool {
    trees.iter().any(|tree| tree.name().is_some() && tree.is_member())
}

fn read_counter(tree: &Tree, repository: &RepositoryName, tag: &Tag) -> Result<Option<u64>, StoreError> {
    let text = small_file(tree, &layout::counter(repository, tag), MAX_COUNTER_FILE)?;
    let counter = text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    Ok(counter.filter(|counter| (1..=MAX_COUNTER).contains(counter)))
}

fn put_counter(commit: &mut Commit, repository: &RepositoryName, tag: &Tag, counter: u64) {
    let text = Bytes::from(counter.min(MAX_COUNTER).to_string());
    commit.put_bytes(layout::counter(repository, tag), text);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use sampan_storage::tree::Diff;
    use sampan_storage::{Adoption, Algorithm, Lens, Store};
    use tempfile::TempDir;

    use super::*;

    const BOARDS: usize = 3;
    const EAGER: u64 = 1024;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(usize),
        Delete(usize),
        Expire(usize),
        /// What the first has comes to the second.
        Bring(usize, usize),
    }

    /// Boards that write one tag, and which write of it knew of which.
    struct Fleet {
        boards: Vec<(TempDir, Store)>,
        knew: HashMap<Digest, Option<Digest>>,
        sequence: u64,
    }

    fn repository() -> RepositoryName {
        "boat".parse().unwrap()
    }

    fn tag() -> Tag {
        "v1".parse().unwrap()
    }

    impl Fleet {
        fn new() -> Self {
            let open = |_| {
                let dir = tempfile::tempdir().unwrap();
                let store = Store::open(&dir.path().join("data")).unwrap();
                let others = (0..BOARDS).map(|other| (format!("board{other}"), Lens::default().member()));
                store.set_order(others.collect());
                (dir, store)
            };
            Self { boards: (0..BOARDS).map(open).collect(), knew: HashMap::new(), sequence: 0 }
        }

        fn store(&self, board: usize) -> &Store {
            &self.boards[board].1
        }

        fn shown(&self, board: usize) -> Option<Digest> {
            resolve(&self.store(board).trees(), &repository(), &tag()).unwrap().map(|it| it.digest)
        }

        async fn take(&mut self, step: Step) {
            match step {
                Step::Push(board) => {
                    self.sequence += 1;
                    let digest = Digest::of(Algorithm::Sha256, &self.sequence.to_be_bytes());
                    self.knew.insert(digest, self.shown(board));
                    let policy = Policy { together: true, ..Policy::default() };
                    let (mut commit, trees) = (Commit::new(), self.store(board).trees());
                    commit.put_link(layout::revision(&repository(), &digest), &digest);
                    put_tag(&trees, policy, &mut commit, &repository(), &tag(), &digest).unwrap();
                    self.store(board).commit(commit).await.unwrap();
                    assert_eq!(
                        self.shown(board),
                        Some(digest),
                        "an acknowledged push is what its board shows"
                    );
                }
                Step::Delete(board) | Step::Expire(board) => {
                    let is_delete = matches!(step, Step::Delete(_));
                    let whose = if is_delete { Whose::Everyones } else { Whose::Mine };
                    let (mut commit, trees) = (Commit::new(), self.store(board).trees());
                    remove_tag(&trees, &mut commit, &repository(), &tag(), whose).unwrap();
                    self.store(board).commit(commit).await.unwrap();
                    assert!(!is_delete || self.shown(board).is_none());
                }
                Step::Bring(from, to) if from != to => self.bring(from, to).await,
                Step::Bring(..) => {}
            }
        }

        async fn bring(&mut self, from: usize, to: usize) {
            let (publisher, store) = (self.store(from), self.store(to));
            publisher.fold().await.unwrap();
            let root = publisher.root();
            let blocks = publisher.blocks_between(None, root, EAGER, usize::MAX / 4).unwrap().unwrap();
            let name = format!("board{from}");
            store.put_blocks(&blocks).unwrap();
            store.follow(&name).await.unwrap();
            let before = store.state().follow(&name).and_then(|follow| Some(follow.good.as_ref()?.root.0));
            assert!(Diff::new(before, root, EAGER).advance(store, &mut |_| {}).unwrap().is_empty());
            if before != Some(root) {
                let sequence = self.sequence;
                let adoption = Adoption { name, before, root, sequence, record: Bytes::new() };
                store.adopt(adoption).await.unwrap();
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..BOARDS).prop_map(Step::Push),
            1 => (0..BOARDS).prop_map(Step::Delete),
            1 => (0..BOARDS).prop_map(Step::Expire),
            6 => (0..BOARDS, 0..BOARDS).prop_map(|(from, to)| Step::Bring(from, to)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

        #[test]
        fn boards_that_have_heard_of_each_other_agree_on_a_write_that_no_other_knew_of(
            steps in prop::collection::vec(step(), 1..16),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut fleet = Fleet::new();
                for step in &steps {
                    fleet.take(*step).await;
                }
                for from in 0..BOARDS {
                    for to in (0..BOARDS).filter(|to| *to != from) {
                        fleet.bring(from, to).await;
                    }
                }
                let shown = fleet.shown(0);
                for board in 1..BOARDS {
                    assert_eq!(fleet.shown(board), shown);
                }
                if let Some(shown) = shown {
                    assert!(!fleet.knew.values().any(|knew| *knew == Some(shown)), "a later push knew of it");
                } else {
                    let deletes = steps.iter().any(|step| matches!(step, Step::Delete(_) | Step::Expire(_)));
                    assert!(fleet.knew.is_empty() || deletes, "a push is lost");
                }
            });
        }
    }
}
