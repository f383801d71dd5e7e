//! HTTP as a client: one bounded question, one bounded answer. For DNS over HTTPS and delegated routers.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::timeout;

/// A server that is there answers a connection sooner.
const CONNECT: Duration = Duration::from_secs(5);
/// A moved endpoint; more are a circle.
const MAX_REDIRECTS: usize = 3;
/// Connections kept for the next question, to each server.
const IDLE: usize = 2;

/// Asks servers. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Client(reqwest::Client);

#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0}")]
    Failed(String),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("no answer came in time")]
    Late,
}

impl Client {
    /// Servers prove themselves by the system's certificates.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            tracing::warn!(
                "the system has no certificates of authorities; servers are asked over plain HTTP only"
            );
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .user_agent(concat!("sampan/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(IDLE)
            .build();
        Ok(Self(client.context("HTTP cannot be spoken")?))
    }

    pub(crate) async fn send(
        &self,
        request: Request,
        limit: usize,
        deadline: Duration,
    ) -> Result<Response, ClientError> {
        let Request { method, url, headers, body } = request;
        let answer = async {
            let mut answer = self
                .0
                .request(method, url)
                .headers(headers)
                .body(body)
                .send()
                .await
                .map_err(|error| failed(&error))?;
            let status = answer.status().as_u16();
            let content_type = answer.headers().get(CONTENT_TYPE);
            let content_type =
                content_type.and_then(|text| text.to_str().ok()).unwrap_or_default().to_owned();
            let mut body = BytesMut::new();
            while let Some(piece) = answer.chunk().await.map_err(|error| failed(&error))? {
                if body.len() + piece.len() > limit {
                    return Err(ClientError::TooLong(limit));
                }
                body.extend_from_slice(&piece);
            }
            Ok(Response { status, content_type, body: body.freeze() })
        };
        timeout(deadline, answer).await.unwrap_or(Err(ClientError::Late))
    }
}

impl Request {
    pub(crate) fn get(url: &str) -> Self {
        Self { method: Method::GET, url: url.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn post(url: &str, kind: &'static str, body: Bytes) -> Self {
        Self { method: Method::POST, body, ..Self::get(url) }.header(CONTENT_TYPE, kind)
    }

    pub(crate) fn put(url: &str, kind: &'static str, body: Bytes) -> Self {
        Self { method: Method::PUT, body, ..Self::get(url) }.header(CONTENT_TYPE, kind)
    }

    pub(crate) fn accept(self, kind: &'static str) -> Self {
        self.header(ACCEPT, kind)
    }

    fn header(mut self, name: reqwest::header::HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

impl Response {
    pub(crate) fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// With what is behind it: the outermost message says only that a request failed.
fn failed(error: &reqwest::Error) -> ClientError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    ClientError::Failed(text)
}
