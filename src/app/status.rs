//! What the running registry says of itself, to commands and over HTTP.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use sampan_node::{Reachability, Reached};
use serde_json::Value;

use super::Running;
use crate::config::{Network, size_text};
use crate::content::Pointer;
use crate::control::{CacheStatus, FollowStatus, PeerBytes, Status};
use crate::sync::{Cached, Followed, Following, Mirrored, Standing, Usage};

/// Peers that are told by how much they have sent; those behind them sent less.
const MAX_SENDERS: usize = 10;

impl Running {
    /// The status as it is written, without whoever asks.
    pub(super) fn report(self: Arc<Self>) -> BoxFuture<'static, Value> {
        async move { serde_json::to_value(self.status().await).unwrap_or_default() }.boxed()
    }

    pub(super) async fn status(&self) -> Status {
        let stats = self.node.stats();
        let totals = self.collector.totals();
        let reached = match self.network {
            Network::Public => self.node.reached().await.map(|reached| describe_reach(&reached)),
            Network::Lan | Network::Private => None,
        };
        let peers = self.node.peers().await;
        let bitswap = self.node.bitswap();
        let sent = |peer: &sampan_node::Peer| {
            let bytes = bitswap.peer_stats(&peer.id)?.bytes_received;
            (bytes > 0).then(|| PeerBytes { peer: peer.id.to_string(), bytes })
        };
        let mut received: Vec<PeerBytes> = peers.iter().filter_map(sent).collect();
        received.sort_by_key(|from| Reverse(from.bytes));
        received.truncate(MAX_SENDERS);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.to_string(),
            peer_id: self.node.peer_id().to_string(),
            root: self.store.root().to_string(),
            sequence: self.store.state().sequence,
            public_root: self.store.public().root().map(|(root, _)| root.to_string()),
            members: self.members.as_ref().map(|members| members.name().to_string()),
            addresses: self.node.addresses().await.iter().map(ToString::to_string).collect(),
            http: self.http.clone(),
            url: self.url.clone(),
            network: format!("{:?}", self.network).to_lowercase(),
            reached,
            data: self.store.dir().display().to_string(),
            peers: peers.len(),
            received,
            received_bytes: bitswap.stats().bytes_received,
            clock_suspect: self.node.wall().is_suspect(),
            follows: self.follows().await,
            cache: self.cached(),
            unpublished: self.unpublished(),
            refused_records: stats.records_invalid + stats.records_older + stats.records_not_followed,
            invalid_records: stats.records_invalid,
            collections: totals.runs,
            failed_collections: totals.failed,
            collected: totals.collected,
        }
    }

    fn cached(&self) -> CacheStatus {
        let Cached { bytes, evicted_blobs, evicted_bytes } = self.cache.cached();
        let limits = self.cache.limits();
        let age = limits.age.map(|age| age.as_secs());
        CacheStatus { bytes, size: limits.size, age, evicted_blobs, evicted_bytes }
    }

    fn unpublished(&self) -> Option<String> {
        match self.writer.standing() {
            Standing::Publishing => None,
            Standing::Asking => {
                Some("the key is older than these data: peers are asked first what they know".to_owned())
            }
            Standing::Stopped => {
                let seen = self.writer.rival().map_or_else(String::new, |rival| {
                    format!(" (sequence {}, {})", rival.sequence(), rival.value())
                });
                Some(format!(
                    "this name was published elsewhere{seen}; `sampan adopt` takes that tree, `sampan adopt --merge` keeps both"
                ))
            }
        }
    }

    pub(super) async fn follows(&self) -> Vec<FollowStatus> {
        let places: HashMap<String, Following> = self.follower.places().into_iter().collect();
        let mut follows = Vec::new();
        for followed in self.follower.followed() {
            let name = followed.name.to_string();
            let peers = match &followed.name {
                Pointer::Name(name) => self.node.followers(*name).await.len(),
                Pointer::Domain(_) => 0,
            };
            let following = places.get(&name);
            let owner = following.map_or_else(|| name.clone(), |following| following.whom.to_string());
            let (mirror, usage) = (self.mirrors.progress(&name), self.cache.usage(&owner));
            follows.push(describe(followed, following, mirror, usage, peers));
        }
        follows
    }
}

