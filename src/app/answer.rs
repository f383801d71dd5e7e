//! What the running registry says to commands: each question goes to the part that knows, and becomes one answer.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use sampan_node::ipns::{Record, Verified, select};
use sampan_node::{Audience, Keypair, Name, Reachability, Reached, Records, Via};
use sampan_storage::Cid;
use sampan_storage::verify::Verify;
use serde_json::Value;

use super::Running;
use crate::config::Network;
use crate::content::{self, Domain, Pointer, Reach};
use crate::control::{Answer, Ask, FollowStatus, PeerStatus, Pipe, Resolved, RootStatus, Status, Tell};
use crate::registry::Collected;
use crate::sync::{Followed, Mirrored, Own, Standing, listing};

impl Answer for Running {
    fn answer(&self, ask: Ask, tell: Tell, pipe: Pipe) -> BoxFuture<'_, Result<Value, String>> {
        self.reply(ask, tell, pipe).map(|reply| reply.map_err(|error| format!("{error:#}"))).boxed()
    }
}

impl Running {
    async fn reply(&self, ask: Ask, tell: Tell, pipe: Pipe) -> anyhow::Result<Value> {
        Ok(match ask {
            Ask::Status => serde_json::to_value(self.status().await)?,
            Ask::Root => {
                self.store.fold().await?;
                serde_json::to_value(self.store.root().to_string())?
            }
            Ask::Ls { path } => {
                self.store.fold().await?;
                let store = self.store.clone();
                let list = move || listing::list(&store, &store.root(), &path);
                serde_json::to_value(tokio::task::spawn_blocking(list).await??)?
            }
            Ask::FollowAdd { name } => {
                self.store.follow(&name.to_string()).await?;
                self.follower.add(&name).await?;
                Value::Null
            }
            Ask::FollowRm { name } => {
                self.follower.unfollow(&name).await?;
                self.store.unfollow(&name.to_string()).await?;
                Value::Null
            }
            Ask::FollowLs => serde_json::to_value(self.follows())?,
            Ask::Adopt { name, merge } => {
                let own = if merge { Own::Stays } else { Own::Gives };
                let told = move |text| tell.tell(text);
                serde_json::to_value(match name {
                    Some(name) if name != self.name => self.reclaimer.adopt_name(&name, own).await?,
                    _ => self.reclaimer.adopt(own, told).await?,
                })?
            }
            Ask::Roots => {
                self.store.fold().await?;
                let past = self.store.past_roots().into_iter().rev();
                let past = past.map(|(root, age)| (root, Some(age.as_secs())));
                let roots = std::iter::once((self.store.root(), None)).chain(past);
                let roots: Vec<_> =
                    roots.map(|(root, age)| RootStatus { root: root.to_string(), age }).collect();
                serde_json::to_value(roots)?
            }
            Ask::Rollback { root } => {
                let root = content::parse_cid(&root).with_context(|| format!("{root} is no CID"))?;
                serde_json::to_value(self.reclaimer.roll_back(root).await?)?
            }
            Ask::Explain { repository, reference } => {
                let (repository, reference) = (repository.parse()?, reference.parse()?);
                serde_json::to_value(self.registry.explain(&repository, &reference).await?)?
            }
            Ask::Gc { dry_run, grace } => {
                let told = move |so_far: &Collected| {
                    tell.tell(format!(
                        "{} repositories, {} manifests, {} blobs of {} bytes",
                        so_far.repositories, so_far.manifests, so_far.blobs, so_far.bytes
                    ));
                };
                let answer = self.collector.collect(dry_run, grace, self.stop.clone(), told).await?;
                serde_json::to_value(answer)?
            }
            Ask::Verify { repair, rate } => {
                let options = Verify { repair, rate, trees_only: false };
                serde_json::to_value(self.verifier.verify(options, &tell, &self.stop).await?)?
            }
            Ask::Stat { path } => {
                let cid = self.locate(&path).await?;
                serde_json::to_value(self.library.stat(cid).await?)?
            }
            Ask::Cat { path } => {
                let cid = self.locate(&path).await?;
                if self.library.stat(cid).await?.kind != content::Kind::File {
                    bail!("{path} is no file; `sampan get` brings directories");
                }
                let mut bytes = self.library.cat(cid);
                while let Some(bytes) = bytes.next().await {
                    pipe.output.send(bytes?).await?;
                }
                Value::Null
            }
            Ask::Export { path } => {
                let cid = self.locate(&path).await?;
                let mut car = self.library.export(cid)?;
                while let Some(bytes) = car.next().await {
                    pipe.output.send(bytes?).await?;
                }
                Value::Null
            }
            Ask::Import { pin } => {
                let told = move |text| tell.tell(text);
                told("waiting for blocks".to_owned());
                serde_json::to_value(self.library.import(pipe.input.blocking(), pin, told).await?)?
            }
            Ask::BundleCreate(wish) => {
                serde_json::to_value(self.bundles.create(wish, pipe.output, tell).await?)?
            }
            Ask::BundleApply { files, name } => {
                serde_json::to_value(self.bundles.apply(files, name, pipe.input, tell).await?)?
            }
            Ask::PinAdd { path } => {
                let told = move |text| tell.tell(text);
                told("looking for blocks".to_owned());
                let cid = self.locate(&path).await?;
                self.library.pin(cid, told).await?;
                Value::from(cid.to_string())
            }
            Ask::PinRm { cid } => {
                let root = content::parse_cid(&cid).with_context(|| format!("{cid} is no CID"))?;
                if !self.library.unpin(root).await? {
                    bail!("{cid} is not pinned");
                }
                Value::Null
            }
            Ask::PinLs => self.library.pins().iter().map(ToString::to_string).collect(),
            Ask::KeyAdd { label, key } => {
                self.keystore.create(&label, &Keypair::from_protobuf(&key)?)?;
                Value::Null
            }
            Ask::Publish { key, value } => {
                let record = self.publisher.publish(key, value).await?;
                serde_json::to_value(resolved(&record, "this registry", None))?
            }
            Ask::Resolve { name: Pointer::Name(name) } => serde_json::to_value(self.resolve(name).await?)?,
            Ask::Resolve { name: Pointer::Domain(domain) } => {
                serde_json::to_value(self.resolve_domain(&domain).await?)?
            }
            Ask::Connect { address } => {
                let peer = self.node.connect(address).await?;
                Value::from(peer.to_string())
            }
            Ask::Peers => {
                let peers = self.node.peers().await.into_iter().map(|peer| PeerStatus {
                    id: peer.id.to_string(),
                    agent: peer.agent.unwrap_or_default(),
                    addresses: peer.addresses.iter().map(ToString::to_string).collect(),
                });
                serde_json::to_value(peers.collect::<Vec<_>>())?
            }
        })
    }

