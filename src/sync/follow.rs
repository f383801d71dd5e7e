//! Followed names: hears their records, and has each newer root adopted, one at a time for each name.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use sampan_node::ipns::{Record, Verified, select};
use sampan_node::{Event, Events, Name, Node, Offered, PeerId, Via};
use sampan_storage::{Cid, Store, StoreError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::adopt::{Goal, adopt, is_unfit};
use super::blocking;
use super::domains::Track;
use super::following::{Following, Whom};
use super::redirects::Redirects;
use super::walks::Walks;
use super::writer::Writer;
use crate::content::{Domain, Domains, Pointer};

/// A root that could not be adopted is tried again after this long, or when a peer arrives.
const RETRY: Duration = Duration::from_secs(10);

/// A root that was carried here is offered again so often where peers bring others at the same time.
const TAKES: usize = 3;

/// How often it is looked whether something has become too old.
const REVIEW: Duration = Duration::from_secs(30);

/// Names that have moved to others that have moved, and so on: more is no rotation of keys.
const MAX_MOVES: usize = 8;

/// What is known of a followed name.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) name: Pointer,
    pub(crate) root: Option<Cid>,
    pub(crate) sequence: Option<u64>,
    pub(crate) heard: Option<u64>,
    /// How long ago its record has expired: its publisher has not been heard of for long.
    pub(crate) stale: Option<Duration>,
    /// It is not shown, because the configuration allows no tree as old as this.
    pub(crate) refused: bool,
    /// Its key was rotated: this one is followed in its place.
    pub(crate) moved: Option<Name>,
    /// Where a domain points to.
    pub(crate) link: Option<String>,
    pub(crate) error: Option<String>,
}

/// Follows names and domains. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    pub(super) store: Store,
    pub(super) node: Node,
    /// Whether what is for members may lie here: not where all that is here is given to everyone.
    discreet: bool,
    pub(super) domains: Domains,
    pub(super) redirects: Redirects,
    pub(super) walks: Walks,
    names: Arc<Mutex<HashMap<Name, Watch>>>,
    tracks: Arc<Mutex<HashMap<Domain, Track>>>,
    /// What the configuration follows, in the order in which it is read.
    configured: Arc<Mutex<Vec<Following>>>,
    /// The trees that are read, in that order, with what the configuration says of them.
    places: Arc<Mutex<Vec<(String, Following)>>>,
    /// Those among them that are not shown, because they are too old.
    closed: Arc<Mutex<Vec<String>>>,
    /// Counts roots that became current, and changes of what is followed.
    news: watch::Sender<u64>,
    /// Hears what is said of my own name.
    writer: Writer,
    /// The name under which members find all of my tree, where strangers may not.
    for_members: Option<Name>,
    added: Arc<Notify>,
}

#[derive(Debug)]
struct Watch {
    /// Newest record heard of that is not adopted yet.
    heard: Option<Heard>,
    /// How and when the record that counts was heard of.
    last: Option<(Via, Instant)>,
    error: Option<String>,
    /// A root whose tree cannot be taken, now or later.
    unfit: Option<Cid>,
    moved: Option<Name>,
    /// How many names have moved before it came to this one.
    moves: usize,
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Heard {
    record: Verified,
    nodes: Bytes,
    from: Option<PeerId>,
}

impl Follower {
    pub(crate) fn new(
        store: Store,
        node: Node,
        discreet: bool,
        domains: Domains,
        redirects: Redirects,
        writer: Writer,
        for_members: Option<Name>,
    ) -> io::Result<Self> {
        let walks = Walks::start()?;
        Ok(Self {
            store,
            node,
            discreet,
            domains,
            redirects,
            walks,
            names: Arc::default(),
            tracks: Arc::default(),
            configured: Arc::default(),
            places: Arc::default(),
            closed: Arc::default(),
            news: watch::Sender::new(0),
            writer,
            for_members,
            added: Arc::default(),
        })
    }

