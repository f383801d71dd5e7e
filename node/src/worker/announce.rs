//! Announcing in the DHTs that this node has something, and remembering for others that they have.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use cid::Cid;
use libp2p::Multiaddr;
use libp2p::PeerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, QueryId, RecordKey};
use sampan_storage::Page;
use tokio::time::Instant;

use super::Worker;
use crate::answers::Task;
use crate::bitswap::Serving;
use crate::dht::{LAN_PROTOCOL, MAX_FOREIGN, MAX_OWN, RECORD_TTL, WAN_PROTOCOL};
use crate::name::Name;
use crate::names::MAX_NAMES;
use crate::provide::{Plan, ROUND, Step};
use crate::queries::Table;
use crate::scope::Scope;

/// A burst of pushes makes one announcement.
const LAN_AFTER: Duration = Duration::from_millis(500);
/// An announcement in the public DHT is a walk of half a minute.
const WAN_AFTER: Duration = Duration::from_mins(1);
/// What a push may bring besides a root, before it is left to the sweep.
const NEWS: usize = 128;
/// This node says of itself that it has a key until the round after the one in which it was told.
const KEPT: Duration = Duration::from_secs(ROUND.as_secs() * 5 / 4);
/// A multihash (kad-dht specification), where a longer key would only take room.
const MAX_KEY: usize = 80;
/// What is kept of a provider's addresses, in number and in bytes of each: with 20 providers for each key some 16 MiB.
const MAX_ADDRESSES: usize = 8;
const MAX_ADDRESS: usize = 96;

const TABLES: [Table; 2] = [Table::Lan, Table::Wan];

/// What this node announces that it has.
#[derive(Debug)]
pub(crate) struct Provided {
    roots: HashMap<Name, Root>,
    lan: Audience,
    wan: Audience,
    /// Keys of others, so that their number has a bound.
    foreign: HashMap<RecordKey, Instant>,
}

/// One of the DHTs.
#[derive(Debug)]
struct Audience {
    plan: Plan,
    /// When the roots that are new are told.
    due: Option<Instant>,
    walks: HashSet<QueryId>,
    /// What this node's own share of the DHT says that it has, the oldest first.
    own: VecDeque<(Instant, RecordKey)>,
}

#[derive(Debug)]
struct Root {
    now: Cid,
    told: HashMap<Table, Told>,
}

/// The root that the news of a table begin with, and whether everyone who is there was told of it.
#[derive(Clone, Copy, Debug)]
struct Told {
    root: Cid,
    by_all: bool,
}

