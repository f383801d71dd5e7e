//! Callers and routes together, over HTTP: who gets what from a registry with passwords and rules.

use std::fs;

use super::*;
use crate::auth::tests::{Signer, USERS, htpasswd, token};
use crate::auth::{Lane, Rules};

/// `alice` is the team's writer and `bob` keeps the registry; `carol` reads, and `dave` may do what everyone may.
/// The passwords are those of [`USERS`], whose two lines stand for four users.
const WORDS: [(&str, &str); 4] =
    [("alice", "open sesame"), ("bob", "open barley"), ("carol", "open sesame"), ("dave", "open barley")];

struct Guarded {
    server: Server,
    users: std::path::PathBuf,
}

impl Guarded {
    /// With `public/image` for everyone, `team/image` and `secret/image`.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("htpasswd");
        fs::write(&users, four_users()).unwrap();
        let rules = Rules::read(&json!([
            {"repositories": ["public/**"], "users": ["anonymous"], "actions": ["pull"]},
            {"repositories": ["public/**", "team/**"], "users": ["carol"], "actions": ["pull"]},
            {"repositories": ["public/**", "team/**"], "users": ["alice"], "actions": ["pull", "push"]},
            {"repositories": ["**"], "users": ["bob"], "actions": ["pull", "push", "delete"]},
        ]));
        let auth = Auth::with(&htpasswd(&users, rules.unwrap()), Lane::start(1, 64).unwrap()).unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        let access = Access { auth, loopback: true };
        let policy = Policy { delete: true, ..Policy::default() };
        let server = Server::over(dir, store, Arc::new(Nowhere), policy, access);
        let guarded = Self { server, users };
        for repository in ["public/image", "team/image", "secret/image"] {
            guarded.push(repository, repository.as_bytes()).await;
        }
        guarded
    }

    /// Asked by a user with the right password, by `wrong` with a wrong one, or by nobody.
    fn ask(&self, who: &str, method: &str, path: &str) -> RequestBuilder {
        let request = self.server.request(method, path);
        match WORDS.iter().find(|(user, _)| *user == who) {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None if who == "wrong" => request.basic_auth("alice", Some("open barley")),
            None => request,
        }
    }

    async fn status(&self, who: &str, method: &str, path: &str) -> u16 {
        let answer = self.ask(who, method, path).send().await.unwrap();
        let status = answer.status().as_u16();
        if status == 401 {
            assert!(!header(&answer, "www-authenticate").is_empty(), "{who} {method} {path}");
        }
        status
    }

    async fn push(&self, repository: &str, layer: &[u8]) {
        for content in [b"{}".as_slice(), layer] {
            let path = format!("/v2/{repository}/blobs/uploads/?digest={}", sha256(content));
            let answer = self.ask("bob", "POST", &path).body(content.to_vec()).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED);
        }
        let path = format!("/v2/{repository}/manifests/v1");
        let put = self.ask("bob", "PUT", &path).header("content-type", IMAGE).body(image(layer).to_string());
        assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    }

    async fn catalog(&self, who: &str, path: &str) -> (Vec<String>, Option<String>) {
        let answer = self.ask(who, "GET", path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{who}");
        let next = header(&answer, "link").split_once('>').map(|(link, _)| link[1..].to_owned());
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let names = body["repositories"].as_array().unwrap();
        (names.iter().map(|name| name.as_str().unwrap().to_owned()).collect(), next)
    }
}

fn four_users() -> String {
    let twice = |from: &str, to: &str| USERS.replace(&format!("{from}:"), &format!("{to}:"));
    let more = twice("alice", "carol");
    format!("{USERS}{}", more.replace("bob:", "dave:"))
}

/// What each caller hears, in the order of the callers.
const CALLERS: [&str; 6] = ["nobody", "wrong", "dave", "carol", "alice", "bob"];

