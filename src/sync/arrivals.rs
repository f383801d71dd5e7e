//! What has been fetched of each followed tree, for those who watch how much lies here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Bytes of blobs that came, by tree. Clones share it. As many trees as are followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    bytes: Mutex<HashMap<String, u64>>,
    came: Notify,
}

impl Arrivals {
    pub(super) fn add(&self, tree: &str, bytes: u64) {
        let mut all = self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.entry(tree.to_owned()).or_default();
        *of = of.saturating_add(bytes);
        drop(all);
        self.0.came.notify_one();
    }

    /// What came since it was taken last.
    pub(super) fn since(&self) -> HashMap<String, u64> {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins to count anew.
    pub(super) fn take(&self) {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns when something came. There is one who waits.
    pub(super) async fn came(&self) {
        self.0.came.notified().await;
    }
}
