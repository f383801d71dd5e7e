//! What stands around the API: prefix and locations, headers and ids, health, figures, the read-only switch.

use super::*;
use crate::config::{Locations, Pages};
use crate::http::{Urls, headers, serve_debug};

/// A server whose state is changed before it starts.
fn server(change: impl FnOnce(&mut State)) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let mut state = state(&store, Arc::new(Nowhere), Policy::default(), local());
    change(&mut state);
    Server::serving(dir, store, state, Options::default(), Patience::default())
}

#[actix_web::test]
async fn everything_is_below_the_prefix_and_locations_know_it() {
    let server = server(|state| state.urls = Urls::new(Locations::Relative, "/my/registry".to_owned()));
    assert_eq!(server.get("/v2/").await.status(), StatusCode::NOT_FOUND);
    for path in ["/my/registry/v2/", "/my/registry/v2", "/my/registry/healthz", "/my/registry/readyz"] {
        assert_eq!(server.get(path).await.status(), StatusCode::OK, "{path}");
    }
    let answer = server.send("POST", "/my/registry/v2/a/blobs/uploads/").await;
    let upload = header(&answer, "location").to_owned();
    assert!(upload.starts_with("/my/registry/v2/a/blobs/uploads/"), "{upload}");
    let digest = sha256(b"x");
    let put = server.request("PUT", &format!("{upload}?digest={digest}")).body("x").send().await.unwrap();
    assert_eq!(
        (put.status().as_u16(), header(&put, "location")),
        (201, format!("/my/registry/v2/a/blobs/{digest}").as_str())
    );
    let image = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    for tag in ["a", "b"] {
        let path = format!("/my/registry/v2/a/manifests/{tag}");
        let put = server.request("PUT", &path).header("content-type", INDEX).body(image.to_string());
        let put = put.send().await.unwrap();
        assert!(header(&put, "location").starts_with("/my/registry/v2/a/manifests/sha256:"));
    }
    let list = server.get("/my/registry/v2/a/tags/list?n=1").await;
    assert_eq!(header(&list, "link"), "</my/registry/v2/a/tags/list?n=1&last=a>; rel=\"next\"");
}

#[actix_web::test]
async fn a_configured_url_is_in_every_location() {
    let server = server(|state| {
        state.urls = Urls::new(Locations::Fixed("https://hub.example".to_owned()), String::new());
    });
    let post = server.request("POST", "/v2/a/blobs/uploads/").send().await.unwrap();
    assert!(header(&post, "location").starts_with("https://hub.example/v2/a/blobs/uploads/"));
    // An upload that has to go on says where.
    let upload = header(&post, "location").trim_start_matches("https://hub.example").to_owned();
    let patch =
        server.request("PATCH", &upload).header("content-range", "5-9").body("hello").send().await.unwrap();
    assert_eq!(patch.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&patch, "location"), format!("https://hub.example{upload}"));
}

#[actix_web::test]
async fn each_answer_has_the_operators_headers_and_an_id() {
    let said = [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Many", "a"),
        ("x-many", "b"),
        ("Cache-Control", "no-store"),
    ];
    let said = said.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let server = server(|state| state.headers = headers(&said).unwrap());
    let digest = server.push_blob("a", b"x").await;
    for path in ["/v2/", "/v2/nothing", "/nowhere", "/healthz"] {
        let answer = server.get(path).await;
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{path}");
        let many: Vec<_> = answer.headers().get_all("x-many").iter().collect();
        assert_eq!(many, ["a", "b"], "{path}");
        assert_eq!(header(&answer, "x-request-id").len(), 16, "{path}");
    }
    // What the answer says itself stands above.
    let blob = server.get(&format!("/v2/a/blobs/{digest}")).await;
    assert!(header(&blob, "cache-control").contains("immutable"));
    let own = server.request("GET", "/v2/").header("x-request-id", "my-id.1").send().await.unwrap();
    assert_eq!(header(&own, "x-request-id"), "my-id.1");
    let bad = server.request("GET", "/v2/").header("x-request-id", "a b").send().await.unwrap();
    assert_ne!(header(&bad, "x-request-id"), "a b");
}

