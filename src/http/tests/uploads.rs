//! Pushing blobs: in one request, in chunks, as a stream, by mount; and everything that goes wrong on the way.

use futures::stream;

use super::*;

async fn start(server: &Server, repository: &str) -> String {
    let answer = server.send("POST", &format!("/v2/{repository}/blobs/uploads/")).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(header(&answer, "range"), "0-0");
    assert!(!header(&answer, "docker-upload-uuid").is_empty());
    let location = header(&answer, "location").to_owned();
    assert!(location.starts_with("/v2/"), "{location}");
    location
}

async fn patch(server: &Server, location: &str, range: &str, content: &'static [u8]) -> Response {
    server.request("PATCH", location).header("content-range", range).body(content).send().await.unwrap()
}

#[actix_web::test]
async fn a_blob_comes_back_as_it_was_pushed() {
    let server = Server::start();
    let content = vec![7; 3_000_000];
    let digest = sha256(&content);
    let location = start(&server, "a/b").await;
    let put = server.request("PUT", &format!("{location}?digest={digest}")).body(content.clone());
    let answer = put.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let location = header(&answer, "location").to_owned();
    assert_eq!(location, format!("/v2/a/b/blobs/{digest}"));
    let answer = server.get(&location).await;
    assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
    assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
    assert_eq!(answer.bytes().await.unwrap(), content);
}