    /// Where a path of content leads.
    async fn locate(&self, path: &str) -> anyhow::Result<Cid> {
        let (found, _) = self.library.locate(&self.names, &path.parse()?, Reach::Anywhere).await?;
        if found.within {
            bail!("{path} leads into a block of data, which is no file");
        }
        Ok(found.cid)
    }

    /// The better of what is kept here and what the network says.
    async fn resolve(&self, name: Name) -> anyhow::Result<Resolved> {
        let read = |bytes| Record::decode(bytes).ok()?.verify_signature(&name).ok();
        let kept = self.records.record(&name, Audience::Members).and_then(read);
        let found = self.node.resolve(name).await;
        match (kept, found) {
            (Some(kept), Some(found)) if select(&found.record, &kept).is_gt() => {
                Ok(resolved(&found.record, &found.via.to_string(), Some((found.via, Duration::ZERO))))
            }
            (Some(kept), _) => Ok(resolved(&kept, "this registry", self.follower.last_heard(&name))),
            (None, Some(found)) => {
                Ok(resolved(&found.record, &found.via.to_string(), Some((found.via, Duration::ZERO))))
            }
            (None, None) => bail!(
                "no record of {name} was found: neither here, nor at connected peers, in the DHT or at a router"
            ),
        }
    }

    /// What the DNS says now; where it does not answer, what it said last.
    async fn resolve_domain(&self, domain: &Domain) -> anyhow::Result<Resolved> {
        let (link, from) = match self.domains.ask(domain).await {
            Ok(link) => (link, "the DNS"),
            Err(error) => (self.domains.known(domain).ok_or(error)?, "this registry"),
        };
        Ok(Resolved {
            name: domain.to_string(),
            value: link.address.to_string(),
            sequence: None,
            valid_for: None,
            ttl: link.ttl.as_secs(),
            from: from.to_owned(),
            heard: None,
            age: None,
        })
    }

