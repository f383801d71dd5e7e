//! Content that an operator wants to stay: pinned where it lies, fetched and pinned, or brought in a CAR.

use std::io::{BufReader, Read};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use sampan_storage::car::{self, CarError, Reader};
use sampan_storage::dag::path::Resolved;
use sampan_storage::dag::walk::Scope;
use sampan_storage::{Block, Blocks, Cid, KeepError, Keeping};
use serde::{Deserialize, Serialize};

use super::{BlockStream, Content, ContentError, Reach, off_thread};

/// Bytes of blocks put down together.
const BATCH: usize = 4 * 1024 * 1024;
/// So many blocks are looked at between two words about it.
const WORD: usize = 256;

/// Which blocks of a CAR become pinned roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PinRoots {
    /// Those that its header names.
    Named,
    /// Its last block: who makes a DAG while it is sent knows its root at the end.
    Last,
}

/// What came in a CAR.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Imported {
    pub(crate) blocks: u64,
    /// Without their framing.
    pub(crate) bytes: u64,
    /// Pinned now.
    pub(crate) roots: Vec<String>,
}

impl Content {
    /// Roots that are pinned.
    pub(crate) fn pins(&self) -> Vec<Cid> {
        self.store.kept()
    }

    /// Lets a pinned root go. Returns whether it was pinned.
    pub(crate) async fn unpin(&self, root: Cid) -> Result<bool, ContentError> {
        let store = self.store.clone();
        Ok(off_thread(move || store.release(&root)).await??)
    }

    /// Pins a root with all below it; what is not here is fetched where that is allowed.
    pub(crate) async fn pin(
        &self,
        root: Cid,
        told: impl Fn(String) + Clone + Send + 'static,
    ) -> Result<(), ContentError> {
        let keeping = self.store.keep().await;
        let (keeping, pinned) = look(keeping, root, told.clone()).await?;
        match pinned {
            Err(KeepError::Missing(_)) if self.network.is_some() => {
                let keeping = self.fetch(keeping, root, &told).await?;
                Ok(look(keeping, root, told).await?.1?)
            }
            pinned => Ok(pinned?),
        }
    }

    /// Takes the blocks of a CAR, each checked against its CID, and pins its roots. A root that is not whole after it
    /// is an error; what came is collected then, unless it comes again.
    pub(crate) async fn import(
        &self,
        input: impl Read + Send + 'static,
        roots: PinRoots,
        told: impl Fn(String) + Clone + Send + 'static,
    ) -> Result<Imported, ContentError> {
        let mut keeping = self.store.keep().await;
        off_thread(move || {
            let mut reader = Reader::new(BufReader::new(input)).map_err(|error| unreadable(&error))?;
            let (mut imported, mut batch, mut bytes) = (Imported::default(), Vec::new(), 0);
            let mut last = None;
            while let Some(section) = reader.next_section().map_err(|error| unreadable(&error))? {
                let block = Block::verified(section.cid, section.data)?;
                last = Some(section.cid);
                imported.blocks += 1;
                imported.bytes += block.data().len() as u64;
                bytes += block.data().len();
                batch.push(block);
                if bytes >= BATCH {
                    keeping.put(&batch)?;
                    (batch, bytes) = (Vec::new(), 0);
                    told(format!("{} blocks, {} bytes", imported.blocks, imported.bytes));
                }
            }
            keeping.put(&batch)?;
            let roots = match roots {
                PinRoots::Named => reader.roots().to_vec(),
                PinRoots::Last => last.into_iter().collect(),
            };
            for root in roots {
                keeping.pin(&root, &mut |count| word(count, &told))?;
                imported.roots.push(root.to_string());
            }
            Ok(imported)
        })
        .await?
    }

    /// A whole DAG as a CARv1, each block once; what is not here is fetched where that is allowed.
    pub(crate) fn export(
        &self,
        root: Cid,
    ) -> Result<BoxStream<'static, Result<Bytes, ContentError>>, ContentError> {
        let whole = Resolved { cid: root, within: false, roots: vec![root], blocks: Vec::new() };
        let blocks = self.walk(&whole, Scope::All, false, Reach::Anywhere)?;
        Ok(as_car(&root, blocks))
    }

    /// Brings what is not here.
    async fn fetch(
        &self,
        mut keeping: Keeping,
        root: Cid,
        told: &impl Fn(String),
    ) -> Result<Keeping, ContentError> {
        let whole = Resolved { cid: root, within: false, roots: vec![root], blocks: Vec::new() };
        let mut blocks = self.walk(&whole, Scope::All, false, Reach::Anywhere)?;
        let (mut count, mut bytes) = (0_usize, 0);
        while let Some(block) = blocks.next().await {
            let (cid, data) = block?;
            count += 1;
            bytes += data.len();
            let store = self.store.clone();
            keeping = off_thread(move || {
                if store.size(&cid)?.is_none() {
                    keeping.put(&[Block::verified(cid, data)?])?;
                }
                Ok::<_, ContentError>(keeping)
            })
            .await??;
            told(format!("{count} blocks, {bytes} bytes"));
        }
        Ok(keeping)
    }
}

/// Blocks as the bytes of a CARv1. An error ends them, and they are not whole.
pub(crate) fn as_car(root: &Cid, blocks: BlockStream) -> BoxStream<'static, Result<Bytes, ContentError>> {
    let sections = blocks.flat_map(|block| {
        stream::iter(match block {
            Ok((cid, data)) => vec![Ok(Bytes::from(car::section_head(&cid, data.len()))), Ok(data)],
            Err(error) => vec![Err(error)],
        })
    });
    stream::iter([Ok(Bytes::from(car::header(&[*root])))]).chain(sections).boxed()
}

/// Looks whether all is here, and pins it.
async fn look(
    mut keeping: Keeping,
    root: Cid,
    told: impl Fn(String) + Send + 'static,
) -> Result<(Keeping, Result<(), KeepError>), ContentError> {
    off_thread(move || {
        let pinned = keeping.pin(&root, &mut |count| word(count, &told));
        (keeping, pinned)
    })
    .await
}

fn word(count: usize, told: &impl Fn(String)) {
    if count.is_multiple_of(WORD) {
        told(format!("{count} blocks looked at"));
    }
}

fn unreadable(error: &CarError) -> ContentError {
    ContentError::Malformed(error.to_string())
}
