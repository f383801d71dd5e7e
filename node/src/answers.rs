//! Questions to the program's records and catalogue, asked off the network's task because they may touch the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use libp2p::request_response::ResponseChannel;
use sampan_storage::{Page, Place};
use tokio::task::JoinSet;

use crate::audience::Audience;
use crate::bitswap::Serving;
use crate::catalogue::Catalogue;
use crate::ipns::{Record, Verified};
use crate::name::Name;
use crate::provide::PAGE;
use crate::queries::Table;
use crate::records::Records;
use crate::{fetch, follow};

/// Reads at once: the disk of a board serves no more any faster.
const RUNNING: usize = 4;
/// Questions that wait. One more is refused, and the peer asks again.
const WAITING: usize = 512;

/// What is asked.
#[derive(Debug)]
pub(crate) enum Task {
    /// By a Sampan: the current record, and what changed.
    Ask { name: Name, have: Option<Cid>, audience: Audience, channel: ResponseChannel<follow::Response> },
    /// By a member: which registries there are.
    Registries { channel: ResponseChannel<follow::Response> },
    /// By any peer: the current record.
    Fetch { name: Name, channel: ResponseChannel<fetch::Response> },
    /// By this node: what is on disk of these names, before `peers` are asked for what is newer.
    Own { names: Vec<Name>, peers: Whom },
    /// By this node: a root and what it has over another, to be announced.
    News { table: Table, before: Option<Cid>, root: Cid, limit: usize },
    /// By this node: what else is to be announced, after a place.
    Page { table: Table, after: Option<Place> },
}

/// Which peers are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom {
    One(PeerId),
    All,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Ask {
        response: follow::Response,
        channel: ResponseChannel<follow::Response>,
    },
    Fetch {
        response: fetch::Response,
        channel: ResponseChannel<fetch::Response>,
    },
    Own {
        records: Vec<(Name, Option<Verified>)>,
        peers: Whom,
    },
    News {
        table: Table,
        cids: Vec<Cid>,
    },
    /// Nothing where it cannot be said now.
    Page {
        table: Table,
        page: Option<Page>,
    },
}

pub(crate) struct Answers {
    records: Arc<dyn Records>,
    catalogue: Arc<dyn Catalogue>,
    serving: Serving,
    running: JoinSet<Answer>,
    waiting: VecDeque<Task>,
}

impl Answers {
    /// Nodes are blocks: they go along only where everyone is served.
    pub(crate) fn new(records: Arc<dyn Records>, catalogue: Arc<dyn Catalogue>, serving: Serving) -> Self {
        Self { records, catalogue, serving, running: JoinSet::new(), waiting: VecDeque::new() }
    }

    pub(crate) fn serving(&self) -> Serving {
        self.serving
    }

    /// Takes a question. If there are too many it is dropped, and with it the channel, which tells the peer.
    pub(crate) fn ask(&mut self, task: Task) {
        if self.has_room() {
            self.waiting.push_back(task);
            self.run();
        }
    }

    /// Whether the next question is taken.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING
    }

    /// The next answer; never ends while there is none.
    ///
    /// # Cancel safety
    /// No answer is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Answer {
        loop {
            match self.running.join_next().await {
                Some(Ok(answer)) => {
                    self.run();
                    return answer;
                }
                // The program's port panicked or the runtime stops; the peer asks again.
                Some(Err(error)) => {
                    tracing::error!(%error, "a question to the records failed");
                    self.run();
                }
                None => std::future::pending().await,
            }
        }
    }

    fn run(&mut self) {
        while self.running.len() < RUNNING {
            let Some(task) = self.waiting.pop_front() else { return };
            let (records, catalogue) = (Arc::clone(&self.records), Arc::clone(&self.catalogue));
            let serving = self.serving;
            self.running.spawn_blocking(move || task.answer(records.as_ref(), catalogue.as_ref(), serving));
        }
    }
}

impl Task {
    fn answer(self, records: &dyn Records, catalogue: &dyn Catalogue, serving: Serving) -> Answer {
        match self {
            Self::Ask { name, have, audience, channel } => {
                let update = match serving {
                    Serving::Everyone => records.update(&name, have.as_ref(), audience),
                    Serving::Nobody => records.record(&name, audience).map(|record| (record, Bytes::new())),
                };
                let response = match update {
                    Some((record, nodes)) => follow::Response::Known { record, nodes: fitting(nodes) },
                    None => follow::Response::Unknown,
                };
                Answer::Ask { response, channel }
            }
            Self::Registries { channel } => {
                let response = follow::Response::Registries { names: records.registries() };
                Answer::Ask { response, channel }
            }
            Self::Fetch { name, channel } => {
                let now = SystemTime::now();
                let valid =
                    |bytes: &Bytes| Record::decode(bytes.clone()).is_ok_and(|record| !record.is_expired(now));
                let response = match records.record(&name, Audience::Strangers).filter(valid) {
                    Some(record) => fetch::Response::Found(record),
                    None => fetch::Response::NotFound,
                };
                Answer::Fetch { response, channel }
            }
            Self::Own { names, peers } => {
                let own = |name: Name| {
                    let record = records.record(&name, Audience::Members)?;
                    let verified = Record::decode(record).and_then(|record| record.verify_signature(&name));
                    verified
                        .inspect_err(|error| tracing::warn!(%name, %error, "the kept record is unusable"))
                        .ok()
                };
                Answer::Own { records: names.into_iter().map(|name| (name, own(name))).collect(), peers }
            }
            Self::News { table, before, root, limit } => {
                Answer::News { table, cids: catalogue.news(before.as_ref(), &root, limit) }
            }
            Self::Page { table, after } => Answer::Page { table, page: catalogue.page(after, PAGE) },
        }
    }
}

/// Nodes that fit into a message, else none: they can be fetched block by block.
pub(crate) fn fitting(nodes: Bytes) -> Bytes {
    if nodes.len() > follow::MAX_NODES { Bytes::new() } else { nodes }
}
