//! Reads files and lists directories, as the commands for content do.

use std::ops::ControlFlow;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use sampan_storage::block::DAG_PB;
use sampan_storage::dag::directory;
use sampan_storage::dag::file::{Leaf, LeafForm, Leaves, Step, leaf_bytes};
use sampan_storage::dag::{pb, unixfs};
use sampan_storage::{BlockError, Blocks, Cid, Entry, MemoryBlocks};
use serde::{Deserialize, Serialize};

use super::{AHEAD, Both, Content, ContentError, Reach, off_thread};

/// Entries of one directory that are told at once: a list of more is no list for people, and its answer is bounded.
const MAX_ENTRIES: usize = 1_000_000;

/// What stands at the end of a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stat {
    pub(crate) cid: String,
    pub(crate) kind: Kind,
    /// Bytes of a file.
    pub(crate) size: u64,
    /// Names in a directory, and where they lead.
    pub(crate) entries: Vec<(String, String)>,
    /// Where a symbolic link points to.
    pub(crate) target: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
}

/// A file on its way.
struct Reading {
    content: Content,
    leaves: Leaves,
    brought: MemoryBlocks,
    missing: Option<Cid>,
}

enum Next {
    Bytes(Bytes),
    Missing,
    End,
}

impl Content {
    /// What a CID is, as UnixFS says it. Of a directory every entry.
    pub(crate) async fn stat(&self, cid: Cid) -> Result<Stat, ContentError> {
        let root = self.block(cid, Reach::Anywhere).await?;
        let mut stat =
            Stat { cid: cid.to_string(), kind: Kind::File, size: 0, entries: Vec::new(), target: None };
        if cid.codec() != DAG_PB {
            stat.size = root.len() as u64;
            return Ok(stat);
        }
        let malformed = |malformed: sampan_storage::dag::Malformed| malformed.at(&cid);
        let view = pb::View::parse(&root).map_err(malformed)?;
        let data = view.data().map(|data| root.slice_ref(data));
        let data = unixfs::Data::of(data.as_ref()).map_err(malformed)?;
        match data.kind {
            unixfs::Kind::File | unixfs::Kind::Raw => {
                stat.size = sampan_storage::dag::file::root_size(&cid, &root)?;
            }
            unixfs::Kind::Symlink => {
                stat.kind = Kind::Symlink;
                let target = data.data.unwrap_or_default();
                stat.target = Some(String::from_utf8_lossy(&target).into_owned());
            }
            unixfs::Kind::Directory | unixfs::Kind::HamtShard => {
                stat.kind = Kind::Directory;
                stat.entries = self.entries(cid, root).await?;
            }
            unixfs::Kind::Metadata => {
                return Err(ContentError::Malformed(format!("{cid} is no file and no directory")));
            }
        }
        Ok(stat)
    }

    /// The bytes of a file. The last error ends the stream.
    pub(crate) fn cat(&self, cid: Cid) -> BoxStream<'static, Result<Bytes, ContentError>> {
        let reading = Reading {
            content: self.clone(),
            leaves: Leaves::new(cid, None),
            brought: MemoryBlocks::default(),
            missing: None,
        };
        stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            loop {
                match reading.next().await {
                    Ok((Next::Bytes(bytes), reading)) => return Some((Ok(bytes), Some(reading))),
                    Ok((Next::Missing, again)) => reading = again,
                    Ok((Next::End, _)) => return None,
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
        .boxed()
    }

    async fn entries(&self, cid: Cid, root: Bytes) -> Result<Vec<(String, String)>, ContentError> {
        let mut brought = MemoryBlocks::default();
        if let Ok(root) = sampan_storage::Block::verified(cid, root) {
            brought.put(&root);
        }
        loop {
            let blocks = std::sync::Arc::clone(&self.blocks);
            let (kept, listed) = off_thread(move || {
                let mut entries = Vec::new();
                let listed =
                    directory::for_each(&Both(blocks.as_ref(), &brought), &cid, &mut |entry: Entry| {
                        entries.push((entry.name, entry.cid.to_string()));
                        if entries.len() < MAX_ENTRIES {
                            ControlFlow::Continue(())
                        } else {
                            ControlFlow::Break(())
                        }
                    });
                (brought, listed.map(|()| entries))
            })
            .await?;
            brought = kept;
            match listed {
                Ok(entries) => return Ok(entries),
                Err(BlockError::Missing(cid)) => {
                    let blocks = self.bring(cid, Vec::new(), Reach::Anywhere).await?;
                    for block in &blocks {
                        brought.put(block);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Reading {
    async fn next(mut self) -> Result<(Next, Self), ContentError> {
        if let Some(cid) = self.missing.take() {
            let ahead = self.leaves.pending(AHEAD).into_iter().map(|(cid, _)| cid);
            let others = ahead.filter(|other| *other != cid).collect();
            let blocks = self.content.bring(cid, others, Reach::Anywhere).await?;
            for block in &blocks {
                self.brought.put(block);
            }
        }
        off_thread(move || {
            let next = self.read()?;
            Ok((next, self))
        })
        .await?
    }

    fn read(&mut self) -> Result<Next, ContentError> {
        let blocks = Both(self.content.blocks.as_ref(), &self.brought);
        // Taken back where the leaf itself is not here yet.
        let before = self.leaves.clone();
        let leaf = match self.leaves.next(&blocks)? {
            Step::End => return Ok(Next::End),
            Step::Missing(cid) => {
                self.missing = Some(cid);
                return Ok(Next::Missing);
            }
            Step::Leaf(leaf) => leaf,
        };
        let Leaf { cid, len, form, .. } = leaf;
        let bytes = match form {
            LeafForm::Inline(bytes) => bytes,
            LeafForm::Raw | LeafForm::DagPb => {
                let Some(block) = blocks.get(&cid)? else {
                    self.leaves = before;
                    self.missing = Some(cid);
                    return Ok(Next::Missing);
                };
                leaf_bytes(&cid, &block)?
            }
        };
        self.brought.remove(&cid);
        if bytes.len() as u64 != len {
            return Err(ContentError::Malformed(format!("the leaf {cid} is not as long as its parent says")));
        }
        Ok(Next::Bytes(bytes))
    }
}
