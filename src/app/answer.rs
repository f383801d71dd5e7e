//! What the running registry says to commands: each question goes to the part that knows, and becomes one answer.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use sampan_node::ipns::{Record, Verified, select};
use sampan_node::{Audience, Keypair, Name, Records, Via};
use sampan_storage::Cid;
use sampan_storage::verify::Verify;
use serde_json::Value;

use super::Running;
use crate::content::{self, Domain, Pointer, Reach};
use crate::control::{Answer, Ask, PeerStatus, Pipe, Resolved, RootStatus, Tell};
use crate::registry::Collected;
use crate::sync::{Own, listing};

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
            Ask::FollowLs => serde_json::to_value(self.follows().await)?,
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
