//! One registry from end to end: what clients push is what clients pull.

use bytes::Bytes;
use futures::stream;
use reqwest::{Body, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Options, Server, noise};
use crate::oci::{IMAGE, Image, header, json_of, problem, sha256};

#[tokio::test]
async fn an_image_comes_back_as_it_was_pushed() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[&noise("image", 3_000_000), b"small", b""]);
    let digest = server.push("library/boat", "v1", &image).await;
    assert_eq!(server.pull("library/boat", "v1").await, image);
    assert_eq!(server.pull("library/boat", &digest).await, image);
    assert_eq!(server.tags("library/boat").await, ["v1"]);
    assert_eq!(server.catalog().await, ["library/boat"]);

    let answer = server.get("/v2/library/boat/manifests/v1").await;
    assert_eq!(header(&answer, "content-type"), IMAGE);
    assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
}

#[tokio::test]
async fn a_blob_may_come_in_chunks() {
    let server = Server::start(Options::default()).await;
    let blob = noise("chunks", 2_500_000);
    let mut path = server.begin_upload("a").await;
    let mut from = 0;
    for chunk in blob.chunks(1_000_000) {
        let last = from + chunk.len() - 1;
        let request = server.request("PATCH", &path).header("content-range", format!("{from}-{last}"));
        let answer = request.body(chunk.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(header(&answer, "range"), format!("0-{last}"));
        path = header(&answer, "location").to_owned();
        from += chunk.len();
    }
    let answer = server.send("PUT", &format!("{path}?digest={}", sha256(&blob))).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(server.blob("a", &sha256(&blob)).await, blob);
}

#[tokio::test]
async fn a_blob_may_come_as_a_stream_of_unknown_length() {
    let server = Server::start(Options::default()).await;
    let blob = noise("stream", 2_500_000);
    let path = server.begin_upload("a").await;
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        blob.chunks(77_777).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let body = Body::wrap_stream(stream::iter(pieces));
    let answer = server.request("PATCH", &path).body(body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let path = header(&answer, "location");
    let answer = server.send("PUT", &format!("{path}?digest={}", sha256(&blob))).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(header(&answer, "location"), format!("/v2/a/blobs/{}", sha256(&blob)));
    assert_eq!(server.blob("a", &sha256(&blob)).await, blob);
}

#[tokio::test]
async fn a_blob_with_another_digest_is_refused() {
    let server = Server::start(Options::default()).await;
    let wrong = sha256(b"something else");
    let request = server.request("POST", &format!("/v2/a/blobs/uploads/?digest={wrong}"));
    let (status, code, _) = problem(request.body("this").send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(server.send("HEAD", &format!("/v2/a/blobs/{wrong}")).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn head_tells_the_length_and_sends_nothing() {
    let server = Server::start(Options::default()).await;
    let layer = noise("head", 1_234_567);
    let image = Image::new(&[&layer]);
    server.push("a", "v1", &image).await;
    let blob = format!("/v2/a/blobs/{}", sha256(&layer));
    for (path, length) in [(blob.as_str(), layer.len()), ("/v2/a/manifests/v1", image.manifest.len())] {
        let mut socket = TcpStream::connect(server.http).await.unwrap();
        let request = format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let lengths: Vec<String> = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map(|(_, value)| value.trim().to_owned())
            .collect();
        assert_eq!(lengths, [length.to_string()], "{head}");
        assert_eq!(body, "");
    }
}

#[tokio::test]
async fn a_part_of_a_blob_is_served() {
    let server = Server::start(Options::default()).await;
    let blob = noise("part", 2_100_000);
    let path = format!("/v2/a/blobs/{}", server.push_blob("a", &blob).await);
    // Over the border of two leaves.
    let answer = server.request("GET", &path).header("range", "bytes=1048570-1048589").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&answer, "content-range"), "bytes 1048570-1048589/2100000");
    assert_eq!(answer.bytes().await.unwrap(), blob[1_048_570..1_048_590]);
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let server = Server::start(Options::default()).await;
    let digest = server.push_blob("here", b"mounted").await;
    let path = |from: &str, digest: &str| format!("/v2/there/blobs/uploads/?mount={digest}&from={from}");
    let answer = server.send("POST", &path("here", &digest)).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(server.blob("there", &digest).await, b"mounted");
    // What is not there becomes an upload.
    let answer = server.send("POST", &path("here", &sha256(b"unknown"))).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_the_rest_stays() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[b"layer"]);
    let digest = server.push("a", "v1", &image).await;
    server.tag("a", "v2", &image).await;

    assert_eq!(server.send("DELETE", "/v2/a/manifests/v1").await.status(), StatusCode::ACCEPTED);
    assert_eq!(server.digest("a", "v1").await, None);
    assert_eq!(server.tags("a").await, ["v2"]);
    assert_eq!(server.pull("a", "v2").await, image);

    assert_eq!(
        server.send("DELETE", &format!("/v2/a/manifests/{digest}")).await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(server.digest("a", "v2").await, None);
    assert_eq!(server.digest("a", &digest).await, None);

    let layer = format!("/v2/a/blobs/{}", sha256(b"layer"));
    assert_eq!(server.send("DELETE", &layer).await.status(), StatusCode::ACCEPTED);
    let (status, code, _) = problem(server.get(&layer).await).await;
    assert_eq!((status, code.as_str()), (404, "BLOB_UNKNOWN"));

    // It can be pushed again.
    server.push("a", "v1", &image).await;
    assert_eq!(server.pull("a", "v1").await, image);
}

#[tokio::test]
async fn tags_come_in_pages_in_order() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[b"layer"]);
    server.push("a", "v0", &image).await;
    for number in [4, 2, 6, 1, 5, 3] {
        server.tag("a", &format!("v{number}"), &image).await;
    }
    let mut path = "/v2/a/tags/list?n=3".to_owned();
    let mut pages = Vec::new();
    loop {
        let answer = server.get(&path).await;
        let link = header(&answer, "link").to_owned();
        pages.push(json_of(answer).await["tags"].clone());
        let Some((next, _)) = link.strip_prefix('<').and_then(|link| link.split_once('>')) else { break };
        path = next.to_owned();
    }
    assert_eq!(serde_json::Value::from(pages).to_string(), r#"[["v0","v1","v2"],["v3","v4","v5"],["v6"]]"#);
}

#[tokio::test]
async fn what_is_not_there_has_the_code_that_says_so() {
    let server = Server::start(Options::default()).await;
    server.push("a", "v1", &Image::new(&[b"layer"])).await;
    let unknown = sha256(b"unknown");
    for (path, expected) in [
        ("/v2/a/manifests/v2".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("/v2/a/manifests/{unknown}"), "MANIFEST_UNKNOWN"),
        (format!("/v2/a/blobs/{unknown}"), "BLOB_UNKNOWN"),
        ("/v2/b/tags/list".to_owned(), "NAME_UNKNOWN"),
    ] {
        let (status, code, _) = problem(server.get(&path).await).await;
        assert_eq!((status, code.as_str()), (404, expected), "{path}");
    }
}
