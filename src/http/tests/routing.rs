//! Delegated routing as kubo asks for it.

use std::sync::atomic::Ordering;

use sampan_node::ipns::{Draft, Record};
use sampan_node::{Keypair, MemoryRecords, PeerId};
use sampan_storage::block::{RAW, cid_of};

use super::gateway::{fixture, serving};
use super::*;
use crate::content::tests::Scripted;

const RECORD: &str = "application/vnd.ipfs.ipns-record";
/// What kubo asks for.
const NDJSON: &str = "application/x-ndjson,application/json";

fn network() -> Scripted {
    let me = PeerId::random();
    let at = |text: String| text.parse().unwrap();
    Scripted {
        me,
        addresses: vec![
            at(format!("/ip4/192.0.2.9/tcp/4001/p2p/{me}")),
            at(format!("/ip4/192.0.2.9/udp/4001/quic-v1/p2p/{me}")),
        ],
        ..Scripted::default()
    }
}

fn record(key: &Keypair, sequence: u64) -> bytes::Bytes {
    let draft = Draft::new("bafkqaaa".parse().unwrap(), sequence, std::time::SystemTime::now());
    Record::sign(key, &draft).unwrap().bytes().clone()
}

async fn put(server: &Server, name: &str, record: impl Into<reqwest::Body>) -> u16 {
    let request = server.request("PUT", &format!("/routing/v1/ipns/{name}")).header("content-type", RECORD);
    request.body(record).send().await.unwrap().status().as_u16()
}

#[actix_web::test]
async fn what_is_here_is_provided_by_bitswap_and_http() {
    let network = Arc::new(network());
    let server = serving(&network, MemoryRecords::default(), false, local());
    let digest = server.push_blob("a", b"some layer").await;
    let path = format!("/routing/v1/providers/{}", cid_of(RAW, b"some layer"));
    let expected = json!({
        "Schema": "peer",
        "ID": network.me.to_string(),
        "Addrs": [
            "/ip4/192.0.2.9/tcp/5000/http",
            "/ip4/192.0.2.9/tcp/4001",
            "/ip4/192.0.2.9/udp/4001/quic-v1",
        ],
        "Protocols": ["transport-bitswap", "transport-ipfs-gateway-http"],
    });
    let answer = server.get(&path).await;
    assert_eq!(header(&answer, "content-type"), "application/json");
    assert_eq!(header(&answer, "vary"), "Accept");
    assert_eq!(header(&answer, "access-control-allow-origin"), "*");
    assert!(header(&answer, "cache-control").starts_with("public, max-age=300,"));
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body, json!({ "Providers": [expected] }));
    let lines = server.request("GET", &path).header("accept", NDJSON).send().await.unwrap();
    assert_eq!(header(&lines, "content-type"), "application/x-ndjson");
    assert_eq!(serde_json::from_str::<Value>(&lines.text().await.unwrap()).unwrap(), expected);
    let absent = server.get(&format!("/routing/v1/providers/{}", cid_of(RAW, b"other"))).await;
    assert_eq!(absent.status(), StatusCode::OK);
    assert!(header(&absent, "cache-control").starts_with("public, max-age=15,"));
    assert_eq!(absent.text().await.unwrap(), "{\"Providers\":[]}");
    assert_eq!(digest, sha256(b"some layer"));
    assert_eq!(server.get("/routing/v1/providers/x").await.status(), 422);
    assert_eq!(server.get("/routing/v1/other").await.status(), 400);
    assert_eq!(server.send("POST", &path).await.status(), 405);
    let asked = server.send("OPTIONS", &path).await;
    assert_eq!(
        (asked.status().as_u16(), header(&asked, "access-control-allow-methods")),
        (204, "GET, OPTIONS")
    );
}