    /// What the configuration names, what was added, and what these lead to; others that were followed once are
    /// forgotten.
    pub(crate) async fn follow_all(&self, configured: &[Following]) -> anyhow::Result<()> {
        configured.clone_into(&mut self.configured.lock().unwrap_or_else(PoisonError::into_inner));
        for (pointer, _) in self.by_hand() {
            self.follow(&pointer).await?;
        }
        self.find_again().await?;
        for follow in self.store.state().follows {
            let wanted = match follow.name.parse() {
                Ok(Pointer::Name(name)) => self.names().contains_key(&name),
                Ok(Pointer::Domain(domain)) => self.tracks().contains_key(&domain),
                Err(_) => false,
            };
            if !wanted {
                self.store.unfollow(&follow.name).await?;
            }
        }
        // Their trees may have come before the last stop.
        for name in self.targets() {
            self.leave_moved(name).await;
        }
        self.reorder();
        Ok(())
    }

    /// What the configuration names, in its order, and then what was added.
    fn by_hand(&self) -> Vec<(Pointer, Following)> {
        let named = self.configured().into_iter().filter_map(|following| match &following.whom {
            Whom::One(pointer) => Some((pointer.clone(), following)),
            Whom::Members => None,
        });
        let kept = self.store.state().follows.into_iter().filter(|follow| follow.kept);
        let kept = kept.filter_map(|follow| follow.name.parse::<Pointer>().ok());
        named.chain(kept.map(|pointer| (pointer.clone(), Following::plain(pointer.into())))).collect()
    }

    /// Follows until the program stops or it is unfollowed.
    pub(crate) async fn follow(&self, pointer: &Pointer) -> anyhow::Result<()> {
        match pointer {
            Pointer::Name(name) => self.follow_after(*name, 0).await,
            Pointer::Domain(domain) => self.follow_domain(domain.clone()).await,
        }
    }

    /// The same for what was added while the program runs.
    pub(crate) async fn add(&self, pointer: &Pointer) -> anyhow::Result<()> {
        self.follow(pointer).await?;
        self.reorder();
        Ok(())
    }

    pub(crate) async fn unfollow(&self, pointer: &Pointer) -> anyhow::Result<()> {
        match pointer {
            Pointer::Name(name) => self.unfollow_name(name).await,
            Pointer::Domain(domain) => self.unfollow_domain(domain).await?,
        }
        let (redirects, pointer) = (self.redirects.clone(), pointer.to_string());
        blocking(move || redirects.forget(&pointer)).await?
    }

    /// Follows a name, and the one that it has moved to if that is known from before.
    pub(super) async fn follow_after(&self, name: Name, moves: usize) -> anyhow::Result<()> {
        let mut next = Some(name);
        for moves in moves..=MAX_MOVES {
            let Some(name) = next else { return Ok(()) };
            self.node.follow(name).await?;
            next = self.redirects.moved(&name).and_then(|record| record.target());
            self.watch(name, moves, next);
        }
        Ok(())
    }

    fn watch(&self, name: Name, moves: usize, moved: Option<Name>) {
        self.names().entry(name).or_insert_with(|| {
            let wake = Arc::new(Notify::new());
            let task = tokio::spawn(self.clone().adopt_each(name, Arc::clone(&wake)));
            Watch { heard: None, last: None, error: None, unfit: None, moved, moves, wake, task }
        });
        self.added.notify_one();
    }

    pub(super) async fn unfollow_name(&self, name: &Name) {
        if let Some(watch) = self.names().remove(name) {
            watch.task.abort();
        }
        self.node.unfollow(*name).await;
    }

    /// Returns when another name is followed. There is one who waits.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// How the record of a followed name was heard of last, and how long ago.
    pub(crate) fn last_heard(&self, name: &Name) -> Option<(Via, Duration)> {
        self.names().get(name)?.last.map(|(via, at)| (via, at.elapsed()))
    }

    /// The names that are followed now.
    pub(crate) fn names_now(&self) -> Vec<Name> {
        self.names().keys().copied().collect()
    }

    /// Whether somebody follows this name for itself, or because something points to it.
    pub(super) fn is_wanted(&self, name: &Name) -> bool {
        self.configured().iter().any(|following| following.whom == Whom::One(Pointer::Name(*name)))
            || self.is_found(name)
            || self.store.state().follow(&name.to_string()).is_some_and(|follow| follow.kept)
            || self.names().values().any(|watch| watch.moved == Some(*name))
            || self.is_behind_a_domain(name)
    }

    /// Changes when a followed tree has another root, or others are followed.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Something else is read than before.
    pub(super) fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Whether this registry writes under the name.
    pub(super) fn is_mine(&self, name: &Name) -> bool {
        name == self.writer.name() || self.for_members.as_ref() == Some(name)
    }

