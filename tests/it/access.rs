//! Who may push without a password: this machine, and everyone only when the operator says so.

use crate::harness::{Options, Server};
use crate::oci::{Image, problem};

const POST: (&str, &str) = ("POST", "/v2/a/blobs/uploads/");
const CHANGES: [(&str, &str); 3] = [POST, ("PUT", "/v2/a/manifests/v1"), ("DELETE", "/v2/a/manifests/v1")];

/// The refusal of a request with these headers. It has to be one.
async fn refusal(server: &Server, request: (&str, &str), headers: &[(&str, &str)]) -> String {
    let mut builder = server.request(request.0, request.1);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let (status, code, message) = problem(builder.send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (403, "DENIED"), "{request:?} {headers:?}");
    message
}

async fn status(server: &Server, headers: &[(&str, &str)]) -> u16 {
    let mut builder = server.request(POST.0, POST.1);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn on_loopback_only_what_comes_from_this_machine_is_pushed() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[b"layer"]);
    server.push("a", "v1", &image).await;
    for headers in [
        [("host", "evil.example")],
        [("host", "127.0.0.1.evil.example")],
        [("origin", "http://localhost")],
        [("x-forwarded-for", "127.0.0.1")],
        [("x-forwarded-host", "localhost")],
        [("x-real-ip", "127.0.0.1")],
        [("forwarded", "for=127.0.0.1")],
        [("via", "1.1 proxy")],
    ] {
        for request in CHANGES {
            let message = refusal(&server, request, &headers).await;
            assert!(message.contains("--anonymous push"), "{message}");
            assert!(message.contains("set up authentication"), "{message}");
        }
    }
    for host in ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "[::1]:5000"] {
        assert_eq!(status(&server, &[("host", host)]).await, 202, "{host}");
    }
    // Nothing of all that has changed anything, and everyone may pull.
    assert_eq!(server.pull("a", "v1").await, image);
    let foreign = [("host", "evil.example"), ("x-forwarded-for", "192.0.2.1")];
    let mut pull = server.request("GET", "/v2/a/manifests/v1");
    for (name, value) in foreign {
        pull = pull.header(name, value);
    }
    assert_eq!(pull.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn bound_to_every_interface_nobody_pushes() {
    let server = Server::start(Options { addr: "0.0.0.0:0", ..Options::default() }).await;
    for request in CHANGES {
        let message = refusal(&server, request, &[]).await;
        assert!(message.contains("--anonymous push"), "{message}");
    }
    assert_eq!(server.get("/v2/_catalog").await.status(), 200);
}

#[tokio::test]
async fn with_anonymous_push_everyone_pushes() {
    let flags = ["--anonymous", "push"].map(str::to_owned).to_vec();
    let server = Server::start(Options { addr: "0.0.0.0:0", flags, ..Options::default() }).await;
    let image = Image::new(&[b"layer"]);
    server.push("a", "v1", &image).await;
    assert_eq!(server.pull("a", "v1").await, image);
    for headers in
        [[("host", "registry.example")], [("origin", "http://a")], [("x-forwarded-for", "192.0.2.1")]]
    {
        assert_eq!(status(&server, &headers).await, 202, "{headers:?}");
    }
}
