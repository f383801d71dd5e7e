//! What went wrong in other registries, a test for each lesson. Those about tokens stand beside that code
//! (`cve_2025_24976_…` in `src/auth`).

use std::fs;

use data_encoding::BASE64;
use reqwest::{Body, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Home, Options, Server, USERS};
use crate::oci::{IMAGE, Image, header, json_of, problem, sha256};

/// The header of a user with a password.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))
}

/// A registry with these lines of configuration, and alice and bob, who have the same password.
async fn with_passwords(lines: &str, environment: &[(&'static str, &'static str)]) -> Server {
    let mut home = Home::new(Options { environment: environment.to_vec(), ..Options::default() });
    let users = home.data().with_file_name("users");
    fs::write(&users, USERS).unwrap();
    home.options.file = Some(format!("auth:\n  htpasswd:\n    path: {}\n{lines}", users.display()));
    home.start().await
}

async fn put(server: &Server, path: &str, body: impl Into<Body>) -> (u16, String, String) {
    let request = server.request("PUT", path).header("content-type", IMAGE);
    problem(request.body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn cve_2017_11468_a_manifest_that_does_not_end_is_refused() {
    let server = Server::start(Options::default()).await;
    // No length is announced.
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let request = server.request("PUT", "/v2/a/manifests/v1").header("content-type", IMAGE);
    match request.body(Body::wrap_stream(endless)).send().await {
        Ok(answer) => {
            let (status, code, _) = problem(answer).await;
            assert_eq!((status, code.as_str()), (413, "SIZE_INVALID"));
        }
        // The connection ended while it wrote, before it looked for an answer.
        Err(error) => assert!(error.is_request() && !error.is_timeout(), "{error:?}"),
    }
}

#[tokio::test]
async fn cve_2021_41190_a_document_of_two_kinds_is_refused() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[b"layer"]);
    server.push("a", "v1", &image).await;
    let mut both: Value = serde_json::from_str(&image.manifest).unwrap();
    both["manifests"] = json!([]);
    let (status, code, _) = put(&server, "/v2/a/manifests/v2", both.to_string()).await;
    assert_eq!((status, code.as_str()), (400, "MANIFEST_INVALID"));
    let mut other: Value = serde_json::from_str(&image.manifest).unwrap();
    other["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
    let (status, code, _) = put(&server, "/v2/a/manifests/v2", other.to_string()).await;
    assert_eq!(
        (status, code.as_str()),
        (400, "MANIFEST_INVALID"),
        "the body says another type than the header"
    );
    assert_eq!(server.tags("a").await, ["v1"]);
}

#[tokio::test]
async fn cve_2023_2253_a_huge_page_is_no_page() {
    let server = Server::start(Options::default()).await;
    server.push("a", "v1", &Image::new(&[b"layer"])).await;
    for list in ["_catalog", "a/tags/list"] {
        for n in ["999999999999999999", "18446744073709551615", "184467440737095516150"] {
            let answer = server.get(&format!("/v2/{list}?n={n}")).await;
            assert_eq!(answer.status(), StatusCode::OK, "{list} {n}");
        }
        for n in ["-1", "abc", "1e9", "%00"] {
            let answer = server.get(&format!("/v2/{list}?n={n}")).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{list} {n}");
        }
    }
}

#[tokio::test]
async fn cve_2026_35172_what_was_deleted_comes_back_from_no_cache() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[b"layer"]);
    let digest = server.push("a", "v1", &image).await;
    server.push("b", "v1", &image).await;
    let (manifest, blob) = (format!("a/manifests/{digest}"), format!("a/blobs/{}", sha256(b"layer")));
    for path in [&manifest, &blob, &"a/manifests/v1".to_owned()] {
        assert_eq!(server.get(&format!("/v2/{path}")).await.status(), StatusCode::OK);
    }
    for path in [&manifest, &blob] {
        assert_eq!(server.send("DELETE", &format!("/v2/{path}")).await.status(), StatusCode::ACCEPTED);
    }
    for path in [&manifest, &blob, &"a/manifests/v1".to_owned()] {
        for method in ["HEAD", "GET"] {
            let answer = server.send(method, &format!("/v2/{path}")).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{method} {path}");
        }
    }
    assert_eq!(server.pull("b", "v1").await, image, "the other repository has lost nothing");
    let server = server.restart().await;
    assert_eq!(server.get(&format!("/v2/{blob}")).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn cve_2026_41888_no_way_of_deleting_gets_around_the_switch() {
    let environment = vec![("REGISTRY_STORAGE_DELETE_ENABLED", "false")];
    let server = Server::start(Options { environment, ..Options::default() }).await;
    let image = Image::new(&[b"layer"]);
    let digest = server.push("a", "v1", &image).await;
    for path in
        ["manifests/v1".to_owned(), format!("manifests/{digest}"), format!("blobs/{}", sha256(b"layer"))]
    {
        let (status, code, _) = problem(server.send("DELETE", &format!("/v2/a/{path}")).await).await;
        assert_eq!((status, code.as_str()), (405, "UNSUPPORTED"), "{path}");
    }
    assert_eq!(server.pull("a", "v1").await, image);
    // An upload that is given up is no delete.
    let upload = server.begin_upload("a").await;
    assert_eq!(server.send("DELETE", &upload).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn cve_2025_48374_no_password_gets_into_the_log() {
    let debug = [("SAMPAN_LOG", "trace"), ("REGISTRY_LOG_ACCESSLOG_DISABLED", "false")];
    let server = with_passwords("anonymous: pull\n", &debug).await;
    let right = basic("alice", "open sesame");
    for (authorization, status) in [(&right, 200), (&basic("alice", "hunter2secret"), 401)] {
        for path in ["/v2/", "/auth/token?service=sampan&scope=repository:a:pull"] {
            let answer = server.request("GET", path).header("authorization", authorization).send().await;
            assert_eq!(answer.unwrap().status().as_u16(), status, "{path}");
        }
    }
    let request = server.request("GET", "/auth/token?scope=repository:a:pull,push");
    let token = json_of(request.header("authorization", &right).send().await.unwrap()).await;
    let token = token["token"].as_str().unwrap().to_owned();
    let answer = server.request("GET", "/v2/a/tags/list").header("authorization", format!("Bearer {token}"));
    assert_eq!(answer.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let log = server.stop().await.whole_log();
    assert!(log.contains("/auth/token"), "the log says what was asked");
    let encoded = right.trim_start_matches("Basic ").trim_end_matches('=');
    for secret in ["open sesame", "hunter2secret", encoded, &token, "$2y$04$"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn cve_2026_31801_a_rule_for_one_repository_is_none_for_another() {
    let rules = "  rules:\n  - repositories: [mine]\n    users: [alice]\n    actions: [pull, push]\n  - repositories: ['**']\n    users: [bob]\n    actions: [pull, push, delete]\n";
    let server = with_passwords(rules, &[]).await;
    let (alice, bob) = (basic("alice", "open sesame"), basic("bob", "open sesame"));
    let send = async |user: &str, method: &str, path: &str, body: Vec<u8>| {
        let request = server.request(method, path).header("authorization", user);
        let answer = request.header("content-type", IMAGE).body(body).send().await.unwrap();
        answer.status().as_u16()
    };
    let image = Image::new(&[b"secret"]);
    for (user, repository) in [(&bob, "theirs")] {
        for blob in image.layers.iter().chain([&image.config]) {
            let path = format!("/v2/{repository}/blobs/uploads/?digest={}", sha256(blob));
            assert_eq!(send(user, "POST", &path, blob.clone()).await, 201);
        }
        let path = format!("/v2/{repository}/manifests/v1");
        assert_eq!(send(user, "PUT", &path, image.manifest.clone().into_bytes()).await, 201);
    }
    let digest = image.digest();
    let layer = sha256(b"secret");
    for (method, path) in [
        ("GET", "/v2/theirs/manifests/v1".to_owned()),
        ("HEAD", format!("/v2/theirs/blobs/{layer}")),
        ("GET", "/v2/theirs/tags/list".to_owned()),
        ("GET", format!("/v2/theirs/referrers/{digest}")),
        ("PUT", "/v2/theirs/manifests/v1".to_owned()),
        ("PUT", format!("/v2/theirs/manifests/{digest}?tag=v1&tag=v2")),
        ("POST", "/v2/theirs/blobs/uploads/".to_owned()),
        ("DELETE", "/v2/theirs/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/mine/blobs/{layer}")),
    ] {
        let body = if method == "PUT" { image.manifest.clone().into_bytes() } else { Vec::new() };
        assert_eq!(send(&alice, method, &path, body).await, 403, "{method} {path}");
    }
    // Naming a digest is no way to what lies under it.
    for path in [format!("mount={layer}&from=theirs"), format!("mount={layer}")] {
        assert_eq!(send(&alice, "POST", &format!("/v2/mine/blobs/uploads/?{path}"), Vec::new()).await, 202);
    }
    let status = send(&alice, "PUT", "/v2/mine/manifests/v1", image.manifest.clone().into_bytes()).await;
    assert_eq!(status, 404, "its layers are not to be seen");
    assert_eq!(send(&alice, "GET", &format!("/v2/mine/blobs/{layer}"), Vec::new()).await, 404);
    let request = server.request("GET", "/v2/_catalog").header("authorization", &alice);
    assert_eq!(json_of(request.send().await.unwrap()).await["repositories"], json!([]));
    // Two ways to say who one is are none.
    let twice = server.request("GET", "/v2/mine/tags/list");
    let twice = twice.header("authorization", &alice).header("authorization", &bob).send().await.unwrap();
    assert!([400, 401].contains(&twice.status().as_u16()), "{}", twice.status());
}

#[tokio::test]
async fn a_refused_push_leaves_no_repository() {
    let server = Server::start(Options::default()).await;
    let image = Image::new(&[b"layer"]);
    let (status, code, _) = put(&server, "/v2/new/manifests/v1", image.manifest.clone()).await;
    assert_eq!((status, code.as_str()), (404, "MANIFEST_BLOB_UNKNOWN"));
    let upload = server.begin_upload("new").await;
    assert_eq!(server.send("DELETE", &upload).await.status(), StatusCode::NO_CONTENT);
    assert!(server.catalog().await.is_empty());
    assert_eq!(server.get("/v2/new/tags/list").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn names_that_climb_or_break_lines_reach_neither_the_disk_nor_a_header() {
    let server = Server::start(Options::default()).await;
    server.push("a", "v1", &Image::new(&[b"layer"])).await;
    for path in [
        "/v2/..%2f..%2fetc/manifests/v1",
        "/v2/a/manifests/..%2f..%2fLOCK",
        "/v2/a/blobs/sha256:..%2f..%2fLOCK",
        "/v2/a/blobs/uploads/..%2f..%2fkeys",
        "/v2/a/blobs/uploads/%2e%2e",
        "/v2/a%0d%0aX-Evil:%201/tags/list",
        "/v2/a/manifests/v1%0d%0aX-Evil:%201",
        "/v2/_catalog?last=%0d%0aX-Evil:%201&n=1",
        "/v2/a/tags/list?last=%0d%0aX-Evil:%201&n=1",
    ] {
        let answer = server.get(path).await;
        assert!(answer.status().as_u16() < 500, "{path}: {}", answer.status());
        assert!(answer.headers().get("x-evil").is_none(), "{path}");
        let body = answer.text().await.unwrap();
        assert!(!body.contains("PRIVATE") && !body.contains("root:"), "{path}: {body}");
    }
    let mount = format!("/v2/a/blobs/uploads/?mount={}&from=..%2fa%0d%0aX-Evil:%201", sha256(b"layer"));
    let answer = server.send("POST", &mount).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(answer.headers().get("x-evil").is_none() && !header(&answer, "location").contains(".."));
}

#[tokio::test]
async fn documents_that_are_made_to_hurt_are_answered() {
    let server = Server::start(Options::default()).await;
    let deep = format!("{{\"schemaVersion\":2,\"config\":{}", "[".repeat(1_000_000));
    let twice = r#"{"schemaVersion":2,"config":{},"config":{}}"#.to_owned();
    let image = Image::new(&[&[b'a'; 10_000]]);
    server.push("a", "v1", &image).await;
    // Also in a field that nobody reads.
    let mut text = image.manifest.replacen('{', r#"{"x":"?","#, 1).into_bytes();
    let at = text.iter().position(|byte| *byte == b'?').unwrap();
    text[at] = 0xff;
    for body in [deep.into_bytes(), twice.into_bytes(), b"\xff\xfe{}".to_vec(), vec![0; 100], text] {
        let (status, code, _) = put(&server, "/v2/a/manifests/v2", body).await;
        assert_eq!((status, code.as_str()), (400, "MANIFEST_INVALID"));
    }
    // Nothing is packed or unpacked on its way, whatever a client would take.
    for path in ["manifests/v1".to_owned(), format!("blobs/{}", sha256(&image.layers[0]))] {
        let request = server.request("GET", &format!("/v2/a/{path}"));
        let answer = request.header("accept-encoding", "gzip, br, zstd, deflate").send().await.unwrap();
        assert!(answer.headers().get("content-encoding").is_none(), "{path}");
    }
}

#[tokio::test]
async fn a_configuration_that_unfolds_without_end_is_refused_in_one_line() {
    let level = |level: usize| {
        let below = if level == 0 { "x".to_owned() } else { format!("*a{}", level - 1) };
        format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "))
    };
    let text = (0..12).map(level).collect::<Vec<_>>().concat();
    let home = Home::new(Options::default());
    let file = home.data().with_file_name("bomb.yml");
    fs::write(&file, text).unwrap();
    let said = home.sampan(&["config", "check", file.to_str().unwrap()]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.len() < 10_000 && said.stdout.len() < 10_000);
}
