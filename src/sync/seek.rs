//! Takes the blocks of a session, and looks for peers that have them as long as nobody who is connected does.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use sampan_node::bitswap::{Session, SessionError, SessionOptions};
use sampan_node::{Node, PeerId};
use sampan_storage::{Block, Cid};
use tokio::time::{Instant, sleep, sleep_until};

/// Between two searches at first, then doubled: a provider may have announced itself meanwhile, or be back.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SeekError {
    #[error("no connected peer has the block {0}, and none is found that does")]
    Nobody(Cid),
    #[error("no peer gave a block in time")]
    Late,
    #[error("the node has stopped")]
    Stopped,
}

/// A session that finds its providers.
pub(super) struct Seeker {
    node: Node,
    session: Session,
    /// What those who have the blocks announce: the root of a tree, or the top of a blob.
    announced: Cid,
    /// What no connected peer has.
    lacking: HashSet<Cid>,
    search: Option<BoxFuture<'static, Vec<PeerId>>>,
    pause: Duration,
}

impl Seeker {
    pub(super) async fn open(
        node: &Node,
        announced: Cid,
        options: SessionOptions,
    ) -> Result<Self, SeekError> {
        let session = node.bitswap().session(options).await.map_err(|_| SeekError::Stopped)?;
        let (lacking, search) = (HashSet::new(), None);
        Ok(Self { node: node.clone(), session, announced, lacking, search, pause: FIRST_PAUSE })
    }

    /// Asks for blocks, with the bytes that each is expected to have.
    pub(super) async fn want(&mut self, wants: Vec<(Cid, u32)>) -> Result<(), SeekError> {
        self.session.want(wants).await.map_err(|_| SeekError::Stopped)
    }

    /// The next block, in any order. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Block, SeekError> {
        let until = Instant::now() + patience;
        loop {
            tokio::select! {
                biased;
                delivery = self.session.next() => match delivery {
                    Some(Ok(block)) => {
                        self.came(block.cid());
                        return Ok(block);
                    }
                    Some(Err(SessionError::NoProvider(cid))) => {
                        tracing::debug!(%cid, "looking for peers that have a block");
                        self.lacking.insert(cid);
                        if self.search.is_none() {
                            let node = self.node.clone();
                            let announced = self.announced;
                            self.search = Some(async move { node.find_providers(announced).await }.boxed());
                        }
                    }
                    None => return Err(SeekError::Stopped),
                },
                found = poll(&mut self.search), if self.search.is_some() => self.searched(found).await?,
                () = sleep_until(until) => return Err(SeekError::Late),
            }
        }
    }

    fn came(&mut self, cid: &Cid) {
        self.lacking.remove(cid);
        if self.lacking.is_empty() {
            (self.search, self.pause) = (None, FIRST_PAUSE);
        }
    }

    /// Those that are found are dialled by the node, and asked as soon as they are connected.
    async fn searched(&mut self, found: Vec<PeerId>) -> Result<(), SeekError> {
        self.search = None;
        if found.is_empty()
            && let Some(cid) = self.lacking.iter().next().copied()
            && self.node.peers().await.is_empty()
        {
            return Err(SeekError::Nobody(cid));
        }
        for provider in found {
            self.session.add_provider(provider).await;
        }
        let (node, announced, pause) = (self.node.clone(), self.announced, self.pause);
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        let later = async move {
            sleep(pause).await;
            node.find_providers(announced).await
        };
        self.search = Some(later.boxed());
        Ok(())
    }
}

/// Ends when the search does; its place stays as it is.
async fn poll(search: &mut Option<BoxFuture<'static, Vec<PeerId>>>) -> Vec<PeerId> {
    match search {
        Some(search) => search.await,
        None => std::future::pending().await,
    }
}
