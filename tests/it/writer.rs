//! One writer for each name: what is lost comes back, who finds another writer publishes nothing, and nothing that was
//! acknowledged is dropped.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Home, Options, Server, eventually, noise};
use crate::oci::Image;

const MIB: usize = 1024 * 1024;
const KEY: &str = "keys/self.key";

/// An empty data directory with the key of another.
fn with_key_of(home: &Home, options: Options) -> Home {
    let new = Home::new(options);
    fs::create_dir_all(new.data().join("keys")).unwrap();
    fs::copy(home.data().join(KEY), new.data().join(KEY)).unwrap();
    new
}

async fn mirror_of(publisher: &Server) -> Server {
    let follow = vec![json!({"name": publisher.name, "policy": "mirror"}).to_string()];
    Server::start(Options { peers: vec![publisher.p2p.clone()], follow, ..Options::default() }).await
}

async fn sees(server: &Server, repository: &str, tag: &str, image: &Image) {
    let expected = image.digest();
    let what = format!("{repository}:{tag} as it was pushed");
    eventually(&what, async || server.digest(repository, tag).await.filter(|it| *it == expected)).await;
}

async fn mirrored(mirror: &Server, publisher: &Server) {
    eventually("it is mirrored", async || {
        let root = publisher.status().await["root"].clone();
        let mirror = mirror.status().await["follows"][0]["mirror"].clone();
        (mirror["finished"] == true && mirror["root"] == root).then_some(())
    })
    .await;
}

/// Waits until the registry has found that its name was published elsewhere.
async fn stopped(server: &Server) {
    eventually("it publishes nothing", async || {
        let why = server.status().await["unpublished"].clone();
        why.as_str().is_some_and(|why| why.contains("published elsewhere")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lost_registry_comes_back_from_those_who_follow_it() {
    let publisher = Server::start(Options::default()).await;
    let first = Image::new(&[&noise("lost", 2 * MIB + 5), b"small"]);
    let second = Image::new(&[&noise("lost too", 70_000)]);
    publisher.push("team/boat", "v1", &first).await;
    publisher.push("other", "v2", &second).await;
    let mirror = mirror_of(&publisher).await;
    sees(&mirror, "other", "v2", &second).await;
    mirrored(&mirror, &publisher).await;
    let sequence = publisher.status().await["sequence"].as_u64().unwrap();
    let lost = publisher.kill();

    let options = Options { peers: vec![mirror.p2p.clone()], ..Options::default() };
    let back = with_key_of(&lost, options).start().await;
    drop(lost);
    stopped(&back).await;
    let said = back.home.json(&["restore", "--json"]).await;
    assert_eq!((&said["taken"]["tags"], &said["blobs"]["missing"]), (&json!(2), &json!(0)), "{said}");
    assert_eq!(back.status().await["unpublished"], Value::Null);
    assert!(back.status().await["sequence"].as_u64().unwrap() > sequence);
    // It is its own again, and alone.
    let mut mirror = mirror.stop().await;
    let back = back.restart().await;
    assert_eq!(back.catalog().await, ["other", "team/boat"]);
    assert_eq!(back.pull("team/boat", "v1").await, first);
    assert_eq!(back.pull("other", "v2").await, second);
    assert!(back.home.json(&["follow", "ls", "--json"]).await.as_array().unwrap().is_empty());
    // Its followers follow on.
    let third = Image::new(&[b"third"]);
    back.push("team/boat", "v3", &third).await;
    mirror.options.peers = vec![back.p2p.clone()];
    let mirror = mirror.start().await;
    sees(&mirror, "team/boat", "v3", &third).await;
}

#[tokio::test]
async fn of_two_writers_with_one_key_the_second_stops_and_merging_keeps_both_sides() {
    let publisher = Server::start(Options::default()).await;
    let (ours, theirs, both) = (Image::new(&[b"ours"]), Image::new(&[b"theirs"]), Image::new(&[b"both"]));
    publisher.push("boat", "ours", &ours).await;
    publisher.push("boat", "both", &ours).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    sees(&follower, "boat", "both", &ours).await;
    let mut first = publisher.stop().await;

    let options = Options { peers: vec![follower.p2p.clone()], ..Options::default() };
    let second = with_key_of(&first, options.clone()).start().await;
    stopped(&second).await;
    // What is pushed here is taken, and told nobody.
    second.push("boat", "theirs", &theirs).await;
    second.push("boat", "both", &both).await;
    assert_eq!(follower.digest("boat", "theirs").await, None);
    let said = second.home.json(&["adopt", "--merge", "--json"]).await;
    assert_eq!(said["taken"]["differing"], 1, "{said}");
    sees(&follower, "boat", "theirs", &theirs).await;
    sees(&follower, "boat", "both", &both).await;
    assert_eq!(follower.digest("boat", "ours").await, Some(ours.digest()));
    second.stop().await;

    // The first one comes back, and finds that it is not alone.
    first.options = options;
    let first = first.start().await;
    stopped(&first).await;
    let late = Image::new(&[b"late"]);
    first.push("boat", "late", &late).await;
    first.home.prints(&["adopt", "--merge"]).await;
    for (tag, image) in [("late", &late), ("ours", &ours), ("theirs", &theirs)] {
        sees(&follower, "boat", tag, image).await;
        assert_eq!(first.digest("boat", tag).await, Some(image.digest()));
    }
}

#[tokio::test]
async fn an_earlier_root_is_made_the_current_one_under_a_new_sequence() {
    let publisher = Server::start(Options::default()).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    let (old, new) = (Image::new(&[b"old"]), Image::new(&[b"new"]));
    publisher.push("boat", "v1", &old).await;
    let root = publisher.home.prints(&["root"]).await;
    publisher.push("boat", "v1", &new).await;
    publisher.push("other", "v1", &new).await;
    sees(&follower, "other", "v1", &new).await;
    let sequence = publisher.status().await["sequence"].as_u64().unwrap();
    let roots = publisher.home.json(&["roots", "--json"]).await;
    assert!(roots.as_array().unwrap().iter().any(|it| it["root"] == root.trim()), "{roots}");
    publisher.home.prints(&["rollback", root.trim()]).await;
    assert_eq!(publisher.pull("boat", "v1").await, old);
    assert_eq!(publisher.catalog().await, ["boat"]);
    sees(&follower, "boat", "v1", &old).await;
    assert!(publisher.status().await["sequence"].as_u64().unwrap() > sequence);
    let said = publisher.home.sampan(&["rollback", "bafkqaaa"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("no earlier root"), "{}", said.stderr);
}
