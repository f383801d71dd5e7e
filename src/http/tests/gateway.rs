//! The rules of the trustless gateway specification, over the fixtures of its conformance suite.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use sampan_node::Keypair;
use sampan_node::MemoryRecords;
use sampan_node::ipns::{Draft, Record};
use sampan_storage::block::RAW;
use sampan_storage::{Block, Cid, MemoryBlocks, car};

use super::*;
use crate::content::tests::{Scripted, domains};
use crate::content::{Content, Names};
use crate::http::{Door, Gateway, Routing};

const MULTIBLOCK: &str = "bafybeigcisqd7m5nf3qmuvjdbakl5bdnh4ocrmacaqkpuh77qjvggmt2sa";
const CHUNKS: [&str; 5] = [
    "bafkreie5noke3mb7hqxukzcy73nl23k6lxszxi5w3dtmuwz62wnvkpsscm",
    "bafkreih4ephajybraj6wnxsbwjwa77fukurtpl7oj7t7pfq545duhot7cq",
    "bafkreigu7buvm3cfunb35766dn7tmqyh2um62zcio63en2btvxuybgcpue",
    "bafkreicll3huefkc3qnrzeony7zcfo7cr3nbx64hnxrqzsixpceg332fhe",
    "bafkreifst3pqztuvj57lycamoi7z34b4emf7gawxs74nwrc2c7jncmpaqm",
];
const ASCII: &str = "bafkreifkam6ns4aoolg3wedr4uzrs3kvq66p4pecirz6y2vlrngla62mxm";
const HELLO: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
const TWO_FILES: &str = "bafybeietjm63oynimmv5yyqay33nui4y4wx6u3peezwetxgiwvfmelutzu";
const TWO_FILES_SUBDIR: &str = "bafybeiggghzz6dlue3m6nb2dttnbrygxh3lrjl5764f2m4gq7dgzdt55o4";
const MIXED: &str = "bafybeidh6k2vzukelqtrjsmd4p52cpmltd2ufqrdtdg6yigi73in672fwu";
const MIXED_SUBDIR: &str = "bafybeicnmple4ehlz3ostv2sbojz3zhh5q7tz5r2qkfdpqfilgggeen7xm";
const DUPLICATES: &str = "bafybeihchr7vmgjaasntayyatmp5sv6xza57iy2h4xj7g46bpjij6yhrmy";
const HAMT: &str = "bafybeidbclfqleg2uojchspzd4bob56dqetqjsj27gy2cq3klkkgxtpn4i";
const CBOR_DIR: &str = "bafybeia264q44a3kmfc2otctzu4egp2k235o3t7mslz2yjraymp4nv6asi";
const CBOR: &str = "bafyreidy4q6mmetut5jzc54ambsfnatbyoujmwbfzyyolqw24majazwgha";
const MISSING: &str = "QmYhmPjhFjYFyaoiuNzYv8WGavpSRDwdHWe5B4M5du5Rtk";
const RAW_DIR: &str = "bafybeifaqksygmsbnqe76kwvxoqxtkzcwssq5jkhuo65ldtqiunr3bxlra";
const RAW_FILE: &str = "bafkreihhpc5y2pqvl5rbe5uuyhqjouybfs3rvlmisccgzue2kkt5zq6upq";

pub(super) fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/gateway/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn load(store: &Store, name: &str) {
    let file = fixture(&format!("{name}.car"));
    let sections: Vec<_> = car::Reader::new(file.as_slice()).unwrap().map(Result::unwrap).collect();
    let block = |section: car::Section| Block::verified(section.cid, section.data).unwrap();
    store.put_blocks(&sections.into_iter().map(block).collect::<Vec<_>>()).unwrap();
}

pub(super) fn serving(
    network: &Arc<Scripted>,
    records: MemoryRecords,
    fetch: bool,
    access: Access,
) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_for(&dir.path().join("data"), access.auth.public_rule()).unwrap();
    let fetch = fetch && !store.is_divided();
    let mut state = state(&store, Arc::new(Nowhere), Policy::default(), access);
    let network: Arc<dyn crate::content::Network> = Arc::clone(network) as _;
    let door = Door { host: Some("/ip4/192.0.2.9".to_owned()), port: Some(5000), tls: false };
    state.gateway = Some(Gateway {
        content: Content::for_strangers(store.clone(), fetch.then(|| Arc::clone(&network))),
        names: Names::new(Arc::new(records), Arc::clone(&network), domains(), fetch),
        routing: Routing::new(network, fetch, door),
    });
    Server::serving(dir, store, state, Options::default(), Patience::default())
}

