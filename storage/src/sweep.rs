//! The sweep: blob files that no tree names and no pin holds go from the disk. And eviction: such that only followed
//! trees name, when somebody says which.
//!
//! One fan-out directory at a time, so that memory stays small however many blobs there are. The order of a removal is
//! tree, file, rows: what a crash leaves between them is found by the next sweep.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::PoisonError;
use std::time::Instant;

use cid::Cid;

use crate::digest::{Algorithm, Digest};
use crate::error::StoreError;
use crate::fail;
use crate::files::sync_directory;
use crate::holdings::Roots;
use crate::inner::{Inner, View};
use crate::layout;
use crate::overlay::Known;
use crate::survey::Survey;
use crate::tree;

/// Files that are claimed at a time: whoever pushes one of them waits until these are gone.
const BATCH: usize = 64;

/// What a sweep is to do.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// Blobs that were touched at this time or later stay.
    pub since: Instant,
    /// Nothing is removed.
    pub dry_run: bool,
}

/// A file that no tree names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// Shows each file that goes to `visit`. Stops between two directories where that says `false`.
pub(crate) fn sweep(
    inner: &Inner,
    options: Sweep,
    visit: &mut dyn FnMut(Option<Swept>) -> bool,
) -> Result<(), StoreError> {
    let mut swept = false;
    for algorithm in Algorithm::ALL {
        for fan_out in 0..=u8::MAX {
            swept |= sweep_directory(inner, options, algorithm, fan_out, visit)?;
            if !visit(None) {
                break;
            }
        }
    }
    if swept {
        forget_rows(inner)?;
    }
    Ok(())
}

/// Whether a file was removed.
fn sweep_directory(
    inner: &Inner,
    options: Sweep,
    algorithm: Algorithm,
    fan_out: u8,
    visit: &mut dyn FnMut(Option<Swept>) -> bool,
) -> Result<bool, StoreError> {
    let on_disk = inner.blobs.list(algorithm, fan_out)?;
    if on_disk.is_empty() {
        return Ok(false);
    }
    let roots = roots(&inner.view.read().unwrap_or_else(PoisonError::into_inner));
    let mut named = HashSet::new();
    for root in &roots {
        named.extend(Survey::new(inner, *root).blobs(algorithm, fan_out)?);
    }
    let is_kept = |digest: &Digest| named.contains(digest) || inner.kept.holds(digest);
    let unnamed: Vec<Digest> = on_disk.into_iter().filter(|digest| !is_kept(digest)).collect();
    let mut removed = false;
    for batch in unnamed.chunks(BATCH) {
        let claim = inner.pins.claim(batch, options.since);
        for digest in claim.digests() {
            // A commit, or a followed name's new root, may have come to name it since.
            if is_named(inner, digest)? {
                continue;
            }
            let Some(size) = size(inner, digest)? else { continue };
            if !options.dry_run {
                unlink(inner, digest)?;
                removed = true;
            }
            visit(Some(Swept { digest: *digest, size }));
        }
    }
    if removed {
        sync_directory(&inner.blobs.directory(algorithm, fan_out))?;
    }
    Ok(removed)
}

/// Removes blobs that followed trees name and that can come from peers again. Those stay that are pinned, that were
/// touched at `since` or later, that my tree names, or that a pin holds. `roots` is what the choice went by: where
/// followed names have other roots by now nothing goes, and the answer is `None`.
pub(crate) fn evict(
    inner: &Inner,
    digests: &[Digest],
    since: Instant,
    roots: &Roots,
) -> Result<Option<Vec<Swept>>, StoreError> {
    let mut gone = Vec::new();
    for batch in digests.chunks(BATCH) {
        let claim = inner.pins.claim(batch, since);
        // A root that comes later than this look is met by whoever brings its blobs, who pins before looking.
        if !roots.are_current(inner) {
            return Ok(None);
        }
        for digest in claim.digests() {
            if is_mine(inner, digest)? {
                continue;
            }
            let Some(size) = size(inner, digest)? else { continue };
            unlink(inner, digest)?;
            gone.push(Swept { digest: *digest, size });
        }
    }
    // No directory is synced: what a crash brings back is a blob like any other.
    Ok(Some(gone))
}

/// Length of the file, if it is there.
fn size(inner: &Inner, digest: &Digest) -> io::Result<Option<u64>> {
    match fs::metadata(inner.blobs.path(digest)) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn unlink(inner: &Inner, digest: &Digest) -> io::Result<()> {
    fail::point("sweep.unlink.before");
    fs::remove_file(inner.blobs.path(digest))?;
    fail::point("sweep.unlink.after");
    Ok(())
}

/// My root, and those of the names that I follow.
fn roots(view: &View) -> Vec<Cid> {
    let followed = view.state.follows.iter().filter_map(|follow| follow.good.as_ref());
    std::iter::once(view.base).chain(followed.map(|good| good.root.0)).collect()
}

fn is_named(inner: &Inner, digest: &Digest) -> Result<bool, StoreError> {
    let path = layout::blob(digest);
    let roots = {
        let view = inner.view.read().unwrap_or_else(PoisonError::into_inner);
        roots(&view)
    };
    if is_mine(inner, digest)? {
        return Ok(true);
    }
    for root in roots {
        if tree::lookup(inner, &root, &path)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether my tree names the blob, or a pin holds it.
fn is_mine(inner: &Inner, digest: &Digest) -> Result<bool, StoreError> {
    let path = layout::blob(digest);
    let (known, base) = {
        let view = inner.view.read().unwrap_or_else(PoisonError::into_inner);
        (view.overlay.lookup(&path), view.base)
    };
    let put = matches!(known, Known::Put(_)) || inner.kept.holds(digest);
    // What is taken out and not folded yet is still in the root.
    Ok(put || tree::lookup(inner, &base, &path)?.is_some())
}

/// Rows of leaves whose blob is gone. A row that is left by a crash leads to no file and is no answer.
pub(crate) fn forget_rows(inner: &Inner) -> Result<(), StoreError> {
    // One entry for each blob of several leaves.
    let mut here: HashMap<Digest, bool> = HashMap::new();
    inner.index.retain_blocks(&mut |holder| {
        let exists = || inner.blobs.path(&holder.digest).exists();
        *here.entry(holder.digest).or_insert_with(exists)
    })
}