    pub(super) fn configured(&self) -> Vec<Following> {
        self.configured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The trees that are followed, in the order in which they are read, with what it says of them.
    pub(crate) fn places(&self) -> Vec<(String, Following)> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the store in which order trees are read, and how each is seen: what stands in the place of another is read
    /// in its place.
    pub(super) fn reorder(&self) {
        let mut places = Vec::new();
        for (pointer, following) in self.by_hand().into_iter().chain(self.found()) {
            places.push((pointer.to_string(), following.clone()));
            let mut next = match &pointer {
                Pointer::Name(name) => Some(*name),
                Pointer::Domain(domain) => self.name_of(domain),
            };
            for _ in 0..=MAX_MOVES {
                let Some(name) = next else { break };
                places.push((name.to_string(), following.clone()));
                next = self.names().get(&name).and_then(|watch| watch.moved);
            }
        }
        let mut seen = std::collections::HashSet::new();
        places.retain(|(name, _)| seen.insert(name.clone()));
        let closed = self.too_old(&places);
        let lens = |name: &String, following: &Following| following.lens().closed(closed.contains(name));
        self.store.set_order(
            places.iter().map(|(name, following)| (name.clone(), lens(name, following))).collect(),
        );
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = closed;
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = places;
        self.tell();
    }

    /// Of these trees those whose records have ended longer ago than the configuration allows.
    fn too_old(&self, places: &[(String, Following)]) -> Vec<String> {
        let now = self.node.wall().judging_time();
        let state = self.store.state();
        let is_too_old = |(name, following): &&(String, Following)| {
            let good = state.follow(name).and_then(|follow| follow.good.as_ref());
            let record = good.and_then(|good| Record::decode(good.record.to_vec()).ok());
            let end =
                record.zip(following.max_stale).map(|(record, most)| record.validity().checked_add(most));
            end.is_some_and(|end| end.is_some_and(|end| end < now))
        };
        places.iter().filter(is_too_old).map(|(name, _)| name.clone()).collect()
    }

    /// Time has passed, or a tree has come: what is too old is shown no longer, and what no longer is, again.
    fn review(&self) {
        let closed = self.too_old(&self.places());
        if closed != *self.closed.lock().unwrap_or_else(PoisonError::into_inner) {
            self.reorder();
        }
    }

    /// Followed names whose records have ended.
    pub(crate) fn stale(&self) -> usize {
        self.followed().iter().filter(|followed| followed.stale.is_some()).count()
    }

    /// Hears the node's events until it stops.
    pub(crate) async fn listen(self, mut events: Events, stop: CancellationToken) {
        let mut review = tokio::time::interval(REVIEW);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                _ = review.tick() => {
                    self.review();
                    continue;
                }
                event = events.next() => event,
            };
            match event {
                Some(Event::Record { record, .. }) if record.name() == self.writer.name() => {
                    self.writer.hear(&record);
                }
                Some(Event::Record { record, nodes, from, via, .. }) => {
                    self.hear(Heard { record, nodes, from }, via);
                }
                Some(Event::Registries { names, .. }) => self.find(names).await,
                Some(Event::RecordRefused { name, reason, .. }) => {
                    tracing::debug!(%name, %reason, "a record was refused");
                }
                Some(Event::PeerConnected { .. }) => {
                    // Whoever comes may have what was missing.
                    self.names()
                        .values()
                        .filter(|watch| watch.heard.is_some())
                        .for_each(|watch| watch.wake.notify_one());
                }
                Some(Event::PeerDisconnected { .. }) => {}
                None => break,
            }
        }
        self.names().drain().for_each(|(_, watch)| watch.task.abort());
        self.tracks().drain().for_each(|(_, track)| track.stop());
    }

    pub(crate) fn followed(&self) -> Vec<Followed> {
        let state = self.store.state();
        let now = self.node.wall().judging_time();
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut followed: Vec<Followed> = self
            .names()
            .iter()
            .map(|(name, watch)| {
                let good = state.follow(&name.to_string()).and_then(|follow| follow.good.as_ref());
                let record = good.and_then(|good| Record::decode(good.record.to_vec()).ok());
                Followed {
                    name: Pointer::Name(*name),
                    root: good.map(|good| good.root.0),
                    sequence: good.map(|good| good.sequence),
                    heard: watch.heard.as_ref().map(|heard| heard.record.sequence()),
                    stale: record
                        .filter(|record| record.is_expired(now))
                        .and_then(|record| now.duration_since(record.validity()).ok()),
                    refused: closed.contains(&name.to_string()),
                    moved: watch.moved,
                    link: None,
                    error: watch.error.clone(),
                }
            })
            .collect();
        followed.extend(self.followed_domains());
        followed.sort_by(|a, b| a.name.cmp(&b.name));
        followed
    }

