//! Answers the node's questions about what others may find this registry by: nothing that strangers may not have.

use sampan_node::Catalogue;
use sampan_storage::{Blocks, Cid, Page, Place, Store};

#[derive(Clone, Debug)]
pub(crate) struct StoreCatalogue(pub(crate) Store);

impl Catalogue for StoreCatalogue {
    fn news(&self, before: Option<&Cid>, root: &Cid, limit: usize) -> Vec<Cid> {
        if !self.0.public().size(root).is_ok_and(|size| size.is_some()) {
            return Vec::new();
        }
        let mut news = vec![*root];
        if let Some(before) = before {
            match self.0.entities_between(*before, *root, limit) {
                Ok(entities) => news.extend(entities),
                // The root before may have gone from the packs: then the sweep tells what there is.
                Err(error) => {
                    tracing::debug!(%root, %error, "what is new below a root is not announced by itself");
                }
            }
        }
        news
    }

    fn page(&self, after: Option<Place>, limit: usize) -> Option<Page> {
        self.0.entities(after, limit).unwrap_or_else(|error| {
            tracing::info!(%error, "announcements in the DHT wait: the lists could not be read");
            None
        })
    }
}
