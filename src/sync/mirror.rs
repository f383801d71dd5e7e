//! Mirrors: all blobs of a followed tree come here before anyone asks. What changed from one root to the next is
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
    /// What nobody gave.
    pub(crate) missing: u64,
    pub(crate) finished: bool,
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
    /// Why it did not come.
    Missing(String),
    /// Another root was adopted meanwhile, and has it no more.
    Left,
}

/// How a pass over a root ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Whole,
    /// Something is missing; it is looked for again.
    Lacking,
    /// Another root has come, without what this one has: this one is not whole here, and will not be. What the next one
    /// has is found by what was whole before.
    Overtaken,
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
            self.lock()
                .retain(|tree, progress| !progress.finished || goals.iter().any(|goal| goal.tree == *tree));
            let now = Instant::now();
            for goal in goals {
                let waits = again.get(&goal.tree).is_some_and(|(root, at)| *root == goal.root && *at > now);
                let is_done = done.get(&goal.tree) == Some(&goal.root);
                if is_done || waits || running.contains(&goal.tree) || passes.len() >= MIRRORS {
                    continue;
                }
                running.insert(goal.tree.clone());
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
                    running.remove(&goal.tree);
                    again.remove(&goal.tree);
                    match whole {
                        Ok(Passed::Whole) => { done.insert(goal.tree, goal.root); }
                        Ok(Passed::Overtaken) => {}
                        Ok(Passed::Lacking) => { again.insert(goal.tree, (goal.root, Instant::now() + RETRY)); }
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
        let mirrored = places.filter(|(_, following)| following.policy == Policy::Mirror);
        mirrored
            .filter_map(|(tree, following)| {
                let root = state.follow(&tree)?.good.as_ref()?.root.0;
                Some(Goal { tree, root, following })
            })
            .collect()
    }

    /// Fetches what this root has and `from` had not.
    async fn pass(&self, goal: &Goal, from: Option<Cid>) -> anyhow::Result<Passed> {
        let Goal { tree, root, following } = goal;
        self.lock().insert(tree.clone(), Mirrored { root: root.to_string(), ..Mirrored::default() });
        let (sender, found) = mpsc::channel(FOUND);
        let (store, shows) = (self.store.clone(), following.clone());
        let root = *root;
        let walk = tokio::task::spawn_blocking(move || walk(&store, from, root, &shows, &sender));
        let mut pace = Pace::new(following.rate);
        let found = stream::unfold(found, |mut found| async move { Some((found.recv().await?, found)) });
        let mut fetches =
            std::pin::pin!(found.map(|digest| self.bring(goal, digest)).buffer_unordered(FETCHES));
        let mut overtaken = false;
        while let Some(brought) = fetches.next().await {
            overtaken |= matches!(brought, Brought::Left);
            let bytes = self.count(tree, brought);
            pace.wait(bytes).await;
        }
        walk.await??;
        let mut progress = self.lock();
        let Some(progress) = progress.get_mut(tree) else { return Ok(Passed::Lacking) };
        progress.finished = progress.missing == 0 && !overtaken;
        let Mirrored { fetched, bytes, missing, finished, .. } = *progress;
        if fetched > 0 || missing > 0 {
            tracing::info!(name = tree, %root, fetched, bytes, missing, "mirrored");
        }
        Ok(match () {
            () if finished => Passed::Whole,
            () if overtaken => Passed::Overtaken,
            () => Passed::Lacking,
        })
    }

    async fn bring(&self, goal: &Goal, digest: Digest) -> Brought {
        let (store, goal) = (self.store.clone(), goal.clone());
        let brought = match blocking(move || wanted(&store, &goal, digest)).await {
            Ok(Ok(Wanted::Nothing)) => return Brought::Here,
            Ok(Ok(Wanted::Left)) => return Brought::Left,
            Ok(Ok(Wanted::Blob(want))) => {
                let size = want.size;
                self.fetcher.fetch(*want).await.map(|_| size).map_err(anyhow::Error::from)
            }
            Ok(Err(error)) | Err(error) => Err(error),
        };
        match brought {
            Ok(size) => Brought::Came(size),
            Err(error) => {
                tracing::debug!(%digest, error = format!("{error:#}"), "a blob of a mirror does not come");
                Brought::Missing(format!("{digest}: {error:#}"))
            }
        }
    }

    /// Returns the bytes that came.
    fn count(&self, tree: &str, brought: Brought) -> u64 {
        let mut all = self.lock();
        let Some(progress) = all.get_mut(tree) else { return 0 };
        progress.links += 1;
        match brought {
            Brought::Here | Brought::Left => 0,
            Brought::Came(bytes) => {
                progress.fetched += 1;
                progress.bytes += bytes;
                bytes
            }
            Brought::Missing(why) => {
                progress.missing += 1;
                progress.error = Some(why);
                0
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Mirrored>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the digests that repositories of `root` link and those of `from` did not, until nobody takes them. One that
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
        if following.shows(repository.as_str()) {
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
