//! What a tag stands for, over all trees: the first tree that has it says so. Registries that write tags together are one
//! among these: each write and each delete of a tag carries a counter, one more than the highest that its writer has
//! seen, and of all of them the highest counts. So the push that knew of another wins over it, whatever the clocks say.

use bytes::Bytes;
use sampan_storage::{Commit, Digest, RepositoryName, StoreError, Tag, Tree, layout};

use super::Policy;

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
    let link = tree.read(&layout::tag(repository, tag), layout::MAX_LINK)?;
    Ok(link.and_then(|link| layout::parse_link(&link)))
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
    let text = tree.read(&layout::counter(repository, tag), MAX_COUNTER_FILE)?;
    let counter = text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    Ok(counter.filter(|counter| (1..=MAX_COUNTER).contains(counter)))
}

fn put_counter(commit: &mut Commit, repository: &RepositoryName, tag: &Tag, counter: u64) {
    let text = Bytes::from(counter.min(MAX_COUNTER).to_string());
    commit.put_bytes(layout::counter(repository, tag), text);
}
