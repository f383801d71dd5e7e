//! Pulling blobs: whole, in ranges, and only where the repository has them.

use super::*;

fn content() -> Vec<u8> {
    (0..2048u32).map(|at| (at % 251) as u8).collect()
}

#[actix_web::test]
async fn one_range_is_a_part_of_the_blob() {
    let server = Server::start();
    let digest = server.push_blob("a", &content()).await;
    let path = format!("/v2/a/blobs/{digest}");
    for (range, expected, label) in [
        ("bytes=500-1499", 500..1500, "bytes 500-1499/2048"),
        ("bytes=500-", 500..2048, "bytes 500-2047/2048"),
        ("bytes=-500", 1548..2048, "bytes 1548-2047/2048"),
        ("bytes=2000-5000", 2000..2048, "bytes 2000-2047/2048"),
    ] {
        let answer = server.request("GET", &path).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(header(&answer, "content-range"), label);
        assert_eq!(answer.bytes().await.unwrap(), content()[expected]);
    }
    for range in ["bytes=500-0", "bytes=5000-10000"] {
        let answer = server.request("GET", &path).header("range", range).send().await.unwrap();
        assert_eq!(header(&answer, "content-range"), "bytes */2048");
        assert_eq!(problem(answer).await.0, 416);
    }
}

#[actix_web::test]
async fn several_ranges_come_in_several_parts() {
    let server = Server::start();
    let digest = server.push_blob("a", &content()).await;
    let request =
        server.request("GET", &format!("/v2/a/blobs/{digest}")).header("range", "bytes=0-1,100-102");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    let boundary = header(&answer, "content-type").split_once("boundary=").unwrap().1.to_owned();
    let length: usize = header(&answer, "content-length").parse().unwrap();
    let body = answer.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    let mut expected = Vec::new();
    for (label, part) in [("0-1", 0..2), ("100-102", 100..103)] {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {label}/2048\r\n\r\n"
        );
        expected.extend(head.into_bytes());
        expected.extend(&content()[part]);
    }
    expected.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    assert_eq!(body, expected);
}

#[actix_web::test]
async fn a_client_that_has_it_gets_no_bytes() {
    let server = Server::start();
    let digest = server.push_blob("a", &content()).await;
    let path = format!("/v2/a/blobs/{digest}");
    let etag = format!("\"{digest}\"");
    let answer = server.request("GET", &path).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!((answer.status(), header(&answer, "etag")), (StatusCode::NOT_MODIFIED, etag.as_str()));
    let stale = server.request("GET", &path).header("range", "bytes=0-1").header("if-range", "\"other\"");
    assert_eq!(stale.send().await.unwrap().status(), StatusCode::OK);
}

#[actix_web::test]
async fn a_repository_shows_only_its_own_blobs() {
    let server = Server::start();
    let digest = server.push_blob("a", b"mine").await;
    for method in ["GET", "HEAD", "DELETE"] {
        let answer = server.send(method, &format!("/v2/b/blobs/{digest}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method}");
    }
    let answer = server.get("/v2/a/blobs/sha256:baddigeststring").await;
    assert_eq!(problem(answer).await, code(400, "DIGEST_INVALID"));
}

#[actix_web::test]
async fn a_deleted_blob_is_gone_at_once_and_can_come_back() {
    let server = Server::start();
    let digest = server.push_blob("a", b"bytes").await;
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(server.send("DELETE", &path).await.status(), StatusCode::ACCEPTED);
    assert_eq!(problem(server.get(&path).await).await, code(404, "BLOB_UNKNOWN"));
    assert_eq!(problem(server.send("DELETE", &path).await).await, code(404, "BLOB_UNKNOWN"));
    server.push_blob("a", b"bytes").await;
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), "bytes");
}

#[actix_web::test]
async fn the_empty_blob_is_a_blob() {
    let server = Server::start();
    let digest = server.push_blob("a", b"").await;
    let answer = server.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!((answer.status(), header(&answer, "content-length")), (StatusCode::OK, "0"));
}
