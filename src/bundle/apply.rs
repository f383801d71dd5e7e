//! Applies a bundle: what this registry thinks of it, and what becomes of its root.

use anyhow::{Context, anyhow, bail};
use sampan_node::Name;
use sampan_node::ipns::select;
use sampan_storage::Blocks;
use std::cmp::Ordering;

use super::intake::{Standing, Taken, run};
use super::stream::Opening;
use super::{Applied, Bundles, Outcome};
use crate::control::{Input, Tell};
use crate::sync::{Follower, blocking};

/// Which bundles are taken.
struct Gate {
    follower: Follower,
    store: sampan_storage::Store,
    /// Names of this registry, of which it makes the trees itself.
    own: Vec<Name>,
    only: Option<Name>,
}

impl Bundles {
    /// Reads parts, each with its length before it, as many as there are names of files.
    pub(crate) async fn apply(
        &self,
        files: Vec<String>,
        only: Option<Name>,
        input: Input,
        tell: Tell,
    ) -> anyhow::Result<Applied> {
        let Ok(_alone) = self.applying.try_lock() else {
            bail!("another bundle is being applied; wait until it is done");
        };
        tell.tell("waiting for blocks".to_owned());
        // Until the root is read nothing keeps what came but this.
        let whole = self.store.adopting().await;
        let own = std::iter::once(self.mine).chain(self.members.iter().map(crate::sync::MembersName::name));
        let (store, follower) = (self.store.clone(), self.follower.clone());
        let gate = Gate { follower, store: store.clone(), own: own.collect(), only };
        let taken = blocking(move || {
            let stand = |opening: &Opening| gate.stand(opening);
            run(&store, input.blocking(), &files, &stand, &|text| tell.tell(text))
        })
        .await??;
        let Taken { opening, whole: is_whole, present, lacking, blocks, bytes, blobs, pins, restores } =
            taken;
        let (record, description) = (opening.record, opening.description);
        if is_whole {
            if restores {
                let restored = self.store.restore(description.root, record.sequence()).await;
                restored.context("something was pushed meanwhile, and nothing is restored over it")?;
                self.writer.restored(&record);
            } else {
                self.follower.take(&record).await?;
            }
            // The next one from here may begin there.
            let (store, root) = (self.store.clone(), description.root);
            blocking(move || store.keep_base(root)).await??;
            // Others may wait for what has come.
            self.node.bitswap().restocked().await;
        }
        drop((pins, whole));
        let outcome = match (is_whole, present) {
            (true, true) => Outcome::Present,
            (true, false) => Outcome::Applied,
            (false, _) => Outcome::Incomplete,
        };
        Ok(Applied {
            name: record.name().to_string(),
            sequence: record.sequence(),
            root: description.root.to_string(),
            outcome,
            blocks,
            bytes,
            blobs,
            lacking,
            parts: description.parts,
        })
    }
}

impl Gate {
    /// Refuses what is not newer than what is here, and what builds on something that is not.
    fn stand(&self, opening: &Opening) -> anyhow::Result<Standing> {
        let Opening { record, description } = opening;
        let name = record.name();
        if self.only.is_some_and(|only| only != *name) {
            bail!("it is a bundle of {name}, and another name was asked for");
        }
        if self.own.contains(name) {
            if !self.store.is_empty() {
                bail!(
                    "it is a bundle of {name}, this registry's own name: only a registry that has nothing yet is restored from it"
                );
            }
            if let Some(base) = description.base {
                bail!("it builds on the root {base}; a registry is restored from a full bundle");
            }
            if description.repositories.is_some() {
                bail!("it has a part of the repositories; a registry is restored from a full bundle");
            }
            return Ok(Standing { current: None, restores: true });
        }
        self.follower.may_take(record)?;
        let current = self.follower.good(name);
        if let Some(known) = self.follower.record(name)
            && select(record, &known) == Ordering::Less
            && known.cid() != Some(description.root)
        {
            return Err(match current {
                Some((root, sequence)) => anyhow!(
                    "it is older than what is here: it brings sequence {} of {name}, and here is sequence {sequence}, root {root}",
                    record.sequence()
                ),
                None => anyhow!("it is older than what is here: {name} has moved since"),
            });
        }
        let current = current.map(|(root, _)| root);
        if let Some(base) = description.base
            && current != Some(base)
            && self.store.size(&base)?.is_none()
        {
            let here =
                current.map_or("nothing of that name is here".to_owned(), |root| format!("here is {root}"));
            bail!("it builds on the root {base}, and {here}: apply the bundle that leads to {base} first");
        }
        Ok(Standing { current, restores: false })
    }
}
