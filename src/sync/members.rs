//! All of my tree under a name of its own, for members: where not everyone may have everything, my own name points to
//! what is public. Its records say that they are private, and the node tells them to members alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use sampan_node::ipns::{Draft, LIFETIME, Record, Verified};
use sampan_node::{Keypair, Keystore, Label, Name, Node};
use sampan_storage::{Cid, Store};
use tokio_util::sync::CancellationToken;

use super::{EAGER, blocking, nodes};

/// A record is sent again this often, for those who missed it.
const REPUBLISH: Duration = Duration::from_hours(4);
/// A new signature when less of the lifetime is left than this.
const RENEW: Duration = Duration::from_secs(LIFETIME.as_secs() / 2);
/// After a publish that failed, on a full disk for instance.
const RETRY: Duration = Duration::from_secs(5);

/// Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MembersName {
    keystore: Keystore,
    key: Keypair,
    record: Arc<Mutex<Option<Verified>>>,
}

impl MembersName {
    /// With the key of the data directory, which is made where there is none.
    pub(crate) fn open(keystore: &Keystore) -> anyhow::Result<Self> {
        let label = Label::members();
        if !keystore.labels()?.contains(&label) {
            keystore.create(&label, &Keypair::generate())?;
        }
        let (key, record) = (keystore.load(&label)?, keystore.record(&label)?);
        Ok(Self { keystore: keystore.clone(), key, record: Arc::new(Mutex::new(record)) })
    }

    pub(crate) fn name(&self) -> Name {
        self.key.name()
    }

    /// The last one that was made, which is for members alone.
    pub(crate) fn record(&self) -> Option<Bytes> {
        self.last().map(|record| record.bytes().clone())
    }

    /// Publishes the current root and every one that follows, until it is told to stop.
    pub(crate) async fn publish(self, store: Store, node: Node, stop: CancellationToken) {
        let mut folds = store.folds();
        folds.mark_unchanged();
        let mut published = None;
        loop {
            // What a member has asked for in vain may have been pushed.
            node.bitswap().restocked().await;
            let wait = match self.publish_root(&store, &node, published).await {
                Ok(root) => {
                    published = Some(root);
                    REPUBLISH
                }
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the members' root could not be published; trying again"
                    );
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = folds.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn publish_root(&self, store: &Store, node: &Node, before: Option<Cid>) -> anyhow::Result<Cid> {
        let state = store.state();
        let root = state.root.map_or_else(|| store.root(), |root| root.0);
        let last = self.last();
        if let Some(record) = &last {
            node.wall().learn(record);
        }
        let now = node.wall().signing_time();
        let kept = last.clone().filter(|record| {
            let same = record.cid() == Some(root) && record.sequence() == state.sequence;
            same && record.is_private() && record.validity() > now + RENEW
        });
        let record = if let Some(record) = kept {
            record
        } else {
            let draft = Draft { private: true, ..Draft::new(root, state.sequence, now) };
            let record = Record::sign(&self.key, &draft.outliving(last.as_deref()))?;
            // Durable before anyone hears of it, so that the sequence never falls.
            let (keystore, bytes) = (self.keystore.clone(), record.bytes().clone());
            let written = blocking(move || keystore.keep_record(&Label::members(), &bytes)).await?;
            written.context("the record could not be kept")?;
            *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(record.clone());
            record
        };
        let nodes = match before.filter(|before| *before != root) {
            Some(before) => {
                let store = store.clone();
                let between =
                    blocking(move || store.blocks_between(Some(before), root, EAGER, nodes::limit()));
                between.await?.ok().flatten().map(|blocks| nodes::encode(&blocks)).unwrap_or_default()
            }
            None => Bytes::new(),
        };
        node.publish(self.name(), record.bytes().clone(), nodes).await?;
        Ok(root)
    }

    fn last(&self) -> Option<Verified> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
