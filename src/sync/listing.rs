//! A directory of a tree as a list, for `sampan ls`.

use std::ops::ControlFlow;

use anyhow::{anyhow, bail};
use sampan_storage::dag::directory;
use sampan_storage::{Blocks, Cid, tree};

use crate::control::Listed;

/// Entries shown at most.
const MAX_ENTRIES: usize = 200_000;

pub(crate) fn list(blocks: &dyn Blocks, root: &Cid, path: &str) -> anyhow::Result<Vec<Listed>> {
    let path = path.trim_matches('/');
    let dir = if path.is_empty() {
        *root
    } else {
        let found = tree::lookup(blocks, root, path)?;
        found.ok_or_else(|| anyhow!("{path} is not in the tree; `sampan ls` shows what is"))?.cid
    };
    let mut listed = Vec::new();
    let walked = directory::for_each(blocks, &dir, &mut |entry| {
        listed.push(Listed { name: entry.name, cid: entry.cid.to_string(), size: entry.tsize });
        if listed.len() < MAX_ENTRIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if walked.is_err() {
        bail!("{path} is a file; `sampan ls` lists directories");
    }
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}
