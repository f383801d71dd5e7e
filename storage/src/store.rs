//! The data directory: opens it, holds its threads, and is what the rest of the program calls.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cid::Cid;
use tokio::sync::{OwnedRwLockReadGuard, mpsc, oneshot, watch};

use crate::arriving::Arriving;
use crate::bases::Bases;
use crate::blobs::{BlobFile, Blobs, StoredBlob};
use crate::block::{Block, BlockError, Blocks};
use crate::commit::{self, Adoption, Change, Commit, Request};
use crate::compact::PastRoots;
use crate::delta;
use crate::digest::{Algorithm, Digest};
use crate::error::{OpenError, StoreError};
use crate::files::{make_directory, write_whole};
use crate::fold::{self, Signal};
use crate::holdings::{self, Holding, Roots};
use crate::index::{Index, Row, TreeKey};
use crate::inner::{self, Inner, View};
use crate::journal::{Entry, Follow, Journal, State};
use crate::keeper;
use crate::kept::{Keeping, Kept};
use crate::lens::Lens;
use crate::name::{RepositoryName, Tag};
use crate::pack::Packs;
use crate::partial::Partial;
use crate::pins::{Claim, Pin, Pins};
use crate::public::{Public, PublicRule, PublicTree};
use crate::recent::Recent;
use crate::replay::replay;
use crate::running::Running;
use crate::space::{Ballast, Reserve, Space};
use crate::sweep::{self, Sweep, Swept};
use crate::upload::{Upload, UploadId, Uploads};
use crate::view::Tree;
use crate::wrong::Wrong;

/// Version of the data directory that this program writes and the newest that it reads.
const FORMAT: u32 = 1;
/// Signals that wait for the folder; one is as good as many.
const SIGNALS: usize = 4;
/// What may lie in a directory that becomes a data directory: what a start that failed left, the swarm key of a
/// private network, and what ext4 puts into the root of a disk.
const OURS: [&str; 5] = ["LOCK", "VERSION.new", "keys", "swarm.key", "lost+found"];
const DIRECTORIES: [&str; 8] =
    ["blobs", "packs", "pins", "journal", "partial", "uploads", "quarantine", "keys"];

/// An open data directory. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    dir: Arc<Path>,
    lines: Arc<RwLock<Option<Lines>>>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// What the store is made of now, for whoever watches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Entries that the journal has taken since the directory was made.
    pub journal_position: u64,
    /// The sequence of my tree's last fold.
    pub sequence: u64,
    pub pack_bytes: u64,
    /// Upload sessions whose hash state is in memory.
    pub uploads: u64,
}

/// How the threads are spoken to. They end when the last of it is gone.
#[derive(Clone, Debug)]
struct Lines {
    requests: mpsc::Sender<Request>,
    signals: std::sync::mpsc::SyncSender<Signal>,
}

