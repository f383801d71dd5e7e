//! Followed names: hears their records, and has each newer root adopted, one at a time for each name.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::bail;
use bytes::Bytes;
use sampan_node::ipns::{Record, Verified, select};
use sampan_node::{Event, Events, Name, Node, PeerId};
use sampan_storage::{Cid, Store};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::adopt::adopt;

/// A root that could not be adopted is tried again after this long, or when a peer arrives.
const RETRY: Duration = Duration::from_secs(10);

/// Names that have moved to others that have moved, and so on: more is no rotation of keys.
const MAX_MOVES: usize = 8;

/// What is known of a followed name.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) name: Name,
    pub(crate) root: Option<Cid>,
    pub(crate) sequence: Option<u64>,
    pub(crate) heard: Option<u64>,
    /// The record has expired: its publisher has not been heard of for long.
    pub(crate) stale: bool,
    /// Its key was rotated: this one is followed in its place.
    pub(crate) moved: Option<Name>,
    pub(crate) error: Option<String>,
}

/// Follows names. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    store: Store,
    node: Node,
    names: Arc<Mutex<HashMap<Name, Watch>>>,
}

#[derive(Debug)]
struct Watch {
    /// Newest record heard of that is not adopted yet.
    heard: Option<Heard>,
    error: Option<String>,
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
    pub(crate) fn new(store: Store, node: Node) -> Self {
        Self { store, node, names: Arc::default() }
    }

    /// Follows a name until the program stops or it is unfollowed.
    pub(crate) async fn follow(&self, name: Name) -> anyhow::Result<()> {
        self.follow_after(name, 0).await
    }

    async fn follow_after(&self, name: Name, moves: usize) -> anyhow::Result<()> {
        self.node.follow(name).await?;
        self.watch(name, moves);
        Ok(())
    }

    fn watch(&self, name: Name, moves: usize) {
        self.names().entry(name).or_insert_with(|| {
            let wake = Arc::new(Notify::new());
            let task = tokio::spawn(self.clone().adopt_each(name, Arc::clone(&wake)));
            Watch { heard: None, error: None, moved: None, moves, wake, task }
        });
    }

    pub(crate) async fn unfollow(&self, name: &Name) {
        if let Some(watch) = self.names().remove(name) {
            watch.task.abort();
        }
        self.node.unfollow(*name).await;
    }

    /// Hears the node's events until it stops.
    pub(crate) async fn listen(self, mut events: Events, stop: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = events.next() => event,
            };
            match event {
                Some(Event::Record { record, nodes, from, .. }) => self.hear(Heard { record, nodes, from }),
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
    }

    pub(crate) fn followed(&self) -> Vec<Followed> {
        let state = self.store.state();
        let now = SystemTime::now();
        let mut followed: Vec<Followed> = self
            .names()
            .iter()
            .map(|(name, watch)| {
                let good = state.follow(&name.to_string()).and_then(|follow| follow.good.as_ref());
                let record = good.and_then(|good| Record::decode(good.record.to_vec()).ok());
                Followed {
                    name: *name,
                    root: good.map(|good| good.root.0),
                    sequence: good.map(|good| good.sequence),
                    heard: watch.heard.as_ref().map(|heard| heard.record.sequence()),
                    stale: record.is_some_and(|record| record.is_expired(now)),
                    moved: watch.moved,
                    error: watch.error.clone(),
                }
            })
            .collect();
        followed.sort_by_key(|a| a.name);
        followed
    }

    fn hear(&self, heard: Heard) {
        let name = *heard.record.name();
        let known = self.record(&name);
        let mut names = self.names();
        let Some(watch) = names.get_mut(&name) else { return };
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
            let target = heard.record.target();
            let adopted = match target {
                Some(target) => self.move_on(&name, target).await,
                None => adopt(&self.store, &self.node, old, &heard.record, heard.nodes, heard.from).await,
            };
            let error = adopted.err().map(|error| format!("{error:#}"));
            if let Some(error) = &error {
                tracing::info!(%name, sequence, error, "a root is not here yet");
            } else {
                tracing::debug!(%name, sequence, "adopted");
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
                // What came meanwhile stays to be done.
                if !failed {
                    watch.heard.take_if(|heard| heard.record.sequence() <= sequence);
                }
            }
            if failed {
                // Either is a reason to try again.
                let _ = tokio::time::timeout(RETRY, wake.notified()).await;
            }
        }
    }

    /// Follows the name that another has moved to, also at the next start. The record that says so was signed with
    /// the old name's key.
    async fn move_on(&self, name: &Name, target: Name) -> anyhow::Result<()> {
        let moves = {
            let names = self.names();
            let Some(watch) = names.get(name) else { return Ok(()) };
            if watch.moved == Some(target) && names.contains_key(&target) {
                return Ok(());
            }
            watch.moves + 1
        };
        if target == *name || moves > MAX_MOVES {
            bail!("its record points to {target}, which cannot be followed in its place");
        }
        self.store.follow(&target.to_string()).await?;
        self.follow_after(target, moves).await?;
        if let Some(watch) = self.names().get_mut(name) {
            watch.moved = Some(target);
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
        let moved: Vec<Name> = {
            let names = self.names();
            let moved = names.iter().filter(|(_, watch)| watch.moved == Some(target));
            moved.map(|(name, _)| *name).collect()
        };
        for name in moved {
            let name = name.to_string();
            if self.store.state().follow(&name).is_some()
                && let Err(error) = self.store.unfollow(&name).await
            {
                tracing::warn!(%name, %error, "the last root of a name that has moved could not be left");
            }
        }
    }

    /// The record behind the root that is current.
    fn record(&self, name: &Name) -> Option<Record> {
        let state = self.store.state();
        Record::decode(state.follow(&name.to_string())?.good.as_ref()?.record.to_vec()).ok()
    }

    fn good(&self, name: &Name) -> Option<(Cid, u64)> {
        let state = self.store.state();
        state.follow(&name.to_string())?.good.as_ref().map(|good| (good.root.0, good.sequence))
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Name, Watch>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