#[actix_web::test]
async fn chunks_go_on_where_the_last_one_ended() {
    let server = Server::start();
    let location = start(&server, "a").await;
    let answer = patch(&server, &location, "0-4", b"hello").await;
    assert_eq!((answer.status(), header(&answer, "range")), (StatusCode::ACCEPTED, "0-4"));

    for (method, target) in
        [("PATCH", location.clone()), ("PUT", format!("{location}?digest={}", sha256(b"x")))]
    {
        let request = server.request(method, &target).header("content-range", "9-13").body("world");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!((header(&answer, "range"), header(&answer, "location")), ("0-4", location.as_str()));
    }
    let answer = server.get(&location).await;
    assert_eq!((answer.status(), header(&answer, "range")), (StatusCode::NO_CONTENT, "0-4"));

    let put = server.request("PUT", &format!("{location}?digest={}", sha256(b"helloworld")));
    let answer = put.header("content-range", "5-9").body("world").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(problem(server.get(&location).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
}

#[actix_web::test]
async fn a_stream_without_length_is_taken() {
    let server = Server::start();
    let location = start(&server, "a").await;
    let pieces = (0..100).map(|_| Ok::<_, std::io::Error>(vec![1u8; 70_000]));
    let body = reqwest::Body::wrap_stream(stream::iter(pieces));
    let answer = server.request("PATCH", &location).body(body).send().await.unwrap();
    assert_eq!((answer.status(), header(&answer, "range")), (StatusCode::ACCEPTED, "0-6999999"));
    let digest = sha256(&vec![1; 7_000_000]);
    let answer = server.send("PUT", &format!("{location}?digest={digest}")).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
}

#[actix_web::test]
async fn a_wrong_digest_ends_the_session() {
    let server = Server::start();
    let location = start(&server, "a").await;
    let wrong = sha256(b"other");
    let put = server.request("PUT", &format!("{location}?digest={wrong}")).body("bytes");
    assert_eq!(problem(put.send().await.unwrap()).await, code(400, "DIGEST_INVALID"));
    assert_eq!(problem(server.get(&location).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    let post = server.request("POST", &format!("/v2/a/blobs/uploads/?digest={wrong}")).body("bytes");
    assert_eq!(problem(post.send().await.unwrap()).await, code(400, "DIGEST_INVALID"));
    assert_eq!(problem(server.get(&format!("/v2/a/blobs/{wrong}")).await).await, code(404, "BLOB_UNKNOWN"));
}

#[actix_web::test]
async fn digests_and_ranges_that_cannot_be_read_are_named() {
    let server = Server::start();
    let location = start(&server, "a").await;
    for path in [
        "/v2/a/blobs/uploads/?digest=sha256:00".to_owned(),
        "/v2/a/blobs/uploads/?mount=md5:00".to_owned(),
        "/v2/a/blobs/uploads/?digest-algorithm=md5".to_owned(),
    ] {
        assert_eq!(problem(server.send("POST", &path).await).await, code(400, "DIGEST_INVALID"), "{path}");
    }
    assert_eq!(problem(server.send("PUT", &location).await).await, code(400, "DIGEST_INVALID"));
    let answer = patch(&server, &location, "nonsense", b"hello").await;
    assert_eq!(problem(answer).await, code(400, "BLOB_UPLOAD_INVALID"));
    let answer = patch(&server, &location, "0-9", b"hello").await;
    assert_eq!(problem(answer).await, code(400, "SIZE_INVALID"));
    assert_eq!(header(&server.get(&location).await, "range"), "0-0");
}

#[actix_web::test]
async fn a_stream_longer_than_its_range_is_cut_and_refused() {
    let server = Server::start();
    let location = start(&server, "a").await;
    let body = reqwest::Body::wrap_stream(stream::iter([Ok::<_, std::io::Error>("hello world")]));
    let request = server.request("PATCH", &location).header("content-range", "0-4").body(body);
    assert_eq!(problem(request.send().await.unwrap()).await, code(400, "SIZE_INVALID"));
    assert_eq!(header(&server.get(&location).await, "range"), "0-4");
}

#[actix_web::test]
async fn sha512_needs_no_announcement() {
    let server = Server::start();
    let digest = Digest::of(Algorithm::Sha512, b"content");
    for post in ["/v2/a/blobs/uploads/", "/v2/b/blobs/uploads/?digest-algorithm=sha512"] {
        let answer = server.send("POST", post).await;
        let location = header(&answer, "location").to_owned();
        let put = server.request("PUT", &format!("{location}?digest={digest}")).body("content");
        let answer = put.send().await.unwrap();
        assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
        let answer = server.get(header(&answer, "location")).await;
        assert_eq!(answer.bytes().await.unwrap(), "content");
    }
}

#[actix_web::test]
async fn a_session_belongs_to_its_repository_and_can_be_cancelled() {
    let server = Server::start();
    let location = start(&server, "a").await;
    let other = location.replace("/v2/a/", "/v2/b/");
    for method in ["GET", "PATCH", "DELETE"] {
        assert_eq!(problem(server.send(method, &other).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
    }
    assert_eq!(server.send("DELETE", &location).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(problem(server.send("DELETE", &location).await).await, code(404, "BLOB_UPLOAD_UNKNOWN"));
}

#[actix_web::test]
async fn a_blob_is_mounted_from_where_it_is() {
    let server = Server::start();
    let digest = server.push_blob("a", b"layer").await;
    let missing = sha256(b"missing");
    for (query, status) in [
        (format!("mount={digest}&from=a"), StatusCode::CREATED),
        (format!("mount={digest}"), StatusCode::CREATED),
        (format!("mount={digest}&from=other"), StatusCode::ACCEPTED),
        (format!("mount={digest}&from=..%2Fa"), StatusCode::ACCEPTED),
        (format!("mount={missing}&from=a"), StatusCode::ACCEPTED),
        (format!("mount={missing}"), StatusCode::ACCEPTED),
    ] {
        let answer = server.send("POST", &format!("/v2/b/blobs/uploads/?{query}")).await;
        assert_eq!(answer.status(), status, "{query}");
        assert!(header(&answer, "location").starts_with("/v2/b/blobs/"), "{query}");
    }
    assert_eq!(server.get(&format!("/v2/b/blobs/{digest}")).await.bytes().await.unwrap(), "layer");
}

#[actix_web::test]
async fn many_uploads_of_one_blob_meet() {
    let server = Server::start();
    let content = vec![3; 2_000_000];
    let pushes = (0..8).map(|_| server.push_blob("a", &content));
    let digests = futures::future::join_all(pushes).await;
    let answer = server.get(&format!("/v2/a/blobs/{}", digests[0])).await;
    assert_eq!(answer.bytes().await.unwrap(), content);
}
