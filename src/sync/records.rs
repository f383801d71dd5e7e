//! Answers the node's questions about records, from the journal's state and the trees.

use bytes::Bytes;
use sampan_node::ipns::Record;
use sampan_node::{Audience, Name, Records};
use sampan_storage::{Blocks, Cid, Store};

use super::MembersName;
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
    /// The name of all of my tree, where not everyone may have it.
    members: Option<MembersName>,
}

impl StoreRecords {
    pub(crate) fn new(
        store: Store,
        mine: Name,
        kept: Kept,
        redirects: Redirects,
        members: Option<MembersName>,
    ) -> Self {
        Self { store, mine, kept, redirects, members }
    }
}

impl Records for StoreRecords {
    fn record(&self, name: &Name, audience: Audience) -> Option<Bytes> {
        if let Some(members) = self.members.as_ref().filter(|members| members.name() == *name) {
            return members.record().filter(|_| audience == Audience::Members);
        }
        if let Some(record) = self.kept.get(name) {
            return Some(record);
        }
        if let Some(record) = self.redirects.moved(name) {
            let told = audience == Audience::Members || !record.is_private();
            return told.then(|| record.bytes().clone());
        }
        let state = self.store.state();
        let record = if *name == self.mine {
            state.record
        } else {
            state.follow(&name.to_string())?.good.as_ref().map(|good| good.record.clone())
        };
        let record = Bytes::from(record?.into_vec());
        // One that says so is for members, whoever signed it.
        let private = || Record::decode(record.clone()).is_ok_and(|record| record.is_private());
        if audience == Audience::Strangers && private() { None } else { Some(record) }
    }

    fn registries(&self) -> Vec<Name> {
        let own = self.members.as_ref().map_or(self.mine, MembersName::name);
        std::iter::once(own).chain(self.redirects.found()).collect()
    }

    fn update(&self, name: &Name, have: Option<&Cid>, audience: Audience) -> Option<(Bytes, Bytes)> {
        let record = self.record(name, audience)?;
        // A name that has moved has nothing to bring.
        let Some(root) = Record::decode(record.clone()).ok()?.cid() else {
            return Some((record, Bytes::new()));
        };
        let public = self.store.public();
        let shelf: &dyn Blocks = if audience == Audience::Members { &self.store } else { &public };
        // Nodes are blocks: of a tree that strangers may not read none goes along.
        if !shelf.size(&root).is_ok_and(|size| size.is_some()) {
            return Some((record, Bytes::new()));
        }
        // A root that is not known here, as far as who asks may know, says nothing about what its owner lacks.
        let old = have.copied().filter(|have| shelf.size(have).is_ok_and(|size| size.is_some()));
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
