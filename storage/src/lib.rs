//! Sampan's disk, and the pure data that lies on it.
//!
//! Blobs, packs and journal are the truth; the index is derived from them and can be thrown away.
//! Nothing here knows a network, HTTP or libp2p. Every function that touches the disk blocks:
//! callers on an async thread go through their runtime's blocking pool.

pub mod block;
pub mod car;
pub mod cbor;
pub mod dag;
pub mod digest;
pub mod fail;
pub mod files;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
pub mod journal;
pub mod layout;
pub mod name;
pub mod tree;

mod arriving;
mod bases;
mod blobs;
mod commit;
mod compact;
mod delta;
mod entities;
mod error;
mod fold;
mod holdings;
pub mod increment;
mod index;
mod inner;
mod keeper;
mod kept;
mod lens;
mod listings;
mod overlay;
mod pack;
mod partial;
mod pins;
mod public;
mod recent;
mod replay;
mod running;
mod space;
mod store;
mod stream;
mod survey;
mod sweep;
mod upload;
pub mod verify;
mod view;
mod writeback;
mod wrong;

pub use blobs::{BlobFile, StoredBlob};
pub use block::{Block, BlockError, Blocks, MemoryBlocks};
pub use cid::Cid;
pub use commit::{Adoption, Commit};
pub use dag::directory::Entry;
pub use digest::{Algorithm, Digest, Hasher};
pub use entities::{Page, Place};
pub use error::{OpenError, StoreError};
pub use holdings::{Holding, Roots};
pub use kept::{KeepError, Keeping};
pub use lens::{Lens, Shows};
pub use name::{Reference, RepositoryName, Tag};
pub use partial::Partial;
pub use pins::{Claim, Pin};
pub use public::{Public, PublicRule};
pub use space::Space;
pub use store::{Figures, Store};
pub use survey::Survey;
pub use sweep::{Sweep, Swept};
pub use upload::{Upload, UploadId};
pub use view::Tree;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
