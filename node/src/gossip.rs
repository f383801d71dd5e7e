//! IPNS over PubSub: how records travel between this node and kubo (`--enable-namesys-pubsub`).
//!
//! Only the settings stand here; what is passed on is decided where records are judged.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::gossipsub::{
    self, ConfigBuilder, DataTransform, IdentTopic, MaxCountSubscriptionFilter, Message, MessageAuthenticity,
    MessageId, RawMessage, TopicHash, TopicSubscriptionFilter, ValidationMode,
};
use libp2p::identity::Keypair;

use crate::ipns::MAX_RECORD;
use crate::name::Name;
use crate::names::MAX_NAMES;

/// A record is at most 10 KiB; the rest is room for the frame.
const MAX_MESSAGE: usize = 64 * 1024;
/// Topics of names begin so and are no longer: the key in base64, of an RSA name at most 40 bytes (IPNS over PubSub).
const TOPIC_PREFIX: &str = "/record/";
const MAX_TOPIC: usize = 128;
/// Messages of all topics. A name that changes every 50 ms comes 20 times a second from each of 6 to 12 neighbours; and
/// 512 ids a second for a minute are some 6 MiB.
const EACH_SECOND: f64 = 512.0;
const BURST: f64 = 1024.0;

#[derive(Debug, thiserror::Error)]
#[error("pubsub cannot be set up: {0}")]
pub struct GossipError(String);

pub(crate) type Behaviour = gossipsub::Behaviour<Sieve, Filter>;
type Filter = MaxCountSubscriptionFilter<OfRecords>;

pub(crate) fn behaviour(topics: Topics) -> Result<Behaviour, GossipError> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(MAX_MESSAGE)
        .flood_publish(true)
        .message_id_fn(message_id)
        .build()
        .map_err(|error| GossipError(error.to_string()))?;
    // An author of its own for each start: kubo remembers the highest number that it has seen of an
    // author, and the numbers begin at the clock, which on a board without a battery may step back.
    let author = Keypair::generate_ed25519();
    let filter = MaxCountSubscriptionFilter {
        filter: OfRecords,
        max_subscribed_topics: MAX_NAMES,
        max_subscriptions_per_request: MAX_NAMES,
    };
    let sieve = Sieve { topics, allowance: Mutex::new(Allowance::new(Instant::now())) };
    Behaviour::new_with_subscription_filter_and_transform(
        MessageAuthenticity::Signed(author),
        config,
        filter,
        sieve,
    )
    .map_err(|error| GossipError(error.to_owned()))
}

/// The topics of this node. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topics(Arc<RwLock<HashSet<TopicHash>>>);

impl Topics {
    pub(crate) fn join(&self, topic: TopicHash) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(topic);
    }

    pub(crate) fn leave(&self, topic: &TopicHash) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    fn contains(&self, topic: &TopicHash) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }
}

/// Takes what other peers subscribe to, as far as it may be the topic of a name: gossipsub keeps all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfRecords;

impl TopicSubscriptionFilter for OfRecords {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        topic.as_str().starts_with(TOPIC_PREFIX) && topic.as_str().len() <= MAX_TOPIC
    }
}

/// What is let in at all. Gossipsub keeps each message that passes for seconds, and its id for a minute, also of topics
/// that nobody here has joined.
#[derive(Debug)]
pub(crate) struct Sieve {
    topics: Topics,
    allowance: Mutex<Allowance>,
}

impl DataTransform for Sieve {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, io::Error> {
        let passes = raw.data.len() <= MAX_RECORD
            && self.topics.contains(&raw.topic)
            && self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if !passes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let RawMessage { source, data, sequence_number, topic, .. } = raw;
        Ok(Message { source, data, sequence_number, topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

/// Messages that may come in: [`BURST`] at once, and [`EACH_SECOND`] in the long run.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = passed.mul_add(EACH_SECOND, self.left).min(BURST);
        self.at = now;
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

pub(crate) fn topic(name: &Name) -> IdentTopic {
    IdentTopic::new(name.topic())
}

/// go-libp2p-pubsub's id: the author's bytes, then the number as 8 bytes, big endian. libp2p's default
/// differs, and peers of both kinds would not recognise each other's messages.
fn message_id(message: &Message) -> MessageId {
    let mut id = message.source.map(PeerId::to_bytes).unwrap_or_default();
    id.extend(message.sequence_number.unwrap_or_default().to_be_bytes());
    MessageId::from(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: TopicHash, data: Vec<u8>) -> RawMessage {
        RawMessage {
            source: None,
            data,
            sequence_number: None,
            topic,
            signature: None,
            key: None,
            validated: false,
        }
    }

    #[test]
    fn only_records_on_joined_topics_are_let_in() {
        let topics = Topics::default();
        let (mine, other) = (TopicHash::from_raw("/record/mine"), TopicHash::from_raw("/record/other"));
        topics.join(mine.clone());
        let sieve = Sieve { topics: topics.clone(), allowance: Mutex::new(Allowance::new(Instant::now())) };
        assert!(sieve.inbound_transform(message(mine.clone(), vec![0; MAX_RECORD])).is_ok());
        assert!(sieve.inbound_transform(message(mine.clone(), vec![0; MAX_RECORD + 1])).is_err());
        assert!(sieve.inbound_transform(message(other, vec![0; 9])).is_err());
        topics.leave(&mine);
        assert!(sieve.inbound_transform(message(mine, vec![0; 9])).is_err());
    }

    #[test]
    fn a_flood_of_messages_is_thinned_out() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        let passed = (0..10_000).filter(|_| allowance.take(now)).count();
        assert!((1000..1100).contains(&passed), "{passed}");
        let later = now + std::time::Duration::from_secs(1);
        let passed = (0..10_000).filter(|_| allowance.take(later)).count();
        assert!((500..600).contains(&passed), "{passed}");
    }

    #[test]
    fn subscriptions_to_what_is_no_name_are_not_kept() {
        let name = Name::from(PeerId::random());
        assert!(OfRecords.can_subscribe(&topic(&name).hash()));
        assert!(!OfRecords.can_subscribe(&TopicHash::from_raw("chat")));
        assert!(!OfRecords.can_subscribe(&TopicHash::from_raw(format!("/record/{}", "x".repeat(60_000)))));
    }

    #[test]
    fn message_ids_are_those_of_go() {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let message = Message {
            source: Some(peer),
            data: Vec::new(),
            sequence_number: Some(0x0102),
            topic: topic(&Name::from(peer)).hash(),
        };
        assert_eq!(message_id(&message).0, [peer.to_bytes(), vec![0, 0, 0, 0, 0, 0, 1, 2]].concat());
    }
}
