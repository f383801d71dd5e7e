//! Answers the node's questions about records, from the journal's state and the trees.

use bytes::Bytes;
use sampan_node::ipns::Record;
use sampan_node::{Name, Records};
use sampan_storage::{Blocks, Cid, Store};

use super::names::Kept;
use super::redirects::Redirects;
use super::{EAGER, nodes};

#[derive(Clone, Debug)]
pub(crate) struct StoreRecords {
    store: Store,
    mine: Name,
    /// Of the other keys here.
    kept: Kept,
    /// Of followed names that have moved.
    redirects: Redirects,
}

impl StoreRecords {
    pub(crate) fn new(store: Store, mine: Name, kept: Kept, redirects: Redirects) -> Self {
        Self { store, mine, kept, redirects }
    }
}

impl Records for StoreRecords {
    fn record(&self, name: &Name) -> Option<Bytes> {
        if let Some(record) = self.kept.get(name) {
            return Some(record);
        }
        if let Some(record) = self.redirects.moved(name) {
            return Some(record.bytes().clone());
        }
        let state = self.store.state();
        let record = if *name == self.mine {
            state.record
        } else {
            state.follow(&name.to_string())?.good.as_ref().map(|good| good.record.clone())
        };
        record.map(|record| Bytes::from(record.into_vec()))
    }

    fn update(&self, name: &Name, have: Option<&Cid>) -> Option<(Bytes, Bytes)> {
        let record = self.record(name)?;
        // A name that has moved has nothing to bring.
        let Some(root) = Record::decode(record.clone()).ok()?.cid() else {
            return Some((record, Bytes::new()));
        };
        // A root that is not known here says nothing about what its owner lacks.
        let old = have.copied().filter(|have| self.store.size(have).is_ok_and(|size| size.is_some()));
        let lacking = self.store.blocks_between(old, root, EAGER, nodes::limit());
        let nodes = match lacking {
            Ok(Some(blocks)) => nodes::encode(&blocks),
            Ok(None) => Bytes::new(),
            Err(error) => {
                tracing::debug!(%name, %error, "the nodes of a root could not be read");
                Bytes::new()
            }
        };
        Some((record, nodes))
    }
}
