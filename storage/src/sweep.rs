//! The sweep: blob files that no tree names and no pin holds go from the disk.
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
use crate::inner::{Inner, View};
use crate::layout;
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
            let path = inner.blobs.path(digest);
            let size = match fs::metadata(&path) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            if !options.dry_run {
                fail::point("sweep.unlink.before");
                fs::remove_file(&path)?;
                fail::point("sweep.unlink.after");
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

/// My root, and those of the names that I follow.
fn roots(view: &View) -> Vec<Cid> {
    let followed = view.state.follows.iter().filter_map(|follow| follow.good.as_ref());
    std::iter::once(view.base).chain(followed.map(|good| good.root.0)).collect()
}

fn is_named(inner: &Inner, digest: &Digest) -> Result<bool, StoreError> {
    let path = layout::blob(digest);
    let (known, roots) = {
        let view = inner.view.read().unwrap_or_else(PoisonError::into_inner);
        (view.overlay.lookup(&path), roots(&view))
    };
    if matches!(known, crate::overlay::Known::Put(_)) || inner.kept.holds(digest) {
        return Ok(true);
    }
    for root in roots {
        if tree::lookup(inner, &root, &path)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rows of leaves whose blob is gone. A row that is left by a crash leads to no file and is no answer.
fn forget_rows(inner: &Inner) -> Result<(), StoreError> {
    // One entry for each blob of several leaves.
    let mut here: HashMap<Digest, bool> = HashMap::new();
    inner.index.retain_blocks(&mut |holder| {
        let exists = || inner.blobs.path(&holder.digest).exists();
        *here.entry(holder.digest).or_insert_with(exists)
    })
}