    async fn status(&self) -> Status {
        let stats = self.node.stats();
        let totals = self.collector.totals();
        let reached = match self.network {
            Network::Public => self.node.reached().await.map(|reached| describe_reach(&reached)),
            Network::Lan | Network::Private => None,
        };
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
            peers: self.node.peers().await.len(),
            clock_suspect: self.node.wall().is_suspect(),
            follows: self.follows(),
            unpublished: self.unpublished(),
            refused_records: stats.records_invalid + stats.records_older + stats.records_not_followed,
            collections: totals.runs,
            failed_collections: totals.failed,
            collected: totals.collected,
        }
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

    fn follows(&self) -> Vec<FollowStatus> {
        let mirror = |followed: &Followed| self.mirrors.progress(&followed.name.to_string());
        self.follower
            .followed()
            .into_iter()
            .map(|it| {
                let mirror = mirror(&it);
                describe(it, mirror)
            })
            .collect()
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

fn describe(followed: Followed, mirror: Option<Mirrored>) -> FollowStatus {
    let Followed { name, root, sequence, heard, stale, refused, moved, link, error } = followed;
    let state = match (&root, sequence) {
        (None, _) if moved.is_some() => "left".to_owned(),
        (_, None) if link.is_some() => "found".to_owned(),
        (Some(root), Some(sequence)) => format!("sequence {sequence}, root {root}"),
        _ => "not found yet".to_owned(),
    };
    let notes = [
        moved.map(|moved| format!("has moved to {moved}")),
        link.as_ref().map(|link| format!("leads to {link}")),
        stale.map(|ago| format!("stale: its record has expired {} h ago", ago.as_secs() / 3600)),
        refused.then(|| "not shown: older than max_stale allows".to_owned()),
        heard.map(|heard| format!("fetching sequence {heard}")),
        mirror.as_ref().map(describe_mirror),
        error.clone(),
    ];
    let describe = std::iter::once(state).chain(notes.into_iter().flatten()).collect::<Vec<_>>().join(", ");
    let root = root.map(|root| root.to_string());
    FollowStatus {
        name: name.to_string(),
        root,
        sequence,
        heard,
        stale: stale.is_some(),
        expired_for: stale.map(|ago| ago.as_secs()),
        refused,
        moved: moved.map(|moved| moved.to_string()),
        link,
        error,
        mirror,
        describe,
    }
}

fn describe_mirror(mirror: &Mirrored) -> String {
    let Mirrored { fetched, bytes, missing, finished, error, .. } = mirror;
    let came = format!("{fetched} blobs of {bytes} bytes came");
    match (finished, missing) {
        (true, _) => format!("mirrored, {came}"),
        (false, 0) => format!("mirroring, {came}"),
        (false, _) => {
            let why = error.as_deref().map(|why| format!(", the last of them {why}")).unwrap_or_default();
            format!("mirroring, {came}, {missing} are missing{why}")
        }
    }
}

fn resolved(record: &Verified, from: &str, heard: Option<(Via, Duration)>) -> Resolved {
    let left = record.validity().duration_since(SystemTime::now()).map_or(0, |left| left.as_secs());
    Resolved {
        name: record.name().to_string(),
        value: record.value().to_owned(),
        sequence: Some(record.sequence()),
        valid_for: Some(left),
        ttl: record.ttl().as_secs(),
        from: from.to_owned(),
        heard: heard.map(|(via, _)| via.to_string()),
        age: heard.map(|(_, ago)| ago.as_secs()),
    }
}
