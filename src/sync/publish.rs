//! My tree under my name: each new root is signed, kept, and then told to whoever follows.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use sampan_node::ipns::{Draft, LIFETIME, Record, Verified};
use sampan_node::{Keypair, Node};
use sampan_storage::{Cid, Store, fail};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::writer::Writer;
use super::{EAGER, blocking, nodes};

/// A record is sent again this often, for those who missed it (kubo republishes every 4 hours).
const REPUBLISH: Duration = Duration::from_hours(4);
/// A new signature when less of the lifetime is left than this.
const RENEW: Duration = Duration::from_secs(LIFETIME.as_secs() / 2);
/// After a publish that failed, on a full disk for instance.
const RETRY: Duration = Duration::from_secs(5);

/// Publishes the current root and every one that follows, until it is told to stop.
pub(crate) async fn publish(store: Store, node: Node, key: Keypair, writer: Writer, stop: CancellationToken) {
    let mut folds = store.folds();
    folds.mark_unchanged();
    let mut published = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = writer.may_publish() => {}
        }
        // What a peer has asked for in vain may have been pushed.
        node.bitswap().restocked().await;
        let wait = match publish_root(&store, &node, &key, published).await {
            Ok(root) => {
                published = root.or(published);
                REPUBLISH
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the root could not be published; trying again");
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = told(&mut folds, &store, published) => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The next fold that changes what is published: of others strangers hear nothing, not even that there was one.
async fn told(
    folds: &mut watch::Receiver<u64>,
    store: &Store,
    published: Option<Cid>,
) -> Result<(), watch::error::RecvError> {
    loop {
        folds.changed().await?;
        let root = store.public().root();
        if !store.is_divided() || root.map(|(root, _)| root) != published {
            return Ok(());
        }
    }
}

/// Returns the root, or nothing where what may be told is not made yet.
async fn publish_root(
    store: &Store,
    node: &Node,
    key: &Keypair,
    before: Option<Cid>,
) -> anyhow::Result<Option<Cid>> {
    let Some((root, sequence)) = store.public().root() else { return Ok(None) };
    let state = store.state();
    let wall = node.wall();
    let before_it = state.record.and_then(|bytes| Record::decode(bytes.into_vec()).ok());
    // After a rotation the one that is kept is the old key's.
    let before_it: Option<Verified> = before_it.and_then(|record| record.verify_signature(&key.name()).ok());
    if let Some(record) = &before_it {
        wall.learn(record);
    }
    let now = wall.signing_time();
    // Equal in what it says and good for long enough: send the one that is kept.
    let kept = before_it.as_ref().filter(|record| {
        record.cid() == Some(root) && record.sequence() == sequence && record.validity() > now + RENEW
    });
    let record: Bytes = if let Some(record) = kept {
        record.bytes().clone()
    } else {
        let draft = Draft::new(root, sequence, now).outliving(before_it.as_deref());
        let record = Record::sign(key, &draft)?;
        wall.learn(&record);
        fail::point("publish.sign.after");
        // Durable before anyone hears of it, so that the sequence never falls.
        store.set_record(record.bytes()).await.context("the record could not be kept")?;
        fail::point("publish.record.after");
        record.bytes().clone()
    };
    let nodes = match before.filter(|before| *before != root) {
        Some(before) => {
            let store = store.clone();
            let between =
                blocking(move || store.blocks_between(Some(before), root, EAGER, nodes::limit())).await?;
            between.ok().flatten().map(|blocks| nodes::encode(&blocks)).unwrap_or_default()
        }
        None => Bytes::new(),
    };
    node.publish(key.name(), record, nodes).await?;
    node.provide(key.name(), root).await;
    Ok(Some(root))
}