fn start(fixtures: &[&str]) -> Server {
    let server = serving(&Arc::default(), MemoryRecords::default(), false, local());
    for name in fixtures {
        load(&server.store, name);
    }
    server
}

fn with_passwords() -> Access {
    Access { auth: crate::auth::tests::passwords(), loopback: true }
}

/// The CIDs of a CAR that came whole.
async fn cids(answer: Response) -> Vec<String> {
    assert_eq!(answer.status(), StatusCode::OK);
    let bytes = answer.bytes().await.unwrap();
    let reader = car::Reader::new(bytes.as_ref()).unwrap();
    reader
        .map(|section| {
            let section = section.unwrap();
            Block::verified(section.cid, section.data).unwrap().cid().to_string()
        })
        .collect()
}

async fn car_of(server: &Server, path: &str) -> Vec<String> {
    let answer = server.get(path).await;
    assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    assert_eq!(header(&answer, "accept-ranges"), "none");
    assert!(header(&answer, "content-type").starts_with("application/vnd.ipld.car; version=1"));
    let disposition = header(&answer, "content-disposition");
    assert!(disposition.starts_with("attachment; filename=\"") && disposition.ends_with(".car\""));
    assert!(!header(&answer, "etag").is_empty());
    let by_url = cids(answer).await;
    // The same by `Accept`.
    let path = path.replace("format=car&", "").replace("?format=car", "");
    let accept = server.request("GET", &path).header("accept", "application/vnd.ipld.car");
    assert_eq!(cids(accept.send().await.unwrap()).await, by_url);
    by_url
}

#[actix_web::test]
async fn a_raw_block_comes_with_its_headers() {
    let server = start(&["gateway-raw-block"]);
    let path = format!("/ipfs/{RAW_FILE}");
    let by_url = server.get(&format!("{path}?format=raw")).await;
    let accept = server.request("GET", &path).header("accept", "application/vnd.ipld.raw");
    let by_accept = accept.send().await.unwrap();
    assert_eq!(header(&by_accept, "content-location"), format!("{path}?format=raw"));
    assert_eq!(header(&by_url, "content-location"), "");
    for answer in [by_url, by_accept] {
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(header(&answer, "content-type"), "application/vnd.ipld.raw");
        assert_eq!(header(&answer, "content-length"), "31");
        let name = format!("attachment; filename=\"{RAW_FILE}.bin\"");
        assert_eq!(header(&answer, "content-disposition"), name);
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(header(&answer, "etag"), format!("\"{RAW_FILE}.raw\""));
        assert_eq!(header(&answer, "x-ipfs-path"), path);
        assert_eq!(header(&answer, "x-ipfs-roots"), RAW_FILE);
        assert_eq!(header(&answer, "cache-control"), "public, max-age=29030400, immutable");
        assert_eq!(header(&answer, "vary"), "Accept");
        let body = answer.bytes().await.unwrap();
        assert!(Block::verified(RAW_FILE.parse().unwrap(), body).is_ok());
    }
    let directory = server.get(&format!("/ipfs/{RAW_DIR}?format=raw")).await.bytes().await.unwrap();
    assert!(Block::verified(RAW_DIR.parse().unwrap(), directory).is_ok());
}

#[actix_web::test]
async fn part_of_a_block_comes_on_demand() {
    let server = start(&["gateway-raw-block"]);
    let path = format!("/ipfs/{RAW_FILE}?format=raw");
    let whole = server.get(&path).await.bytes().await.unwrap();
    let answer = server.request("GET", &path).header("range", "bytes=6-16").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&answer, "content-range"), "bytes 6-16/31");
    assert_eq!(answer.bytes().await.unwrap(), whole.slice(6..17));
    let beyond = server.request("GET", &path).header("range", "bytes=31-").send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[actix_web::test]
async fn head_and_what_is_known_already_send_no_body() {
    let server = start(&["subdir-with-two-single-block-files"]);
    for (format, length) in [("raw", "31"), ("car", "")] {
        let path = format!("/ipfs/{ASCII}?format={format}");
        let head = server.send("HEAD", &path).await;
        assert_eq!((head.status(), header(&head, "content-length")), (StatusCode::OK, length), "{format}");
        let etag = header(&head, "etag").to_owned();
        let again = server.request("GET", &path).header("if-none-match", &etag).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(header(&again, "etag"), etag);
        assert_eq!(header(&again, "cache-control"), "public, max-age=29030400, immutable");
    }
    assert_eq!(server.send("HEAD", &format!("/ipfs/{HELLO}x?format=raw")).await.status(), 400);
}