impl Store {
    /// Opens a data directory and makes it where there is none. Blocks for as long as the replay takes.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_for(dir, None)
    }

    /// The same where a rule says what of my tree everyone may have. See [`Self::public`].
    pub fn open_for(dir: &Path, rule: Option<PublicRule>) -> Result<Self, OpenError> {
        let lock = prepare(dir)?;
        // First, so that what follows can be written.
        let ballast = Ballast::open(dir);
        let io = |path: PathBuf| move |source| OpenError::Io { path, source };
        for name in DIRECTORIES {
            make_directory(&dir.join(name), if name == "keys" { 0o700 } else { 0o755 })
                .map_err(io(dir.join(name)))?;
        }
        let running = Running::open(dir).map_err(io(dir.to_owned()))?;
        let (keeper, failures) = std::sync::mpsc::sync_channel(SIGNALS);
        let index = Index::open(&dir.join("db"), keeper);
        let packs = Packs::open(&dir.join("packs"))?;
        let public = rule.map(|rule| PublicTree::open(&dir.join("packs/public"), rule)).transpose()?;
        let blobs = Blobs::open(&dir.join("blobs"), &dir.join("quarantine"));
        let blobs = Arc::new(blobs.map_err(io(dir.join("blobs")))?);
        let kept = Kept::open(&dir.join("pins"))?;
        let bases = Bases::open(dir).map_err(io(dir.join("bases")))?;
        let pins = Arc::new(Pins::default());
        let uploads =
            Uploads::open(&dir.join("uploads"), Arc::clone(&blobs), Arc::clone(&pins), Reserve::new(dir))
                .map_err(io(dir.join("uploads")))?;
        // What was being fetched is fetched again.
        Partial::clear(&dir.join("partial")).map_err(io(dir.join("partial")))?;
        let (journal, entries) = Journal::open(&dir.join("journal"))?;
        let inner = Arc::new(Inner {
            packs,
            public,
            index,
            blobs,
            arriving: Arriving::default(),
            uploads: Arc::new(uploads),
            view: RwLock::new(View::new(State::default())),
            rows: Mutex::default(),
            ballast,
            running,
            folded: watch::Sender::new(entries.state.sequence),
            past_roots: Mutex::new(PastRoots::default()),
            recent: Mutex::new(Recent::default()),
            pins,
            kept,
            wrong: Wrong::default(),
            bases,
            adoptions: Arc::default(),
            order: RwLock::default(),
            orders: AtomicU64::default(),
            cache: inner::cache(),
            _lock: lock,
        });
        replay(&inner, &entries, journal.next())?;
        Ok(Self::start(inner, dir, journal, failures))
    }

    fn start(
        inner: Arc<Inner>,
        dir: &Path,
        journal: Journal,
        failures: std::sync::mpsc::Receiver<()>,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(commit::QUEUE);
        let (signals, received) = std::sync::mpsc::sync_channel(SIGNALS);
        let committer = {
            let (inner, signals) = (Arc::clone(&inner), signals.clone());
            std::thread::spawn(move || commit::run(&inner, journal, receiver, &signals))
        };
        let folder = {
            let (inner, requests) = (Arc::clone(&inner), requests.downgrade());
            std::thread::spawn(move || fold::run(&inner, &requests, &received))
        };
        let keeper = {
            let inner = Arc::downgrade(&inner);
            std::thread::spawn(move || keeper::run(&inner, &failures))
        };
        if inner.pending() > 0 || inner.is_public_due() {
            let _ = signals.try_send(Signal::Changed { soon: true });
        }
        let threads = Arc::new(Mutex::new(vec![committer, folder, keeper]));
        let lines = Arc::new(RwLock::new(Some(Lines { requests, signals })));
        Self { inner, dir: dir.into(), lines, threads }
    }

    /// Folds what is left, makes the index durable and ends the threads. Blocks. Other clones may live on; they can read, and nothing else.
    pub fn close(self) -> Result<(), StoreError> {
        let folded = self.fold_blocking();
        let checkpoint = self.inner.index.checkpoint();
        self.inner.index.close();
        let Self { inner, lines, threads, .. } = self;
        // What another clone asks from here on is told that the store is closed.
        *lines.write().unwrap_or_else(PoisonError::into_inner) = None;
        for thread in threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A thread that panicked has been logged; its work is in the journal.
            let _ = thread.join();
        }
        let closed = folded.and(checkpoint);
        if closed.is_ok() {
            inner.running.end()?;
        }
        closed
    }

    fn lines(&self) -> Result<Lines, StoreError> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Closed)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Free space on the data directory's file system. Asks the system.
    pub fn space(&self) -> Result<Space, StoreError> {
        Ok(self.inner.uploads.space()?)
    }

    /// The index has failed and is being built anew: lists are refused.
    pub fn is_damaged(&self) -> bool {
        !self.inner.index.is_up()
    }

    /// Cheap: nothing is walked and no blob is looked at.
    pub fn figures(&self) -> Figures {
        Figures {
            journal_position: self.inner.view.read().unwrap_or_else(PoisonError::into_inner).position,
            sequence: *self.inner.folded.borrow(),
            pack_bytes: self.inner.packs.total()
                + self.inner.public.as_ref().map_or(0, PublicTree::pack_bytes),
            uploads: self.inner.uploads.open_sessions() as u64,
        }
    }

    /// Root, sequence, record and followed names as the journal has them.
    pub fn state(&self) -> State {
        self.inner.state()
    }

    /// A number that is another one after every change of what can be read.
    pub fn generation(&self) -> u64 {
        // All only grow, so their sum does.
        let position = self.inner.view.read().unwrap_or_else(PoisonError::into_inner).position;
        position + self.losses() + self.inner.orders.load(Ordering::SeqCst)
    }

    /// Blobs that went into quarantine since the start: whoever keeps content in memory forgets it when this grows.
    pub fn losses(&self) -> u64 {
        self.inner.blobs.losses()
    }

    /// Root of my tree as last folded.
    pub fn root(&self) -> Cid {
        self.inner.view.read().unwrap_or_else(PoisonError::into_inner).base
    }

    /// Changes to the sequence of my tree's last fold.
    pub fn folds(&self) -> watch::Receiver<u64> {
        self.inner.folded.subscribe()
    }

    /// The blocks that `new` has over `old`: directories, and files of at most `eager` bytes. `None` if they are
    /// more than `limit` bytes. Blocks on the disk.
    pub fn blocks_between(
        &self,
        old: Option<Cid>,
        new: Cid,
        eager: u64,
        limit: usize,
    ) -> Result<Option<Vec<Block>>, StoreError> {
        // Each tree has its own: what one of them got says nothing to whoever may read the other.
        let recent = match &self.inner.public {
            Some(tree) if tree.current(&self.state()).is_some_and(|public| public.root.0 == new) => {
                Some(&tree.recent)
            }
            _ => (new == self.root()).then_some(&self.inner.recent),
        };
        if let Some((old, recent)) = old.zip(recent)
            && let Some(blocks) = recent.lock().unwrap_or_else(PoisonError::into_inner).since(&old, limit)
        {
            return Ok(Some(blocks));
        }
        Ok(delta::blocks_between(self.inner.as_ref(), old, new, eager, limit)?)
    }

    /// My tree, then the followed ones in order.
    pub fn trees(&self) -> Vec<Tree> {
        let mut follows = self.state().follows;
        let order = self.inner.order.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Names without a place come last, as they came.
        follows.sort_by_key(|follow| {
            order.iter().position(|(name, _)| *name == follow.name).unwrap_or(usize::MAX)
        });
        let followed = follows.iter().filter_map(|follow| {
            let lens = order.iter().find(|(name, _)| *name == follow.name).map(|(_, lens)| lens.clone());
            self.followed(follow, lens.unwrap_or_default())
        });
        std::iter::once(self.mine()).chain(followed).collect()
    }

    /// Names that are read before others, in this order, and how each is seen.
    pub fn set_order(&self, names: Vec<(String, Lens)>) {
        *self.inner.order.write().unwrap_or_else(PoisonError::into_inner) = names;
        self.inner.orders.fetch_add(1, Ordering::SeqCst);
    }

    /// The blocks that strangers may have.
    pub fn public(&self) -> Public {
        Public::new(Arc::clone(&self.inner))
    }

    /// Whether not everyone may have everything.
    pub fn is_divided(&self) -> bool {
        self.inner.public.is_some()
    }

    pub fn mine(&self) -> Tree {
        Tree::mine(Arc::clone(&self.inner))
    }

    fn followed(&self, follow: &Follow, lens: Lens) -> Option<Tree> {
        let root = follow.good.as_ref()?.root.0;
        Some(Tree::followed(Arc::clone(&self.inner), &follow.name, root, lens))
    }

    /// A complete blob on this disk, whoever's it is. One that a stop without a word may have damaged is hashed before
    /// it is given out for the first time; where that fails it is in quarantine, and not there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobFile>, StoreError> {
        let open = || self.inner.blobs.open_blob(digest);
        let Some(blob) = open()? else { return Ok(None) };
        if self.inner.running.prove(digest, blob.modified()?, || self.examine(&blob))? {
            return Ok(Some(blob));
        }
        // A push may have healed it by now, and what a push brings is hashed on its way.
        Ok(open()?)
    }

    /// My tags and the manifests that they point to, in byte order. A tag whose link does not parse has no manifest.
    pub fn tag_targets(
        &self,
        repository: &RepositoryName,
    ) -> impl Iterator<Item = Result<(Tag, Option<Digest>), StoreError>> + use<> {
        let rows = self.inner.index.after(TreeKey::MINE, Row::Tag(repository.as_str(), ""));
        rows.filter_map(|row| match row {
            Ok((tag, value)) => {
                let digest = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                Some(Ok((tag.parse().ok()?, digest)))
            }
            Err(error) => Some(Err(error)),
        })
    }

    pub fn begin_upload(
        &self,
        repository: &RepositoryName,
        algorithm: Option<Algorithm>,
    ) -> Result<Upload, StoreError> {
        self.inner.uploads.begin(repository, algorithm)
    }

    /// Takes the session for this request alone.
    pub fn resume_upload(&self, repository: &RepositoryName, id: &UploadId) -> Result<Upload, StoreError> {
        self.inner.uploads.resume(repository, id)
    }

    pub fn cancel_upload(&self, repository: &RepositoryName, id: &UploadId) -> Result<(), StoreError> {
        self.inner.uploads.cancel(repository, id)
    }

    /// Removes uploads to which nothing was written for so long. Returns how many.
    pub fn purge_uploads(&self, older_than: Duration) -> Result<usize, StoreError> {
        self.inner.uploads.purge(older_than)
    }

    /// A small blob, durable under its digest when this returns.
    pub fn put_blob(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<StoredBlob, StoreError> {
        self.inner.uploads.put(algorithm, bytes)
    }

    /// Makes the changes durable, then visible: all of them, or none.
    ///
    /// # Cancel safety
    /// A dropped future leaves the commit to happen or not; it never happens in part.
    pub async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.request(commit.into_change()).await
    }

    /// The same for a caller that has no async thread.
    pub fn commit_blocking(&self, commit: Commit) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { change: commit.into_change(), reply };
        self.lines()?.requests.blocking_send(request).map_err(|_| StoreError::Closed)?;
        answer.blocking_recv().map_err(|_| StoreError::Closed)?.map(drop)
    }

    /// Keeps digests from being collected, from before the look at whether they are here until a commit links them.
    /// Blocks while one of them is being taken away.
    pub fn pin(&self, digests: Vec<Digest>) -> Pin {
        self.inner.pins.pin(digests)
    }

    /// The same without waiting; `None` where one of them is being taken away.
    pub fn try_pin(&self, digests: Vec<Digest>) -> Option<Pin> {
        self.inner.pins.try_pin(digests)
    }

    /// Those of the digests that nobody has pinned or touched at `since` or later. Until the claim is dropped, nobody
    /// can pin them.
    pub fn claim(&self, digests: &[Digest], since: Instant) -> Claim {
        self.inner.pins.claim(digests, since)
    }

    /// Removes blob files that no tree names. `visit` is shown each of them, and `None` after each of 512 steps; where
    /// it says `false` the sweep ends early.
    pub fn sweep(
        &self,
        options: Sweep,
        visit: &mut dyn FnMut(Option<Swept>) -> bool,
    ) -> Result<(), StoreError> {
        sweep::sweep(&self.inner, options, visit)
    }

    /// The roots that are read now.
    pub fn roots_now(&self) -> Roots {
        Roots::now(&self.inner)
    }

    /// Shows every blob that is here, with what of these roots names it, until `visit` says `false`.
    pub fn holdings(&self, roots: &Roots, visit: &mut dyn FnMut(Holding) -> bool) -> Result<(), StoreError> {
        holdings::holdings(&self.inner, roots, visit)
    }

    /// Removes those of the blobs that only followed trees name, and that nobody has pinned or touched at `since` or
    /// later: they can be fetched again. Returns what went; `None` where followed names no longer have these roots, so
    /// that the choice may be wrong. When all is done, [`Self::forget_evicted`] cleans up.
    pub fn evict(
        &self,
        digests: &[Digest],
        since: Instant,
        roots: &Roots,
    ) -> Result<Option<Vec<Swept>>, StoreError> {
        sweep::evict(&self.inner, digests, since, roots)
    }

    /// Drops the rows that say where leaves of evicted blobs lay. Walks the index.
    pub fn forget_evicted(&self) -> Result<(), StoreError> {
        sweep::forget_rows(&self.inner)
    }

    /// Keeps the record that is about to be published.
    pub async fn set_record(&self, record: &Bytes) -> Result<(), StoreError> {
        let record = serde_bytes::ByteBuf::from(record.to_vec());
        self.request(Change::Other(Entry::Record { record })).await
    }

    /// Follows a name from now on, also at the next start.
    pub async fn follow(&self, name: &str) -> Result<(), StoreError> {
        self.request(Change::Other(Entry::Follow { name: name.to_owned() })).await
    }

    /// Forgets a name with its last root. Its blobs stay until they are collected.
    pub async fn unfollow(&self, name: &str) -> Result<(), StoreError> {
        self.request(Change::Other(Entry::Unfollow { name: name.to_owned() })).await
    }

    /// Held from the first look at a new root's blocks until it is adopted, so that none of them goes away.
    pub async fn adopting(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.inner.adoptions).read_owned().await
    }

    /// Whether my tree has nothing, and nothing on its way.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Gives my tree, which must be empty, a root all of which is here, blobs included, under this sequence.
    pub async fn restore(&self, root: Cid, sequence: u64) -> Result<(), StoreError> {
        let before = self.root();
        // By the folder, so that no fold of the empty tree that was under way takes its place.
        let (reply, answer) = oneshot::channel();
        let signal = Signal::Restore { reply, root, sequence };
        self.lines()?.signals.send(signal).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)??;
        self.inner.announce(before, sequence);
        // What everyone may have of it is made now.
        self.fold().await
    }

    /// How many tags, manifests, referrers and repositories the lists of a followed name have; none while they are built
    /// anew. May walk all of them.
    pub fn listed(&self, name: &str) -> Result<usize, StoreError> {
        self.inner.index.count(TreeKey::followed(name))
    }

    /// Moves a followed name to a root whose directories are all here.
    pub async fn adopt(&self, adoption: Adoption) -> Result<(), StoreError> {
        self.request(Change::Adopt(adoption)).await
    }

    async fn request(&self, change: Change) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.lines()?.requests.send(Request { change, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?.map(drop)
    }

    /// Appends blocks of followed trees to the packs. [`StoreError::Full`] where they would eat into the reserve.
    pub fn put_blocks(&self, blocks: &[Block]) -> Result<(), StoreError> {
        Reserve::new(&self.dir).check()?;
        Ok(self.inner.packs.append(blocks)?)
    }

    /// Blocks that come to be pinned, or a root whose blocks are here. Until it is dropped no pack is rewritten.
    pub async fn keep(&self) -> Keeping {
        let whole = self.adopting().await;
        Keeping::new(&self.inner, &self.dir, whole)
    }

    /// Roots that are pinned.
    pub fn kept(&self) -> Vec<Cid> {
        self.inner.kept.list()
    }

    /// Lets a pinned root go; what nothing else keeps is collected later. Returns whether it was pinned.
    pub fn release(&self, root: &Cid) -> Result<bool, StoreError> {
        Ok(self.inner.kept.remove(root)?)
    }

    /// Keeps the directories of a root, so that what a later one has over it can be found. Of such roots the newest few
    /// are kept. Durable when it returns.
    pub fn keep_base(&self, root: Cid) -> Result<(), StoreError> {
        Ok(self.inner.bases.add(root)?)
    }

    /// Makes blocks that were put before durable.
    pub fn sync_blocks(&self) -> Result<(), StoreError> {
        Ok(self.inner.packs.sync()?)
    }

    /// Begins to fetch a blob. One caller at a time for each digest.
    pub fn begin_partial(&self, digest: &Digest, size: u64) -> Result<Partial, StoreError> {
        // A tree may say any size, and few blocks may be a file without end.
        let reserve = Reserve::new(&self.dir);
        reserve.check_for(size)?;
        Partial::create(&self.dir.join("partial"), Arc::clone(&self.inner), reserve, digest, size)
    }

    /// Remembers for a while that this file is not what the digest stands for, or that it cannot be read.
    pub fn note_wrong(&self, digest: &Digest, file: &Cid) {
        self.inner.wrong.note(digest, file);
    }

    /// Whether it was found lately that this file is not what the digest stands for.
    pub fn is_wrong(&self, digest: &Digest, file: &Cid) -> bool {
        self.inner.wrong.has(digest, file)
    }

    /// Waits until everything that was committed before is folded into a root.
    pub async fn fold(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.lines()?
            .signals
            .send(Signal::Now { reply, renew: false, above: None })
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Folds, under a sequence above this one: it was published elsewhere under the same name.
    pub async fn fold_above(&self, sequence: u64) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let signal = Signal::Now { reply, renew: false, above: Some(sequence) };
        self.lines()?.signals.send(signal).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Roots of my tree before this one whose directories are still here, oldest first, with their age.
    pub fn past_roots(&self) -> Vec<(Cid, Duration)> {
        self.inner.past_roots.lock().unwrap_or_else(PoisonError::into_inner).aged()
    }

    #[cfg(test)]
    pub(crate) fn compact(&self) -> Result<bool, StoreError> {
        Ok(crate::compact::compact(&self.inner)?.is_some())
    }

    /// The same for a caller that has no async thread.
    pub fn fold_blocking(&self) -> Result<(), StoreError> {
        self.fold_now(false)
    }

    pub(crate) fn fold_now(&self, renew: bool) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.lines()?
            .signals
            .send(Signal::Now { reply, renew, above: None })
            .map_err(|_| StoreError::Closed)?;
        answer.blocking_recv().map_err(|_| StoreError::Closed)?
    }
}

