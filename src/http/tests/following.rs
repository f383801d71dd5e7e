//! What a registry shows of the names it follows, and what it makes of it when someone pushes.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use sampan_storage::tree::Diff;
use sampan_storage::{Adoption, BlobFile};

use super::*;
use crate::registry::{BlobStream, OriginError, RemoteBlob};

const NAME: &str = "k51followed";
/// Files that come with a root, as the directories do.
const EAGER: u64 = 1024;

/// Peers, in memory.
struct Peers {
    store: Store,
    blobs: HashMap<Digest, Bytes>,
}

impl Peers {
    fn give(&self, want: &RemoteBlob) -> Result<Bytes, OriginError> {
        assert_eq!(want.tree, NAME);
        let bytes = self.blobs.get(&want.digest).ok_or(OriginError::Unavailable)?;
        assert_eq!(bytes.len() as u64, want.size);
        Ok(bytes.clone())
    }
}

impl Origin for Peers {
    fn open(
        &self,
        want: RemoteBlob,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'_, Result<BlobStream, OriginError>> {
        let opened = self.give(&want).map(|bytes| {
            let range = range.unwrap_or(0..want.size);
            let bytes = bytes.slice(range.start as usize..range.end as usize);
            let size = bytes.len() as u64;
            let pieces: Vec<_> = bytes.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            BlobStream { size, body: stream::iter(pieces).boxed() }
        });
        std::future::ready(opened).boxed()
    }

    fn fetch(&self, want: RemoteBlob) -> BoxFuture<'_, Result<BlobFile, OriginError>> {
        let fetched = self.give(&want).and_then(|bytes| {
            self.store.put_blob(want.digest.algorithm(), &bytes)?;
            Ok(self.store.blob(&want.digest)?.unwrap())
        });
        std::future::ready(fetched).boxed()
    }
}

/// A registry that follows what `publisher` has, with peers that give these blobs.
async fn follow(publisher: &Server, blobs: &[&[u8]]) -> Server {
    publisher.store.fold().await.unwrap();
    let root = publisher.store.root();
    let blocks = publisher.store.blocks_between(None, root, EAGER, usize::MAX / 4).unwrap().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    store.put_blocks(&blocks).unwrap();
    store.follow(NAME).await.unwrap();
    let missing = Diff::new(None, root, EAGER).advance(&store, &mut |_| {}).unwrap();
    assert!(missing.is_empty());
    let adoption = Adoption { name: NAME.into(), before: None, root, sequence: 1, record: Bytes::new() };
    store.adopt(adoption).await.unwrap();
    let blobs = blobs.iter().map(|blob| (sha256(blob), Bytes::copy_from_slice(blob))).collect();
    let peers = Peers { store: store.clone(), blobs };
    Server::over(dir, store, Arc::new(peers), Policy::default(), local())
}

fn layer(fill: u8) -> Vec<u8> {
    vec![fill; 3_000_000]
}