#[actix_web::test]
async fn the_probe_is_answered_without_any_content() {
    let server = start(&[]);
    for method in ["HEAD", "GET"] {
        let answer = server.send(method, "/ipfs/bafkqaaa?format=raw").await;
        assert_eq!((answer.status(), header(&answer, "content-length")), (StatusCode::OK, "0"), "{method}");
    }
    let car = server.get("/ipfs/bafkqaaa?format=car").await.bytes().await.unwrap();
    let reader = car::Reader::new(car.as_ref()).unwrap();
    assert_eq!(reader.roots(), ["bafkqaaa".parse::<Cid>().unwrap()]);
    assert_eq!(reader.count(), 0);
    let identity = "/ipfs/bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa?format=car&car-dups=y";
    let answer = server.get(identity).await;
    assert!(header(&answer, "content-type").contains("dups=y"));
    assert_eq!(cids(answer).await, [""; 0]);
}

#[actix_web::test]
async fn paths_are_proved_and_followed() {
    let names = [
        "subdir-with-two-single-block-files",
        "single-layer-hamt-with-multi-block-files",
        "dir-with-dag-cbor-with-links",
    ];
    let server = start(&names);
    let car = async |path: String| car_of(&server, &path).await;
    assert_eq!(
        car(format!("/ipfs/{TWO_FILES}/subdir/ascii.txt?format=car")).await,
        [TWO_FILES, TWO_FILES_SUBDIR, ASCII]
    );
    let sharded = car(format!("/ipfs/{HAMT}/685.txt?format=car")).await;
    assert_eq!(sharded.first().unwrap(), HAMT);
    let end: Vec<&str> = std::iter::once(MULTIBLOCK).chain(CHUNKS).collect();
    assert_eq!(sharded[sharded.len() - 6..], end);
    assert!(sharded.len() == 8, "one shard lies between: {sharded:?}");
    assert_eq!(car(format!("/ipfs/{CBOR}/files/single?format=car")).await, [CBOR, HELLO]);
    let answer = server.get(&format!("/ipfs/{TWO_FILES}/subdir/ascii.txt?format=car")).await;
    assert_eq!(header(&answer, "x-ipfs-roots"), format!("{TWO_FILES},{TWO_FILES_SUBDIR},{ASCII}"));
    for path in ["subdir/i-do-not-exist", "subdir/ascii.txt/x", "subdir%2fascii.txt"] {
        assert_eq!(server.get(&format!("/ipfs/{TWO_FILES}/{path}?format=car")).await.status(), 404, "{path}");
    }
}

#[actix_web::test]
async fn the_scope_says_how_much_comes() {
    let names = [
        "subdir-with-two-single-block-files",
        "single-layer-hamt-with-multi-block-files",
        "subdir-with-mixed-block-files",
        "dir-with-dag-cbor-with-links",
    ];
    let server = start(&names);
    let car = async |path: String| car_of(&server, &path).await;
    let file: Vec<&str> = std::iter::once(MULTIBLOCK).chain(CHUNKS).collect();
    let block = "format=car&dag-scope=block";
    assert_eq!(car(format!("/ipfs/{TWO_FILES}/subdir?{block}")).await, [TWO_FILES, TWO_FILES_SUBDIR]);
    assert_eq!(
        car(format!("/ipfs/{TWO_FILES}/subdir/ascii.txt?{block}")).await,
        [TWO_FILES, TWO_FILES_SUBDIR, ASCII]
    );
    let sharded = car(format!("/ipfs/{HAMT}/1.txt?{block}")).await;
    assert_eq!((sharded.len(), sharded[2].as_str()), (3, MULTIBLOCK));
    let entity = "format=car&dag-scope=entity";
    assert_eq!(car(format!("/ipfs/{TWO_FILES}?{entity}")).await, [TWO_FILES]);
    // The 1,000 names of this directory lie in shards; their files are not among them.
    let shards = car(format!("/ipfs/{HAMT}?{entity}")).await;
    assert_eq!(shards.len(), 243 - 6);
    assert!(!shards.iter().any(|cid| file.contains(&cid.as_str())));
    let proof = [MIXED, MIXED_SUBDIR];
    let path = format!("/ipfs/{MIXED}/subdir/multiblock.txt");
    assert_eq!(car(format!("{path}?{entity}")).await, [&proof[..], &file].concat());
    assert_eq!(car(format!("{path}?format=car&dag-scope=all")).await, [&proof[..], &file].concat());
    let all = [&proof[..], &[ASCII, HELLO], &file].concat();
    assert_eq!(car(format!("/ipfs/{MIXED}/subdir?format=car")).await, all);
    assert_eq!(car(format!("/ipfs/{CBOR_DIR}/document?{entity}")).await, [CBOR_DIR, CBOR]);
}

