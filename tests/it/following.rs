//! Following: what is pushed to one registry is pulled from another that knows its name.

use std::fs;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::{Home, Options, Server, USERS, eventually, noise};
use crate::oci::{Image, problem, sha256};
use crate::wire::Wire;

const MIB: usize = 1024 * 1024;
/// What a pull that cannot succeed may take: longer than the 20 s after which a fetch gives up.
const GIVE_UP: Duration = Duration::from_secs(30);

/// Waits until a tag means this image.
async fn sees(server: &Server, repository: &str, tag: &str, image: &Image) {
    let expected = image.digest();
    let what = format!("{repository}:{tag} as it was pushed");
    eventually(&what, async || server.digest(repository, tag).await.filter(|it| *it == expected)).await;
}

/// What is not here and that nobody gives is not found, in time.
async fn is_not_found(server: &Server, path: &str, expected: &str) -> Duration {
    let since = Instant::now();
    let (status, code, _) = problem(server.get(path).await).await;
    assert_eq!((status, code.as_str()), (404, expected), "{path}");
    assert!(since.elapsed() < GIVE_UP, "{path} took {:?}", since.elapsed());
    since.elapsed()
}

/// Names that are followed now.
async fn followed(server: &Server) -> Vec<String> {
    let list = server.home.json(&["follow", "ls", "--json"]).await;
    list.as_array().unwrap().iter().map(|follow| follow["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_pushed_here_is_pulled_there_and_stays_there() {
    let publisher = Server::start(Options::default()).await;
    let first = Image::new(&[&noise("before", 2 * MIB), b"small"]);
    publisher.push("team/boat", "v1", &first).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    sees(&follower, "team/boat", "v1", &first).await;
    assert_eq!(follower.pull("team/boat", "v1").await, first);

    // A tag that moves, and one in a repository that is new.
    let second = Image::new(&[&noise("after", 3 * MIB + 1)]);
    publisher.push("team/boat", "v1", &second).await;
    publisher.push("other", "v2", &second).await;
    sees(&follower, "team/boat", "v1", &second).await;
    sees(&follower, "other", "v2", &second).await;
    assert_eq!(follower.pull("other", "v2").await, second);
    assert_eq!(follower.catalog().await, ["other", "team/boat"]);

    // What a tag left behind can be pulled by its digest.
    assert_eq!(follower.pull("team/boat", &first.digest()).await, first);

    drop(publisher);
    assert_eq!(follower.pull("team/boat", "v1").await, second);
    let follower = follower.restart().await;
    assert_eq!(follower.catalog().await, ["other", "team/boat"]);
    assert_eq!(follower.pull("team/boat", "v1").await, second);
    assert_eq!(follower.pull("other", "v2").await, second);
    assert_eq!(follower.pull("team/boat", &first.digest()).await, first);
    let follower = follower.kill().start().await;
    assert_eq!(follower.pull("other", "v2").await, second);
}

#[tokio::test]
async fn a_follower_learns_what_was_pushed_while_it_was_down() {
    let publisher = Server::start(Options::default()).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    let image = Image::new(&[&noise("down", MIB)]);
    let home = follower.stop().await;
    publisher.push("a", "v1", &image).await;
    let follower = home.start().await;
    sees(&follower, "a", "v1", &image).await;
    assert_eq!(follower.pull("a", "v1").await, image);

    // It loses everything, and recovers.
    let home = follower.kill();
    fs::remove_dir_all(home.data()).unwrap();
    let follower = home.start().await;
    sees(&follower, "a", "v1", &image).await;
    assert_eq!(follower.pull("a", "v1").await, image);
}

#[tokio::test]
async fn a_publisher_that_comes_back_is_followed_on() {
    let publisher = Server::start(Options::default()).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    let (old, new) = (Image::new(&[b"old"]), Image::new(&[&noise("back", MIB)]));
    publisher.push("a", "v1", &old).await;
    sees(&follower, "a", "v1", &old).await;
    let mut home = publisher.kill();
    assert_eq!(follower.pull("a", "v1").await, old);
    // Its port is another one now, so it dials.
    home.options.peers.push(follower.p2p.clone());
    let publisher = home.start().await;
    publisher.push("a", "v1", &new).await;
    sees(&follower, "a", "v1", &new).await;
    assert_eq!(follower.pull("a", "v1").await, new);
}

#[tokio::test]
async fn a_tag_that_is_deleted_there_is_gone_here() {
    let publisher = Server::start(Options::default()).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    let image = Image::new(&[b"to be deleted"]);
    publisher.push("a", "v1", &image).await;
    publisher.tag("a", "v2", &image).await;
    sees(&follower, "a", "v1", &image).await;
    sees(&follower, "a", "v2", &image).await;
    publisher.send("DELETE", "/v2/a/manifests/v1").await;
    eventually("v1 is gone", async || follower.digest("a", "v1").await.is_none().then_some(())).await;
    assert_eq!(follower.tags("a").await, ["v2"]);
}

#[tokio::test]
async fn a_first_pull_streams_while_the_layer_is_on_its_way() {
    let publisher = Server::start(Options::default()).await;
    let wire = Wire::to(&publisher).await;
    let follower = publisher.start_follower(&wire.address).await;
    let layer = noise("streams", 12 * MIB);
    let image = Image::new(&[&layer]);
    publisher.push("a", "v1", &image).await;
    sees(&follower, "a", "v1", &image).await;

    wire.hold_after(6 * MIB as u64);
    let mut answer = follower.get(&format!("/v2/a/blobs/{}", sha256(&layer))).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.content_length(), Some(layer.len() as u64));
    let mut received = answer.chunk().await.unwrap().unwrap().to_vec();
    assert!(!received.is_empty());
    wire.release();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    assert!(received == layer, "other bytes than those that were pushed");
}

#[tokio::test]
async fn first_pulls_at_the_same_time_are_one_fetch() {
    let publisher = Server::start(Options::default()).await;
    let wire = Wire::to(&publisher).await;
    let follower = publisher.start_follower(&wire.address).await;
    let layer = noise("one fetch", 20 * MIB);
    let image = Image::new(&[&layer]);
    publisher.push("a", "v1", &image).await;
    sees(&follower, "a", "v1", &image).await;

    let path = format!("/v2/a/blobs/{}", sha256(&layer));
    let before = wire.passed();
    // All of them have begun before any of them can end.
    wire.hold_after(10 * MIB as u64);
    let pulls = (0..5).map(async |_| {
        let mut answer = follower.get(&path).await;
        let first = answer.chunk().await.unwrap().unwrap();
        (answer, first)
    });
    let pulls = join_all(pulls).await;
    assert_eq!(fs::read_dir(follower.home.data().join("partial")).unwrap().count(), 1);
    wire.release();
    let whole =
        pulls.into_iter().map(async |(answer, first)| [first, answer.bytes().await.unwrap()].concat());
    for received in join_all(whole).await {
        assert!(received == layer, "other bytes than those that were pushed");
    }
    let passed = wire.passed() - before;
    assert!(passed < 21 * MIB as u64, "{passed} bytes came for a layer of {}", layer.len());
    assert_eq!(follower.pull("a", "v1").await, image);
    assert!(wire.passed() - before < 21 * MIB as u64, "a layer that is here was fetched again");
}

#[tokio::test]
async fn what_nobody_has_is_not_found() {
    let publisher = Server::start(Options::default()).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    let (here, there) = (noise("here", MIB), noise("there", MIB));
    let image = Image::new(&[&here, &there]);
    publisher.push("a", "v1", &image).await;
    sees(&follower, "a", "v1", &image).await;
    assert_eq!(follower.blob("a", &sha256(&here)).await, here);

    let unknown = sha256(b"nobody has it");
    let blob = format!("/v2/a/blobs/{unknown}");
    is_not_found(&follower, "/v2/a/manifests/v2", "MANIFEST_UNKNOWN").await;
    is_not_found(&follower, "/v2/b/manifests/v1", "MANIFEST_UNKNOWN").await;
    is_not_found(&follower, &blob, "BLOB_UNKNOWN").await;

    drop(publisher);
    is_not_found(&follower, "/v2/a/manifests/v2", "MANIFEST_UNKNOWN").await;
    is_not_found(&follower, &blob, "BLOB_UNKNOWN").await;
    is_not_found(&follower, &format!("/v2/a/blobs/{}", sha256(&there)), "BLOB_UNKNOWN").await;
    // What had been pulled is there.
    assert_eq!(follower.blob("a", &sha256(&here)).await, here);
    assert_eq!(follower.digest("a", "v1").await, Some(image.digest()));
}

#[tokio::test]
async fn a_follower_that_never_met_its_publisher_answers_at_once() {
    let publisher = Server::start(Options::default()).await;
    let name = publisher.name.clone();
    drop(publisher);
    let flags = vec!["--follow".to_owned(), name.clone()];
    let follower = Server::start(Options { flags, ..Options::default() }).await;
    let took = is_not_found(&follower, "/v2/a/manifests/v1", "MANIFEST_UNKNOWN").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(follower.catalog().await, Vec::<String>::new());
    let follows = &follower.status().await["follows"];
    assert_eq!((&follows[0]["name"], &follows[0]["root"]), (&Value::from(name), &Value::Null));
}

#[tokio::test]
async fn a_pull_whose_publisher_goes_away_breaks_off_and_can_be_repeated() {
    let publisher = Server::start(Options::default()).await;
    let wire = Wire::to(&publisher).await;
    let follower = publisher.start_follower(&wire.address).await;
    let layer = noise("breaks off", 12 * MIB);
    let image = Image::new(&[&layer]);
    publisher.push("a", "v1", &image).await;
    sees(&follower, "a", "v1", &image).await;
    wire.hold_after(6 * MIB as u64);
    let mut answer = follower.get(&format!("/v2/a/blobs/{}", sha256(&layer))).await;
    assert!(answer.chunk().await.unwrap().is_some());
    let mut home = publisher.kill();
    wire.release();
    let since = Instant::now();
    let broken = async {
        while answer.chunk().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    assert!(broken.await.is_err(), "a layer that is not whole looked whole");
    assert!(since.elapsed() < GIVE_UP, "{:?}", since.elapsed());

    home.options.peers.push(follower.p2p.clone());
    let publisher = home.start().await;
    eventually("they meet", async || {
        let peers = follower.home.json(&["peers", "--json"]).await;
        peers.as_array().unwrap().iter().any(|peer| peer["id"] == publisher.peer.as_str()).then_some(())
    })
    .await;
    assert_eq!(follower.pull("a", "v1").await, image);
}

#[tokio::test]
async fn names_are_followed_and_forgotten_while_it_runs() {
    let publisher = Server::start(Options::default()).await;
    let image = Image::new(&[b"followed at run time"]);
    publisher.push("a", "v1", &image).await;
    let follower = Server::start(Options { peers: vec![publisher.p2p.clone()], ..Options::default() }).await;
    assert_eq!(follower.digest("a", "v1").await, None);

    let said = follower.home.prints(&["follow", "add", &publisher.name]).await;
    assert!(said.contains(&publisher.name), "{said}");
    sees(&follower, "a", "v1", &image).await;
    assert_eq!(followed(&follower).await, [publisher.name.as_str()]);
    let follower = follower.restart().await;
    assert_eq!(followed(&follower).await, [publisher.name.as_str()]);
    assert_eq!(follower.digest("a", "v1").await, Some(image.digest()));

    // Twice is once.
    follower.home.prints(&["follow", "add", &publisher.name]).await;
    assert_eq!(followed(&follower).await, [publisher.name.as_str()]);
    let table = follower.home.prints(&["follow", "ls"]).await;
    assert!(table.lines().count() == 1 && table.starts_with(&publisher.name), "{table}");

    follower.home.prints(&["follow", "rm", &publisher.name]).await;
    assert_eq!(followed(&follower).await, Vec::<String>::new());
    assert_eq!(follower.digest("a", "v1").await, None);
    assert_eq!(follower.catalog().await, Vec::<String>::new());
    let follower = follower.restart().await;
    assert_eq!(followed(&follower).await, Vec::<String>::new());
    assert_eq!(follower.digest("a", "v1").await, None);
}

#[tokio::test]
async fn a_name_that_the_configuration_gives_up_is_forgotten() {
    let publisher = Server::start(Options::default()).await;
    let image = Image::new(&[b"followed by configuration"]);
    publisher.push("a", "v1", &image).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    sees(&follower, "a", "v1", &image).await;
    let mut home = follower.stop().await;
    home.options.follow.clear();
    let follower = home.start().await;
    assert_eq!(followed(&follower).await, Vec::<String>::new());
    assert_eq!(follower.digest("a", "v1").await, None);
}

#[tokio::test]
async fn a_follower_of_a_follower_gets_it_too() {
    let publisher = Server::start(Options::default()).await;
    let near = publisher.start_follower(&publisher.p2p).await;
    let image = Image::new(&[&noise("chain", 2 * MIB)]);
    publisher.push("a", "v1", &image).await;
    sees(&near, "a", "v1", &image).await;
    assert_eq!(near.pull("a", "v1").await, image);
    drop(publisher.kill());
    let options = Options {
        peers: vec![near.p2p.clone()],
        follow: near.home.options.follow.clone(),
        ..Options::default()
    };
    let far = Server::start(options).await;
    sees(&far, "a", "v1", &image).await;
    assert_eq!(far.pull("a", "v1").await, image);
}

#[tokio::test]
async fn a_private_network_is_for_those_who_have_its_key() {
    let publisher = in_private(&"ab".repeat(32), Options::default()).await;
    let image = Image::new(&[&noise("private", MIB)]);
    publisher.push("a", "v1", &image).await;
    let (peers, follow) = (vec![publisher.p2p.clone()], vec![publisher.name.clone()]);
    let options = Options { peers, follow, ..Options::default() };
    let stranger = in_private(&"cd".repeat(32), options.clone()).await;
    let outsider = Server::start(options.clone()).await;
    let member = in_private(&"ab".repeat(32), options).await;
    sees(&member, "a", "v1", &image).await;
    assert_eq!(member.pull("a", "v1").await, image);
    for other in [stranger, outsider] {
        assert_eq!(other.digest("a", "v1").await, None);
        let peers = other.home.json(&["peers", "--json"]).await.to_string();
        assert!(!peers.contains(&publisher.peer), "{peers}");
    }
}

/// Starts in the private network with this swarm key.
async fn in_private(key: &str, options: Options) -> Server {
    let flags = ["--network", "private"].map(str::to_owned).to_vec();
    let home = Home::new(Options { flags, ..options });
    fs::create_dir(home.data()).unwrap();
    fs::write(home.data().join("swarm.key"), format!("/key/swarm/psk/1.0.0/\n/base16/\n{key}\n")).unwrap();
    home.start().await
}

#[tokio::test]
async fn status_tells_how_far_a_followed_name_is() {
    let publisher = Server::start(Options::default()).await;
    publisher.push("a", "v1", &Image::new(&[b"status"])).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    let root = publisher.home.prints(&["root"]).await;
    let status = eventually("the root of its publisher", async || {
        Some(follower.status().await).filter(|status| status["follows"][0]["root"] == root.as_str())
    })
    .await;
    let follow = &status["follows"][0];
    assert_eq!(follow["name"], publisher.name.as_str());
    assert_eq!(follow["sequence"], publisher.status().await["sequence"]);
    assert_eq!(follow["stale"], false);
    assert_eq!(follow["error"], Value::Null);
    assert_eq!(status["refused_records"], 0);
}

#[tokio::test]
async fn a_name_that_leads_to_no_tree_says_so_and_is_followed_on() {
    const FILE: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
    let publisher = Server::start(Options::default()).await;
    let image = Image::new(&[b"after"]);
    publisher.push("a", "v1", &image).await;
    let name = publisher.home.prints(&["key", "gen", "second"]).await;
    publisher.home.prints(&["publish", "--key", "second", FILE]).await;
    let (peers, follow) = (vec![publisher.p2p.clone()], vec![name]);
    let follower = Server::start(Options { peers, follow, ..Options::default() }).await;
    let told = eventually("what is wrong with the tree", async || {
        let follow = follower.status().await["follows"][0].clone();
        follow["error"].is_string().then_some(follow)
    })
    .await;
    assert!(told["error"].as_str().unwrap().contains("is no directory"), "{told}");
    let waits = eventually("that it is not tried again", async || {
        Some(follower.status().await["follows"][0].clone()).filter(|follow| follow["heard"].is_null())
    })
    .await;
    assert_eq!(waits["error"], told["error"]);

    let root = publisher.home.prints(&["root"]).await;
    publisher.home.prints(&["publish", "--key", "second", &root]).await;
    sees(&follower, "a", "v1", &image).await;
    assert_eq!(follower.status().await["follows"][0]["error"], Value::Null);
}

#[tokio::test]
async fn with_passwords_peers_get_what_is_there_only_where_everyone_may_pull_it() {
    let publisher = Server::start(Options::default()).await;
    let image = Image::new(&[&noise("passwords", MIB)]);
    publisher.push("team/boat", "v1", &image).await;
    let mut home = publisher.stop().await;
    let users = home.data().with_file_name("users");
    fs::write(&users, USERS).unwrap();
    let auth = format!("auth:\n  htpasswd:\n    path: {}\n", users.display());

    home.options.file = Some(format!("{auth}anonymous: pull\n"));
    let publisher = home.start().await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    sees(&follower, "team/boat", "v1", &image).await;
    assert_eq!(follower.pull("team/boat", "v1").await, image);
    drop(follower);

    // The rule goes, and with it all that peers get: the record leads to an empty tree.
    let mut home = publisher.stop().await;
    home.options.file = Some(auth);
    let publisher = home.start().await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    let adopted = async || {
        let list = follower.home.json(&["follow", "ls", "--json"]).await;
        list[0]["root"].as_str().map(str::to_owned)
    };
    eventually("a root", adopted).await;
    is_not_found(&follower, "/v2/team/boat/manifests/v1", "MANIFEST_UNKNOWN").await;
    assert!(follower.catalog().await.is_empty());
}