#[actix_web::test]
async fn a_followed_tag_is_pulled_as_if_it_were_mine() {
    let publisher = Server::start();
    let digest = publisher.push_image("a/b", "v1", &layer(1)).await;
    let server = follow(&publisher, &[&layer(1)]).await;

    let answer = server.get("/v2/a/b/manifests/v1").await;
    assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
    assert_eq!(answer.bytes().await.unwrap(), image(&layer(1)).to_string());
    // A config comes with the root, a layer from peers.
    assert_eq!(server.get(&format!("/v2/a/b/blobs/{}", sha256(b"{}"))).await.bytes().await.unwrap(), "{}");
    let path = format!("/v2/a/b/blobs/{}", sha256(&layer(1)));
    let head = server.send("HEAD", &path).await;
    assert_eq!(header(&head, "content-length"), "3000000");
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), layer(1));
    for (range, length) in [("bytes=10-19", 10), ("bytes=2999990-", 10)] {
        let answer = server.request("GET", &path).header("range", range).send().await.unwrap();
        assert_eq!(
            (answer.status(), answer.bytes().await.unwrap().len()),
            (StatusCode::PARTIAL_CONTENT, length)
        );
    }
    let several = server.request("GET", &path).header("range", "bytes=0-9,20-29").send().await.unwrap();
    let length: usize = header(&several, "content-length").parse().unwrap();
    assert_eq!(several.bytes().await.unwrap().len(), length);
    // Another repository of the same name's tree does not show it.
    assert_eq!(server.get(&path.replace("a/b", "other")).await.status(), StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn what_no_peer_gives_is_not_found() {
    let publisher = Server::start();
    publisher.push_image("a", "v1", &layer(1)).await;
    let server = follow(&publisher, &[]).await;
    let path = format!("/v2/a/blobs/{}", sha256(&layer(1)));
    assert_eq!(problem(server.get(&path).await).await, code(404, "BLOB_UNKNOWN"));
    assert_eq!(server.get("/v2/a/manifests/v1").await.status(), StatusCode::OK);
}

#[actix_web::test]
async fn mine_comes_before_theirs_and_lists_are_merged() {
    let publisher = Server::start();
    let theirs = publisher.push_image("a", "v1", b"theirs").await;
    publisher.push_image("a", "v2", b"theirs").await;
    let server = follow(&publisher, &[]).await;
    let mine = server.push_image("a", "v1", b"mine").await;
    server.push_image("a", "v3", b"mine").await;
    let digest = async || header(&server.get("/v2/a/manifests/v1").await, "docker-content-digest").to_owned();
    assert_eq!(digest().await, mine.to_string());
    let tags: Value =
        serde_json::from_slice(&server.get("/v2/a/tags/list").await.bytes().await.unwrap()).unwrap();
    assert_eq!(tags["tags"], json!(["v1", "v2", "v3"]));

    // Deleting mine unmasks theirs, and says so.
    let answer = server.send("DELETE", "/v2/a/manifests/v1").await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(header(&answer, "warning").starts_with("299 - \"") && header(&answer, "warning").contains(NAME));
    assert_eq!(digest().await, theirs.to_string());
}

#[actix_web::test]
async fn theirs_cannot_be_deleted() {
    let publisher = Server::start();
    let digest = publisher.push_image("a", "v1", b"theirs").await;
    let server = follow(&publisher, &[]).await;
    for path in [format!("manifests/{digest}"), "manifests/v1".into(), format!("blobs/{}", sha256(b"theirs"))]
    {
        let answer = server.send("DELETE", &format!("/v2/a/{path}")).await;
        assert_eq!(problem(answer).await, code(405, "UNSUPPORTED"), "{path}");
    }
}

#[actix_web::test]
async fn an_image_on_a_followed_base_ends_up_whole_in_my_tree() {
    let publisher = Server::start();
    publisher.push_image("base", "v1", &layer(1)).await;
    let server = follow(&publisher, &[&layer(1)]).await;
    // As containerd does it: it asks for the layer, is told that it is there, and sends only the manifest.
    let answer = server.put_manifest("base", "mine", IMAGE, &image(&layer(1))).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    // By mount from the followed repository, into one of mine.
    let mount = format!("/v2/app/blobs/uploads/?mount={}&from=base", sha256(&layer(1)));
    assert_eq!(server.send("POST", &mount).await.status(), StatusCode::CREATED);

    server.store.unfollow(NAME).await.unwrap();
    assert_eq!(server.get("/v2/base/manifests/v1").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.get("/v2/base/manifests/mine").await.status(), StatusCode::OK);
    for content in [b"{}".as_slice(), &layer(1)] {
        let path = format!("/v2/base/blobs/{}", sha256(content));
        assert_eq!(server.get(&path).await.bytes().await.unwrap(), content);
    }
    let path = format!("/v2/app/blobs/{}", sha256(&layer(1)));
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), layer(1));
}

#[actix_web::test]
async fn a_followed_base_that_no_peer_gives_is_to_be_pushed() {
    let publisher = Server::start();
    publisher.push_image("base", "v1", &layer(1)).await;
    let server = follow(&publisher, &[]).await;
    let answer = server.put_manifest("base", "mine", IMAGE, &image(&layer(1))).await;
    assert_eq!(problem(answer).await, code(404, "MANIFEST_BLOB_UNKNOWN"));
    let mount = format!("/v2/app/blobs/uploads/?mount={}", sha256(&layer(1)));
    assert_eq!(server.send("POST", &mount).await.status(), StatusCode::ACCEPTED);
}

#[actix_web::test]
async fn an_index_whose_platforms_are_followed_is_linked_down_to_its_layers() {
    let publisher = Server::start();
    let child = publisher.push_image("base", "v1", &layer(1)).await;
    let server = follow(&publisher, &[&layer(1)]).await;
    let body = image(&layer(1)).to_string();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(IMAGE, body.as_bytes())] });
    assert_eq!(server.put_manifest("multi", "v1", INDEX, &index).await.status(), StatusCode::CREATED);
    server.store.unfollow(NAME).await.unwrap();
    assert_eq!(server.get(&format!("/v2/multi/manifests/{child}")).await.bytes().await.unwrap(), body);
    let path = format!("/v2/multi/blobs/{}", sha256(&layer(1)));
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), layer(1));
}

#[actix_web::test]
async fn followed_referrers_are_in_the_list() {
    let publisher = Server::start();
    let subject = publisher.push_image("a", "v1", b"layer").await;
    let mut body = publisher.image("a", b"signature").await;
    body["subject"] = json!({ "mediaType": IMAGE, "digest": subject.to_string(), "size": 3 });
    assert_eq!(publisher.put_manifest("a", "sig", IMAGE, &body).await.status(), StatusCode::CREATED);
    let server = follow(&publisher, &[]).await;
    let answer = server.get(&format!("/v2/a/referrers/{subject}")).await;
    let found: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(found["manifests"][0]["digest"], sha256(body.to_string().as_bytes()).to_string());
}