impl Provided {
    pub(crate) fn new(now: Instant) -> Self {
        let audience = |table| Audience {
            plan: Plan::new(table, now),
            due: None,
            walks: HashSet::new(),
            own: VecDeque::new(),
        };
        Self {
            roots: HashMap::new(),
            lan: audience(Table::Lan),
            wan: audience(Table::Wan),
            foreign: HashMap::new(),
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        TABLES.iter().flat_map(|table| [self.of(*table).due, self.of(*table).plan.next_due()]).flatten().min()
    }

    pub(super) fn news(&mut self, table: Table, cids: &[Cid]) {
        self.of_mut(table).plan.news(cids);
    }

    pub(super) fn read(&mut self, table: Table, page: Page) {
        self.of_mut(table).plan.read(page);
    }

    /// An announcement has ended, well or not.
    pub(super) fn ended(&mut self, table: Table, id: QueryId) {
        let audience = self.of_mut(table);
        if audience.walks.remove(&id) {
            audience.plan.ended();
        }
    }

    pub(super) fn forget(&mut self, name: &Name) {
        self.roots.remove(name);
    }

    fn set(&mut self, name: Name, root: Cid, tables: &[Table], now: Instant) {
        if self.roots.len() >= MAX_NAMES && !self.roots.contains_key(&name) {
            return;
        }
        let told = Told { root, by_all: false };
        let untold = || Root { now: root, told: TABLES.iter().map(|table| (*table, told)).collect() };
        self.roots.entry(name).or_insert_with(untold).now = root;
        for table in tables {
            self.of_mut(*table).due.get_or_insert(now + after(*table));
        }
    }

    /// A peer joined the DHT after roots were announced.
    fn again(&mut self, table: Table, now: Instant) {
        for told in self.roots.values_mut().filter_map(|root| root.told.get_mut(&table)) {
            told.by_all = false;
        }
        let audience = self.of_mut(table);
        audience.plan.newcomer();
        audience.due.get_or_insert(now + LAN_AFTER);
    }

    /// The roots that not everyone of a table was told, each with the one before it that was, if that is another.
    fn untold(&self, table: Table) -> Vec<(Name, Option<Cid>, Cid)> {
        let untold = |(name, root): (&Name, &Root)| {
            let told = root.told.get(&table)?;
            let before = (told.root != root.now).then_some(told.root);
            (before.is_some() || !told.by_all).then_some((*name, before, root.now))
        };
        self.roots.iter().filter_map(untold).collect()
    }

    fn told(&mut self, table: Table, name: &Name, root: Cid) {
        if let Some(known) = self.roots.get_mut(name) {
            known.told.insert(table, Told { root, by_all: true });
        }
    }

    /// Whether there is room to remember a provider of `key`.
    fn admit(&mut self, key: &RecordKey, now: Instant) -> bool {
        if self.foreign.len() >= MAX_FOREIGN && !self.foreign.contains_key(key) {
            return false;
        }
        self.foreign.insert(key.clone(), now);
        true
    }

    fn of(&self, table: Table) -> &Audience {
        match table {
            Table::Lan => &self.lan,
            Table::Wan => &self.wan,
        }
    }

    fn of_mut(&mut self, table: Table) -> &mut Audience {
        match table {
            Table::Lan => &mut self.lan,
            Table::Wan => &mut self.wan,
        }
    }
}

impl Audience {
    /// Takes a key as this node's own. Returns those that are too many or too old now.
    fn keep(&mut self, key: RecordKey, now: Instant) -> Vec<RecordKey> {
        self.own.retain(|(_, other)| *other != key);
        self.own.push_back((now, key));
        let old = self.own.iter().take_while(|(since, _)| *since + KEPT < now).count();
        let gone = old.max(self.own.len().saturating_sub(MAX_OWN));
        self.own.drain(..gone).map(|(_, key)| key).collect()
    }
}

impl Worker {
    /// `root` is what a name of this node, or one that it follows, points to now.
    pub(super) fn provide(&mut self, name: Name, root: Cid) {
        if self.announces() {
            let tables = if self.network.is_public() { TABLES.as_slice() } else { &[Table::Lan] };
            self.provided.set(name, root, tables, Instant::now());
        }
    }

    /// A peer that came into the LAN's DHT has been told nothing.
    pub(super) fn provide_to_newcomer(&mut self) {
        if self.announces() {
            self.refresh_audience();
            self.provided.again(Table::Lan, Instant::now());
        }
    }

    /// Whether anybody is there to be told, and could come to where it is told. kubo drops what comes without an
    /// address.
    pub(super) fn refresh_audience(&mut self) {
        let announces = self.announces();
        let lan = announces && self.peers.speaks(&LAN_PROTOCOL);
        let reachable = self.swarm.external_addresses().any(|address| Scope::Public.allows(address));
        let wan = announces && reachable && self.network.is_public() && self.peers.speaks(&WAN_PROTOCOL);
        self.provided.lan.plan.set_ready(lan);
        self.provided.wan.plan.set_ready(wan);
    }

    pub(super) fn provide_due(&mut self, now: Instant) {
        self.refresh_audience();
        for table in TABLES {
            if self.provided.of_mut(table).due.take_if(|due| *due <= now).is_some() {
                for (name, before, root) in self.provided.untold(table) {
                    if !self.answers.has_room() {
                        self.provided.of_mut(table).due = Some(now + after(table));
                        break;
                    }
                    self.tell_of(table, before, root);
                    self.provided.told(table, &name, root);
                }
            }
            while let Some(step) = self.provided.of_mut(table).plan.step(now) {
                match step {
                    Step::Announce(cid) => self.announce(table, &cid, now),
                    // One that is not taken is asked for again.
                    Step::Read(after) => self.answers.ask(Task::Page { table, after }),
                }
            }
        }
    }

    pub(super) fn store_foreign_provider(&mut self, table: Table, mut record: kad::ProviderRecord) {
        let now = Instant::now();
        if record.key.as_ref().len() > MAX_KEY {
            return;
        }
        if self.provided.foreign.len() >= MAX_FOREIGN {
            self.drop_foreign(now);
        }
        if !self.provided.admit(&record.key, now) {
            return;
        }
        let scope = match table {
            Table::Lan => Scope::Lan,
            Table::Wan => Scope::Public,
        };
        record.addresses = worth_keeping(record.addresses, scope);
        if let Some(dht) = self.dht(table)
            && let Err(error) = dht.kad().store_mut().add_provider(record)
        {
            tracing::debug!(%error, "a provider is not remembered");
        }
    }

    /// Content that no peer is given need not be found.
    fn announces(&self) -> bool {
        self.answers.serving() == Serving::Everyone
    }