    fn hear(&self, heard: Heard, via: Via) {
        let name = *heard.record.name();
        let known = self.record(&name);
        let mut names = self.names();
        let Some(watch) = names.get_mut(&name) else { return };
        watch.last = Some((via, Instant::now()));
        if watch.unfit.is_some() && watch.unfit == heard.record.cid() {
            return;
        }
        let waiting = watch.heard.as_ref().map(|heard| &heard.record);
        // The same record again may bring a peer that has the tree; one that only lives longer is kept too.
        let is_older = |than: &Record| select(&heard.record, than) == Ordering::Less;
        let is_known = known.is_some_and(|known| select(&heard.record, &known) != Ordering::Greater);
        if !is_known && !waiting.is_some_and(|waiting| is_older(waiting)) {
            watch.heard = Some(heard);
            watch.wake.notify_one();
        }
    }

    /// One name's task: always the newest root that was heard of.
    async fn adopt_each(self, name: Name, wake: Arc<Notify>) {
        loop {
            let heard = self.names().get(&name).and_then(|watch| watch.heard.clone());
            let Some(heard) = heard else {
                wake.notified().await;
                continue;
            };
            let old = self.good(&name).map(|(root, _)| root);
            let sequence = heard.record.sequence();
            let (root, target) = (heard.record.cid(), heard.record.target());
            let adopted = match target {
                _ if let Err(error) = self.may_take(&heard.record) => Err(error),
                Some(target) => self.move_on(&heard.record, target).await,
                None => self.adopt(old, heard).await,
            };
            let unfit = root.filter(|_| adopted.as_ref().is_err_and(is_unfit));
            let error = adopted.err().map(|error| format!("{error:#}"));
            if let Some(error) = &error {
                tracing::info!(%name, sequence, error, "a root is not here yet");
            } else {
                tracing::debug!(%name, sequence, "adopted");
                self.review();
                self.tell();
            }
            if error.is_none() {
                if let Some((root, _)) = self.good(&name) {
                    self.node.provide(name, root).await;
                }
                self.leave_moved(target.unwrap_or(name)).await;
            }
            let failed = error.is_some();
            {
                let mut names = self.names();
                let Some(watch) = names.get_mut(&name) else { return };
                if !failed {
                    watch.moved = target;
                }
                watch.error = error;
                watch.unfit = unfit.or(watch.unfit);
                // What came meanwhile stays to be done.
                if !failed || unfit.is_some() {
                    watch.heard.take_if(|heard| heard.record.sequence() <= sequence);
                }
            }
            if failed && unfit.is_none() {
                // Either is a reason to try again.
                let _ = tokio::time::timeout(RETRY, wake.notified()).await;
            }
        }
    }

    /// Whether this registry may have the tree of a record.
    pub(crate) fn may_take(&self, record: &Record) -> anyhow::Result<()> {
        if record.is_private() && !self.discreet {
            bail!(
                "the name is for members, and this registry gives everyone what it has: set up authentication here"
            );
        }
        Ok(())
    }

    /// Reads the root of a record whose blocks are all here, tells those who follow the name, and follows it from now on,
    /// also at the next start: as `follow add` does, unless the configuration names it.
    pub(crate) async fn take(&self, record: &Verified) -> anyhow::Result<()> {
        let name = *record.name();
        // First, because it is what can be refused.
        self.node.follow(name).await?;
        for _ in 0..TAKES {
            if self.record(&name).is_some_and(|known| select(record, &known) != Ordering::Greater) {
                break;
            }
            let old = self.good(&name).map(|(root, _)| root);
            let heard = Heard { record: record.clone(), nodes: Bytes::new(), from: None };
            match self.adopt(old, heard).await {
                // Peers have brought another root meanwhile; it may be a newer one.
                Err(error) if matches!(error.downcast_ref(), Some(StoreError::Changed)) => {}
                adopted => {
                    adopted?;
                    break;
                }
            }
        }
        if !self.is_wanted(&name) {
            self.store.follow(&name.to_string()).await?;
        }
        self.follow(&Pointer::Name(name)).await?;
        self.reorder();
        self.tell();
        self.leave_moved(name).await;
        if let Offered::Refused(reason) = self.node.carry(name, record.bytes().clone()).await {
            tracing::debug!(%name, %reason, "there is a newer record than that of the bundle");
        }
        Ok(())
    }

