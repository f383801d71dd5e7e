//! What was acknowledged is there after a stop, after a crash, and without the index.

use std::fs;

use bytes::Bytes;
use futures::SinkExt;
use futures::channel::mpsc;
use reqwest::Body;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::harness::{Home, Options, Server, eventually, noise};
use crate::oci::{Image, header, sha256};

/// What a registry shows of itself, over HTTP and on the command line.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    name: String,
    root: String,
    catalog: Vec<String>,
    tags: Vec<Vec<String>>,
    listed: Value,
}

async fn look(server: &Server) -> Seen {
    let catalog = server.catalog().await;
    let mut tags = Vec::new();
    for repository in &catalog {
        tags.push(server.tags(repository).await);
    }
    Seen {
        name: server.home.prints(&["name"]).await,
        root: server.home.prints(&["root"]).await,
        catalog,
        tags,
        listed: server.home.json(&["ls", "docker/registry/v2/repositories", "--json"]).await,
    }
}

async fn sequence(server: &Server) -> u64 {
    server.status().await["sequence"].as_u64().unwrap()
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let server = Server::start(Options::default()).await;
    let (old, new) = (Image::new(&[&noise("restart", 1_500_000)]), Image::new(&[b"new"]));
    server.push("team/a", "v1", &old).await;
    server.push("team/a", "v2", &new).await;
    server.push("b", "latest", &new).await;
    let (seen, before) = (look(&server).await, sequence(&server).await);
    let server = server.restart().await;
    assert_eq!(look(&server).await, seen);
    assert!(sequence(&server).await >= before);
    assert_eq!(server.pull("team/a", "v1").await, old);
    assert_eq!(server.pull("team/a", "v2").await, new);
    // And it goes on from there.
    server.push("b", "v3", &old).await;
    let server = server.restart().await;
    assert_eq!(server.pull("b", "v3").await, old);
    assert!(sequence(&server).await > before);
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let mut server = Server::start(Options::default()).await;
    let mut pushed = Vec::new();
    for round in 0..5 {
        let image = Image::new(&[&noise(&format!("kill {round}"), 400_000 * round)]);
        let tag = format!("v{round}");
        server.push("a", &tag, &image).await;
        let before = sequence(&server).await;
        server = server.kill().start().await;
        assert!(sequence(&server).await >= before);
        pushed.push((tag, image));
        for (tag, image) in &pushed {
            assert_eq!(&server.pull("a", tag).await, image);
        }
    }
}

#[tokio::test]
async fn a_delete_that_was_acknowledged_outlives_a_kill() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[b"layer"]);
    server.push("a", "v1", &image).await;
    server.tag("a", "v2", &image).await;
    assert_eq!(server.send("DELETE", "/v2/a/manifests/v1").await.status(), 202);
    let server = server.kill().start().await;
    assert_eq!(server.tags("a").await, ["v2"]);
    assert_eq!(server.digest("a", "v1").await, None);
}

#[tokio::test]
async fn without_its_index_a_registry_is_the_same() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[&noise("index", 1_500_000)]);
    server.push("team/a", "v1", &image).await;
    server.push("b", "v2", &image).await;
    let seen = look(&server).await;
    let home = server.stop().await;
    without_index(&home);
    let server = home.start().await;
    assert_eq!(look(&server).await, seen);
    assert_eq!(server.pull("team/a", "v1").await, image);
    assert_eq!(server.pull("b", "v2").await, image);

    server.push("c", "v3", &image).await;
    let seen = look(&server).await;
    let home = server.kill();
    without_index(&home);
    let server = home.start().await;
    assert_eq!(look(&server).await, seen);
    assert_eq!(server.pull("c", "v3").await, image);
}

fn without_index(home: &Home) {
    fs::remove_dir_all(home.data().join("db")).unwrap();
}

#[tokio::test]
async fn an_upload_goes_on_after_a_stop_and_after_a_kill() {
    let mut server = Server::start(Options::default()).await;
    let blob = noise("resumed", 3_000_000);
    let path = server.begin_upload("a").await;
    for (from, to, kill) in [(0, 1_000_000, false), (1_000_000, 2_000_000, true)] {
        let range = format!("{from}-{}", to - 1);
        let request = server.request("PATCH", &path).header("content-range", range);
        assert_eq!(request.body(blob[from..to].to_vec()).send().await.unwrap().status(), 202);
        let home = if kill { server.kill() } else { server.stop().await };
        server = home.start().await;
        let answer = server.get(&path).await;
        assert_eq!(answer.status(), 204);
        assert_eq!(header(&answer, "range"), format!("0-{}", to - 1));
    }
    let rest = server.request("PUT", &format!("{path}?digest={}", sha256(&blob)));
    assert_eq!(rest.body(blob[2_000_000..].to_vec()).send().await.unwrap().status(), 201);
    assert_eq!(server.blob("a", &sha256(&blob)).await, blob);
    assert_eq!(server.get(&path).await.status(), 404);
}

#[tokio::test]
async fn a_push_that_is_under_way_ends_before_the_registry_does() {
    let server = Server::start(Options::default()).await;
    let blob = noise("under way", 2_000_000);
    let path = server.begin_upload("a").await;
    let (mut sender, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let request = server.request("PUT", &format!("{path}?digest={}", sha256(&blob)));
    let push = tokio::spawn(request.body(Body::wrap_stream(body)).send());
    let (first, rest) = blob.split_at(1_000_000);
    sender.send(Ok(Bytes::copy_from_slice(first))).await.unwrap();
    let kept = server.home.data().join("uploads").join(path.rsplit('/').next().unwrap()).join("data");
    let begun = async || fs::metadata(&kept).is_ok_and(|file| file.len() > 0).then_some(());
    eventually("the first bytes are there", begun).await;
    server.terminate();
    let refuses = async || TcpStream::connect(server.http).await.is_err().then_some(());
    eventually("it takes no newcomers", refuses).await;
    sender.send(Ok(Bytes::copy_from_slice(rest))).await.unwrap();
    drop(sender);
    assert_eq!(push.await.unwrap().unwrap().status(), 201);
    let server = server.ended().await.start().await;
    assert_eq!(server.blob("a", &sha256(&blob)).await, blob);
}
