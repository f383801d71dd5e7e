//! Data directories that earlier versions have left: this one opens them and serves what is in them.
//!
//! `tests/fixtures/data-v1.tar` was stopped in order and has no `db/`; `data-v1-db.tar` is its `db/`. `data-v1.json` says
//! what is in it. A version that changes the format adds its own and keeps these.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Home, Options, Server, noise};
use crate::oci::Image;

/// With it a tree has an inner node: leaves are 1 MiB long.
const LAYER: usize = 1_258_291;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn tar(arguments: &[&str], archive: &str, dir: &Path) {
    let mut tar = Command::new("tar");
    let status =
        tar.arg(arguments[0]).arg(fixture(archive)).arg("-C").arg(dir).args(&arguments[1..]).status();
    assert!(status.unwrap().success(), "tar {arguments:?} {archive}");
}

fn unpack(archives: &[&str]) -> Home {
    let home = Home::new(Options::default());
    fs::create_dir(home.data()).unwrap();
    for archive in archives {
        tar(&["-xf"], archive, &home.data());
    }
    home
}

async fn is_whole(home: Home) {
    let expected: Value = serde_json::from_slice(&fs::read(fixture("data-v1.json")).unwrap()).unwrap();
    assert_eq!(home.prints(&["root"]).await, expected["root"]);
    assert_eq!(home.prints(&["name"]).await, expected["name"]);
    let server = home.start().await;
    let repositories = expected["tags"].as_object().unwrap();
    assert_eq!(server.catalog().await, repositories.keys().cloned().collect::<Vec<_>>());
    for (repository, tags) in repositories {
        let tags = tags.as_object().unwrap();
        assert_eq!(server.tags(repository).await, tags.keys().cloned().collect::<Vec<_>>());
        for (tag, digest) in tags {
            assert_eq!(server.pull(repository, tag).await.digest(), digest.as_str().unwrap());
        }
    }
    assert_eq!(server.home.prints(&["root"]).await, expected["root"]);
    // It is used on.
    let image = Image::new(&[b"new"]);
    server.push("new", "v1", &image).await;
    assert_eq!(server.restart().await.pull("new", "v1").await, image);
}

#[tokio::test]
async fn data_of_version_1_open_without_their_index() {
    is_whole(unpack(&["data-v1.tar"])).await;
}

#[tokio::test]
async fn data_of_version_1_open_with_their_index() {
    is_whole(unpack(&["data-v1.tar", "data-v1-db.tar"])).await;
}

#[tokio::test]
#[ignore = "writes tests/fixtures; for a new version of the format"]
async fn write_the_fixtures() {
    let server = Server::start(Options::default()).await;
    let (large, small) = (Image::new(&[&noise("fixture", LAYER)]), Image::new(&[b"small", b""]));
    server.push("library/boat", "v1", &large).await;
    server.push("library/boat", "v2", &small).await;
    server.push("team/app", "latest", &small).await;
    let root = server.home.prints(&["root"]).await;
    let tags = json!({
        "library/boat": { "v1": large.digest(), "v2": small.digest() },
        "team/app": { "latest": small.digest() },
    });
    let facts = json!({ "root": root, "name": server.name, "tags": tags });
    let home = server.stop().await;
    fs::create_dir_all(fixture("")).unwrap();
    fs::write(fixture("data-v1.json"), format!("{facts:#}\n")).unwrap();
    let plain = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    let data = [&["-cf"], &plain[..], &["--exclude=./db", "--exclude=./LOCK", "."]].concat();
    tar(&data, "data-v1.tar", &home.data());
    tar(&[&["-cf"], &plain[..], &["./db"]].concat(), "data-v1-db.tar", &home.data());
}