#[actix_web::test]
async fn a_read_only_registry_takes_nothing_and_gives_all() {
    let server = Server::with(Policy { read_only: true, ..Policy::default() }, local());
    let id = "0b54be6d-8a34-4ee5-a1bb-9a5c8a9b3f0e";
    let digest = sha256(b"x");
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/a/blobs/uploads/?mount={digest}")),
        ("PATCH", format!("/v2/a/blobs/uploads/{id}")),
        ("PUT", format!("/v2/a/blobs/uploads/{id}?digest={digest}")),
        ("DELETE", format!("/v2/a/blobs/uploads/{id}")),
        ("PUT", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{digest}")),
    ] {
        let answer = server.send(method, &path).await;
        assert_eq!(header(&answer, "allow"), "GET, HEAD", "{method} {path}");
        assert_eq!(problem(answer).await, code(405, "UNSUPPORTED"), "{method} {path}");
    }
    assert_eq!(server.get("/v2/_catalog").await.status(), StatusCode::OK);
    assert_eq!(server.get(&format!("/v2/a/blobs/uploads/{id}")).await.status(), StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn pages_are_no_longer_than_the_operator_allows() {
    let server = server(|state| state.pages = Pages { catalog: 1, tags: 2 });
    for name in ["a", "b"] {
        for tag in ["1", "2", "3"] {
            server.push_image(name, tag, b"layer").await;
        }
    }
    for (path, field, most) in [("/v2/_catalog", "repositories", 1), ("/v2/a/tags/list", "tags", 2)] {
        for query in ["", "?n=100"] {
            let answer = server.get(&format!("{path}{query}")).await;
            assert!(header(&answer, "link").contains(&format!("n={most}&")), "{path}");
            let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(body[field].as_array().unwrap().len(), most, "{path}{query}");
        }
    }
}

#[actix_web::test]
async fn health_and_figures_are_on_a_port_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let data = web::Data::new(state(&store, Arc::new(Nowhere), Policy::default(), local()));
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let watch = listener.name();
    let (debug, stop_debug) = serve_debug(listener, data.clone(), Some("/figures".to_owned())).unwrap();
    actix_web::rt::spawn(debug);
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let address = listener.name();
    let (main, stop) = serve_with(listener, data.clone(), Options::default(), Patience::default()).unwrap();
    actix_web::rt::spawn(main);
    let client = client();
    let get = async |at: &str, path: &str| client.get(format!("http://{at}{path}")).send().await.unwrap();

    assert_eq!(get(&address, "/figures").await.status(), 404);
    assert_eq!(get(&address, "/metrics").await.status(), 404);
    assert_eq!(get(&watch, "/v2/").await.status(), 404);
    assert_eq!(get(&watch, "/debug/health").await.text().await.unwrap(), "{}");
    for at in [&address, &watch] {
        assert_eq!(get(at, "/healthz").await.text().await.unwrap(), "ok\n");
        let ready = get(at, "/readyz").await;
        assert_eq!(ready.status(), 200);
        assert_eq!(ready.text().await.unwrap(), r#"{"ready":true,"reasons":[]}"#);
    }
    get(&address, "/v2/a/tags/list").await;
    // An answer is counted when it has gone out, which the client may see before.
    let counted = "sampan_http_requests_total{method=\"GET\",kind=\"tags\",status=\"4xx\"} 1";
    let figures = loop {
        let answer = get(&watch, "/figures").await;
        assert!(header(&answer, "content-type").starts_with("application/openmetrics-text"));
        let text = answer.text().await.unwrap();
        if text.contains(counted) {
            break text;
        }
        tokio::task::yield_now().await;
    };
    assert!(figures.contains("sampan_http_request_duration_seconds_count{kind=\"tags\"} 1"), "{figures}");

    data.health.stop();
    for at in [&address, &watch] {
        let ready = get(at, "/readyz").await;
        assert_eq!(ready.status(), 503);
        assert!(ready.text().await.unwrap().contains("the registry is stopping"));
        assert_eq!(get(at, "/healthz").await.status(), 200);
    }
    let health = get(&watch, "/debug/health").await;
    assert_eq!(health.status(), 503);
    assert!(health.text().await.unwrap().contains("stopping"));
    stop.stop().await;
    assert!(client.get(format!("http://{address}/healthz")).send().await.is_err());
    assert_eq!(get(&watch, "/readyz").await.status(), 503);
    stop_debug.stop().await;
}

#[actix_web::test]
async fn bytes_of_pushes_and_pulls_are_counted_by_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let state = state(&store, Arc::new(Nowhere), Policy::default(), local());
    let metrics = Arc::clone(&state.metrics);
    let server = Server::serving(dir, store, state, Options::default(), Patience::default());
    let digest = server.push_blob("a", &[1; 1000]).await;
    let layer = server.push_image("a", "v1", b"layer").await;
    server.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap();
    server.get(&format!("/v2/a/manifests/{layer}")).await.bytes().await.unwrap();
    server.send("HEAD", &format!("/v2/a/blobs/{digest}")).await;
    let length = image(b"layer").to_string().len();
    let lines = [
        "sampan_http_received_bytes_total{kind=\"upload\"} 1007".to_owned(),
        format!("sampan_http_received_bytes_total{{kind=\"manifest\"}} {length}"),
        "sampan_http_sent_bytes_total{kind=\"blob\"} 1000".to_owned(),
        format!("sampan_http_sent_bytes_total{{kind=\"manifest\"}} {length}"),
        "sampan_blobs_pushed_total 3".to_owned(),
        "sampan_manifests_pushed_total 1".to_owned(),
        "sampan_http_requests_total{method=\"HEAD\",kind=\"blob\",status=\"2xx\"} 1".to_owned(),
        "sampan_http_requests_in_flight 0".to_owned(),
    ];
    let since = std::time::Instant::now();
    loop {
        let text = metrics.text();
        let missing = lines.iter().find(|line| !text.lines().any(|other| other == line.as_str()));
        let Some(missing) = missing else { break };
        assert!(since.elapsed().as_secs() < 60, "no {missing} in\n{text}");
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn a_socket_in_the_file_system_is_served_and_goes() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let state = state(&store, Arc::new(Nowhere), Policy::default(), local());
    let path = dir.path().join("http.sock");
    let name = path.to_str().unwrap().to_owned();
    // Left by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener = Listener::unix(&name).unwrap();
    assert!(listener.is_local());
    assert!(Listener::unix(&name).unwrap_err().to_string().contains("another process listens"));
    assert!(Listener::unix("relative").is_err());
    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert!(Listener::unix(dir.path().join("file").to_str().unwrap()).is_err());
    let (server, stop) =
        serve_with(listener, web::Data::new(state), Options::default(), Patience::default()).unwrap();
    let serving = actix_web::rt::spawn(server);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stop.stop().await;
    serving.await.unwrap().unwrap();
    drop(stop);
    assert!(!path.exists());
}