impl Blocks for Store {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, BlockError> {
        self.inner.get(cid)
    }

    fn size(&self, cid: &Cid) -> Result<Option<usize>, BlockError> {
        self.inner.size(cid)
    }
}

/// Checks that the directory is ours to use, and takes its lock.
fn prepare(dir: &Path) -> Result<File, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    let version = dir.join("VERSION");
    match fs::read_to_string(&version) {
        Ok(text) => {
            let found = text.trim().parse().unwrap_or(u32::MAX);
            if found > FORMAT {
                return Err(OpenError::Newer { dir: dir.to_owned(), found, known: FORMAT });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut items = fs::read_dir(dir).map_err(io(dir))?;
            let ours = |name: &std::ffi::OsStr| OURS.iter().any(|ours| name == *ours);
            if items.any(|item| item.is_ok_and(|item| !ours(&item.file_name()))) {
                return Err(OpenError::Foreign { dir: dir.to_owned() });
            }
        }
        Err(source) => return Err(OpenError::Io { path: version, source }),
    }
    let path = dir.join("LOCK");
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let mut lock = options.open(&path).map_err(io(&path))?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // The number is a help, not a promise.
        let _ = lock.read_to_string(&mut holder);
        let holder = holder.trim().parse::<u32>().map(|id| format!(" ({id})")).unwrap_or_default();
        return Err(OpenError::Locked { dir: dir.to_owned(), holder });
    }
    let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(io(&path))?;
    if !version.exists() {
        write_whole(&version, format!("{FORMAT}\n").as_bytes(), 0o644).map_err(io(&version))?;
    }
    Ok(lock)
}
