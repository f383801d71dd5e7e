//! An IPNS name: the multihash of a public key, and the forms in which it is written.
//!
//! Specification: <https://specs.ipfs.tech/ipns/ipns-record/#ipns-name>.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use libp2p::PeerId;
use multibase::Base;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::key::Keypair;

/// Multicodec of a CID that holds a public key's hash.
const LIBP2P_KEY: u64 = 0x72;
/// What a name's routing key begins with, in the DHT and over fetch.
const ROUTING_PREFIX: &[u8] = b"/ipns/";
/// What a name's pubsub topic begins with.
const TOPIC_PREFIX: &str = "/record/";
/// The longest accepted form (base32 of an Ed25519 key with prefix) is 72 characters; base36 costs quadratic time.
const MAX_TEXT: usize = 128;

/// An IPNS name. Written as `k51…`; read in any of the usual forms.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(PeerId);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an IPNS name: it looks like k51qzi5uqu5d… (62 characters), or is a peer id such as 12D3KooW… or Qm…, \
     with or without /ipns/ before it"
)]
pub struct ParseNameError;

impl Name {
    /// The name that `key` may publish.
    pub fn from_key(key: &Keypair) -> Self {
        key.name()
    }

    /// The peer whose key this is.
    pub fn peer_id(&self) -> PeerId {
        self.0
    }

    /// `/ipns/` and the raw multihash: the key in the DHT and in a fetch request. Not text.
    pub fn routing_key(&self) -> Vec<u8> {
        [ROUTING_PREFIX, &self.0.to_bytes()].concat()
    }

    pub fn from_routing_key(key: &[u8]) -> Option<Self> {
        let hash = key.strip_prefix(ROUTING_PREFIX)?;
        PeerId::from_bytes(hash).ok().map(Self)
    }

    /// The pubsub topic on which records of this name travel (IPNS PubSub Router specification).
    pub fn topic(&self) -> String {
        format!("{TOPIC_PREFIX}{}", Base::Base64Url.encode(self.routing_key()))
    }

    fn to_cid(self) -> Cid {
        Cid::new_v1(LIBP2P_KEY, *self.0.as_ref())
    }
}

impl From<PeerId> for Name {
    fn from(peer: PeerId) -> Self {
        Self(peer)
    }
}

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let text = text.strip_prefix("/ipns/").unwrap_or(text);
        if text.len() > MAX_TEXT {
            return Err(ParseNameError);
        }
        // Base58 peer ids carry no multibase prefix; these two beginnings are theirs alone.
        if text.starts_with('1') || text.starts_with("Qm") {
            return text.parse().map(Self).map_err(|_| ParseNameError);
        }
        let (_, bytes) = multibase::decode(text).map_err(|_| ParseNameError)?;
        let cid = Cid::try_from(bytes.as_slice()).map_err(|_| ParseNameError)?;
        // Written back, so that trailing bytes do not make a second spelling of one name.
        if cid.codec() != LIBP2P_KEY || cid.to_bytes() != bytes {
            return Err(ParseNameError);
        }
        PeerId::from_multihash(*cid.hash()).map(Self).map_err(|_| ParseNameError)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&multibase::encode(Base::Base36Lower, self.to_cid().to_bytes()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sampan_storage::{Algorithm, Digest};

    use super::*;

    /// The sample peer of the IPNS specification.
    const PEER: &str = "12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS";

    fn hex(bytes: &[u8]) -> String {
        Base::Base16Lower.encode(bytes)
    }

    #[test]
    fn routing_key_and_topic_are_those_of_the_specification() {
        let name: Name = PEER.parse().unwrap();
        assert_eq!(
            hex(&name.routing_key()),
            "2f69706e732f0024080112209e3b433cbd31c2b8a6ebbdca998bd0f4c2141c9c9af5422e976051b1e63af14d"
        );
        assert_eq!(name.topic(), "/record/L2lwbnMvACQIARIgnjtDPL0xwrim673KmYvQ9MIUHJya9UIul2BRseY68U0");
        assert_eq!(Name::from_routing_key(&name.routing_key()), Some(name));
        let position = Digest::of(Algorithm::Sha256, &name.routing_key());
        assert_eq!(position.hex(), "94559ab791d1325f6577832302ca0fea289590c4c836bf1c28d009549dfbe528");
    }

    #[test]
    fn every_usual_form_is_one_name() {
        let name: Name = PEER.parse().unwrap();
        let base36 = name.to_string();
        assert!(base36.starts_with("k51") && base36.len() == 62, "{base36}");
        let base32 = multibase::encode(Base::Base32Lower, name.to_cid().to_bytes());
        assert!(base32.starts_with("bafz"), "{base32}");
        for form in [base36.clone(), base32, PEER.to_owned()] {
            assert_eq!(form.parse(), Ok(name));
            assert_eq!(format!("/ipns/{form}").parse(), Ok(name));
        }
        let seed = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";
        assert_eq!(seed.parse::<Name>().unwrap().to_string(), seed);
    }

    #[test]
    fn an_rsa_peer_id_is_a_name_too() {
        let text = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
        assert_eq!(text.parse::<Name>().unwrap().peer_id().to_base58(), text);
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_hint() {
        for text in
            ["", "k", "k51", "example.com", "bafkqaaa", "12D3", "/ipns/", "/ipfs/bafkqaaa", &"k".repeat(4096)]
        {
            let error = text.parse::<Name>().unwrap_err();
            assert!(error.to_string().contains("k51"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,140}") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert_eq!(name.to_string().parse(), Ok(name));
            }
        }
    }
}