    fn tell_of(&mut self, table: Table, before: Option<Cid>, root: Cid) {
        self.answers.ask(Task::News { table, before, root, limit: NEWS });
        if let Some(before) = before {
            self.provided.of_mut(table).plan.withdraw(&before);
            let key = provider_key(&before);
            self.provided.of_mut(table).own.retain(|(_, other)| *other != key);
            if let Some(dht) = self.dht(table) {
                dht.kad().stop_providing(&key);
            }
        }
    }

    fn announce(&mut self, table: Table, cid: &Cid, now: Instant) {
        let key = provider_key(cid);
        let started = self.dht(table).map(|dht| dht.kad().start_providing(key.clone()));
        let audience = self.provided.of_mut(table);
        match started {
            Some(Ok(id)) => {
                audience.walks.insert(id);
                self.counters.announced();
            }
            Some(Err(error)) => {
                tracing::debug!(%error, ?table, %cid, "not announced in the DHT");
                audience.plan.ended();
            }
            None => audience.plan.ended(),
        }
        for gone in self.provided.of_mut(table).keep(key, now) {
            if let Some(dht) = self.dht(table) {
                dht.kad().stop_providing(&gone);
            }
        }
    }

    /// Forgets what was remembered for others longer than it is good for.
    fn drop_foreign(&mut self, now: Instant) {
        let old: Vec<RecordKey> = self
            .provided
            .foreign
            .extract_if(|_, since| now.duration_since(*since) >= RECORD_TTL)
            .map(|(key, _)| key)
            .collect();
        let local = *self.swarm.local_peer_id();
        for table in TABLES {
            let Some(dht) = self.dht(table) else { continue };
            for key in &old {
                let store = dht.kad().store_mut();
                let providers: Vec<PeerId> =
                    store.providers(key).into_iter().map(|record| record.provider).collect();
                for provider in providers.iter().filter(|provider| **provider != local) {
                    store.remove_provider(key, provider);
                }
            }
        }
    }
}

fn worth_keeping(mut addresses: Vec<Multiaddr>, scope: Scope) -> Vec<Multiaddr> {
    addresses.retain(|address| scope.allows(address) && address.len() <= MAX_ADDRESS);
    addresses.truncate(MAX_ADDRESSES);
    addresses.shrink_to_fit();
    addresses
}

fn after(table: Table) -> Duration {
    match table {
        Table::Lan => LAN_AFTER,
        Table::Wan => WAN_AFTER,
    }
}

/// Providers are kept by multihash, so that CIDv0 and CIDv1 are one (kad-dht specification).
pub(super) fn provider_key(cid: &Cid) -> RecordKey {
    RecordKey::new(&cid.hash().to_bytes())
}

#[cfg(test)]
mod tests {
    use sampan_storage::block::{Block, RAW};

    use super::*;
    use crate::Keypair;

    fn root(content: &'static [u8]) -> Cid {
        *Block::new(RAW, content.into()).cid()
    }

    #[test]
    fn a_newcomer_is_told_the_root_and_nobody_misses_what_is_new_in_it() {
        let (now, name) = (Instant::now(), Keypair::generate().name());
        let [one, two, six] = [b"one", b"two", b"six"].map(|content| root(content));
        let mut provided = Provided::new(now);
        let set = |provided: &mut Provided, root| provided.set(name, root, &[Table::Lan], now);
        set(&mut provided, one);
        assert_eq!(provided.untold(Table::Lan), [(name, None, one)]);
        set(&mut provided, two);
        assert_eq!(provided.untold(Table::Lan), [(name, Some(one), two)], "before anybody came");
        provided.told(Table::Lan, &name, two);
        assert_eq!(provided.untold(Table::Lan), []);
        provided.again(Table::Lan, now);
        assert_eq!(provided.untold(Table::Lan), [(name, None, two)]);
        set(&mut provided, six);
        assert_eq!(provided.untold(Table::Lan), [(name, Some(two), six)]);
        provided.forget(&name);
        assert_eq!(provided.untold(Table::Lan), []);
    }

    #[test]
    fn few_of_a_providers_addresses_are_kept() {
        let addresses: Vec<Multiaddr> =
            (0..200).map(|number| format!("/ip4/10.0.{number}.9/tcp/4001").parse().unwrap()).collect();
        assert_eq!(worth_keeping(addresses.clone(), Scope::Lan), addresses[..MAX_ADDRESSES]);
        let long: String = (0..40).map(|_| "/ip4/10.0.0.9/tcp/4001").collect();
        assert_eq!(worth_keeping(vec![long.parse().unwrap()], Scope::Lan), []);
    }
}
