//! Who may fetch: what anonymous clients may pull, peers and clients of the gateway get; of the rest they get nothing,
//! and not a word.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use futures::future::join_all;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use sampan_storage::block::RAW;
use sampan_storage::{Block, car};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::harness::{DEADLINE, Home, Options, Server, USERS, eventually, noise};
use crate::oci::{Image, json_of, sha256};

const MIB: usize = 1024 * 1024;
/// alice, with the password of all [`USERS`].
const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";

/// Where everyone may pull what is in these repositories, and users do everything.
fn rules(home: &Home, public: &str) -> String {
    let users = home.data().with_file_name("users");
    fs::write(&users, USERS).unwrap();
    let users = users.display();
    format!(
        "auth:\n  htpasswd:\n    path: {users}\n  rules:\n    - {{repositories: [\"{public}\"], users: [anonymous], actions: [pull]}}\n    - {{repositories: [\"**\"], users: [authenticated], actions: [pull, push, delete]}}\n"
    )
}

fn as_alice(server: &mut Server) {
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(ALICE))]);
    server.client = reqwest::Client::builder().timeout(DEADLINE).default_headers(headers).build().unwrap();
}

/// Starts one that has a configuration of its own, and waits until it answers: then commands are answered too.
async fn start(home: Home) -> Server {
    let server = home.start().await;
    reqwest::get(format!("http://{}/v2/", server.http)).await.unwrap();
    server
}

/// Every block of my tree, as its owner gets it.
fn blocks(home: &Home, root: &str) -> BTreeSet<String> {
    let output = home.command(&["dag", "export", root]).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reader = car::Reader::new(output.stdout.as_slice()).unwrap();
    reader.map(|section| section.unwrap().cid.to_string()).collect()
}

/// The root that the registry's name has for strangers, as soon as they may have it.
async fn root_for_strangers(server: &Server) -> String {
    let url = format!("http://{}/ipns/{}?format=raw", server.http, server.name);
    let ask = async || {
        let answer = reqwest::get(&url).await.unwrap();
        (answer.status() == 200).then(|| answer.headers()["x-ipfs-roots"].to_str().unwrap().to_owned())
    };
    eventually("a root for strangers", ask).await
}

/// Asks the gateway for all of these as a stranger. Returns those that it gives.
async fn given(server: &Server, cids: &BTreeSet<String>) -> BTreeSet<String> {
    let stranger = reqwest::Client::new();
    let mut given = BTreeSet::new();
    for cid in cids {
        let answer =
            stranger.get(format!("http://{}/ipfs/{cid}?format=raw", server.http)).send().await.unwrap();
        let found = stranger.get(format!("http://{}/routing/v1/providers/{cid}", server.http));
        let found = json_of(found.send().await.unwrap()).await;
        let told = found["Providers"].as_array().is_some_and(|providers| !providers.is_empty());
        match answer.status().as_u16() {
            200 => {
                assert!(told, "{cid}");
                given.insert(cid.clone());
            }
            404 => assert!(!told, "{cid}"),
            other => panic!("{cid} is answered by {other}"),
        }
    }
    given
}

/// Strangers get the whole of the public tree, in which no such word stands, and nothing else but what they might have
/// had `before`. `all` is whatever may ever have lain here.
async fn check(
    server: &Server,
    all: &BTreeSet<String>,
    before: &BTreeSet<String>,
    hidden: &str,
) -> BTreeSet<String> {
    let root = root_for_strangers(server).await;
    let car = reqwest::get(format!("http://{}/ipfs/{root}?format=car", server.http)).await.unwrap();
    let car = car.bytes().await.unwrap();
    assert!(!car.windows(hidden.len()).any(|window| window == hidden.as_bytes()), "{hidden}");
    let theirs: BTreeSet<String> =
        car::Reader::new(car.as_ref()).unwrap().map(|section| section.unwrap().cid.to_string()).collect();
    let given = given(server, &all.union(&theirs).cloned().collect()).await;
    assert!(given.is_superset(&theirs));
    let more: Vec<_> = given.iter().filter(|cid| !theirs.contains(*cid) && !before.contains(*cid)).collect();
    assert!(more.is_empty(), "{more:?}");
    theirs
}

