//! The API as clients meet it: a real server on a loopback port, over a real store in a directory of its own.

mod access;
mod auth;
mod blobs;
mod bounds;
mod damage;
mod following;
mod front;
mod gateway;
mod lists;
mod manifests;
mod referrers;
mod routing;
mod tls;
mod uploads;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::web;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use sampan_storage::{Algorithm, Digest, Store};
use serde_json::{Value, json};

use super::connection::Patience;
use super::server::{Options, Stop, serve_with};
use super::{Access, Health, Listener, State};
use crate::auth::Auth;
use crate::metrics::Metrics;
use crate::registry::{Nowhere, Origin, Policy, Registry};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Without passwords, on this machine.
fn local() -> Access {
    Access { auth: Auth::open(false), loopback: true }
}

/// A registry that runs as long as this value lives.
struct Server {
    address: SocketAddr,
    store: Store,
    client: reqwest::Client,
    stop: Stop,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        Self::with(Policy::default(), local())
    }

    fn with(policy: Policy, access: Access) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        Self::over(dir, store, Arc::new(Nowhere), policy, access)
    }

    fn over(
        dir: tempfile::TempDir,
        store: Store,
        origin: Arc<dyn Origin>,
        policy: Policy,
        access: Access,
    ) -> Self {
        let state = state(&store, origin, policy, access);
        Self::serving(dir, store, state, Options::default(), Patience::default())
    }

    fn serving(
        dir: tempfile::TempDir,
        store: Store,
        state: State,
        options: Options,
        patience: Patience,
    ) -> Self {
        let listener = Listener::tcp("127.0.0.1:0").unwrap();
        let address = listener.name().parse().unwrap();
        let (server, stop) = serve_with(listener, web::Data::new(state), options, patience).unwrap();
        actix_web::rt::spawn(server);
        Self { address, store, client: client(), stop, _dir: dir }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    async fn send(&self, method: &str, path: &str) -> Response {
        self.request(method, path).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send("GET", path).await
    }

    /// Pushes a blob in one request and gives its digest.
    async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.request("POST", &path).body(content.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }

    async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        body: &Value,
    ) -> Response {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let request = self.request("PUT", &path).header("content-type", media_type);
        request.body(body.to_string()).send().await.unwrap()
    }

    /// Pushes an image of one layer under a tag and gives the digest of its manifest.
    async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        let image = self.image(repository, layer).await;
        let answer = self.put_manifest(repository, tag, IMAGE, &image).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        sha256(image.to_string().as_bytes())
    }

    /// Pushes the blobs of an image and gives its manifest.
    async fn image(&self, repository: &str, layer: &[u8]) -> Value {
        self.push_blob(repository, b"{}").await;
        self.push_blob(repository, layer).await;
        image(layer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The stop itself runs in the server's own threads.
        self.stop.cut();
    }
}

fn state(store: &Store, origin: Arc<dyn Origin>, policy: Policy, access: Access) -> State {
    State {
        registry: Registry::new(store.clone(), origin, policy),
        access,
        health: Health::new(store.clone(), policy.read_only),
        status: super::Status::new(|| Box::pin(async { json!({"name": "k51"}) })),
        gateway: None,
        metrics: Arc::new(Metrics::new()),
        urls: super::Urls::default(),
        pages: crate::config::Pages::default(),
        headers: Vec::new(),
        access_log: false,
    }
}

fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(content).to_string(), "size": content.len() })
}

fn image(layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The status and the OCI code of an error.
async fn problem(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert!(!body["errors"][0]["message"].as_str().unwrap().is_empty());
    (status, body["errors"][0]["code"].as_str().unwrap().to_owned())
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn client() -> reqwest::Client {
    // It wants one for plain HTTP, too.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::new()
}
