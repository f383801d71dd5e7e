//! Records between peers: published, asked for, judged and passed on.

use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance, TopicHash};
use libp2p::request_response::Message;
use tokio::time::Instant;

use super::Worker;
use crate::answers::{Answer, Task, Whom, fitting};
use crate::bitswap::Serving;
use crate::event::{Event, Refusal};
use crate::frame::Room;
use crate::handle::{FollowError, Offered, PublishError, Published};
use crate::ipns::{Record, RecordError, Verified};
use crate::name::Name;
use crate::names::{Clock, PublishFault, Verdict, Via};
use crate::queries::{Job, Question};
use crate::{fetch, follow, gossip};

/// Followers to whom a record is passed on that came from a peer. The publisher sends to its own; this
/// is for those that it cannot reach, and pubsub does the rest.
const PASS_ON: usize = 8;
/// Questions to other Sampans that are out at once.
const MAX_ASKED: usize = 1024;
/// Boards that came to a peer while it was connected are heard of within this time.
const REGISTRIES_AGAIN: Duration = Duration::from_secs(20);

impl Worker {
    pub(super) fn publish(&mut self, record: &Verified, nodes: Bytes) -> Result<Published, PublishError> {
        let name = *record.name();
        self.names.publish(record.clone(), Instant::now()).map_err(|fault| match fault {
            PublishFault::TooMany => PublishError::TooMany,
            PublishFault::Older => PublishError::Older,
        })?;
        let followers = self.followers(record);
        let nodes = fitting(nodes);
        for peer in &followers {
            self.send_update(*peer, name, record.bytes().clone(), nodes.clone());
        }
        if record.is_private() {
            // Pubsub and the DHT are full of strangers.
            return Ok(Published { followers: followers.len(), pubsub: false });
        }
        self.subscribe(&name);
        let current = !record.is_expired(self.wall.judging_time());
        let pubsub = current && {
            let topic = gossip::topic(&name);
            self.swarm.behaviour_mut().gossip.publish(topic, record.bytes().to_vec()).is_ok()
        };
        if current {
            self.put_record(record);
        }
        Ok(Published { followers: followers.len(), pubsub })
    }

    pub(super) fn follow(&mut self, name: Name) -> Result<(), FollowError> {
        if !self.names.follow(name, Instant::now()) {
            return Err(FollowError::TooMany);
        }
        Ok(())
    }

    pub(super) fn unfollow(&mut self, name: &Name) {
        if self.names.unfollow(name) {
            let topic = gossip::topic(name);
            self.topics.leave(&topic.hash());
            self.swarm.behaviour_mut().gossip.unsubscribe(&topic);
        }
    }

    /// Followed names are asked for now and then, also right after [`Worker::follow`].
    pub(super) fn look_up_due(&mut self, now: Instant) {
        let names = self.names.due(now);
        if !names.is_empty() {
            self.answers.ask(Task::Own { names, peers: Whom::All });
        }
    }

    pub(super) fn on_answer(&mut self, answer: Answer) {
        match answer {
            // A peer that went away meanwhile needs no answer.
            Answer::Ask { response, channel } => {
                let _ = self.swarm.behaviour_mut().follow.send_response(channel, response);
            }
            Answer::Fetch { response, channel } => {
                let _ = self.swarm.behaviour_mut().fetch.send_response(channel, response);
            }
            Answer::Own { records, peers } => {
                for (name, record) in records {
                    self.ask_for(name, record, peers);
                }
            }
            Answer::News { table, cids } => self.provided.news(table, &cids),
            Answer::Page { table, page } => {
                if let Some(page) = page {
                    self.provided.read(table, page);
                }
            }
        }
    }

