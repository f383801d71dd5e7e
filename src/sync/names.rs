//! The names beside the registry's own: keys of the data directory under which something was published. Their last
//! records are kept beside the keys, told again as long as the registry runs, and signed anew before they end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use sampan_node::ipns::{Draft, LIFETIME, Record, Verified};
use sampan_node::{Keystore, Label, Name, Node};
use tokio_util::sync::CancellationToken;

use super::blocking;

/// Records are sent again this often, for those who missed them (kubo republishes every 4 hours).
const REPUBLISH: Duration = Duration::from_hours(4);
/// A new signature when less of the lifetime is left than this.
const RENEW: Duration = Duration::from_secs(LIFETIME.as_secs() / 2);

/// The last record of each name, for those who ask. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<HashMap<Name, Bytes>>>);

/// Publishes under the named keys. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    keystore: Keystore,
    node: Node,
    kept: Kept,
    /// One record at a time is made, so that no sequence is used twice.
    signing: Arc<tokio::sync::Mutex<()>>,
}

impl Kept {
    /// Reads the records of all named keys.
    pub(crate) fn load(keystore: &Keystore) -> anyhow::Result<Self> {
        let kept = Self::default();
        for label in keystore.labels()?.iter().filter(|label| !label.is_reserved()) {
            if let Some(record) = keystore.record(label)? {
                kept.put(&record);
            }
        }
        Ok(kept)
    }

    pub(crate) fn get(&self, name: &Name) -> Option<Bytes> {
        self.records().get(name).cloned()
    }

    fn put(&self, record: &Verified) {
        self.records().insert(*record.name(), record.bytes().clone());
    }

    fn records(&self) -> MutexGuard<'_, HashMap<Name, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher {
    pub(crate) fn new(keystore: Keystore, node: Node, kept: Kept) -> Self {
        Self { keystore, node, kept, signing: Arc::default() }
    }

    /// Has the name of a key point to `value`, and tells so.
    pub(crate) async fn publish(&self, label: Label, value: String) -> anyhow::Result<Verified> {
        if label.is_reserved() {
            bail!(
                "the key {label} is the registry's: its name always points to the registry's tree; give another --key"
            );
        }
        let _signing = self.signing.lock().await;
        let (keystore, of) = (self.keystore.clone(), label.clone());
        let (name, mut before) =
            blocking(move || anyhow::Ok((keystore.load(&of)?.name(), keystore.record(&of)?))).await??;
        if before.is_none() {
            // A key that came from elsewhere may have a history there.
            let found = self.node.resolve(name).await;
            before = found.map(|found| found.record);
        }
        let record = self.sign(label, value, before).await?;
        self.node.publish(name, record.bytes().clone(), Bytes::new()).await?;
        Ok(record)
    }

    /// Tells all records again and again, until it is told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.publish_all().await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the names of the other keys could not be published"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REPUBLISH) => {}
            }
        }
    }

    async fn publish_all(&self) -> anyhow::Result<()> {
        let _signing = self.signing.lock().await;
        let keystore = self.keystore.clone();
        for label in blocking(move || keystore.labels()).await?? {
            if label.is_reserved() {
                continue;
            }
            let (keystore, of) = (self.keystore.clone(), label.clone());
            let Some(mut record) = blocking(move || keystore.record(&of)).await?? else { continue };
            self.node.wall().learn(&record);
            if record.validity() <= self.node.wall().signing_time() + RENEW {
                record = self.sign(label, record.value().to_owned(), Some(record)).await?;
            }
            self.node.publish(*record.name(), record.bytes().clone(), Bytes::new()).await?;
        }
        Ok(())
    }

    /// Durable when this returns, and not told yet.
    async fn sign(&self, label: Label, value: String, before: Option<Verified>) -> anyhow::Result<Verified> {
        let (keystore, wall) = (self.keystore.clone(), self.node.wall().clone());
        let record = blocking(move || {
            let sequence = before.as_ref().map_or(0, |before| before.sequence().saturating_add(1));
            let draft = Draft::to_path(value, sequence, wall.signing_time()).outliving(before.as_deref());
            let record = Record::sign(&keystore.load(&label)?, &draft)?;
            wall.learn(&record);
            keystore.keep_record(&label, record.bytes())?;
            anyhow::Ok(record)
        })
        .await??;
        self.kept.put(&record);
        Ok(record)
    }
}