#[actix_web::test]
async fn the_dht_is_asked_where_that_is_allowed() {
    let (near, far) = (PeerId::random(), PeerId::random());
    let base = network();
    let network = Arc::new(Scripted {
        providers: vec![near, base.me, far],
        peers: vec![(near, vec!["/ip4/192.0.2.3/tcp/4001".parse().unwrap()])],
        ..base
    });
    let path = format!("/routing/v1/providers/{}", cid_of(RAW, b"other"));
    for (fetch, count) in [(false, 0), (true, 2)] {
        let server = serving(&network, MemoryRecords::default(), fetch, local());
        let body: Value =
            server.get(&path).await.bytes().await.map(|body| serde_json::from_slice(&body)).unwrap().unwrap();
        assert_eq!(body["Providers"].as_array().unwrap().len(), count);
        let lines = server.request("GET", &path).header("accept", NDJSON).send().await.unwrap();
        assert_eq!(lines.text().await.unwrap().lines().count(), count);
        if fetch {
            assert_eq!(body["Providers"][0]["Addrs"], json!(["/ip4/192.0.2.3/tcp/4001"]));
            assert_eq!(
                body["Providers"][1],
                json!({ "Schema": "peer", "ID": far.to_string(), "Addrs": [], "Protocols": [] })
            );
            let only = server.get(&format!("{path}?filter-protocols=transport-bitswap")).await;
            assert_eq!(only.text().await.unwrap(), "{\"Providers\":[]}");
            let unknown = format!("{path}?filter-protocols=unknown,transport-bitswap&filter-addrs=unknown");
            let unknown = server.get(&unknown).await;
            assert_eq!(unknown.text().await.unwrap().matches("Schema").count(), 1);
        }
    }
}