    pub(super) fn on_follow(&mut self, event: follow::Event) {
        match event {
            follow::Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                match request {
                    follow::Request::Ask { name, have } => {
                        self.peers.wants(&peer, name);
                        let audience = self.members.audience(&peer);
                        self.answers.ask(Task::Ask { name, have, audience, channel });
                    }
                    follow::Request::Registries if self.members.contains(&peer) => {
                        self.answers.ask(Task::Registries { channel });
                    }
                    follow::Request::Registries => {
                        let unknown = follow::Response::Unknown;
                        let _ = self.swarm.behaviour_mut().follow.send_response(channel, unknown);
                    }
                    follow::Request::Update { name, record, nodes, room } => {
                        let _ =
                            self.swarm.behaviour_mut().follow.send_response(channel, follow::Response::Taken);
                        self.offer(&name, &record, nodes, Via::Follow, Some(peer));
                        drop(room);
                    }
                }
            }
            follow::Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                match (self.asked.remove(&request_id), response) {
                    (Some(name), follow::Response::Known { record, nodes }) => {
                        self.offer(&name, &record, nodes, Via::Follow, Some(peer));
                    }
                    (None, follow::Response::Registries { names }) => {
                        self.outbox.push(Event::Registries { names, from: peer }, &self.counters);
                    }
                    _ => {}
                }
            }
            follow::Event::OutboundFailure { peer, request_id, error, .. } => {
                self.asked.remove(&request_id);
                tracing::debug!(%peer, %error, "a follow request failed");
            }
            follow::Event::InboundFailure { .. } | follow::Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_fetch(&mut self, event: fetch::Event) {
        match event {
            fetch::Event::Message { message: Message::Request { request, channel, .. }, .. } => {
                match Name::from_routing_key(&request.0) {
                    Some(name) => self.answers.ask(Task::Fetch { name, channel }),
                    None => {
                        let _ = self
                            .swarm
                            .behaviour_mut()
                            .fetch
                            .send_response(channel, fetch::Response::NotFound);
                    }
                }
            }
            fetch::Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                let question = Question::Fetch(request_id);
                if let fetch::Response::Found(record) = response {
                    self.found_record(&question, &record, Via::Fetch, Some(peer));
                }
                self.queries.done(&question);
            }
            fetch::Event::OutboundFailure { request_id, .. } => {
                self.queries.done(&Question::Fetch(request_id));
            }
            fetch::Event::InboundFailure { .. } | fetch::Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let name = self.names.of_topic(&message.topic);
                let acceptance = name.map_or(MessageAcceptance::Ignore, |name| {
                    self.judge_gossip(&name, &message.data.into(), propagation_source)
                });
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => self.on_topic_joined(peer_id, &topic),
            gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. }
            | gossipsub::Event::SlowPeer { .. } => {}
        }
    }

    /// A record was found by a question of this node.
    pub(super) fn found_record(
        &mut self,
        question: &Question,
        record: &Bytes,
        path: Via,
        from: Option<PeerId>,
    ) {
        match self.queries.looked_up(question) {
            Some(name) => {
                self.offer(&name, record, Bytes::new(), path, from);
            }
            None => self.queries.record(question, record, Clock::read(&self.wall)),
        }
    }

    /// A record that came on a path outside of the network, such as HTTP.
    pub(super) fn take_offer(&mut self, name: &Name, record: &Bytes, via: Via) -> Offered {
        let verdict = self.offer(name, record, Bytes::new(), via, None);
        if via == Via::Hand && !matches!(verdict, Verdict::Refused(_)) {
            // It was here before the peers could hear of it, and it may be known from there by now.
            match Record::decode(record.clone()).and_then(|record| record.verify_signature(name)) {
                Ok(record) => self.pass_on(&record),
                Err(error) => tracing::debug!(%name, %error, "a record that was taken cannot be read"),
            }
        }
        match verdict {
            Verdict::New(_) | Verdict::Again(_) | Verdict::Same => Offered::Taken,
            Verdict::Refused(Refusal::NotFollowed) => Offered::NotFollowed,
            Verdict::Refused(reason) => Offered::Refused(reason),
        }
    }

    /// Judges a record that arrived, tells the program, and passes it on.
    pub(super) fn offer(
        &mut self,
        name: &Name,
        bytes: &Bytes,
        nodes: Bytes,
        path: Via,
        from: Option<PeerId>,
    ) -> Verdict {
        let clock = Clock::read(&self.wall);
        let verdict = self.names.judge(name, bytes, !nodes.is_empty(), path, clock);
        match &verdict {
            Verdict::New(record) => {
                self.counters.taken();
                self.held_by(name, from);
                self.report(record, nodes, from, path, clock);
                self.keep_in_dht(record);
                if record.is_private() {
                    self.swarm.behaviour_mut().gossip.unsubscribe(&gossip::topic(name));
                }
                if path == Via::Follow {
                    self.pass_on(record);
                }
            }
            Verdict::Again(record) => {
                self.held_by(name, from);
                self.report(record, nodes, from, path, clock);
            }
            Verdict::Same => self.held_by(name, from),
            Verdict::Refused(reason) => {
                self.counters.refused(reason);
                // An expired one may be so by this machine's clock only.
                if let (Refusal::Invalid(error), Some(peer)) = (reason, from)
                    && *error != RecordError::Expired
                {
                    self.offences.note(peer);
                }
                if self.names.contains(name) {
                    tracing::debug!(%name, %reason, ?from, "a record is refused");
                    let event = Event::RecordRefused { name: *name, reason: reason.clone(), from };
                    self.outbox.push(event, &self.counters);
                }
            }
        }
        verdict
    }

    /// Members are asked again now and then: others may have come to them.
    pub(super) fn ask_for_registries_due(&mut self, now: Instant) {
        if self.registries_due.is_none_or(|due| due > now) {
            return;
        }
        self.registries_due = Some(now + REGISTRIES_AGAIN);
        for peer in self.peers.sampans() {
            self.ask_for_registries(&peer);
        }
    }

    pub(super) fn ask_for_registries(&mut self, peer: &PeerId) {
        if self.registries_due.is_some() && self.members.contains(peer) {
            self.swarm.behaviour_mut().follow.send_request(peer, follow::Request::Registries);
        }
    }

    /// Asks the peers what is newer than `record`, which is what the program keeps.
    fn ask_for(&mut self, name: Name, record: Option<Verified>, peers: Whom) {
        if !self.names.contains(&name) {
            return;
        }
        let have = record.as_ref().and_then(|record| record.cid());
        if let Some(record) = record {
            self.names.seed(record, Instant::now());
        }
        let private = self.names.is_private(&name);
        if !private {
            self.subscribe(&name);
        }
        let sampans = match peers {
            Whom::One(peer) => vec![peer],
            Whom::All => self.peers.sampans(),
        };
        for peer in sampans {
            if self.asked.len() < MAX_ASKED {
                let request = follow::Request::Ask { name, have };
                let id = self.swarm.behaviour_mut().follow.send_request(&peer, request);
                self.asked.insert(id, name);
            }
        }
        if matches!(peers, Whom::All) && !private {
            let others = self.others_on_topic(&name);
            self.look_up(name, &others);
        }
    }

    /// A kubo that holds a name says so by joining its topic; a Sampan is asked more directly.
    fn on_topic_joined(&mut self, peer: PeerId, topic: &TopicHash) {
        if let Some(name) = self.names.of_topic(topic)
            && !self.peers.is_sampan(&peer)
        {
            let id = self.swarm.behaviour_mut().fetch.send_request(&peer, fetch::Request(name.routing_key()));
            let deadline = Instant::now() + super::lookups::FETCH_WAIT;
            self.queries.start(Job::LookUp { name }, &[Question::Fetch(id)], deadline);
        }
    }

    fn others_on_topic(&self, name: &Name) -> Vec<PeerId> {
        let topic = gossip::topic(name).hash();
        let all = self.swarm.behaviour().gossip.all_peers();
        let on_topic = all.filter(|(peer, topics)| topics.contains(&&topic) && !self.peers.is_sampan(peer));
        on_topic.map(|(peer, _)| *peer).collect()
    }

    /// The rules of the IPNS PubSub router: better is passed on, broken is rejected, the rest is ignored.
    fn judge_gossip(&mut self, name: &Name, record: &Bytes, from: PeerId) -> MessageAcceptance {
        let verdict = self.offer(name, record, Bytes::new(), Via::Gossip, Some(from));
        let first = self.names.first_on_topic(name, record);
        match verdict {
            Verdict::New(_) => MessageAcceptance::Accept,
            Verdict::Again(_) | Verdict::Same if first => MessageAcceptance::Accept,
            // Whether it has expired depends on this machine's clock, which the sender is not to blame for.
            Verdict::Again(_)
            | Verdict::Same
            | Verdict::Refused(
                Refusal::Older | Refusal::NotFollowed | Refusal::Invalid(RecordError::Expired),
            ) => MessageAcceptance::Ignore,
            Verdict::Refused(Refusal::Invalid(_)) => MessageAcceptance::Reject,
        }
    }

    fn report(&mut self, record: &Verified, nodes: Bytes, from: Option<PeerId>, via: Via, clock: Clock) {
        let expired = record.is_expired(clock.time);
        let event = Event::Record { record: record.clone(), nodes, from, via, expired };
        self.outbox.push(event, &self.counters);
    }

    /// To followers of this node that are not known to have the record. Without nodes: they are many
    /// and mostly get them from the publisher.
    fn pass_on(&mut self, record: &Verified) {
        let mut left = PASS_ON;
        for peer in self.followers(record) {
            if left == 0 {
                return;
            }
            if self.names.held_by(record.name(), peer) {
                self.send(peer, *record.name(), record.bytes().clone(), Bytes::new());
                left -= 1;
            }
        }
    }

    /// Who is told of a record: of a private one members only, whoever asked for it.
    fn followers(&self, record: &Verified) -> Vec<PeerId> {
        let mut followers = self.peers.followers(record.name());
        followers.retain(|peer| !record.is_private() || self.members.contains(peer));
        followers
    }

    fn send_update(&mut self, peer: PeerId, name: Name, record: Bytes, nodes: Bytes) {
        self.names.held_by(&name, peer);
        self.send(peer, name, record, nodes);
    }

    fn send(&mut self, peer: PeerId, name: Name, record: Bytes, nodes: Bytes) {
        // Nodes are blocks: who gets none by bitswap gets none here.
        let serves = self.answers.serving() == Serving::Everyone;
        let nodes = if serves { nodes } else { Bytes::new() };
        let request = follow::Request::Update { name, record, nodes, room: Room::default() };
        self.swarm.behaviour_mut().follow.send_request(&peer, request);
    }

    fn held_by(&mut self, name: &Name, peer: Option<PeerId>) {
        if let Some(peer) = peer {
            self.names.held_by(name, peer);
        }
    }

    fn subscribe(&mut self, name: &Name) {
        let topic = gossip::topic(name);
        self.topics.join(topic.hash());
        if let Err(error) = self.swarm.behaviour_mut().gossip.subscribe(&topic) {
            tracing::warn!(%name, ?error, "the topic of the name cannot be joined");
        }
    }
}
