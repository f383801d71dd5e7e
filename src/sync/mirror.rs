//! Mirrors: all blobs of a followed tree, or of its repositories that are pinned, come here before anyone asks. What changed from one root to the next is
//! fetched, a few blobs at a time; a root that was begun is finished before the next is looked at.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use sampan_storage::layout::{self, Item};
use sampan_storage::tree::Diff;
use sampan_storage::{Cid, Digest, Store, Tree};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::following::{Following, Policy};
use super::gate::{Closed, Gate, shut};
use super::ledger::kept_bytes;
use super::{EAGER, Fetcher, Follower, blocking};
use crate::content::Pointer;
use crate::registry::{Origin, RemoteBlob};

/// Blobs on their way at a time for each name: one window would do, and the next is begun while one is finished.
const FETCHES: usize = 2;
/// Names that are mirrored at the same time; others wait.
const MIRRORS: usize = 4;
/// Between the walk over the tree and those who fetch.
const FOUND: usize = 64;
/// What nobody gave is looked for again after this long, or when a newer root has come.
const RETRY: Duration = Duration::from_secs(30);
/// Without an event, what is mirrored is compared with what there is this often.
const REGULARLY: Duration = Duration::from_mins(5);

/// Of what nobody gave so many are named.
const MAX_LACKS: usize = 8;

/// Between two words about how far it is.
const TELL: Duration = Duration::from_secs(1);

/// How far a mirror has come with a root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mirrored {
    pub(crate) root: String,
    /// Links to blobs that this root has over the one before, as far as they are known.
    pub(crate) links: u64,
    /// Of these, what came from peers, and its bytes.
    pub(crate) fetched: u64,
    pub(crate) bytes: u64,
    /// What nobody gave, and the first of it by digest.
    pub(crate) missing: u64,
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
    pub(crate) finished: bool,
    /// Bytes that are kept, where there is a quota.
    #[serde(default)]
    pub(crate) kept: Option<u64>,
    /// Why it does not go on: it waits for its window, or its quota has no room.
    #[serde(default)]
    pub(crate) stopped: Option<String>,
    /// It is the quota.
    #[serde(default)]
    pub(crate) full: bool,
    /// Why the last that is missing did not come.
    #[serde(default)]
    pub(crate) error: Option<String>,
}

/// Clones share what they know.
#[derive(Clone, Debug)]
pub(crate) struct Mirrors {
    store: Store,
    follower: Follower,
    fetcher: Fetcher,
    progress: Arc<Mutex<HashMap<String, Mirrored>>>,
}

/// What became of a blob that a root links.
enum Brought {
    /// It is here, or is small and came with its directory.
    Here,
    /// So many bytes came.
    Came(u64),
    /// And why it did not come.
    Missing(Digest, String),
    /// The gate is closed.
    Refused,
    /// Another root was adopted meanwhile, and has it no more.
    Left,
}

/// How a pass over a root has ended.
enum Ended {
    Whole,
    /// Something is missing; it is looked for again.
    Lacking,
    /// Another root has come, without what this one has: this one is not whole here, and will not be. What the next one
    /// has is found by what was whole before.
    Overtaken,
    Closed(Closed),
}

/// A tree that is mirrored, at a root.
#[derive(Clone, Debug)]
struct Goal {
    tree: String,
    root: Cid,
    following: Following,
}

impl Mirrors {
    pub(crate) fn new(store: Store, follower: Follower, fetcher: Fetcher) -> Self {
        Self { store, follower, fetcher, progress: Arc::default() }
    }

    /// How far the mirror of this tree is, where there is one.
    pub(crate) fn progress(&self, tree: &str) -> Option<Mirrored> {
        self.lock().get(tree).cloned()
    }