#[actix_web::test]
async fn addresses_and_protocols_are_filtered() {
    let network = Arc::new(network());
    let server = serving(&network, MemoryRecords::default(), false, local());
    let path = format!("/routing/v1/peers/{}", network.me);
    let addresses = async |filter: &str| {
        let body = server.get(&format!("{path}?{filter}")).await.bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["Peers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|peer| peer["Addrs"].as_array().unwrap().len())
            .collect::<Vec<_>>()
    };
    for (filter, expected) in [
        ("", &[3][..]),
        ("filter-addrs=http", &[1]),
        ("filter-addrs=HTTP,quic-v1", &[2]),
        ("filter-addrs=!quic-v1", &[2]),
        ("filter-addrs=tcp,!http", &[1]),
        ("filter-addrs=webrtc", &[]),
        ("filter-protocols=transport-ipfs-gateway-http", &[3]),
        ("filter-protocols=Transport-Bitswap,unknown", &[3]),
        ("filter-protocols=transport-graphsync", &[]),
    ] {
        assert_eq!(addresses(filter).await, expected, "{filter}");
    }
}

#[actix_web::test]
async fn peers_are_found_in_each_spelling() {
    let other = PeerId::random();
    let network = Arc::new(Scripted {
        peers: vec![(other, vec!["/ip4/192.0.2.3/tcp/4001".parse().unwrap()])],
        ..network()
    });
    let server = serving(&network, MemoryRecords::default(), false, local());
    let name = sampan_node::Name::from(other).to_string();
    for key in [other.to_string(), name] {
        let body = server.get(&format!("/routing/v1/peers/{key}")).await.text().await.unwrap();
        assert!(body.contains(&other.to_string()) && body.contains("/ip4/192.0.2.3/tcp/4001"), "{body}");
    }
    let nobody = server.get(&format!("/routing/v1/peers/{}", PeerId::random())).await;
    assert_eq!((nobody.status().as_u16(), nobody.text().await.unwrap().as_str()), (200, "{\"Peers\":[]}"));
    assert_eq!(server.get("/routing/v1/peers/bafkqaaa").await.status(), 422);
}

#[actix_web::test]
async fn a_record_is_given_as_it_travels() {
    let key = Keypair::generate();
    let (records, bytes) = (MemoryRecords::default(), record(&key, 3));
    records.put(key.name(), bytes.clone(), bytes::Bytes::new());
    let server = serving(&Arc::new(network()), records, false, local());
    let path = format!("/routing/v1/ipns/{}", key.name());
    let answer = server.request("GET", &path).header("accept", RECORD).send().await.unwrap();
    assert_eq!(header(&answer, "content-type"), RECORD);
    assert!(header(&answer, "cache-control").starts_with("public, max-age=60, stale-while-revalidate="));
    assert!(header(&answer, "expires").ends_with("GMT"));
    let etag = header(&answer, "etag").to_owned();
    assert_eq!(answer.bytes().await.unwrap(), bytes);
    let again = server.request("GET", &path).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    assert_eq!(
        server.request("GET", &path).header("accept", "text/html").send().await.unwrap().status(),
        406
    );
    let unknown = server.get(&format!("/routing/v1/ipns/{}", Keypair::generate().name())).await;
    assert_eq!(
        (unknown.status().as_u16(), header(&unknown, "content-type")),
        (200, "text/plain; charset=utf-8")
    );
}

#[actix_web::test]
async fn a_record_that_is_put_is_judged_and_then_given() {
    let key = Keypair::generate();
    let name = key.name().to_string();
    let network = Arc::new(network());
    let server = serving(&network, MemoryRecords::default(), false, local());
    let path = format!("/routing/v1/ipns/{name}");
    let (old, new) = (record(&key, 1), record(&key, 2));
    assert_eq!(put(&server, &name, old.clone()).await, 200);
    assert_eq!(put(&server, &name, new.clone()).await, 200);
    assert_eq!(put(&server, &name, old).await, 400, "it is older");
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), new);
    assert_eq!(put(&server, &Keypair::generate().name().to_string(), new.clone()).await, 400, "another's");
    assert_eq!(put(&server, &name, vec![0; 11_000]).await, 413);
    assert_eq!(put(&server, "x", new.clone()).await, 400);
    let plain = server.request("PUT", &path).header("content-type", "text/plain").body(new);
    assert_eq!(plain.send().await.unwrap().status(), 406);
    let untyped = server.request("PUT", &path).body("");
    assert_eq!(untyped.send().await.unwrap().status(), 406);
    for broken in [
        "k51qzi5uqu5diamp7qnnvs1p1gzmku3eijkeijs3418j23j077zrkok63xdm8c_v1-v2-broken-signature-v2",
        "k51qzi5uqu5dlmit2tuwdvnx4sbnyqgmvbxftl0eo3f33wwtb9gr7yozae9kpw_v1-v2-broken-v1-value",
    ] {
        let name = broken.split('_').next().unwrap();
        assert_eq!(put(&server, name, fixture(&format!("{broken}.ipns-record"))).await, 400, "{broken}");
    }
    for sound in [
        "k51qzi5uqu5dlkw8pxuw9qmqayfdeh4kfebhmreauqdc6a7c3y7d5i9fi8mk9w_v1-v2",
        "k51qzi5uqu5dit2ku9mutlfgwyz8u730on38kd10m97m36bjt66my99hb6103f_v2",
    ] {
        let (name, bytes) = (sound.split('_').next().unwrap(), fixture(&format!("{sound}.ipns-record")));
        assert_eq!(put(&server, name, bytes.clone()).await, 200, "{sound}");
        let answer = server.get(&format!("/ipns/{name}?format=ipns-record")).await;
        assert_eq!(header(&answer, "cache-control"), "public, max-age=1800");
        assert_eq!(answer.bytes().await.unwrap(), bytes);
    }
}

#[actix_web::test]
async fn a_record_of_a_followed_name_goes_to_the_node() {
    let key = Keypair::generate();
    let network = Arc::new(Scripted { follows: Some(key.name()), ..network() });
    let server = serving(&network, MemoryRecords::default(), false, local());
    assert_eq!(put(&server, &key.name().to_string(), record(&key, 1)).await, 200);
    assert_eq!(network.offered.load(Ordering::SeqCst), 1);
}
