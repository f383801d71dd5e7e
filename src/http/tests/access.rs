//! Who is let in, and what else the front door answers.

use super::*;

#[actix_web::test]
async fn strangers_pull_and_do_not_push() {
    let server = Server::start();
    let digest = server.push_image("a", "v1", b"layer").await;
    let stranger =
        |method: &str, path: &str| server.request(method, path).header("host", "registry.example:5000");
    assert_eq!(stranger("GET", "/v2/a/manifests/v1").send().await.unwrap().status(), StatusCode::OK);
    let id = "0b54be6d-8a34-4ee5-a1bb-9a5c8a9b3f0e";
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("GET", format!("/v2/a/blobs/uploads/{id}")),
        ("PATCH", format!("/v2/a/blobs/uploads/{id}")),
        ("PUT", format!("/v2/a/blobs/uploads/{id}?digest={digest}")),
        ("DELETE", format!("/v2/a/blobs/uploads/{id}")),
        ("PUT", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{digest}")),
    ] {
        let answer = stranger(method, &path).send().await.unwrap();
        assert_eq!(problem(answer).await, code(403, "DENIED"), "{method} {path}");
    }
    let proxied = server.request("DELETE", "/v2/a/manifests/v1").header("x-forwarded-for", "10.0.0.1");
    assert_eq!(problem(proxied.send().await.unwrap()).await, code(403, "DENIED"));

    let open = Server::with(Policy::default(), Access { auth: Auth::open(true), loopback: false });
    let post = open.request("POST", "/v2/a/blobs/uploads/").header("host", "registry.example");
    assert_eq!(post.send().await.unwrap().status(), StatusCode::ACCEPTED);
}

#[actix_web::test]
async fn the_door_answers() {
    let server = Server::start();
    for path in ["/v2/", "/v2", "/v2/?ns=docker.io"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
    }
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
    let answer = server.send("POST", "/v2/a/tags/list").await;
    assert_eq!(header(&answer, "allow"), "GET, HEAD");
    assert_eq!(problem(answer).await, code(405, "UNSUPPORTED"));
    assert_eq!(problem(server.get("/v2/nothing").await).await, code(404, "UNSUPPORTED"));
    assert_eq!(problem(server.get("/v2/A/tags/list").await).await, code(400, "NAME_INVALID"));
    assert_eq!(problem(server.get("/v2/a%2f..%2fb/tags/list").await).await, code(400, "NAME_INVALID"));
}
