//! What an operator decides about the registry's own name: to take what was published under it elsewhere, to bring a lost
//! registry back from those who follow it, to go back to an earlier tree.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sampan_node::ipns::Verified;
use sampan_node::{Name, Node};
use sampan_storage::{Cid, Store};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::take::{Own, Taken, take};
use super::{Follower, Mirrored, Mirrors, Writer};

/// A registry that is to come back waits so long for a peer that has its record.
const WAIT: Duration = Duration::from_mins(1);
/// Between two questions.
const ASK: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reclaimed {
    /// The root that was taken, and the sequence under which it was published.
    pub(crate) root: String,
    pub(crate) sequence: u64,
    pub(crate) taken: Taken,
    /// The blobs that came from peers.
    pub(crate) blobs: Option<Mirrored>,
}

#[derive(Clone, Debug)]
pub(crate) struct Reclaimer {
    store: Store,
    node: Node,
    follower: Follower,
    mirrors: Mirrors,
    writer: Writer,
}

impl Reclaimer {
    pub(crate) fn new(
        store: Store,
        node: Node,
        follower: Follower,
        mirrors: Mirrors,
        writer: Writer,
    ) -> Self {
        Self { store, node, follower, mirrors, writer }
    }

    /// Takes the tree that the network knows under my own name, and all its blobs. What cannot be had now is fetched
    /// when it is asked for, or by `verify --repair`.
    pub(crate) async fn adopt(&self, own: Own, told: impl Fn(String)) -> anyhow::Result<Reclaimed> {
        told("looking for what was published under this name".to_owned());
        let record = self.record().await?;
        let name = record.name().to_string();
        told(format!("bringing the tree of sequence {}", record.sequence()));
        let root = self.follower.bring(record.clone()).await?;
        told("taking it".to_owned());
        let taken = take(&self.store, root, own).await?;
        self.store.fold_above(record.sequence()).await?;
        self.writer.settle();
        let blobs = self.mirrors.once(&name, root, &told).await?;
        if blobs.missing == 0 {
            // My own tree has it now.
            self.store.unfollow(&name).await?;
        }
        Ok(Reclaimed { root: root.to_string(), sequence: record.sequence(), taken, blobs: Some(blobs) })
    }

    /// Takes the tree of another name into mine.
    pub(crate) async fn adopt_name(&self, name: &Name, own: Own) -> anyhow::Result<Reclaimed> {
        if name == self.writer.name() {
            bail!("this is the registry's own name");
        }
        let (root, sequence) = self.follower.good(name).with_context(|| {
            format!("{name} is not followed, or nothing of it has come yet; `sampan follow add {name}` first")
        })?;
        let taken = take(&self.store, root, own).await?;
        Ok(Reclaimed { root: root.to_string(), sequence, taken, blobs: None })
    }

    /// Makes an earlier tree of mine the current one, under a new sequence.
    pub(crate) async fn roll_back(&self, root: Cid) -> anyhow::Result<Reclaimed> {
        let known = self.store.past_roots().iter().any(|(past, _)| *past == root);
        ensure!(
            known,
            "{root} is no earlier root of this registry that is still here; `sampan roots` lists those"
        );
        let taken = take(&self.store, root, Own::Gives).await?;
        let sequence = self.store.state().sequence;
        Ok(Reclaimed { root: root.to_string(), sequence, taken, blobs: None })
    }

    /// The newest record of my name that was not signed here.
    async fn record(&self) -> anyhow::Result<Verified> {
        let until = Instant::now() + WAIT;
        loop {
            if let Some(rival) = self.writer.rival() {
                return Ok(rival);
            }
            if let Some(found) = self.node.resolve(*self.writer.name()).await {
                self.writer.hear(&found.record);
                continue;
            }
            if Instant::now() >= until {
                bail!(
                    "nobody who is connected has a newer record of this name than this registry has signed"
                );
            }
            sleep(ASK).await;
        }
    }
}
