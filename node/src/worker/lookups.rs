//! The DHTs: finding and storing records, finding providers.

use std::time::Duration;

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, GetProvidersOk, GetRecordOk, InboundRequest, QueryResult, Quorum, RecordKey};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Worker;
use super::announce::provider_key;
use crate::dht::{RECORD_TTL, Scoped};
use crate::fetch;
use crate::handle::Found;
use crate::ipns::{Record, Verified, select};
use crate::name::Name;
use crate::names::{Clock, Via};
use crate::queries::{Job, Question, Table};

/// As long as the fetch protocol waits, and a little.
pub(super) const FETCH_WAIT: Duration = Duration::from_secs(12);
/// How long whoever asks the network waits where only a LAN is asked.
const LAN_WAIT: Duration = Duration::from_secs(5);
/// And where the public DHT is walked.
const WAN_WAIT: Duration = Duration::from_secs(30);
/// Peers that are asked for a name directly, beside the DHT.
const MAX_FETCHES: usize = 16;
const TABLES: [Table; 2] = [Table::Lan, Table::Wan];

impl Worker {
    pub(super) fn resolve(&mut self, name: Name, reply: oneshot::Sender<Option<Found>>) {
        let mut questions = self.get_record(name);
        let peers = self.peers.speaking(&fetch::PROTOCOL);
        questions.extend(self.fetch_from(name, peers.iter().take(MAX_FETCHES)));
        self.queries.start(Job::Resolve { name, best: None, reply }, &questions, self.patience());
    }

    /// Looks for records of a followed name in the DHTs and at `peers`.
    pub(super) fn look_up(&mut self, name: Name, peers: &[PeerId]) {
        let mut questions = self.get_record(name);
        questions.extend(self.fetch_from(name, peers.iter().take(MAX_FETCHES)));
        let deadline = Instant::now() + WAN_WAIT;
        self.queries.start(Job::LookUp { name }, &questions, deadline);
    }

    pub(super) fn find_providers(&mut self, cid: &Cid, reply: oneshot::Sender<Vec<PeerId>>) {
        let key = provider_key(cid);
        let mut questions = Vec::new();
        for table in TABLES {
            if let Some(dht) = self.dht(table) {
                questions.push(Question::Dht(table, dht.kad().get_providers(key.clone())));
            }
        }
        self.queries.start(Job::Providers { found: Vec::new(), reply }, &questions, self.patience());
    }

    /// Stores a record that is published here in the DHTs, beginning with this node's own share.
    pub(super) fn put_record(&mut self, record: &Verified) {
        for table in TABLES {
            if let Some(dht) = self.dht(table) {
                put_locally(dht, record, Owner::Us);
                if let Err(error) = dht.kad().put_record(dht_record(record), Quorum::One) {
                    tracing::debug!(%error, ?table, "the record is not put into the DHT");
                }
            }
        }
    }

    /// Keeps a followed record in this node's share of the LAN's DHT, so that who asks here finds it.
    pub(super) fn keep_in_dht(&mut self, record: &Verified) {
        if !record.is_private()
            && !record.is_expired(self.wall.judging_time())
            && let Some(dht) = self.dht(Table::Lan)
        {
            put_locally(dht, record, Owner::Us);
        }
    }

    /// A peer that joined the LAN's DHT after a record was put, or a root announced, learns of both. And it may know
    /// what is followed here.
    pub(super) fn share_with_new_dht_peer(&mut self, peer: PeerId) {
        let now = self.wall.judging_time();
        let told = |record: &Verified| !record.is_private() && !record.is_expired(now);
        for record in self.names.published().into_iter().filter(told) {
            let kad = self.swarm.behaviour_mut().lan.kad();
            kad.put_record_to(dht_record(&record), std::iter::once(peer), Quorum::One);
        }
        self.provide_to_newcomer();
        self.names.look_up_soon(Instant::now());
    }

    pub(super) fn sweep_queries(&mut self, now: Instant) {
        for question in self.queries.sweep(now) {
            if let Question::Dht(table, id) = question
                && let Some(dht) = self.dht(table)
                && let Some(mut query) = dht.kad().query_mut(&id)
            {
                query.finish();
            }
        }
    }