/// Whether a peer that knows it by its CID gets a block, which it waits for in vain otherwise.
async fn fetches(peer: &Server, cid: &str) -> bool {
    let mut command = peer.home.command(&["dag", "export", cid]);
    let output = spawn_blocking(move || command.stderr(Stdio::piped()).output().unwrap()).await.unwrap();
    output.status.success()
}

async fn follows(follower: &Server, repositories: &[&str]) {
    let what = format!("{repositories:?} and nothing else");
    eventually(&what, async || (follower.catalog().await == repositories).then_some(())).await;
}

#[tokio::test]
async fn strangers_get_what_anonymous_may_pull_and_no_word_of_the_rest() {
    let publisher = Server::start(Options::default()).await;
    let shared = noise("audience both", 2 * MIB);
    let open = Image::new(&[&noise("audience open", 2 * MIB + 7), &shared]);
    let hidden = Image::new(&[&noise("audience hidden", 2 * MIB + 9), &shared]);
    publisher.push("open/a", "v1", &open).await;
    publisher.push("hidden/b", "v1", &hidden).await;
    let root = publisher.home.prints(&["root"]).await;
    let all = blocks(&publisher.home, &root);

    // From one restart to the next not everyone may have everything any more.
    let mut home = publisher.stop().await;
    home.options.file = Some(rules(&home, "open/**"));
    let mut publisher = start(home).await;
    eventually("another root for strangers", async || {
        (root_for_strangers(&publisher).await != root).then_some(())
    })
    .await;
    let nothing = BTreeSet::new();
    let theirs = check(&publisher, &all, &nothing, "hidden").await;
    assert!(theirs.len() > 10 && all.difference(&theirs).count() > 10);

    let follower = publisher.start_follower(&publisher.p2p).await;
    follows(&follower, &["open/a"]).await;
    assert_eq!(follower.pull("open/a", "v1").await, open);
    assert_eq!(follower.digest("hidden/b", "v1").await, None);
    let layer = sha256(&noise("audience hidden", 2 * MIB + 9));
    let path = format!("/ipfs/{root}/docker/registry/v2/blobs/sha256/{}/{}/data", &layer[7..9], &layer[7..]);
    let private = [root.as_str(), all.difference(&theirs).last().unwrap(), &path];
    assert_eq!(join_all(private.map(|cid| fetches(&follower, cid))).await, [false; 3]);

    // What is pushed there is not even counted.
    as_alice(&mut publisher);
    let sequence = async || follower.status().await["follows"][0]["sequence"].as_u64().unwrap();
    let before = sequence().await;
    let more = Image::new(&[&noise("audience more", MIB)]);
    publisher.push("hidden/b", "v2", &more).await;
    publisher.push("open/a", "v2", &more).await;
    eventually("the public tag", async || follower.digest("open/a", "v2").await).await;
    assert!(sequence().await > before);
    follows(&follower, &["open/a"]).await;
    let all: BTreeSet<String> =
        all.union(&blocks(&publisher.home, &publisher.home.prints(&["root"]).await)).cloned().collect();
    check(&publisher, &all, &theirs, "hidden").await;

    // And after a stop without warning, without the index.
    let home = publisher.kill();
    fs::remove_dir_all(home.data().join("db")).unwrap();
    let publisher = start(home).await;
    check(&publisher, &all, &theirs, "hidden").await;
    let verified = publisher.home.prints(&["verify"]).await;
    assert!(verified.contains(" 0 findings"), "{verified}");
}