#[actix_web::test]
async fn bytes_of_a_file_bring_only_their_blocks() {
    let server = start(&["subdir-with-mixed-block-files", "file-3k-and-3-blocks-missing-block"]);
    for (range, chunks) in [
        ("0:*", &CHUNKS[..]),
        ("512:*", &CHUNKS[2..]),
        ("512:1023", &CHUNKS[2..4]),
        ("512:-256", &CHUNKS[2..4]),
        ("-5:*", &CHUNKS[3..]),
        ("-9999:*", &CHUNKS[..]),
        ("-9999:-3", &CHUNKS[..4]),
        ("0:0", &CHUNKS[..1]),
    ] {
        let path = format!("/ipfs/{MULTIBLOCK}?format=car&entity-bytes={range}");
        assert_eq!(car_of(&server, &path).await, [&[MULTIBLOCK], chunks].concat(), "{range}");
    }
    // The block in the middle is not here.
    let part = |range: &str| format!("/ipfs/{MISSING}?format=car&dag-scope=entity&entity-bytes={range}");
    let (first, last) =
        ("QmPKt7ptM2ZYSGPUc8PmPT2VBkLDK3iqpG9TBJY7PCE9rF", "QmWXY482zQdwecnfBsj78poUUuPXvyw2JAFAEMw4tzTavV");
    assert_eq!(car_of(&server, &part("0:1000")).await, [MISSING, first]);
    assert_eq!(car_of(&server, &part("2200:*")).await, [MISSING, last]);
    let cut = match server.request("GET", &part("0:*")).send().await {
        Ok(answer) => answer.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(cut, "it is cut, and not ended");
    assert_eq!(server.get(&part("3072:*")).await.status(), 400, "it is behind the file");
    // A directory has no bytes.
    let path = format!("/ipfs/{MIXED}?format=car&entity-bytes=5:7");
    assert_eq!(car_of(&server, &path).await, [MIXED]);
}

#[actix_web::test]
async fn order_and_repeats_are_negotiated() {
    let server = start(&["dir-with-duplicate-files"]);
    let path = format!("/ipfs/{DUPLICATES}");
    let once: Vec<&str> = [DUPLICATES, ASCII, HELLO, MULTIBLOCK].into_iter().chain(CHUNKS).collect();
    let twice: Vec<&str> = [DUPLICATES, ASCII].into_iter().chain(once[1..].iter().copied()).collect();
    for (query, accept, said, expected) in [
        ("", "application/vnd.ipld.car; version=1; order=dfs; dups=y", "order=dfs; dups=y", &twice),
        ("", "application/vnd.ipld.car; version=1; order=dfs; dups=n", "order=dfs; dups=n", &once),
        ("", "application/vnd.ipld.car; version=1; order=unk", "order=dfs; dups=n", &once),
        ("?format=car", "application/vnd.ipld.car; order=dfs; dups=y", "order=dfs; dups=y", &twice),
        ("?format=car&car-order=dfs", "application/vnd.ipld.car; order=unk", "order=dfs; dups=n", &once),
        ("?format=car&car-dups=y", "application/vnd.ipld.car; dups=n", "order=dfs; dups=y", &twice),
        ("", "application/vnd.ipld.car;order=foo, application/vnd.ipld.car;dups=y;q=0.5", "dups=y", &twice),
    ] {
        let answer = server.request("GET", &format!("{path}{query}")).header("accept", accept);
        let answer = answer.send().await.unwrap();
        assert!(header(&answer, "content-type").contains(said), "{query} {accept}");
        assert_eq!(cids(answer).await, *expected, "{query} {accept}");
    }
    let etags = ["", "&car-dups=y", "&dag-scope=block", "&dag-scope=entity", "&entity-bytes=0:1"];
    let mut seen = std::collections::HashSet::new();
    for options in etags {
        let answer = server.get(&format!("{path}?format=car{options}")).await;
        assert!(seen.insert(header(&answer, "etag").to_owned()), "{options}");
    }
}

#[actix_web::test]
async fn the_url_stands_above_accept() {
    let server = start(&["gateway-raw-block"]);
    for (format, accept, kind) in [
        ("car", "application/vnd.ipld.raw", "application/vnd.ipld.car; version=1; order=dfs; dups=n"),
        ("raw", "application/vnd.ipld.car", "application/vnd.ipld.raw"),
    ] {
        let request = server.request("GET", &format!("/ipfs/{RAW_DIR}?format={format}"));
        let answer = request.header("accept", accept).send().await.unwrap();
        assert_eq!(header(&answer, "content-type"), kind);
        assert_eq!(header(&answer, "content-location"), format!("/ipfs/{RAW_DIR}?format={format}"));
    }
}

#[actix_web::test]
async fn what_cannot_be_understood_is_refused_by_its_reason() {
    let server = start(&["gateway-raw-block"]);
    let status = async |path: &str, accept: &str| {
        let mut request = server.request("GET", path);
        if !accept.is_empty() {
            request = request.header("accept", accept);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let path = format!("/ipfs/{RAW_FILE}");
    for (query, accept, expected) in [
        ("", "", 400),
        ("", "text/html", 406),
        ("", "application/vnd.ipld.raw;q=0", 406),
        ("", "application/vnd.ipld.car; version=2", 406),
        ("", "application/vnd.ipld.car; order=foo", 406),
        ("?format=tar", "", 406),
        ("?format=x", "", 400),
        ("?format=car&car-version=2", "", 400),
        ("?format=car&car-order=bfs", "", 400),
        ("?format=car&car-dups=x", "", 400),
        ("?format=car&dag-scope=x", "", 400),
        ("?format=car&entity-bytes=x", "", 400),
        ("?format=ipns-record", "", 400),
    ] {
        assert_eq!(status(&format!("{path}{query}"), accept).await, expected, "{query} {accept}");
    }
    let deep = format!("{path}/{}?format=car", "a/".repeat(65));
    for bad in
        ["/ipfs/?format=raw", "/ipfs/x?format=raw", "/ipns/x?format=raw", "/ipfs/%ff?format=raw", &deep]
    {
        assert_eq!(status(bad, "").await, 400, "{bad}");
    }
    let absent = Block::new(RAW, Bytes::from_static(b"not here"));
    for format in ["raw", "car"] {
        let path = format!("/ipfs/{}?format={format}", absent.cid());
        assert_eq!(status(&path, "").await, 404);
        let cached = server.request("GET", &path).header("cache-control", "only-if-cached");
        assert_eq!(cached.send().await.unwrap().status(), 412);
    }
    let post = server.send("POST", &format!("{path}?format=raw")).await;
    assert_eq!((post.status().as_u16(), header(&post, "allow")), (405, "GET, HEAD"));
}

#[actix_web::test]
async fn a_file_may_be_saved_under_another_name() {
    let server = start(&["gateway-raw-block"]);
    let path = format!("/ipfs/{RAW_FILE}?format=raw&filename=");
    let name = async |name: &str| {
        let answer = server.get(&format!("{path}{name}")).await;
        header(&answer, "content-disposition").to_owned()
    };
    assert_eq!(name("foobar.bin").await, "attachment; filename=\"foobar.bin\"");
    assert_eq!(
        name("test%D1%82%D0%B5%D1%81%D1%82.bin").await,
        "attachment; filename=\"test____.bin\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.bin"
    );
    assert_eq!(name("a%22%0D%0Ab").await, "attachment; filename=\"a___b\"; filename*=UTF-8''a%22%0D%0Ab");
}

#[actix_web::test]
async fn what_anonymous_may_not_pull_is_answered_as_what_is_not_here() {
    let network: Arc<Scripted> = Arc::default();
    let server = serving(&network, MemoryRecords::default(), true, with_passwords());
    load(&server.store, "gateway-raw-block");
    let absent = Block::new(RAW, Bytes::from_static(b"not here"));
    for cid in [RAW_FILE, &absent.cid().to_string()] {
        for format in ["raw", "car"] {
            let answer = server.get(&format!("/ipfs/{cid}?format={format}")).await;
            assert_eq!(problem(answer).await.0, 404, "{cid}");
        }
        let found = server.get(&format!("/routing/v1/providers/{cid}")).await;
        assert_eq!(found.text().await.unwrap(), "{\"Providers\":[]}");
    }
    assert_eq!(network.asked.load(Ordering::SeqCst), 0);
}

#[actix_web::test]
async fn only_where_it_is_allowed_are_peers_asked() {
    let block = Block::new(RAW, Bytes::from_static(b"elsewhere"));
    let path = format!("/ipfs/{}?format=raw", block.cid());
    for (fetch, has, status) in [(false, true, 404), (true, true, 200), (true, false, 504)] {
        let network = Scripted { blocks: MemoryBlocks::default(), ..Scripted::default() };
        if has {
            network.blocks.put(&block);
        }
        let network = Arc::new(network);
        let server = serving(&network, MemoryRecords::default(), fetch, local());
        assert_eq!(server.get(&path).await.status().as_u16(), status);
        assert_eq!(network.asked.load(Ordering::SeqCst), usize::from(fetch));
        let cached = server.request("GET", &path).header("cache-control", "only-if-cached");
        assert_eq!(cached.send().await.unwrap().status(), 412);
        assert_eq!(network.asked.load(Ordering::SeqCst), usize::from(fetch));
    }
}

#[actix_web::test]
async fn domains_lead_to_content_where_the_dns_may_be_asked() {
    for (fetch, status) in [(true, 200), (false, 404)] {
        let server = serving(&Arc::default(), MemoryRecords::default(), fetch, local());
        for domain in ["docs.example", "Docs.Example."] {
            let answer = server.get(&format!("/ipns/{domain}?format=raw")).await;
            assert_eq!(answer.status(), status, "{domain}");
            if fetch {
                // What is left of the link's two minutes.
                let age =
                    header(&answer, "cache-control").strip_prefix("public, max-age=").unwrap().to_owned();
                assert!((1..=120).contains(&age.parse::<u32>().unwrap()), "{age}");
            }
        }
        assert_eq!(server.get("/ipns/none.example?format=raw").await.status(), 404);
        assert_eq!(server.get("/ipns/docs.example?format=ipns-record").await.status(), 400);
    }
}

#[actix_web::test]
async fn names_lead_to_content_and_to_their_records() {
    let key = Keypair::generate();
    let draft = Draft::new(TWO_FILES.parse().unwrap(), 7, std::time::SystemTime::now());
    let record = Record::sign(&key, &draft).unwrap();
    let records = MemoryRecords::default();
    records.put(key.name(), record.bytes().clone(), Bytes::new());
    let server = serving(&Arc::default(), records, false, local());
    load(&server.store, "subdir-with-two-single-block-files");
    let name = key.name();
    let car = server.get(&format!("/ipns/{name}/subdir/ascii.txt?format=car")).await;
    assert_eq!(header(&car, "cache-control"), "public, max-age=60");
    assert_eq!(header(&car, "x-ipfs-path"), format!("/ipns/{name}/subdir/ascii.txt"));
    assert_eq!(header(&car, "x-ipfs-roots"), format!("{TWO_FILES},{TWO_FILES_SUBDIR},{ASCII}"));
    assert_eq!(cids(car).await, [TWO_FILES, TWO_FILES_SUBDIR, ASCII]);
    let accept =
        server.request("GET", &format!("/ipns/{name}")).header("accept", "application/vnd.ipfs.ipns-record");
    for answer in
        [server.get(&format!("/ipns/{name}?format=ipns-record")).await, accept.send().await.unwrap()]
    {
        assert_eq!(header(&answer, "content-type"), "application/vnd.ipfs.ipns-record");
        assert_eq!(header(&answer, "cache-control"), "public, max-age=60");
        assert!(header(&answer, "content-disposition").starts_with("attachment; filename="));
        assert_eq!(answer.bytes().await.unwrap(), record.bytes());
    }
    assert_eq!(server.get(&format!("/ipns/{name}/subdir?format=ipns-record")).await.status(), 400);
    let unknown = Keypair::generate().name();
    for format in ["ipns-record", "car", "raw"] {
        assert_eq!(server.get(&format!("/ipns/{unknown}?format={format}")).await.status(), 404, "{format}");
    }
}
