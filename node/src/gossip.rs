//! IPNS over PubSub: how records travel between this node and kubo (`--enable-namesys-pubsub`).
//!
//! Only the settings stand here; what is passed on is decided where records are judged.

use libp2p::PeerId;
use libp2p::gossipsub::{
    AllowAllSubscriptionFilter, Behaviour, ConfigBuilder, IdentTopic, MaxCountSubscriptionFilter, Message,
    MessageAuthenticity, MessageId, ValidationMode,
};
use libp2p::identity::Keypair;

use crate::name::Name;
use crate::names::MAX_NAMES;

/// A record is at most 10 KiB; the rest is room for the frame.
const MAX_MESSAGE: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
#[error("pubsub cannot be set up: {0}")]
pub struct GossipError(String);

pub(crate) fn behaviour() -> Result<Behaviour, GossipError> {
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
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: MAX_NAMES,
        max_subscriptions_per_request: MAX_NAMES,
    };
    Behaviour::new_with_subscription_filter(MessageAuthenticity::Signed(author), config, filter)
        .map_err(|error| GossipError(error.to_owned()))
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