#[tokio::test]
async fn rules_that_change_move_repositories_and_a_crash_on_the_way_gives_nothing_away() {
    let publisher = Server::start(Options::default()).await;
    publisher.push("first/a", "v1", &Image::new(&[&noise("audience first", MIB + 7)])).await;
    publisher.push("second/b", "v1", &Image::new(&[&noise("audience second", MIB + 9)])).await;
    let all = blocks(&publisher.home, &publisher.home.prints(&["root"]).await);
    let mut home = publisher.stop().await;
    home.options.file = Some(rules(&home, "first/**"));
    let publisher = start(home).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    follows(&follower, &["first/a"]).await;
    let nothing = BTreeSet::new();
    let first = check(&publisher, &all, &nothing, "second").await;
    let mut home = publisher.stop().await;

    home.options.file = Some(rules(&home, "second/**"));
    for point in ["fold.withdraw.after:1", "fold.public.after:1"] {
        let config = home.data().with_file_name("other.yml");
        fs::write(&config, home.options.file.clone().unwrap()).unwrap();
        let mut command = home.command(&["serve", "--addr", "127.0.0.1:0", "--p2p", "/ip4/127.0.0.1/tcp/0"]);
        command.arg("--config").arg(config).env("SAMPAN_FAILPOINT", point);
        let ended = spawn_blocking(move || command.stdout(Stdio::null()).stderr(Stdio::null()).status());
        assert!(!ended.await.unwrap().unwrap().success(), "{point}");
    }
    // Back to the rules from before: what the crash has left of the others is no part of it.
    home.options.file = Some(rules(&home, "first/**"));
    let publisher = start(home).await;
    check(&publisher, &all, &nothing, "second").await;

    let mut home = publisher.stop().await;
    home.options.file = Some(rules(&home, "second/**"));
    let publisher = start(home).await;
    eventually("the other root", async || {
        (!first.contains(&root_for_strangers(&publisher).await)).then_some(())
    })
    .await;
    let second = check(&publisher, &all, &nothing, "first").await;
    assert!(second.len() > 10);
    // The follower may have been connected to another port.
    let follower = publisher.start_follower(&publisher.p2p).await;
    follows(&follower, &["second/b"]).await;

    // And then everyone may have everything.
    let mut home = publisher.stop().await;
    home.options.file = Some(rules(&home, "**"));
    let publisher = start(home).await;
    let root = publisher.home.prints(&["root"]).await;
    eventually("my tree", async || (root_for_strangers(&publisher).await == root).then_some(())).await;
    assert_eq!(given(&publisher, &all).await, all);
    let follower = publisher.start_follower(&publisher.p2p).await;
    follows(&follower, &["first/a", "second/b"]).await;
    assert_eq!(follower.status().await["follows"][0]["error"], Value::Null);
}

/// Whether a registry that asks the DHT for whoever has a manifest is told of `peer`.
async fn finds(reader: &Server, manifest: &Image, peer: &str) -> bool {
    let cid = *Block::new(RAW, manifest.manifest.clone().into()).cid();
    let url = format!("http://{}/routing/v1/providers/{cid}", reader.http);
    json_of(reqwest::get(url).await.unwrap()).await.to_string().contains(peer)
}

#[tokio::test]
async fn the_dht_is_told_of_what_strangers_may_have_and_of_nothing_else() {
    let publisher = Server::start(Options::default()).await;
    let [open, hidden, more, secret] = ["one", "two", "six", "ten"].map(|name| {
        let layer = noise(&format!("audience dht {name}"), 1000);
        Image::new(&[&layer])
    });
    // In the order of the lists the private one comes first.
    publisher.push("hidden/b", "v1", &hidden).await;
    publisher.push("open/a", "v1", &open).await;
    let mut home = publisher.stop().await;
    home.options.file = Some(rules(&home, "open/**"));
    let mut publisher = start(home).await;
    as_alice(&mut publisher);
    let file = format!("ipfs:\n  peers: [{}]\n  gateway:\n    fetch: true\n", publisher.p2p);
    let reader = start(Home::new(Options { file: Some(file), ..Options::default() })).await;
    let told = async |image: &Image| {
        eventually("a provider", async || finds(&reader, image, &publisher.peer).await.then_some(())).await;
    };
    told(&open).await;
    publisher.push("hidden/b", "v2", &secret).await;
    publisher.push("open/a", "v2", &more).await;
    told(&more).await;
    for image in [hidden, secret] {
        assert!(!finds(&reader, &image, &publisher.peer).await);
    }
}

