//! `sampan verify`: damage is found, told and made good, by a running registry and on its directory.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Home, Options, Server, eventually, noise};
use crate::oci::{Image, sha256};

fn file(home: &Home, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    home.data().join("blobs/sha256").join(&hex[..2]).join(hex)
}

fn damage(home: &Home, digest: &str) {
    let path = file(home, digest);
    let mut content = fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(path, content).unwrap();
}

/// The exit code, and the report.
async fn verify(home: &Home, flags: &[&str]) -> (Option<i32>, Value) {
    let said = home.sampan(&[&["verify", "--json"], flags].concat()).await;
    (said.code, serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}")))
}

#[tokio::test]
async fn a_running_registry_finds_damage_and_a_push_heals_it() {
    let server = Server::start(Options::default()).await;
    let layer = noise("damaged", 2_500_000);
    let image = Image::new(&[&layer]);
    server.push("a", "v1", &image).await;
    let said = server.home.sampan(&["verify"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.stdout.contains("3 blobs") && said.stdout.contains("0 findings"), "{said:?}");

    let digest = sha256(&layer);
    damage(&server.home, &digest);
    let said = server.home.sampan(&["verify"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains(&digest) && said.stdout.contains("in quarantine"), "{said:?}");
    assert!(said.stderr.starts_with("sampan: 1 findings") && said.stderr.contains("--repair"), "{said:?}");
    assert_eq!(server.send("HEAD", &format!("/v2/a/blobs/{digest}")).await.status(), 404);
    // Nobody else has it.
    let (code, report) = verify(&server.home, &["--repair"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(report["findings"][0]["kind"], "blob-missing");
    assert_eq!(report["findings"][0]["outcome"], "left");

    server.push("a", "v1", &image).await;
    assert_eq!(verify(&server.home, &[]).await.0, Some(0));
    assert_eq!(server.pull("a", "v1").await, image);
}

#[tokio::test]
async fn what_is_lost_comes_back_from_a_follower() {
    let publisher = Server::start(Options::default()).await;
    let layer = noise("healed", 2_500_000);
    let image = Image::new(&[&layer]);
    publisher.push("a", "v1", &image).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    let sees = async || follower.digest("a", "v1").await.filter(|digest| *digest == image.digest());
    eventually("the follower sees the tag", sees).await;
    assert_eq!(follower.pull("a", "v1").await, image);

    let digests = [sha256(&layer), image.digest()];
    for digest in &digests {
        damage(&publisher.home, digest);
    }
    let (code, report) = verify(&publisher.home, &["--repair"]).await;
    let findings = report["findings"].as_array().unwrap();
    assert_eq!((code, findings.len()), (Some(0), 2), "{report}");
    for finding in findings {
        assert_eq!((&finding["kind"], &finding["outcome"]), (&"blob-content".into(), &"repaired".into()));
        assert!(digests.iter().any(|digest| finding["subject"] == digest.as_str()), "{report}");
    }
    assert_eq!(publisher.pull("a", "v1").await, image);
    assert_eq!(verify(&publisher.home, &[]).await.1["findings"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn a_directory_is_verified_where_no_registry_runs() {
    let server = Server::start(Options::default()).await;
    let (large, small) = (noise("offline", 2_500_000), b"small".to_vec());
    let image = Image::new(&[&large, &small]);
    server.push("a", "v1", &image).await;
    let home = server.stop().await;
    assert!(!home.data().join("RUNNING").exists());
    assert_eq!(verify(&home, &["--rate", "64MiB"]).await.0, Some(0));
    damage(&home, &sha256(&large));
    damage(&home, &sha256(&small));
    let (code, report) = verify(&home, &["--repair"]).await;
    assert_eq!((code, report["findings"].as_array().map(Vec::len)), (Some(1), Some(2)), "{report}");

    let said = home.sampan(&["verify", "--rate", "fast"]).await;
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("8MiB"), "{said:?}");
    let server = home.start().await;
    server.push("a", "v1", &image).await;
    assert_eq!(verify(&server.home, &[]).await.0, Some(0));
}

#[tokio::test]
async fn what_a_kill_may_have_damaged_is_hashed_before_it_is_first_read() {
    let server = Server::start(Options::default()).await;
    let (layer, other) = (noise("killed", 2_500_000), noise("whole", 1_500_000));
    let image = Image::new(&[&layer, &other]);
    server.push("a", "v1", &image).await;
    let home = server.kill();
    damage(&home, &sha256(&layer));
    // Damage to what is stored leaves its time as it was, and the scrub begins later than this.
    let server = home.start().await;
    let path = |content: &[u8]| format!("/v2/a/blobs/{}", sha256(content));
    for method in ["GET", "HEAD"] {
        assert_eq!(server.send(method, &path(&layer)).await.status(), 404, "{method}");
    }
    assert!(!file(&server.home, &sha256(&layer)).exists());
    assert_eq!(server.send("GET", &path(&other)).await.bytes().await.unwrap(), other);

    server.push("a", "v1", &image).await;
    assert_eq!(server.pull("a", "v1").await, image);
}