fn describe_reach(reached: &Reached) -> String {
    let state = match reached.reachability {
        Reachability::Unknown => "not known yet",
        Reachability::Public => "by everyone",
        Reachability::Private => "not by strangers",
    };
    let relays: Vec<String> = reached.relays.iter().map(ToString::to_string).collect();
    if relays.is_empty() { state.to_owned() } else { format!("{state}; through {}", relays.join(", ")) }
}

fn describe(
    followed: Followed,
    following: Option<&Following>,
    mirror: Option<Mirrored>,
    usage: Option<Usage>,
    peers: usize,
) -> FollowStatus {
    let Followed { name, root, sequence, heard, stale, refused, moved, link, last, refusal, error } =
        followed;
    let state = match (&root, sequence) {
        (None, _) if moved.is_some() => "left".to_owned(),
        (_, None) if link.is_some() => "found".to_owned(),
        (Some(root), Some(sequence)) => format!("sequence {sequence}, root {root}"),
        _ => "not found yet".to_owned(),
    };
    let (policy, quota) = following.map(|following| (following.policy, following.quota)).unwrap_or_default();
    let source = last.map(|(via, from, _)| match from {
        Some(from) => format!("{via}, {from}"),
        None => via.to_string(),
    });
    let age = last.map(|(.., at)| at.elapsed().as_secs());
    let notes = [
        moved.map(|moved| format!("has moved to {moved}")),
        link.as_ref().map(|link| format!("leads to {link}")),
        source.as_ref().zip(age).map(|(source, age)| format!("heard {age} s ago from {source}")),
        (peers > 0).then(|| format!("{peers} peers follow it")),
        stale.map(|ago| format!("stale: its record has expired {} h ago", ago.as_secs() / 3600)),
        refused.then(|| "not shown: older than max_stale allows".to_owned()),
        heard.map(|heard| format!("fetching sequence {heard}")),
        Some(format!("policy {policy}")),
        mirror.as_ref().map(describe_mirror),
        usage.map(|usage| describe_usage(usage, quota)),
        refusal.clone(),
        error.clone(),
    ];
    let notes: Vec<String> = std::iter::once(state).chain(notes.into_iter().flatten()).collect();
    let root = root.map(|root| root.to_string());
    FollowStatus {
        name: name.to_string(),
        root,
        sequence,
        heard,
        age,
        source,
        peers,
        policy: policy.to_string(),
        stale: stale.is_some(),
        expired_for: stale.map(|ago| ago.as_secs()),
        refused,
        moved: moved.map(|moved| moved.to_string()),
        link,
        quota,
        usage,
        refused_record: refusal,
        error,
        mirror,
        describe: notes.join(", "),
        notes,
    }
}

fn describe_mirror(mirror: &Mirrored) -> String {
    let Mirrored { fetched, bytes, missing, finished, stopped, error, .. } = mirror;
    let came = format!("{fetched} blobs of {bytes} bytes came");
    let why = error.as_deref().map(|why| format!(", the last of them {why}")).unwrap_or_default();
    let lacks = (*missing > 0).then(|| format!(", {missing} are missing{why}"));
    let lacks = lacks.unwrap_or_default();
    match (stopped, finished) {
        (Some(why), _) => format!("mirror: {why}; {came}{lacks}"),
        (None, true) => format!("mirrored, {came}"),
        (None, false) => format!("mirroring, {came}{lacks}"),
    }
}

fn describe_usage(usage: Usage, quota: Option<u64>) -> String {
    let Usage { kept, cached } = usage;
    let of = quota.map(|quota| format!(" of {}", size_text(quota))).unwrap_or_default();
    format!("{} bytes here{of}, {cached} of them cached", kept + cached)
}
