//! Followed domains: each has a task that asks where it points to, again and again, and has that followed. What was
//! read before is read until there is something to read in its place.

use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use sampan_node::Name;
use sampan_storage::Cid;
use tokio::task::JoinHandle;

use super::adopt::{Goal, adopt};
use super::blocking;
use super::follow::{Followed, Follower};
use crate::content::{ASK_AGAIN, Address, Domain, Pointer, Root};

/// Where a followed domain has led.
#[derive(Debug)]
pub(super) struct Track {
    /// Where it points to, through other domains.
    address: Option<Address>,
    /// What is still read until that has a tree.
    before: Vec<Root>,
    error: Option<String>,
    task: JoinHandle<()>,
}

impl Track {
    pub(super) fn stop(self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows a domain until the program stops or it is unfollowed.
    pub(super) async fn follow_domain(&self, domain: Domain) -> anyhow::Result<()> {
        let known = self.redirects.domain(&domain);
        if let Some(address) = &known {
            self.domains.remind(&domain, address);
        }
        {
            let mut tracks = self.tracks();
            if tracks.contains_key(&domain) {
                return Ok(());
            }
            let task = tokio::spawn(self.clone().track(domain.clone()));
            let track = Track { address: known.clone(), before: Vec::new(), error: None, task };
            tracks.insert(domain, track);
        }
        if let Some(Root::Name(name)) = known.map(|address| address.root) {
            self.follow_after(name, 0).await?;
        }
        self.reorder();
        Ok(())
    }

    pub(super) async fn unfollow_domain(&self, domain: &Domain) -> anyhow::Result<()> {
        let Some(track) = self.tracks().remove(domain) else { return Ok(()) };
        let Track { address, before, task, .. } = track;
        task.abort();
        for root in before.into_iter().chain(address.map(|address| address.root)) {
            if let Root::Name(name) = root {
                self.leave(&name).await?;
            }
        }
        self.reorder();
        Ok(())
    }

    /// The name that a domain points to, if it is one.
    pub(super) fn name_of(&self, domain: &Domain) -> Option<Name> {
        match self.tracks().get(domain)?.address.as_ref()?.root {
            Root::Name(name) => Some(name),
            Root::Cid(_) | Root::Domain(_) => None,
        }
    }

    /// Whether a domain points to this name, or did so and what came in its place has no tree yet.
    pub(super) fn is_behind_a_domain(&self, name: &Name) -> bool {
        let it = Root::Name(*name);
        self.tracks().values().any(|track| {
            track.address.as_ref().is_some_and(|address| address.root == it) || track.before.contains(&it)
        })
    }

    pub(super) fn followed_domains(&self) -> Vec<Followed> {
        let state = self.store.state();
        let tracks = self.tracks();
        let mut followed: Vec<Followed> = tracks
            .iter()
            .map(|(domain, track)| {
                let good = state.follow(domain.as_str()).and_then(|follow| follow.good.as_ref());
                Followed {
                    name: Pointer::Domain(domain.clone()),
                    root: good.map(|good| good.root.0),
                    sequence: None,
                    heard: None,
                    stale: None,
                    refused: false,
                    moved: None,
                    link: track.address.as_ref().map(ToString::to_string),
                    last: None,
                    refusal: None,
                    error: track.error.clone(),
                }
            })
            .collect();
        followed.sort_by(|a, b| a.name.cmp(&b.name));
        followed
    }

    /// A name has a tree: what domains read before they pointed to it is left.
    pub(super) async fn arrived(&self, name: &Name) -> anyhow::Result<()> {
        let it = Root::Name(*name);
        let left: Vec<(Domain, Root)> = {
            let mut tracks = self.tracks();
            let arrived = tracks.iter_mut().filter(|(_, track)| {
                track.address.as_ref().is_some_and(|address| address.root == it) && !track.before.is_empty()
            });
            arrived
                .flat_map(|(domain, track)| {
                    track.before.drain(..).map(|root| (domain.clone(), root)).collect::<Vec<_>>()
                })
                .collect()
        };
        for (domain, root) in left {
            self.leave_behind(&domain, &root).await?;
        }
        Ok(())
    }

    async fn track(self, domain: Domain) {
        let mut changes = self.domains.changes();
        let mut now = true;
        loop {
            let link = if now {
                self.domains.ask_through(&domain).await
            } else {
                self.domains.link_through(&domain).await
            };
            changes.mark_unchanged();
            let (error, wait) = match link {
                Ok(link) => match self.point(&domain, &link.address).await {
                    Ok(()) => (None, link.ttl.max(Duration::from_secs(1))),
                    Err(error) => (Some(format!("{error:#}")), ASK_AGAIN),
                },
                Err(error) => (Some(error.to_string()), ASK_AGAIN),
            };
            if let Some(track) = self.tracks().get_mut(&domain) {
                if error.is_some() && track.error != error {
                    tracing::warn!(%domain, error, "a followed domain is read as before");
                }
                track.error = error;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => now = true,
                // Somebody else has asked.
                _ = changes.changed() => now = false,
            }
        }
    }

    /// Has that followed to which a domain points now.
    async fn point(&self, domain: &Domain, address: &Address) -> anyhow::Result<()> {
        if !address.path.is_empty() {
            bail!("{address} lies within a tree; a registry is a whole tree");
        }
        let changed = {
            let mut tracks = self.tracks();
            let Some(track) = tracks.get_mut(domain) else { return Ok(()) };
            let changed = track.address.as_ref() != Some(address);
            if changed && let Some(before) = track.address.replace(address.clone()) {
                track.before.retain(|root| *root != address.root);
                track.before.push(before.root);
            }
            changed
        };
        if changed {
            tracing::info!(%domain, to = %address, "a followed domain leads to a name or tree");
        }
        let (redirects, of, to) = (self.redirects.clone(), domain.clone(), address.clone());
        blocking(move || redirects.set_domain(&of, &to)).await??;
        match &address.root {
            Root::Name(name) => {
                self.follow_after(*name, 0).await?;
                self.reorder();
                if self.good(name).is_some() {
                    self.arrived(name).await?;
                }
            }
            Root::Cid(cid) => {
                self.adopt_tree(domain, *cid).await?;
                let before: Vec<Root> = self
                    .tracks()
                    .get_mut(domain)
                    .map(|track| track.before.drain(..).collect())
                    .unwrap_or_default();
                for root in before {
                    if let Root::Name(name) = root {
                        self.leave(&name).await?;
                    }
                }
            }
            Root::Domain(other) => bail!("it leads to {other}, and no further"),
        }
        Ok(())
    }

    /// A tree without a name: it stands under the domain.
    async fn adopt_tree(&self, domain: &Domain, root: Cid) -> anyhow::Result<()> {
        let name = domain.to_string();
        let good = self.store.state().follow(&name).and_then(|follow| follow.good.clone());
        if good.as_ref().is_some_and(|good| good.root.0 == root) {
            return Ok(());
        }
        let sequence = good.as_ref().map_or(0, |good| good.sequence.saturating_add(1));
        let goal = Goal { name, root, sequence, record: Bytes::new() };
        let old = good.map(|good| good.root.0);
        adopt(&self.store, &self.node, &self.walks, old, goal, Bytes::new(), None).await?;
        self.tell();
        Ok(())
    }

    async fn leave_behind(&self, domain: &Domain, root: &Root) -> anyhow::Result<()> {
        match root {
            Root::Name(name) => self.leave(name).await,
            Root::Cid(_) => {
                let name = domain.to_string();
                let kept = self.store.state().follow(&name).is_some_and(|follow| follow.kept);
                self.store.unfollow(&name).await?;
                if kept {
                    self.store.follow(&name).await?;
                }
                Ok(())
            }
            Root::Domain(_) => Ok(()),
        }
    }

    /// Unfollows a name, unless somebody wants it for itself.
    async fn leave(&self, name: &Name) -> anyhow::Result<()> {
        if self.is_wanted(name) {
            return Ok(());
        }
        self.unfollow_name(name).await;
        if self.store.state().follow(&name.to_string()).is_some() {
            self.store.unfollow(&name.to_string()).await?;
        }
        Ok(())
    }
}