    pub(super) fn on_dht(&mut self, table: Table, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                let question = Question::Dht(table, id);
                self.on_dht_result(&question, result);
                if step.last {
                    self.queries.done(&question);
                    self.provided.ended(table, id);
                }
            }
            kad::Event::InboundRequest {
                request: InboundRequest::PutRecord { record: Some(record), .. },
            } => {
                self.store_foreign_record(table, &record);
            }
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                self.store_foreign_provider(table, record);
            }
            kad::Event::InboundRequest { .. }
            | kad::Event::RoutingUpdated { .. }
            | kad::Event::UnroutablePeer { .. }
            | kad::Event::RoutablePeer { .. }
            | kad::Event::PendingRoutablePeer { .. }
            | kad::Event::ModeChanged { .. } => {}
        }
    }

    fn on_dht_result(&mut self, question: &Question, result: QueryResult) {
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                // Whoever stores a record for the DHT need not have what it points to.
                self.found_record(question, &found.record.value.into(), Via::Dht, None);
            }
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                let local = *self.swarm.local_peer_id();
                let others = providers.into_iter().filter(|peer| *peer != local);
                for peer in self.queries.providers(question, others) {
                    self.dial_provider(peer);
                }
            }
            // Ends and failures are told by the step; nothing else is asked for.
            _ => {}
        }
    }

    /// The query knows the provider's addresses only as long as it runs.
    fn dial_provider(&mut self, peer: PeerId) {
        let options = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::trace!(%peer, %error, "a provider is not dialled");
        }
    }

    /// The DHT keeps what is signed, current and newer than what it has.
    fn store_foreign_record(&mut self, table: Table, record: &kad::Record) {
        let Some(name) = Name::from_routing_key(record.key.as_ref()) else { return };
        let bytes = Bytes::from(record.value.clone());
        let clock = Clock::read(&self.wall);
        let verified = match Record::decode(bytes.clone()).and_then(|record| record.verify(&name, clock.time))
        {
            Ok(verified) => verified,
            Err(error) => {
                self.counters.refused(&error.into());
                return;
            }
        };
        if let Some(dht) = self.dht(table) {
            put_locally(dht, &verified, Owner::Other);
        }
        if self.names.contains(&name) {
            self.offer(&name, &bytes, Bytes::new(), Via::Dht, None);
        }
    }

    fn get_record(&mut self, name: Name) -> Vec<Question> {
        let mut questions = Vec::new();
        for table in TABLES {
            if let Some(dht) = self.dht(table) {
                let id = dht.kad().get_record(RecordKey::new(&name.routing_key()));
                questions.push(Question::Dht(table, id));
            }
        }
        questions
    }

    fn fetch_from<'a>(&mut self, name: Name, peers: impl Iterator<Item = &'a PeerId>) -> Vec<Question> {
        let fetch = &mut self.swarm.behaviour_mut().fetch;
        peers
            .map(|peer| Question::Fetch(fetch.send_request(peer, fetch::Request(name.routing_key()))))
            .collect()
    }

    fn patience(&self) -> Instant {
        Instant::now() + if self.network.is_public() { WAN_WAIT } else { LAN_WAIT }
    }

    pub(super) fn dht(&mut self, table: Table) -> Option<&mut Scoped> {
        let behaviour = self.swarm.behaviour_mut();
        match table {
            Table::Lan => Some(&mut behaviour.lan),
            Table::Wan => behaviour.wan.as_mut(),
        }
    }
}

fn dht_record(record: &Verified) -> kad::Record {
    kad::Record::new(RecordKey::new(&record.name().routing_key()), record.bytes().to_vec())
}

/// For whose sake a record lies in this node's share of a DHT.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Published or followed here: it stays, and makes room for itself.
    Us,
    /// Some peer that publishes: it goes after a time.
    Other,
}

/// Puts a record into this node's share of a DHT, unless a newer one is there or there is no room.
fn put_locally(dht: &mut Scoped, record: &Verified, owner: Owner) {
    let now = std::time::Instant::now();
    let mut entry = dht_record(record);
    entry.expires = (owner == Owner::Other).then(|| now + RECORD_TTL);
    let store = dht.kad().store_mut();
    let newer = |present: &kad::Record| {
        Record::decode(present.value.clone()).is_ok_and(|present| select(&present, record).is_gt())
    };
    if store.get(&entry.key).is_some_and(|present| newer(&present)) || store.put(entry.clone()).is_ok() {
        return;
    }
    let mut to_evict = usize::from(owner == Owner::Us);
    store.retain(|_, present| {
        let evict = present.is_expired(now) || (to_evict > 0 && present.expires.is_some());
        to_evict -= usize::from(evict && to_evict > 0);
        !evict
    });
    if let Err(error) = store.put(entry) {
        tracing::debug!(%error, "no room for a record of the DHT");
    }
}
