//! What stands on the wire, where a client library would hide it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Sends bytes and reads until the server closes or falls silent after a whole answer.
pub(super) async fn exchange(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[actix_web::test]
async fn head_says_the_length_and_sends_nothing() {
    let server = Server::start();
    let digest = server.push_blob("a", &vec![5; 100_000]).await;
    let manifest = server.push_image("b", "v1", b"layer").await;
    let length = image(b"layer").to_string().len();
    for (path, length) in [
        (format!("/v2/a/blobs/{digest}"), Some(100_000)),
        (format!("/v2/b/manifests/{manifest}"), Some(length)),
        ("/v2/b/manifests/v1".to_owned(), Some(length)),
        (format!("/v2/b/blobs/{digest}"), None),
    ] {
        let request = format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = exchange(&server, request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "", "{path}");
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("transfer-encoding"), "{head}");
        match length {
            Some(length) => assert!(head.contains(&format!("\r\ncontent-length: {length}\r\n")), "{head}"),
            None => assert!(head.starts_with("http/1.1 404 "), "{head}"),
        }
    }
}

#[actix_web::test]
async fn a_body_that_breaks_off_is_kept_and_never_whole() {
    let server = Server::start();
    let answer = server.send("POST", "/v2/a/blobs/uploads/").await;
    let location = header(&answer, "location").to_owned();
    let digest = sha256(b"hello world");
    for (method, query, framing, sent) in [
        ("PATCH", String::new(), "content-length: 11", "hello"),
        ("PUT", format!("?digest={digest}"), "transfer-encoding: chunked", "3\r\n wo\r\n"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            format!("{method} {location}{query} HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n{sent}");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    // The session is free again when what was sent is written.
    let reached = loop {
        let answer = server.get(&location).await;
        match answer.status() {
            StatusCode::NO_CONTENT if header(&answer, "range") == "0-7" => break true,
            StatusCode::NO_CONTENT | StatusCode::CONFLICT => tokio::task::yield_now().await,
            _ => break false,
        }
    };
    assert!(reached);
    let put = server.request("PUT", &format!("{location}?digest={digest}")).header("content-range", "8-10");
    assert_eq!(put.body("rld").send().await.unwrap().status(), StatusCode::CREATED);
}

#[actix_web::test]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let server = Server::start();
    let digest = sha256(b"hello");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go = [0; 25];
    stream.read_exact(&mut go).await.unwrap();
    assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

#[actix_web::test]
async fn a_path_that_climbs_is_refused() {
    let server = Server::start();
    for path in
        ["/v2/../../etc/passwd", "/v2/a/manifests/..", "/v2/%2e%2e/manifests/v1", "/v2/a/blobs/%00", "/v2/%"]
    {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = exchange(&server, request.as_bytes()).await;
        let status: u16 = answer.get(9..12).unwrap().parse().unwrap();
        assert!([400, 404].contains(&status), "{path}: {answer}");
    }
}