    /// Brings the directories of a record's tree here, and reads it as if its name were followed.
    pub(super) async fn bring(&self, record: Verified) -> anyhow::Result<Cid> {
        let old = self.good(record.name()).map(|(root, _)| root);
        let root = record.cid().context("the record does not point to a tree")?;
        self.adopt(old, Heard { record, nodes: Bytes::new(), from: None }).await?;
        self.tell();
        Ok(root)
    }

    async fn adopt(&self, old: Option<Cid>, heard: Heard) -> anyhow::Result<()> {
        let Heard { record, nodes, from } = heard;
        let root = record.cid().context("the record does not point to a tree")?;
        let name = record.name().to_string();
        let goal = Goal { name, root, sequence: record.sequence(), record: record.bytes().clone() };
        let name = *record.name();
        adopt(&self.store, &self.node, &self.walks, old, goal, nodes, from).await?;
        if self.redirects.moved(&name).is_some() {
            // It has come back.
            let redirects = self.redirects.clone();
            blocking(move || redirects.forget(&name.to_string())).await??;
        }
        Ok(())
    }

    /// Follows the name that another has moved to, also at the next start: the record that says so, signed with the
    /// old name's key, is kept, and an older one of that name is refused from then on.
    async fn move_on(&self, record: &Verified, target: Name) -> anyhow::Result<()> {
        let name = record.name();
        let moves = {
            let names = self.names();
            let Some(watch) = names.get(name) else { return Ok(()) };
            watch.moves + 1
        };
        if target == *name || moves > MAX_MOVES {
            bail!("its record points to {target}, which cannot be followed in its place");
        }
        let (redirects, of) = (self.redirects.clone(), record.clone());
        blocking(move || redirects.set_moved(&of)).await??;
        self.follow_after(target, moves).await?;
        let before = self.names().get_mut(name).and_then(|watch| watch.moved.replace(target));
        self.reorder();
        if before == Some(target) {
            return Ok(());
        }
        tracing::warn!(%name, to = %target, "a followed name has moved; put the new one in its place where you follow it");
        Ok(())
    }

    /// What the names that moved to this one had last is read until this one has a root, and no longer: old tags must
    /// not hide new ones.
    async fn leave_moved(&self, target: Name) {
        if self.good(&target).is_none() {
            return;
        }
        if let Err(error) = self.arrived(&target).await {
            tracing::warn!(name = %target, error = format!("{error:#}"), "what came before a name could not be left");
        }
        let moved: Vec<Name> = {
            let names = self.names();
            let moved = names.iter().filter(|(_, watch)| watch.moved == Some(target));
            moved.map(|(name, _)| *name).collect()
        };
        for name in moved {
            let name = name.to_string();
            let Some(follow) = self.store.state().follow(&name).cloned() else { continue };
            let left = async {
                if follow.good.is_some() {
                    self.store.unfollow(&name).await?;
                }
                // Whoever added it still follows it, and so what it leads to.
                if follow.kept && follow.good.is_some() {
                    self.store.follow(&name).await?;
                }
                Ok::<(), StoreError>(())
            };
            if let Err(error) = left.await {
                tracing::warn!(%name, %error, "the last root of a name that has moved could not be left");
            }
        }
    }

    /// The names that others have moved to.
    fn targets(&self) -> Vec<Name> {
        self.names().values().filter_map(|watch| watch.moved).collect()
    }

    /// The record that holds: the one that moved the name away, or that behind the root that is current.
    pub(crate) fn record(&self, name: &Name) -> Option<Record> {
        if let Some(moved) = self.redirects.moved(name) {
            return Some(Record::clone(&moved));
        }
        let state = self.store.state();
        Record::decode(state.follow(&name.to_string())?.good.as_ref()?.record.to_vec()).ok()
    }

    pub(crate) fn good(&self, name: &Name) -> Option<(Cid, u64)> {
        let state = self.store.state();
        state.follow(&name.to_string())?.good.as_ref().map(|good| (good.root.0, good.sequence))
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Name, Watch>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn tracks(&self) -> MutexGuard<'_, HashMap<Domain, Track>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