#[tokio::test]
async fn members_get_everything_under_a_second_name_and_give_it_to_nobody_else() {
    let publisher = Server::start(Options::default()).await;
    let hidden = Image::new(&[&noise("audience members", 2 * MIB + 5)]);
    publisher.push("open/a", "v1", &Image::new(&[b"open to all"])).await;
    publisher.push("hidden/b", "v1", &hidden).await;
    let (member, careless) =
        (Server::start(Options::default()).await, Server::start(Options::default()).await);
    let (id, other) = (member.peer.clone(), careless.peer.clone());
    let (mut member, mut careless) = (member.stop().await, careless.stop().await);
    let mut home = publisher.stop().await;
    home.options.file = Some(format!("{}ipfs:\n  members: [{id}, {other}]\n", rules(&home, "open/**")));
    let mut publisher = start(home).await;
    let status = publisher.status().await;
    let second = status["members"].as_str().unwrap().to_owned();
    assert_ne!(second, publisher.name);

    let ipfs = format!("ipfs:\n  peers: [{}]\n  follow: [{}, {second}]\n", publisher.p2p, publisher.name);
    member.options.file = Some(format!("{}{ipfs}", rules(&member, "open/**")));
    let mut member = start(member).await;
    as_alice(&mut member);
    follows(&member, &["hidden/b", "open/a"]).await;
    assert_eq!(member.pull("hidden/b", "v1").await, hidden);
    as_alice(&mut publisher);
    let more = Image::new(&[&noise("audience members later", MIB)]);
    publisher.push("hidden/b", "v2", &more).await;
    eventually("what was pushed later", async || member.digest("hidden/b", "v2").await).await;
    assert_eq!(member.pull("hidden/b", "v2").await, more);

    // One that gives everything to everyone is told, and takes nothing.
    careless.options.peers = vec![publisher.p2p.clone()];
    careless.options.follow = vec![second.clone()];
    let careless = careless.start().await;
    let refused = async || {
        let status = careless.status().await;
        status["follows"][0]["error"].as_str().map(str::to_owned)
    };
    let error = eventually("a reason", refused).await;
    assert!(error.contains("for members"), "{error}");

    // And one that did not is not to become one.
    let home = member.stop().await;
    let config = home.data().with_file_name("open.yml");
    fs::write(&config, "{}").unwrap();
    let config = config.display().to_string();
    let said = home
        .sampan(&["serve", "--addr", "127.0.0.1:0", "--p2p", "/ip4/127.0.0.1/tcp/0", "--config", &config])
        .await;
    assert!(said.code == Some(1) && said.stderr.contains("is for members"), "{said:?}");
    let member = start(home).await;

    // Strangers ask both, by the name and by the root.
    let root = publisher.home.prints(&["root"]).await;
    let peers = vec![publisher.p2p.clone(), member.p2p.clone()];
    let stranger = Server::start(Options { peers, follow: vec![second.clone()], ..Options::default() }).await;
    assert!(!fetches(&stranger, &root).await);
    let status = stranger.status().await;
    assert_eq!(status["follows"][0]["heard"], Value::Null, "not even the record");
    assert!(stranger.catalog().await.is_empty());
    for server in [&publisher, &member] {
        let record = reqwest::get(format!("http://{}/routing/v1/ipns/{second}", server.http)).await.unwrap();
        assert_ne!(record.headers()["content-type"], "application/vnd.ipfs.ipns-record");
        let all = blocks(&server.home, &root);
        assert!(!given(server, &all).await.contains(&root));
    }
}
