//! Several names, one view: what is mirrored, what is shown, under which name, and who answers.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Options, Server, eventually, noise};
use crate::oci::Image;

const MIB: usize = 1024 * 1024;

/// A follower of several, each with what is said of it.
async fn follower(sections: &[(&Server, Value)]) -> Server {
    let peers = sections.iter().map(|(server, _)| server.p2p.clone()).collect();
    let section = |(server, more): &(&Server, Value)| {
        let mut section = json!({"name": server.name});
        section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        section.to_string()
    };
    let follow = sections.iter().map(section).collect();
    Server::start(Options { peers, follow, ..Options::default() }).await
}

async fn sees(server: &Server, repository: &str, tag: &str, image: &Image) {
    let expected = image.digest();
    let what = format!("{repository}:{tag} as it was pushed");
    eventually(&what, async || server.digest(repository, tag).await.filter(|it| *it == expected)).await;
}

/// Waits until the mirror has all of the root that the publisher has now.
async fn mirrored(server: &Server, publisher: &Server) {
    eventually("it is mirrored", async || {
        let root = publisher.status().await["root"].clone();
        let mirror = server.status().await["follows"][0]["mirror"].clone();
        (mirror["finished"] == true && mirror["root"] == root).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_mirror_has_every_blob_before_anyone_asks_and_only_of_what_it_shows() {
    let publisher = Server::start(Options::default()).await;
    let image = Image::new(&[&noise("mirror", 3 * MIB + 7), &noise("second", 40_000)]);
    let other = Image::new(&[&noise("other", MIB)]);
    publisher.push("team/boat", "v1", &image).await;
    publisher.push("private/boat", "v1", &other).await;
    let mirror = follower(&[(&publisher, json!({"policy": "mirror", "repositories": ["team/**"]}))]).await;
    mirrored(&mirror, &publisher).await;
    // An update brings what is new.
    let next = Image::new(&[&noise("mirror", 3 * MIB + 7), &noise("third", 2 * MIB)]);
    publisher.push("team/boat", "v2", &next).await;
    sees(&mirror, "team/boat", "v2", &next).await;
    mirrored(&mirror, &publisher).await;
    drop(publisher);
    assert_eq!(mirror.pull("team/boat", "v1").await, image);
    assert_eq!(mirror.pull("team/boat", "v2").await, next);
    assert_eq!(mirror.catalog().await, ["team/boat"]);
    assert_eq!(mirror.digest("private/boat", "v1").await, None);
    let missing = mirror.get(&format!("/v2/private/boat/manifests/{}", other.digest())).await;
    assert_eq!(missing.status(), 404);
    // Nothing of it came.
    let blobs = mirror.home.data().join("blobs/sha256");
    let layer = crate::oci::sha256(&other.layers[0]);
    let hex = layer.strip_prefix("sha256:").unwrap();
    assert!(fs::metadata(blobs.join(&hex[..2]).join(hex)).is_err());
}

#[tokio::test]
async fn a_followed_name_is_shown_below_its_prefix_and_hides_nothing() {
    let publisher = Server::start(Options::default()).await;
    let theirs = Image::new(&[b"theirs"]);
    publisher.push("team/boat", "v1", &theirs).await;
    publisher.push("zoo", "v1", &theirs).await;
    let follower = follower(&[(&publisher, json!({"prefix": "mirror/acme"}))]).await;
    sees(&follower, "mirror/acme/team/boat", "v1", &theirs).await;
    assert_eq!(follower.pull("mirror/acme/team/boat", "v1").await, theirs);
    let mine = Image::new(&[b"mine"]);
    follower.push("team/boat", "v1", &mine).await;
    follower.push("nest", "v1", &mine).await;
    assert_eq!(follower.catalog().await, ["mirror/acme/team/boat", "mirror/acme/zoo", "nest", "team/boat"]);
    assert_eq!(follower.tags("mirror/acme/team/boat").await, ["v1"]);
    assert_eq!(follower.pull("team/boat", "v1").await, mine);
    assert_eq!(follower.digest("zoo", "v1").await, None);
    // Page by page, across the prefix.
    for (last, expected) in [
        ("mirror", "mirror/acme/team/boat"),
        ("mirror/acme/team/boat", "mirror/acme/zoo"),
        ("mirror/acme/zoo", "nest"),
    ] {
        let page = follower.get(&format!("/v2/_catalog?n=1&last={last}")).await;
        assert_eq!(crate::oci::json_of(page).await["repositories"], json!([expected]));
    }
}

#[tokio::test]
async fn the_first_tree_that_has_a_tag_answers_and_explain_says_so() {
    let (first, second) = (Server::start(Options::default()).await, Server::start(Options::default()).await);
    let (one, two, mine) = (Image::new(&[b"one"]), Image::new(&[b"two"]), Image::new(&[b"mine"]));
    first.push("boat", "v1", &one).await;
    second.push("boat", "v1", &two).await;
    second.push("boat", "v2", &two).await;
    let follower = follower(&[(&first, json!({})), (&second, json!({}))]).await;
    sees(&follower, "boat", "v1", &one).await;
    sees(&follower, "boat", "v2", &two).await;
    let explain = async |reference: &str| follower.home.json(&["explain", reference, "--json"]).await;
    let said = explain("boat:v1").await;
    assert_eq!(said[0]["digest"], Value::Null);
    assert_eq!((&said[1]["tree"], &said[1]["wins"]), (&json!(first.name), &json!(true)));
    assert_eq!((&said[2]["digest"], &said[2]["wins"]), (&json!(two.digest()), &json!(false)));
    assert_eq!(explain("boat:v2").await[2]["wins"], true);
    follower.push("boat", "v1", &mine).await;
    let said = explain("boat:v1").await;
    assert_eq!((&said[0]["tree"], &said[0]["wins"]), (&Value::Null, &json!(true)));
    assert_eq!(said[1]["wins"], false);
    let text = follower.home.prints(&["explain", "boat:v3"]).await;
    assert!(text.contains("nothing answers"), "{text}");
}
