//! A registry's client, as small as it can be: images of a config and some layers.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use sampan_storage::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::harness::Server;

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Content of an image, and the manifest that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) manifest: String,
}

impl Image {
    pub(crate) fn new(layers: &[&[u8]]) -> Self {
        let ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        let root = json!({ "type": "layers", "diff_ids": ids });
        let config =
            json!({ "architecture": "amd64", "os": "linux", "rootfs": root }).to_string().into_bytes();
        let describe = |media: &str, content: &[u8]| json!({ "mediaType": media, "digest": sha256(content), "size": content.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": describe(CONFIG, &config),
            "layers": layers.iter().map(|layer| describe(LAYER, layer)).collect::<Vec<_>>(),
        });
        let layers = layers.iter().map(|layer| layer.to_vec()).collect();
        Self { config, layers, manifest: manifest.to_string() }
    }

    pub(crate) fn digest(&self) -> String {
        sha256(self.manifest.as_bytes())
    }
}

impl Server {
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("http://127.0.0.1:{}{path}", self.http.port()))
    }

    pub(crate) async fn send(&self, method: &str, path: &str) -> Response {
        self.request(method, path).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send("GET", path).await
    }

    /// Pushes an image whole, and gives its digest.
    pub(crate) async fn push(&self, repository: &str, tag: &str, image: &Image) -> String {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob).await;
        }
        self.tag(repository, tag, image).await
    }

    /// Pushes the manifest alone.
    pub(crate) async fn tag(&self, repository: &str, tag: &str, image: &Image) -> String {
        let request = self.request("PUT", &format!("/v2/{repository}/manifests/{tag}"));
        let answer = request.header("content-type", IMAGE).body(image.manifest.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(header(&answer, "docker-content-digest"), image.digest());
        image.digest()
    }

    /// Pushes a blob in one request, and gives its digest.
    pub(crate) async fn push_blob(&self, repository: &str, content: &[u8]) -> String {
        let digest = sha256(content);
        let request = self.request("POST", &format!("/v2/{repository}/blobs/uploads/?digest={digest}"));
        let answer = request.body(content.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }

    /// Begins an upload, and gives the path on which it goes on.
    pub(crate) async fn begin_upload(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/")).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        header(&answer, "location").to_owned()
    }

    /// The digest behind a tag, without anything else.
    pub(crate) async fn digest(&self, repository: &str, tag: &str) -> Option<String> {
        let answer = self.send("HEAD", &format!("/v2/{repository}/manifests/{tag}")).await;
        match answer.status() {
            StatusCode::OK => Some(header(&answer, "docker-content-digest").to_owned()),
            status => {
                assert_eq!(status, StatusCode::NOT_FOUND);
                None
            }
        }
    }

    /// Pulls an image whole, by tag or digest, and checks every digest in it.
    pub(crate) async fn pull(&self, repository: &str, reference: &str) -> Image {
        let answer = self.get(&format!("/v2/{repository}/manifests/{reference}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{repository}:{reference}");
        let digest = header(&answer, "docker-content-digest").to_owned();
        let manifest = answer.text().await.unwrap();
        assert_eq!(sha256(manifest.as_bytes()), digest);
        let named: Value = serde_json::from_str(&manifest).unwrap();
        let config = self.blob(repository, named["config"]["digest"].as_str().unwrap()).await;
        let mut layers = Vec::new();
        for layer in named["layers"].as_array().unwrap() {
            layers.push(self.blob(repository, layer["digest"].as_str().unwrap()).await);
        }
        Image { config, layers, manifest }
    }

    /// Gets a blob and checks its digest and its length.
    pub(crate) async fn blob(&self, repository: &str, digest: &str) -> Vec<u8> {
        let answer = self.get(&format!("/v2/{repository}/blobs/{digest}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{repository}@{digest}");
        let length = header(&answer, "content-length").to_owned();
        let content = answer.bytes().await.unwrap().to_vec();
        assert_eq!(sha256(&content), digest);
        assert_eq!(content.len().to_string(), length);
        content
    }

    pub(crate) async fn tags(&self, repository: &str) -> Vec<String> {
        texts(&json_of(self.get(&format!("/v2/{repository}/tags/list")).await).await["tags"])
    }

    pub(crate) async fn catalog(&self) -> Vec<String> {
        texts(&json_of(self.get("/v2/_catalog").await).await["repositories"])
    }
}

pub(crate) fn sha256(content: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, content).to_string()
}

pub(crate) fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub(crate) async fn json_of(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// The status, code and message of an OCI error.
pub(crate) async fn problem(answer: Response) -> (u16, String, String) {
    let status = answer.status().as_u16();
    let error = json_of(answer).await["errors"][0].take();
    let text = |key: &str| error[key].as_str().unwrap().to_owned();
    (status, text("code"), text("message"))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}
