//! Fuzz targets for what the node reads from peers and from files of others: each takes any bytes and checks what must
//! hold for all of them.
//!
//! `fuzz/` runs them under libFuzzer, the unit test below runs them over the seeds. They are in no other build.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target is there to panic"
)]

use std::cmp::Ordering;
use std::io;
use std::time::SystemTime;

use futures::executor::block_on;
use futures::io::Cursor;
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

use crate::ipns::{Record, select};
use crate::key::Keypair;
use crate::name::Name;
use crate::{SwarmKey, bitswap, fetch, follow};

/// A record of kubo, and whose it is.
const KUBO: &[u8] = include_bytes!("../tests/fixtures/tree.ipns-record");
const KUBO_NAME: &str = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";
const KUBO_VALUE: &str = "/ipfs/QmcHyeFRftsLEqQXqqsvnwxeKPrPBratV5MC8jqbBgGbPT";

/// IPNS records.
pub fn ipns_record(data: &[u8]) {
    let Ok(record) = Record::decode(data.to_vec()) else { return };
    assert_eq!(record.bytes(), data);
    let _ = (record.ttl(), record.instance(), record.is_expired(SystemTime::UNIX_EPOCH));
    if let Some(cid) = record.cid() {
        assert!(record.value().starts_with("/ipfs/"), "{cid}");
    }
    let kubo = Record::decode(KUBO).unwrap();
    assert_eq!(select(&record, &kubo), select(&kubo, &record).reverse());
    assert_eq!(select(&record, &record), Ordering::Equal);
    // Nobody here has the key: what passes as theirs says what they said.
    let name: Name = KUBO_NAME.parse().unwrap();
    if let Ok(verified) = record.verify_signature(&name) {
        assert_eq!((verified.value(), verified.sequence()), (KUBO_VALUE, 2));
        assert_eq!(verified.validity(), kubo.validity());
    }
}

/// Packets of multicast DNS.
pub fn mdns_question(data: &[u8]) {
    // What is asked of us stays so whatever follows it.
    let more = [data, &[0xff; 16]].concat();
    assert!(!crate::mdns::asks_for_peers(data) || crate::mdns::asks_for_peers(&more));
}

/// Names, as text and as routing keys.
pub fn ipns_name(data: &[u8]) {
    if let Some(name) = Name::from_routing_key(data) {
        assert_eq!(name.routing_key(), data);
    }
    let Ok(name) = String::from_utf8_lossy(data).parse::<Name>() else { return };
    assert_eq!(name.to_string().parse(), Ok(name));
    assert_eq!(Name::from_routing_key(&name.routing_key()), Some(name));
    assert!(name.topic().starts_with("/record/"));
}

/// Key files.
pub fn key_file(data: &[u8]) {
    let Ok(key) = Keypair::from_file(data) else { return };
    let again = Keypair::from_protobuf(&key.to_protobuf()).unwrap();
    assert_eq!(Keypair::from_file(key.to_pem().as_bytes()).unwrap().name(), key.name());
    assert_eq!((again.name(), again.sign(b"x")), (key.name(), key.sign(b"x")));
}

/// Swarm keys.
pub fn swarm_key(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<SwarmKey>() {
        let secret = text.lines().nth(2).unwrap_or_default();
        assert!(!format!("{key:?}").contains(secret), "a secret is never shown");
    }
}

/// What peers want of this node, in any order of events.
pub fn bitswap_ledger(data: &[u8]) {
    bitswap::fuzz_ledger(data);
}

/// Bitswap messages, and the blocks in them.
pub fn bitswap_message(data: &[u8]) {
    bitswap::fuzz_message(data);
}

/// Messages of the follow protocol.
pub fn follow_message(data: &[u8]) {
    exchange(follow::Codec::default(), &follow::PROTOCOL, data);
}

/// Messages of the fetch protocol.
pub fn fetch_message(data: &[u8]) {
    exchange(fetch::Codec, &fetch::PROTOCOL, data);
}

/// Reads bytes as a request and as a response; what was read comes back when it is written.
fn exchange<C>(mut codec: C, protocol: &StreamProtocol, data: &[u8])
where
    C: Codec<Protocol = StreamProtocol>,
    C::Request: Clone + PartialEq + std::fmt::Debug,
    C::Response: Clone + PartialEq + std::fmt::Debug,
{
    block_on(async {
        if let Ok(request) = codec.read_request(protocol, &mut Cursor::new(data)).await {
            let mut stream = Cursor::new(Vec::new());
            codec.write_request(protocol, &mut stream, request.clone()).await?;
            stream.set_position(0);
            assert_eq!(codec.read_request(protocol, &mut stream).await?, request);
        }
        if let Ok(response) = codec.read_response(protocol, &mut Cursor::new(data)).await {
            let mut stream = Cursor::new(Vec::new());
            codec.write_response(protocol, &mut stream, response.clone()).await?;
            stream.set_position(0);
            assert_eq!(codec.read_response(protocol, &mut stream).await?, response);
        }
        io::Result::Ok(())
    })
    .unwrap();
}

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &[seeds::Target] = &[
        ("bitswap_ledger", bitswap_ledger),
        ("bitswap_message", bitswap_message),
        ("fetch_message", fetch_message),
        ("follow_message", follow_message),
        ("ipns_name", ipns_name),
        ("ipns_record", ipns_record),
        ("key_file", key_file),
        ("mdns_question", mdns_question),
        ("swarm_key", swarm_key),
    ];

    #[test]
    fn what_must_hold_for_all_bytes_holds_for_the_seeds() {
        seeds::run(env!("CARGO_MANIFEST_DIR"), TARGETS);
    }
}
