//! Keys and the names that they make: moved between programs, replaced, and published under.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{Home, Options, Server, eventually, noise};
use crate::oci::Image;

/// What one key of `sampan key ls --json` says.
async fn key(home: &Home, label: &str) -> Value {
    let keys = home.json(&["key", "ls", "--json"]).await;
    keys.as_array().unwrap().iter().find(|key| key["key"] == label).unwrap().clone()
}

#[tokio::test]
async fn after_a_rotation_followers_of_the_old_name_read_the_new_one_and_say_so() {
    let publisher = Server::start(Options::default()).await;
    let mut follower = publisher.start_follower(&publisher.p2p).await;
    let (before, after) = (Image::new(&[b"before"]), Image::new(&[&noise("rotated", 100_000)]));
    publisher.push("a", "v1", &before).await;
    let sees = async |follower: &Server, image: &Image| {
        let expected = image.digest();
        eventually("the tag", async || follower.digest("a", "v1").await.filter(|it| *it == expected)).await;
    };
    sees(&follower, &before).await;
    let old = publisher.name.clone();
    let path = format!("/routing/v1/ipns/{old}");
    let stale = publisher.get(&path).await.bytes().await.unwrap();
    // Only with the directory to itself.
    let refused = publisher.home.sampan(&["key", "rotate"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let mut home = publisher.stop().await;
    let new = home.prints(&["key", "rotate"]).await;
    assert_ne!(new, old);
    assert_eq!(home.prints(&["name"]).await, new);
    assert_eq!(key(&home, "retired-1").await["value"], format!("/ipns/{new}"));

    // Its port is another one now, so it dials.
    home.options.peers.push(follower.p2p.clone());
    let publisher = home.start().await;
    assert_eq!(publisher.name, new);
    publisher.push("a", "v1", &after).await;
    sees(&follower, &after).await;
    let follows = follower.status().await["follows"].clone();
    let moved = follows.as_array().unwrap().iter().find(|follow| follow["name"] == old.as_str()).unwrap();
    assert_eq!((&moved["moved"], &moved["root"]), (&Value::from(new.as_str()), &Value::Null));
    assert!(follower.home.whole_log().contains("has moved"), "the log says so");

    assert_eq!(follower.pull("a", "v1").await, after);

    // The publisher is gone, and the follower knows only the old name by its configuration.
    drop(publisher);
    follower = follower.restart().await;
    assert_eq!(follower.pull("a", "v1").await, after);
    let known = follower.home.json(&["resolve", &old, "--json"]).await;
    assert_eq!(known["value"], format!("/ipns/{new}"));
    // A record from before the rotation comes by again.
    let put = follower.client.put(format!("http://{}{path}", follower.http));
    let put = put.header("content-type", "application/vnd.ipfs.ipns-record").body(stale);
    assert!(put.send().await.unwrap().status().is_client_error());
    assert_eq!(follower.pull("a", "v1").await, after);
}

#[tokio::test]
async fn a_key_goes_out_and_comes_in_again_in_both_forms() {
    let server = Server::start(Options::default()).await;
    let name = server.home.prints(&["key", "gen", "second"]).await;
    assert_eq!(key(&server.home, "second").await["name"], name.as_str());
    let other = Home::new(Options::default());
    for (label, flags) in [("self", vec![]), ("from-pem", vec!["--pem"])] {
        // One data directory takes a key once; the second form goes to another.
        let home = if label == "self" { &other } else { &Home::new(Options::default()) };
        let file = server.home.data().join(label);
        let file = file.to_str().unwrap();
        let said = server.home.sampan(&[&["key", "export", "second", file], flags.as_slice()].concat()).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = server.home.sampan(&["key", "export", "second", file]).await;
        assert_eq!(again.code, Some(1), "no file is written over: {again:?}");
        assert_eq!(home.prints(&["key", "import", label, file]).await, name);
        assert_eq!(key(home, label).await["name"], name.as_str());
        let twice = home.sampan(&["key", "import", "again", file]).await;
        assert_eq!(twice.code, Some(1), "one key has one label: {twice:?}");
    }
    // A registry begins with the key that was taken in.
    assert_eq!(other.start().await.name, name);
}

#[tokio::test]
async fn what_is_published_under_another_key_is_resolved_elsewhere_and_never_falls_back() {
    let server = Server::start(Options::default()).await;
    let peers = vec![server.p2p.clone()];
    let other = Server::start(Options { peers, ..Options::default() }).await;
    let name = server.home.prints(&["key", "gen", "second"]).await;
    let root = server.home.prints(&["root"]).await;
    for sequence in 0..2 {
        let said = server.home.prints(&["publish", "--key", "second", &root]).await;
        assert_eq!(said, format!("{name} sequence {sequence}"));
    }
    let resolved = async |home: &Home, sequence: u64| {
        eventually("the record", async || {
            let said = home.sampan(&["resolve", &name, "--json"]).await;
            let found: Value = serde_json::from_str(&said.stdout).ok()?;
            (found["sequence"] == sequence).then_some(found)
        })
        .await
    };
    let found = resolved(&other.home, 1).await;
    assert_eq!(found["value"], format!("/ipfs/{root}"));
    assert!(["a peer (fetch)", "the DHT"].contains(&found["from"].as_str().unwrap()), "{found}");

    // It lasts, and goes on from there.
    let server = server.restart().await;
    assert_eq!(resolved(&server.home, 1).await["from"], "this registry");
    let said = server.home.prints(&["publish", "--key", "second", &format!("/ipns/{}", other.name)]).await;
    assert_eq!(said, format!("{name} sequence 2"));
    let own = server.home.sampan(&["publish", "--key", "self", &root]).await;
    assert_eq!(own.code, Some(1), "{own:?}");
}
