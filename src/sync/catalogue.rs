//! Answers the node's questions about what others may find this registry by.

use sampan_node::Catalogue;
use sampan_storage::{Cid, Place, Store};

#[derive(Clone, Debug)]
pub(crate) struct StoreCatalogue(pub(crate) Store);

impl Catalogue for StoreCatalogue {
    fn news(&self, before: &Cid, root: &Cid, limit: usize) -> Vec<Cid> {
        // The root before may have gone from the packs: then the sweep tells what there is.
        self.0.entities_between(*before, *root, limit).unwrap_or_else(|error| {
            tracing::debug!(%root, %error, "what is new below a root is not announced by itself");
            Vec::new()
        })
    }

    fn page(&self, after: Option<Place>, limit: usize) -> (Vec<Cid>, Option<Place>) {
        self.0.entities(after, limit).unwrap_or_else(|error| {
            tracing::info!(%error, "this round of announcements in the DHT ends early");
            (Vec::new(), None)
        })
    }
}
