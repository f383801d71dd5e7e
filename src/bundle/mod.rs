//! Bundles: a registry's state as files that are carried by hand, for sites behind an air gap and as a backup.
//!
//! `create` walks what a root has over another and writes it as CARs, with the signed record; `apply` checks block by
//! block that each has its place below the root that the record signs, keeps them, and makes the root visible when all
//! of it is here. What the files are stands in docs/BUNDLE.md. Nothing here asks the network for a tree; who follows a
//! name is the business of `sync`.

mod apply;
mod create;
mod description;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod intake;
mod split;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use sampan_node::{Name, Node};
use sampan_storage::{Cid, Digest, Store, StoreError, Survey};
use serde::{Deserialize, Serialize};

pub(crate) use description::{Description, MAX_DESCRIPTION};
pub(crate) use split::LEAST_PART;
pub(crate) use stream::{WHOLE, peek};

use crate::pattern::Pattern;
use crate::registry::Origin;
use crate::sync::{Follower, MembersName, StoreRecords, Writer};

/// What makes bundles and takes them in. One bundle is applied at a time.
pub(crate) struct Bundles {
    store: Store,
    node: Node,
    records: Arc<StoreRecords>,
    follower: Follower,
    origin: Arc<dyn Origin>,
    writer: Writer,
    mine: Name,
    members: Option<MembersName>,
    applying: tokio::sync::Mutex<()>,
}

/// What a bundle is to hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// The registry's own where there is none.
    pub(crate) name: Option<Name>,
    /// A root that whoever applies it has.
    pub(crate) since: Option<String>,
    /// Repositories whose blobs go along; all where there is none.
    pub(crate) repositories: Option<String>,
    /// Bytes of a part at most.
    pub(crate) split: Option<u64>,
}

/// A bundle that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) sequence: u64,
    pub(crate) root: String,
    pub(crate) base: Option<String>,
    pub(crate) repositories: Option<String>,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) parts: u32,
}

/// What became of a bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Applied {
    pub(crate) name: String,
    pub(crate) sequence: u64,
    pub(crate) root: String,
    pub(crate) outcome: Outcome,
    /// Blocks that were read, and their bytes.
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Blobs that are new here.
    pub(crate) blobs: u64,
    /// Blobs that other parts of it have to bring.
    pub(crate) lacking: u64,
    /// How many parts the bundle has.
    pub(crate) parts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The root is read from now on.
    Applied,
    /// All of it was here.
    Present,
    /// What came is kept, and the root is read when the other parts have come too.
    Incomplete,
}

impl Bundles {
    pub(crate) fn new(
        store: Store,
        node: Node,
        records: Arc<StoreRecords>,
        follower: Follower,
        origin: Arc<dyn Origin>,
        writer: Writer,
        members: Option<MembersName>,
    ) -> Self {
        let mine = *writer.name();
        Self {
            store,
            node,
            records,
            follower,
            origin,
            writer,
            mine,
            members,
            applying: tokio::sync::Mutex::default(),
        }
    }
}

/// Blobs that repositories which match link. Both sides ask this of the same tree.
fn filter(store: &Store, root: Cid, pattern: &Pattern) -> Result<HashSet<Digest>, StoreError> {
    let survey = Survey::new(store, root);
    let mut chosen = HashSet::new();
    survey.repositories(&mut |repository| {
        if pattern.matches(repository.as_str()) {
            chosen.extend(survey.layers(&repository)?);
            chosen.extend(survey.revisions(&repository)?);
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(chosen)
}

impl std::fmt::Debug for Bundles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundles").field("mine", &self.mine).finish_non_exhaustive()
    }
}
