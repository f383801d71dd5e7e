//! What clients see of a disk that loses bytes or has no more room, and how they make it good.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use actix_web::http::header::RETRY_AFTER;
use sampan_storage::StoreError;
use sampan_storage::verify::{Kind, Verify};

use super::super::error::HttpError;
use super::*;
use crate::registry::RegistryError;

fn file(server: &Server, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    server.store.dir().join("blobs/sha256").join(&hex[..2]).join(hex)
}

fn damage(server: &Server, digest: &Digest) {
    let path = file(server, digest);
    let mut content = fs::read(&path).unwrap();
    content[0] ^= 1;
    fs::write(path, content).unwrap();
}

async fn verify(server: &Server) -> Vec<(Kind, String)> {
    let store = server.store.clone();
    let look = move || store.verify(Verify::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    let report = tokio::task::spawn_blocking(look).await.unwrap();
    report.findings.into_iter().map(|finding| (finding.kind, finding.subject)).collect()
}

#[actix_web::test]
async fn a_layer_in_quarantine_is_not_there_until_it_is_pushed_again() {
    let server = Server::start();
    let layer = vec![7; 2_500_000];
    server.push_image("a", "v1", &layer).await;
    let digest = sha256(&layer);
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(server.send("HEAD", &path).await.status(), StatusCode::OK);

    damage(&server, &digest);
    assert_eq!(verify(&server).await, [(Kind::BlobContent, digest.to_string())]);
    assert_eq!(server.send("HEAD", &path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(problem(server.get(&path).await).await, code(404, "BLOB_UNKNOWN"));
    // The manifest is there, and cannot be pushed as if nothing were missing.
    assert_eq!(server.get("/v2/a/manifests/v1").await.status(), StatusCode::OK);
    let answer = server.put_manifest("a", "v2", IMAGE, &image(&layer)).await;
    assert_eq!(problem(answer).await, code(404, "MANIFEST_BLOB_UNKNOWN"));
    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    assert_eq!(server.send("POST", &mount).await.status(), StatusCode::ACCEPTED);

    server.push_blob("a", &layer).await;
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), layer);
    let answer = server.put_manifest("a", "v2", IMAGE, &image(&layer)).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(verify(&server).await, []);
}

#[actix_web::test]
async fn a_manifest_in_quarantine_is_not_served_from_memory() {
    let server = Server::start();
    let digest = server.push_image("a", "v1", b"layer").await;
    let paths = ["/v2/a/manifests/v1".to_owned(), format!("/v2/a/manifests/{digest}")];
    for path in &paths {
        assert_eq!(server.get(path).await.status(), StatusCode::OK);
    }
    damage(&server, &digest);
    assert_eq!(verify(&server).await, [(Kind::BlobContent, digest.to_string())]);
    for path in &paths {
        for method in ["HEAD", "GET"] {
            assert_eq!(server.send(method, path).await.status(), StatusCode::NOT_FOUND, "{method} {path}");
        }
    }
    assert_eq!(server.push_image("a", "v1", b"layer").await, digest);
    for path in &paths {
        let answer = server.get(path).await;
        assert_eq!(sha256(&answer.bytes().await.unwrap()), digest);
    }
}

#[actix_web::test]
async fn a_manifest_is_hashed_when_it_comes_from_the_disk() {
    let server = Server::start();
    let digest = server.push_image("a", "v1", b"layer").await;
    damage(&server, &digest);
    // It was never read yet, so that nothing of it is in memory.
    let answer = server.get("/v2/a/manifests/v1").await;
    assert_eq!(problem(answer).await, code(404, "MANIFEST_UNKNOWN"));
    assert!(!file(&server, &digest).exists());
    server.push_image("a", "v1", b"layer").await;
    assert_eq!(server.get("/v2/a/manifests/v1").await.status(), StatusCode::OK);
}

#[actix_web::test]
async fn a_blob_that_has_lost_its_end_is_found_at_the_first_look() {
    let server = Server::start();
    let large = vec![7; 2_500_000];
    for content in [b"small".as_slice(), &large] {
        let digest = server.push_blob("a", content).await;
        let path = format!("/v2/a/blobs/{digest}");
        fs::File::options().write(true).open(file(&server, &digest)).unwrap().set_len(3).unwrap();
        assert_eq!(server.send("HEAD", &path).await.status(), StatusCode::NOT_FOUND);
        assert!(!file(&server, &digest).exists());
        server.push_blob("a", content).await;
        assert_eq!(server.get(&path).await.bytes().await.unwrap(), content);
    }
    assert_eq!(server.store.losses(), 2);
}

#[actix_web::test]
async fn what_passes_says_when_to_come_back() {
    for (error, status, due) in [
        (StoreError::NoSpace, 507, "DENIED"),
        (StoreError::Full { free: 1, reserve: 2 }, 507, "DENIED"),
        (StoreError::TooManyUploads { limit: 3 }, 429, "TOOMANYREQUESTS"),
        (StoreError::Rebuilding, 503, "UNAVAILABLE"),
    ] {
        let text = error.to_string();
        let answer = HttpError::from(RegistryError::from(error)).respond();
        assert!(answer.headers().contains_key(RETRY_AFTER), "{text}");
        assert_eq!(answer.status().as_u16(), status);
        let body = actix_web::body::to_bytes(answer.into_body()).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["code"], due);
        assert_eq!(body["errors"][0]["message"], text);
    }
}