    /// Keeps mirrors up with what is followed until it is told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut news = self.follower.news();
        let mut done: HashMap<String, Cid> = HashMap::new();
        let mut again: HashMap<String, (Cid, Instant)> = HashMap::new();
        let mut running: HashSet<String> = HashSet::new();
        let mut passes = JoinSet::new();
        loop {
            news.mark_unchanged();
            let goals = self.goals();
            // Those that somebody brings once are none of the goals.
            self.lock().retain(|tree, progress| {
                let ended = progress.finished || progress.stopped.is_some();
                !ended || goals.iter().any(|goal| goal.tree == *tree)
            });
            let now = Instant::now();
            for goal in goals {
                let waits = again.get(&goal.tree).is_some_and(|(root, at)| *root == goal.root && *at > now);
                let is_done = done.get(&goal.tree) == Some(&goal.root);
                if is_done || waits || running.contains(&goal.turn()) || passes.len() >= MIRRORS {
                    continue;
                }
                let window = goal.following.window;
                if let Some(closed) = window.and_then(|window| shut(self.follower.node.wall(), window)) {
                    self.begin(&goal, None, Some(&closed));
                    again.insert(goal.tree, (goal.root, now + closed.wait()));
                    continue;
                }
                running.insert(goal.turn());
                let (this, from) = (self.clone(), done.get(&goal.tree).copied());
                passes.spawn(async move {
                    let whole = this.pass(&goal, from).await;
                    (goal, whole)
                });
            }
            let next = again.values().map(|(_, at)| *at).filter(|at| *at > now).min();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(ended) = passes.join_next() => {
                    let Ok((goal, whole)) = ended else { continue };
                    running.remove(&goal.turn());
                    again.remove(&goal.tree);
                    match whole {
                        Ok(Ended::Whole) => { done.insert(goal.tree, goal.root); }
                        Ok(Ended::Overtaken) => {}
                        Ok(Ended::Lacking) => { again.insert(goal.tree, (goal.root, Instant::now() + RETRY)); }
                        Ok(Ended::Closed(closed)) => {
                            again.insert(goal.tree, (goal.root, Instant::now() + closed.wait()));
                        }
                        Err(error) => {
                            tracing::warn!(name = goal.tree, error = format!("{error:#}"), "a mirror stopped; trying again");
                            again.insert(goal.tree, (goal.root, Instant::now() + RETRY));
                        }
                    }
                }
                _ = news.changed() => {}
                () = sleep_until(next.unwrap_or(now + REGULARLY)) => {}
            }
        }
    }

    /// Fetches all blobs of a tree that is read here, once.
    pub(crate) async fn once(
        &self,
        tree: &str,
        root: Cid,
        told: &impl Fn(String),
    ) -> anyhow::Result<Mirrored> {
        let name: Pointer = tree.parse().map_err(|_| anyhow::anyhow!("{tree} is no name"))?;
        let following = Following { policy: Policy::Mirror, ..Following::plain(name.into()) };
        let goal = Goal { tree: tree.to_owned(), root, following };
        let mut pass = std::pin::pin!(self.pass(&goal, None));
        loop {
            tokio::select! {
                passed = &mut pass => {
                    passed?;
                    return Ok(self.lock().remove(tree).unwrap_or_default());
                }
                () = tokio::time::sleep(TELL) => {
                    let Mirrored { links, fetched, bytes, missing, .. } = self.progress(tree).unwrap_or_default();
                    told(format!("{links} looked at, {fetched} blobs of {bytes} bytes came, {missing} missing"));
                }
            }
        }
    }

    fn goals(&self) -> Vec<Goal> {
        let state = self.store.state();
        let places = self.follower.places().into_iter();
        let mirrored = places.filter(|(_, following)| following.is_mirror());
        mirrored
            .filter_map(|(tree, following)| {
                let root = state.follow(&tree)?.good.as_ref()?.root.0;
                Some(Goal { tree, root, following })
            })
            .collect()
    }

    /// Mirrors that their quotas have stopped, and blobs that nobody gave them.
    pub(crate) fn troubles(&self) -> (u64, u64) {
        let all = self.lock();
        let full = all.values().filter(|progress| progress.full).count() as u64;
        (full, all.values().map(|progress| progress.missing).sum())
    }

    /// Fetches what this root has and `from` had not.
    async fn pass(&self, goal: &Goal, from: Option<Cid>) -> anyhow::Result<Ended> {
        let Goal { tree, root, following } = goal;
        let mut kept = 0;
        if following.quota.is_some() {
            // Several trees may share it: members, or what stands in the place of a domain.
            let mut places = self.follower.places();
            places.retain(|(_, other)| other.whom == following.whom);
            let store = self.store.clone();
            kept = blocking(move || kept_bytes(&store, &places)).await??;
        }
        let gate = Arc::new(Gate::new(self.follower.node.wall().clone(), following, kept));
        self.begin(goal, gate.kept(), None);
        let (sender, found) = mpsc::channel(FOUND);
        let (store, keeps) = (self.store.clone(), following.clone());
        let root = *root;
        let walk = tokio::task::spawn_blocking(move || walk(&store, from, root, &keeps, &sender));
        let mut pace = Pace::new(following.rate);
        let found = stream::unfold((found, Arc::clone(&gate)), |(mut found, gate)| async move {
            // What is on its way is finished; nothing more is begun.
            let next = if gate.closed().is_none() { found.recv().await } else { None };
            Some((next?, (found, gate)))
        });
        let mut fetches =
            std::pin::pin!(found.map(|digest| self.bring(goal, digest, &gate)).buffer_unordered(FETCHES));
        let mut overtaken = false;
        while let Some(brought) = fetches.next().await {
            overtaken |= matches!(brought, Brought::Left);
            let bytes = self.count(tree, brought, gate.kept());
            pace.wait(bytes).await;
        }
        walk.await??;
        let closed = gate.closed();
        let mut progress = self.lock();
        let Some(progress) = progress.get_mut(tree) else { return Ok(Ended::Lacking) };
        progress.finished = progress.missing == 0 && closed.is_none() && !overtaken;
        progress.full = matches!(closed, Some(Closed::Quota { .. }));
        progress.stopped = closed.as_ref().map(|closed| closed.why().to_owned());
        let Mirrored { fetched, bytes, missing, finished, .. } = *progress;
        if fetched > 0 || missing > 0 {
            tracing::info!(name = tree, %root, fetched, bytes, missing, "mirrored");
        }
        Ok(match closed {
            Some(closed) => {
                tracing::info!(name = tree, why = closed.why(), "a mirror does not go on");
                Ended::Closed(closed)
            }
            None if finished => Ended::Whole,
            None if overtaken => Ended::Overtaken,
            None => Ended::Lacking,
        })
    }

    /// Says how far it is from here on. Why it did not go on before stays said until that is over.
    fn begin(&self, goal: &Goal, kept: Option<u64>, closed: Option<&Closed>) {
        let mut all = self.lock();
        let before = all.remove(&goal.tree).unwrap_or_default();
        let stopped = closed.map(|closed| closed.why().to_owned()).or_else(|| before.stopped.clone());
        let full = before.full && closed.is_none();
        let root = goal.root.to_string();
        // What waits has come as far as it had.
        let counts = if before.root == root && closed.is_some() { before } else { Mirrored::default() };
        all.insert(goal.tree.clone(), Mirrored { root, kept, stopped, full, finished: false, ..counts });
    }

    async fn bring(&self, goal: &Goal, digest: Digest, gate: &Gate) -> Brought {
        let (store, goal) = (self.store.clone(), goal.clone());
        let brought = match blocking(move || wanted(&store, &goal, digest)).await {
            Ok(Ok(Wanted::Nothing)) => return Brought::Here,
            Ok(Ok(Wanted::Left)) => return Brought::Left,
            Ok(Ok(Wanted::Blob(want))) if !gate.enter(want.size) => return Brought::Refused,
            Ok(Ok(Wanted::Blob(want))) => {
                let size = want.size;
                let fetched = self.fetcher.fetch(*want).await;
                if fetched.is_err() {
                    gate.leave(size);
                }
                fetched.map(|_| size).map_err(anyhow::Error::from)
            }
            Ok(Err(error)) | Err(error) => Err(error),
        };
        match brought {
            Ok(size) => Brought::Came(size),
            Err(error) => {
                tracing::debug!(%digest, error = format!("{error:#}"), "a blob of a mirror does not come");
                Brought::Missing(digest, format!("{error:#}"))
            }
        }
    }

    /// Returns the bytes that came.
    fn count(&self, tree: &str, brought: Brought, kept: Option<u64>) -> u64 {
        let mut all = self.lock();
        let Some(progress) = all.get_mut(tree) else { return 0 };
        progress.links += 1;
        progress.kept = kept;
        match brought {
            Brought::Here | Brought::Left | Brought::Refused => 0,
            Brought::Came(bytes) => {
                progress.fetched += 1;
                progress.bytes += bytes;
                bytes
            }
            Brought::Missing(digest, why) => {
                progress.missing += 1;
                progress.error = Some(format!("{digest}: {why}"));
                if progress.lacks.len() < MAX_LACKS {
                    progress.lacks.push(digest.to_string());
                }
                0
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Mirrored>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Goal {
    /// Of those that have the same one passes come one after the other: trees that share a quota count together.
    fn turn(&self) -> String {
        match self.following.quota {
            Some(_) => self.following.whom.to_string(),
            None => self.tree.clone(),
        }
    }
}

impl Closed {
    /// After which it is tried again with the same root.
    fn wait(&self) -> Duration {
        match self {
            Self::Window { wait, .. } => *wait,
            Self::Quota { .. } => REGULARLY,
        }
    }
}

/// Gives the digests that repositories of `root` that are kept link and those of `from` did not, until nobody takes them. One that
/// several link comes for each.
fn walk(
    store: &Store,
    from: Option<Cid>,
    root: Cid,
    following: &Following,
    found: &mpsc::Sender<Digest>,
) -> anyhow::Result<()> {
    let mut diff = Diff::new(from, root, EAGER);
    let mut see = |difference: sampan_storage::tree::Difference| {
        let (Some(_), Some(item)) = (&difference.new, layout::parse(&difference.path)) else { return };
        let (Item::Layer(repository, digest) | Item::Revision(repository, digest)) = item else { return };
        if following.keeps(repository.as_str()) {
            // Nobody takes it where the pass has ended.
            let _ = found.blocking_send(digest);
        }
    };
    let missing = diff.advance(store, &mut see)?;
    match (missing.is_empty(), from) {
        (true, _) => Ok(()),
        // Directories of the root before may be gone by now.
        (false, Some(_)) => walk(store, None, root, following, found),
        (false, None) => anyhow::bail!("directories of the root are not here any more"),
    }
}

enum Wanted {
    Nothing,
    Blob(Box<RemoteBlob>),
    Left,
}

/// What is to be fetched of this digest: nothing where it is here, or small enough to have come with its directory.
fn wanted(store: &Store, goal: &Goal, digest: Digest) -> anyhow::Result<Wanted> {
    // One that is leaving the cache just now has left it after this. Nobody asks for it, so that it is no use.
    store.pin(vec![digest]).release();
    if store.blob(&digest)?.is_some() {
        return Ok(Wanted::Nothing);
    }
    let Goal { tree, root, .. } = goal;
    let trees = store.trees();
    let followed = trees.iter().find(|it: &&Tree| it.name() == Some(tree));
    let Some(followed) = followed else { return Ok(Wanted::Left) };
    let Some(entry) = followed.lookup(&layout::blob(&digest))? else {
        // A link without a blob; or it is a newer root that has it no more, and nobody would give it.
        return Ok(if followed.root() == *root { Wanted::Nothing } else { Wanted::Left });
    };
    let size = followed.size(&entry)?;
    let want = Box::new(RemoteBlob { tree: tree.clone(), digest, entry, size });
    Ok(if size > EAGER { Wanted::Blob(want) } else { Wanted::Nothing })
}

/// Waits so that no more than a number of bytes comes in a second, over all.
struct Pace {
    rate: Option<u64>,
    free: Instant,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self { rate, free: Instant::now() }
    }

    async fn wait(&mut self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let millis = bytes.saturating_mul(1000) / rate.max(1);
        self.free = self.free.max(Instant::now()) + Duration::from_millis(millis);
        sleep_until(self.free).await;
    }
}