#[actix_web::test]
async fn each_caller_gets_from_each_route_what_the_rules_give() {
    let guarded = Guarded::start().await;
    let layer = |repository: &str| sha256(repository.as_bytes());
    let subject = sha256(image(b"team/image").to_string().as_bytes());
    let (public, team) = (layer("public/image"), layer("team/image"));
    let rows: Vec<(&str, String, [u16; 6])> = vec![
        ("GET", format!("/v2/public/image/blobs/{public}"), [200, 401, 200, 200, 200, 200]),
        ("GET", "/v2/public/image/tags/list".to_owned(), [200, 401, 200, 200, 200, 200]),
        ("GET", "/api/status".to_owned(), [401, 401, 403, 403, 403, 200]),
        ("GET", format!("/v2/team/image/blobs/{team}"), [401, 401, 403, 200, 200, 200]),
        ("HEAD", format!("/v2/team/image/blobs/{team}"), [401, 401, 403, 200, 200, 200]),
        ("GET", "/v2/team/image/manifests/v1".to_owned(), [401, 401, 403, 200, 200, 200]),
        ("GET", "/v2/team/image/tags/list".to_owned(), [401, 401, 403, 200, 200, 200]),
        ("GET", format!("/v2/team/image/referrers/{subject}"), [401, 401, 403, 200, 200, 200]),
        ("GET", "/v2/secret/image/manifests/v1".to_owned(), [401, 401, 403, 403, 403, 200]),
        ("GET", "/v2/secret/nothing/manifests/v1".to_owned(), [401, 401, 403, 403, 403, 404]),
        ("POST", "/v2/team/image/blobs/uploads/".to_owned(), [401, 401, 403, 403, 202, 202]),
        ("POST", "/v2/public/image/blobs/uploads/".to_owned(), [401, 401, 403, 403, 202, 202]),
        ("PUT", "/v2/team/image/manifests/none".to_owned(), [401, 401, 403, 403, 400, 400]),
        (
            "GET",
            "/v2/team/image/blobs/uploads/0b54be6d-8a34-4ee5-a1bb-9a5c8a9b3f0e".to_owned(),
            [401, 401, 403, 403, 404, 404],
        ),
        ("DELETE", "/v2/team/image/manifests/none".to_owned(), [401, 401, 403, 403, 403, 404]),
        ("DELETE", format!("/v2/team/image/blobs/{public}"), [401, 401, 403, 403, 403, 404]),
    ];
    let mut wrong = Vec::new();
    for (method, path, due) in rows {
        for (who, due) in CALLERS.into_iter().zip(due) {
            let status = guarded.status(who, method, &path).await;
            if status != due {
                wrong.push(format!("{who} {method} {path}: {status}, not {due}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[actix_web::test]
async fn with_an_issuer_the_status_is_for_tokens_for_the_catalog() {
    let signer = Signer::new();
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("jwks");
    fs::write(&keys, signer.jwks()).unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let access = Access { auth: Auth::start(&token(&keys)).unwrap(), loopback: true };
    let server = Server::over(dir, store, Arc::new(Nowhere), Policy::default(), access);
    let ask = async |access: Value| {
        let request = server.request("GET", "/api/status").bearer_auth(signer.sign(&access));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(json!([{"type": "registry", "name": "catalog", "actions": ["*"]}])).await, 200);
    assert_eq!(ask(json!([{"type": "repository", "name": "a", "actions": ["pull"]}])).await, 401);
    assert_eq!(server.get("/api/status").await.status().as_u16(), 401);
}

#[actix_web::test]
async fn nothing_is_mounted_from_where_one_may_not_look() {
    let guarded = Guarded::start().await;
    for (from, layer, due) in [("secret", "secret/image", 202), ("public", "public/image", 201)] {
        let mount = format!("/v2/team/new/blobs/uploads/?mount={}", sha256(layer.as_bytes()));
        assert_eq!(guarded.status("alice", "POST", &format!("{mount}&from={from}/image")).await, due);
        // Nor where no repository is named.
        assert_eq!(guarded.status("alice", "POST", &mount).await, due, "{from}");
    }
    let secret = format!("/v2/team/new/blobs/{}", sha256(b"secret/image"));
    assert_eq!(guarded.status("alice", "GET", &secret).await, 404);
}

#[actix_web::test]
async fn a_catalog_shows_what_its_reader_may_pull_page_by_page() {
    let guarded = Guarded::start().await;
    for number in 0..3 {
        guarded.push(&format!("team/n{number}"), b"layer").await;
        guarded.push(&format!("secret/n{number}"), b"layer").await;
    }
    let team = ["public/image", "team/image", "team/n0", "team/n1", "team/n2"];
    for (who, due) in [("alice", team.as_slice()), ("carol", &team)] {
        assert_eq!(guarded.catalog(who, "/v2/_catalog").await.0, due, "{who}");
        let mut gathered = Vec::new();
        let mut next = Some("/v2/_catalog?n=2".to_owned());
        while let Some(path) = next {
            let (names, more) = guarded.catalog(who, &path).await;
            assert!(names.len() <= 2);
            gathered.extend(names);
            next = more;
        }
        assert_eq!(gathered, due, "{who}");
    }
    assert_eq!(guarded.catalog("bob", "/v2/_catalog").await.0.len(), 9);
    assert_eq!(guarded.status("wrong", "GET", "/v2/_catalog").await, 401);
}

#[actix_web::test]
async fn a_changed_file_of_passwords_counts_at_once_and_a_broken_one_does_not() {
    let guarded = Guarded::start().await;
    let ask = async |who| guarded.status(who, "GET", "/v2/team/image/tags/list").await;
    let write = |text: &str| {
        let new = guarded.users.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &guarded.users).unwrap();
    };
    assert_eq!((ask("alice").await, ask("bob").await), (200, 200));
    let only_bob = USERS.lines().nth(1).unwrap();
    write(only_bob);
    assert_eq!((ask("alice").await, ask("bob").await), (401, 200));
    write("nonsense");
    assert_eq!((ask("alice").await, ask("bob").await), (401, 200));
    write(USERS);
    assert_eq!((ask("alice").await, ask("bob").await), (200, 200));
}

#[actix_web::test]
async fn passwords_that_find_no_place_to_wait_are_told_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("htpasswd");
    fs::write(&users, USERS).unwrap();
    let lane = Lane::start(1, 1).unwrap();
    let rules = Rules::plain(crate::auth::Actions::default());
    let auth = Auth::with(&htpasswd(&users, rules), lane.clone()).unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let access = Access { auth, loopback: true };
    let server = Server::over(dir, store, Arc::new(Nowhere), Policy::default(), access);
    let login =
        async || server.request("GET", "/v2/").basic_auth("alice", Some("open sesame")).send().await.unwrap();
    // The one thread works, and the one place to wait is taken.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (started, starts) = tokio::sync::oneshot::channel();
    let hold = lane.clone();
    let first = actix_web::rt::spawn(async move {
        let work = move || {
            let _ = started.send(());
            let _ = held.recv();
        };
        hold.run(work).await
    });
    starts.await.unwrap();
    let mut second = Box::pin(lane.run(|| ()));
    assert!(futures::poll!(&mut second).is_pending());
    let answer = login().await;
    assert!(!header(&answer, "retry-after").is_empty());
    assert_eq!(problem(answer).await, code(429, "TOOMANYREQUESTS"));
    drop(release);
    first.await.unwrap().unwrap();
    second.await.unwrap();
    assert_eq!(login().await.status(), StatusCode::OK);
}

#[actix_web::test]
async fn what_fails_inside_is_never_told_as_not_there() {
    let server = Server::start();
    let digest = server.push_image("a", "v1", b"layer").await;
    let layer = sha256(b"layer");
    let hex = layer.hex();
    let file = server.store.dir().join("blobs/sha256").join(&hex[..2]).join(&hex);
    // Nothing that can be read, and nothing that is missing.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(problem(server.get(&format!("/v2/a/blobs/{layer}")).await).await, code(500, "UNKNOWN"));
    assert_eq!(server.get(&format!("/v2/a/manifests/{digest}")).await.status(), StatusCode::OK);
}
