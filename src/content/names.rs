//! Records of names: of my own, of those that are followed, of those that somebody brought, and of others as the
//! network knows them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use sampan_node::ipns::{Record, RecordError, Verified, select};
use sampan_node::{Audience, Name, Offered, Records};
use sampan_storage::Cid;

use super::{Address, ContentError, Domain, Domains, Network, Reach, Root, off_thread};

/// Records that strangers have brought, of 10 KiB at most; the oldest goes for a new one.
const MAX_BROUGHT: usize = 256;
/// A name or a domain may point to another, which may do so too.
const MAX_HOPS: usize = 16;

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct Names {
    /// Those of this registry.
    own: Arc<dyn Records>,
    network: Arc<dyn Network>,
    domains: Domains,
    /// Whether the network and the DNS are asked for names that nobody here knows.
    asks: bool,
    audience: Audience,
    brought: Arc<Mutex<VecDeque<Verified>>>,
}

/// Where a name leads, and how long that may be believed.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) root: Cid,
    /// Names below the root.
    pub(crate) path: Vec<String>,
    /// Seconds; `None` where no name was on the way.
    pub(crate) max_age: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("a newer record of the name is known already")]
    Older,
}

impl Names {
    /// For strangers.
    pub(crate) fn new(
        own: Arc<dyn Records>,
        network: Arc<dyn Network>,
        domains: Domains,
        asks: bool,
    ) -> Self {
        Self { own, network, domains, asks, audience: Audience::Strangers, brought: Arc::default() }
    }

    /// For the owner.
    #[must_use]
    pub(crate) fn for_members(self) -> Self {
        Self { audience: Audience::Members, ..self }
    }

    /// The current record of a name, if anybody knows it. It may have expired where it is followed here.
    pub(crate) async fn record(&self, name: Name, reach: Reach) -> Result<Option<Verified>, ContentError> {
        let (own, audience) = (Arc::clone(&self.own), self.audience);
        let kept = off_thread(move || own.record(&name, audience)).await?;
        if let Some(record) = kept.and_then(|bytes| verified(&name, bytes)) {
            return Ok(Some(record));
        }
        let brought = self.brought().iter().find(|record| *record.name() == name).cloned();
        let found = if self.asks && reach == Reach::Anywhere {
            self.network.resolve(name).await.and_then(|bytes| verified(&name, bytes))
        } else {
            None
        };
        Ok(brought.into_iter().chain(found).max_by(|a, b| select(a, b)))
    }

    /// Follows names and domains to what lies under them.
    pub(crate) async fn resolve(&self, address: Address, reach: Reach) -> Result<Target, ContentError> {
        let (mut address, mut max_age) = (address, None);
        for _ in 0..MAX_HOPS {
            let (mut next, age) = match address.root {
                Root::Cid(root) => return Ok(Target { root, path: address.path, max_age }),
                Root::Name(name) => {
                    let record = self.record(name, reach).await?.ok_or(ContentError::Unresolved)?;
                    let next: Address = record.value().parse().map_err(|_| ContentError::Unresolved)?;
                    (next, age(&record))
                }
                Root::Domain(domain) => self.link(&domain, reach).await?,
            };
            next.path.append(&mut address.path);
            max_age = Some(max_age.map_or(age, |before: u64| before.min(age)));
            address = next;
        }
        Err(ContentError::Unresolved)
    }

    /// Where a domain points to, and for how many seconds that may be believed.
    async fn link(&self, domain: &Domain, reach: Reach) -> Result<(Address, u64), ContentError> {
        let link = if self.asks && reach == Reach::Anywhere {
            self.domains.link(domain).await?
        } else {
            self.domains.known(domain).ok_or(ContentError::Unresolved)?
        };
        Ok((link.address, link.ttl.as_secs()))
    }

    /// Takes a record that somebody brought. Of a name that is followed it goes the way of all records; of another it
    /// is kept for a while for those who ask here.
    pub(crate) async fn put(&self, name: Name, bytes: Bytes) -> Result<(), PutError> {
        let record = Record::decode(bytes.clone())?.verify(&name, SystemTime::now())?;
        match self.network.offer(name, bytes).await {
            Offered::Taken => return Ok(()),
            Offered::Refused(_) => return Err(PutError::Older),
            Offered::NotFollowed => {}
        }
        let mut brought = self.brought();
        if let Some(at) = brought.iter().position(|known| *known.name() == name) {
            let known = brought.remove(at);
            if let Some(known) = known.filter(|known| select(known, &record).is_gt()) {
                brought.push_back(known);
                return Err(PutError::Older);
            }
        }
        if brought.len() >= MAX_BROUGHT {
            brought.pop_front();
        }
        brought.push_back(record);
        Ok(())
    }

    fn brought(&self) -> std::sync::MutexGuard<'_, VecDeque<Verified>> {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("asks", &self.asks).finish_non_exhaustive()
    }
}

/// How long a record may be believed, in seconds: its TTL, and no longer than it is valid.
pub(crate) fn age(record: &Verified) -> u64 {
    record.ttl().as_secs().min(left(record))
}

/// For how many seconds a record is still valid.
pub(crate) fn left(record: &Verified) -> u64 {
    record.validity().duration_since(SystemTime::now()).map_or(0, |left| left.as_secs())
}

fn verified(name: &Name, bytes: Bytes) -> Option<Verified> {
    Record::decode(bytes).and_then(|record| record.verify_signature(name)).ok()
}
