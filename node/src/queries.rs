//! Questions that are out on the network, each to several places at once, and who waits for the answer.
//!
//! A job ends when all its questions have ended, when it has heard enough, when its time is up, or when
//! whoever asked has gone away.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::kad::QueryId;
use libp2p::request_response::OutboundRequestId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::handle::Found;
use crate::ipns::{Record, select};
use crate::name::Name;
use crate::names::{Clock, Via};

/// Jobs at once. One more is answered with nothing.
const MAX_JOBS: usize = 128;
/// How many records are compared before the best is taken; kubo's quorum.
const ENOUGH_RECORDS: usize = 16;
/// Providers that are collected; a block is fetched from a few.
const ENOUGH_PROVIDERS: usize = 20;
/// How often it is checked whether those who asked still wait.
const SWEEP: Duration = Duration::from_secs(1);

/// One of the two DHTs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    Lan,
    Wan,
}

/// One question on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    Dht(Table, QueryId),
    Fetch(OutboundRequestId),
}

#[derive(Debug)]
pub(crate) enum Job {
    /// The best record of a name, for a caller.
    Resolve { name: Name, best: Option<Found>, reply: oneshot::Sender<Option<Found>> },
    /// Who has a block, for a caller.
    Providers { found: Vec<PeerId>, reply: oneshot::Sender<Vec<PeerId>> },
    /// Any record of a name that is followed; each one found is judged like those that come unasked.
    LookUp { name: Name },
}

#[derive(Debug, Default)]
pub(crate) struct Queries {
    jobs: HashMap<u64, Running>,
    questions: HashMap<Question, u64>,
    last: u64,
    next_sweep: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    job: Job,
    open: usize,
    heard: usize,
    deadline: Instant,
}

impl Question {
    fn via(&self) -> Via {
        match self {
            Self::Dht(..) => Via::Dht,
            Self::Fetch(_) => Via::Fetch,
        }
    }
}

impl Queries {
    /// Starts a job whose questions have been asked.
    pub(crate) fn start(&mut self, job: Job, questions: &[Question], deadline: Instant) {
        if questions.is_empty() || self.jobs.len() >= MAX_JOBS {
            job.finish();
            return;
        }
        self.next_sweep.get_or_insert_with(|| Instant::now() + SWEEP);
        self.last += 1;
        self.questions.extend(questions.iter().map(|question| (*question, self.last)));
        self.jobs.insert(self.last, Running { job, open: questions.len(), heard: 0, deadline });
    }

    /// The name that a question is about, if the job is a look-up.
    pub(crate) fn looked_up(&self, question: &Question) -> Option<Name> {
        match self.running(question)?.job {
            Job::LookUp { name } => Some(name),
            Job::Resolve { .. } | Job::Providers { .. } => None,
        }
    }

    /// A record came in for a job that resolves a name.
    pub(crate) fn record(&mut self, question: &Question, bytes: &Bytes, clock: Clock) {
        let Some(id) = self.questions.get(question).copied() else { return };
        let Some(running) = self.jobs.get_mut(&id) else { return };
        let Job::Resolve { name, best, .. } = &mut running.job else { return };
        let verified = Record::decode(bytes.clone()).and_then(|record| record.verify(name, clock.time));
        if let Ok(record) = verified {
            running.heard += 1;
            if best.as_ref().is_none_or(|best| select(&record, &best.record) == Ordering::Greater) {
                *best = Some(Found { record, via: question.via() });
            }
        }
        if running.heard >= ENOUGH_RECORDS {
            self.end(id);
        }
    }

    /// Providers came in. Returns those that are news.
    pub(crate) fn providers(
        &mut self,
        question: &Question,
        peers: impl IntoIterator<Item = PeerId>,
    ) -> Vec<PeerId> {
        let Some(id) = self.questions.get(question).copied() else { return Vec::new() };
        let Some(running) = self.jobs.get_mut(&id) else { return Vec::new() };
        let Job::Providers { found, .. } = &mut running.job else { return Vec::new() };
        let mut news = Vec::new();
        for peer in peers {
            if found.len() < ENOUGH_PROVIDERS && !found.contains(&peer) {
                found.push(peer);
                news.push(peer);
            }
        }
        if found.len() >= ENOUGH_PROVIDERS {
            self.end(id);
        }
        news
    }

    /// A question has ended.
    pub(crate) fn done(&mut self, question: &Question) {
        let Some(id) = self.questions.remove(question) else { return };
        let Some(running) = self.jobs.get_mut(&id) else { return };
        running.open = running.open.saturating_sub(1);
        if running.open == 0 {
            self.end(id);
        }
    }

    /// Ends the jobs whose time is up or for whom nobody waits. Returns the questions that are moot.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<Question> {
        let over =
            self.jobs.iter().filter(|(_, running)| running.deadline <= now || running.job.is_abandoned());
        let over: Vec<u64> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.end(id);
        }
        // Of jobs that ended early there are questions still out.
        let moot = self.questions.extract_if(|_, id| !self.jobs.contains_key(id));
        let moot = moot.map(|(question, _)| question).collect();
        self.next_sweep = (!self.questions.is_empty()).then(|| now + SWEEP);
        moot
    }

    pub(crate) fn next_sweep(&self) -> Option<Instant> {
        self.next_sweep
    }

    fn running(&self, question: &Question) -> Option<&Running> {
        self.jobs.get(self.questions.get(question)?)
    }

    fn end(&mut self, id: u64) {
        if let Some(running) = self.jobs.remove(&id) {
            running.job.finish();
        }
    }
}

impl Job {
    /// Answers with what there is. Whoever asked may have gone; that is no error.
    fn finish(self) {
        match self {
            Self::Resolve { best, reply, .. } => {
                let _ = reply.send(best);
            }
            Self::Providers { found, reply } => {
                let _ = reply.send(found);
            }
            Self::LookUp { .. } => {}
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::Resolve { reply, .. } => reply.is_closed(),
            Self::Providers { reply, .. } => reply.is_closed(),
            Self::LookUp { .. } => false,
        }
    }
}
