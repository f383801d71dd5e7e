//! The port through which the node reads the records that the program keeps.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cid::Cid;

use crate::audience::Audience;
use crate::name::Name;

/// What the node asks of whoever keeps the records. Answered from memory or disk, off the network's
/// task, so it may block for a moment.
pub trait Records: Send + Sync {
    /// The current signed record of a name that is published or followed here, if the audience may know it.
    fn record(&self, name: &Name, audience: Audience) -> Option<Bytes>;

    /// The current record, and as a CAR the nodes that lead from the root `have` to its root; the CAR
    /// holds nothing that the audience may not have; it may be empty, and then they are fetched block by block.
    fn update(&self, name: &Name, have: Option<&Cid>, audience: Audience) -> Option<(Bytes, Bytes)>;

    /// The names under which members find what is written here, and those that other members have told of.
    fn registries(&self) -> Vec<Name>;
}

/// Records in memory: the twin for tests.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    records: Mutex<HashMap<Name, (Bytes, Bytes)>>,
}

impl MemoryRecords {
    pub fn put(&self, name: Name, record: Bytes, nodes: Bytes) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).insert(name, (record, nodes));
    }
}

impl Records for MemoryRecords {
    fn record(&self, name: &Name, audience: Audience) -> Option<Bytes> {
        self.update(name, None, audience).map(|(record, _)| record)
    }

    fn update(&self, name: &Name, _: Option<&Cid>, _: Audience) -> Option<(Bytes, Bytes)> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn registries(&self) -> Vec<Name> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}
