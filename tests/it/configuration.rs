//! Configurations that were written for CNCF Distribution, and what an operator sees of HTTP from outside: the program
//! is started with them, and only where its data and ports are is said in the environment.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{Home, Options, Server, USERS, eventually};
use crate::oci::{Image, header};

/// What the registry image comes with.
const EXAMPLE: &str = include_str!("../fixtures/distribution.yml");

/// For its developers: more logs, a second port with metrics.
const DEVELOPMENT: &str = "\
version: 0.1
log:
  level: debug
  fields:
    service: registry
    environment: development
storage:
  delete:
    enabled: true
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
  maintenance:
    uploadpurging:
      enabled: false
  tag:
    concurrencylimit: 8
http:
  addr: :5000
  debug:
    addr: 127.0.0.1:0
    prometheus:
      enabled: true
      path: /metrics
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// With a Redis and endpoints that are told of pushes, none of which is there.
const CACHE: &str = "\
version: 0.1
log:
  level: debug
storage:
  cache:
    blobdescriptor: redis
  filesystem:
    rootdirectory: /var/lib/registry-cache
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: :5000
  secret: asecretforlocaldevelopment
  headers:
    X-Content-Type-Options: [nosniff]
redis:
  addrs: [localhost:6379]
  maxidleconns: 16
  poolsize: 64
  connmaxidletime: 300s
  dialtimeout: 10ms
notifications:
  events:
    includereferences: true
  endpoints:
    - name: local-8082
      url: http://localhost:5003/callback
      headers:
        Authorization: [Bearer token]
      timeout: 1s
      threshold: 10
      backoff: 1s
      disabled: true
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

/// All that its reference names, but other places for data, passwords, an upstream and Let's Encrypt.
const REFERENCE: &str = "\
version: 0.1
log:
  accesslog:
    disabled: true
  level: debug
  formatter: text
  fields:
    service: registry
    environment: staging
  hooks:
    - type: mail
      disabled: true
      levels:
        - panic
      options:
        smtp:
          addr: mail.example.com:25
          username: mailuser
          password: password
          insecure: true
        from: sender@example.com
        to:
          - errors@example.com
loglevel: debug
storage:
  filesystem:
    rootdirectory: /var/lib/registry
    maxthreads: 100
  tag:
    concurrencylimit: 8
  delete:
    enabled: false
  redirect:
    disable: false
  cache:
    blobdescriptor: redis
    blobdescriptorsize: 10000
  maintenance:
    uploadpurging:
      enabled: true
      age: 168h
      interval: 24h
      dryrun: false
    readonly:
      enabled: false
middleware:
  registry:
    - name: ARegistryMiddleware
      options:
        foo: bar
  storage:
    - name: redirect
      options:
        baseurl: https://example.com/
catalog:
  maxentries: 1000
tags:
  maxtags: 1000
http:
  addr: localhost:5000
  prefix: /my/nested/registry/
  host: https://myregistryaddress.org:5000
  secret: asecretforlocaldevelopment
  relativeurls: false
  draintimeout: 60s
  tls:
    certificate: cert.pem
    key: key.pem
    clientcas:
      - cert.pem
    clientauth: verify-client-cert-if-given
  debug:
    addr: 127.0.0.1:0
    prometheus:
      enabled: true
      path: /metrics
  headers:
    X-Content-Type-Options: [nosniff]
  http2:
    disabled: false
  h2c:
    enabled: false
notifications:
  endpoints:
    - name: alistener
      disabled: false
      url: https://my.listener.com/event
      timeout: 1s
      threshold: 10
      backoff: 1s
      ignore:
        mediatypes:
          - application/octet-stream
        actions:
          - pull
redis:
  addrs: [localhost:6379]
  password: asecret
  db: 0
  tls:
    enabled: false
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
  file:
    - file: /path/to/checked/file
      interval: 10s
  http:
    - uri: http://server.to.check/must/return/200
      statuscode: 200
  tcp:
    - addr: redis-server.domain.com:6379
validation:
  manifests:
    indexes:
      platforms: List
      platformlist:
        - architecture: amd64
          os: linux
";

/// The predecessor's, with its certificate.
const PREDECESSOR: &str = "\
version: 0.1
log:
  accesslog:
    disabled: true
  level: debug
  formatter: text
storage:
  ipfs:
    ipfsapiaddress: /ip4/127.0.0.1/tcp/5001
    writeipnskey: self
middleware:
  repository:
    - name: ipfs
      options:
        ipfsapiaddress: /ip4/127.0.0.1/tcp/5001
http:
  addr: localhost:5000
  debug:
    addr: 127.0.0.1:0
  relativeurls: true
  draintimeout: 60s
  tls:
    certificate: cert.pem
    key: key.pem
  secret: asecretforlocaldevelopment
  http2:
    disabled: false
";

fn options(file: &str, environment: &[(&'static str, &'static str)]) -> Options {
    Options { file: Some(file.to_owned()), environment: environment.to_vec(), ..Options::default() }
}

/// A certificate for localhost in the folder where the program is started, and a client that trusts it.
fn certificate(home: &Home) -> TlsConnector {
    let dir = home.data().parent().unwrap().to_owned();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

async fn ask(client: &TlsConnector, server: SocketAddr, path: &str) -> String {
    let stream = TcpStream::connect(server).await.unwrap();
    let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// Where the second port is.
fn second_port(server: &Server) -> String {
    let log = server.home.whole_log();
    let told =
        log.split("health and figures are on ").nth(1).unwrap_or_else(|| panic!("no second port in {log}"));
    told.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn configurations_of_distribution_start_the_program() {
    for (file, warnings) in [(DEVELOPMENT, 4), (CACHE, 5)] {
        let server = Server::start(options(file, &[("REGISTRY_STORAGE_DELETE_ENABLED", "false")])).await;
        let answer = server.get("/v2/").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let image = Image::new(&[b"layer"]);
        server.push("a", "v1", &image).await;
        assert_eq!(server.pull("a", "v1").await, image);
        assert_eq!(server.send("DELETE", "/v2/a/manifests/v1").await.status(), 405);
        assert!(server.home.data().join("blobs").is_dir());
        let told = server.home.whole_log().lines().filter(|line| line.contains(" is ignored: ")).count();
        assert_eq!(told, warnings, "{}", server.home.whole_log());
        server.stop().await;
    }
}

#[tokio::test]
async fn the_example_of_distribution_starts_with_its_passwords() {
    let environment =
        [("REGISTRY_AUTH_HTPASSWD_PATH", "users"), ("REGISTRY_STORAGE_DELETE_ENABLED", "false")];
    let home = Home::new(options(EXAMPLE, &environment));
    fs::write(home.data().with_file_name("users"), USERS).unwrap();
    let server = home.start().await;
    let answer = server.get("/v2/").await;
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "www-authenticate")),
        (401, "Basic realm=\"basic-realm\", charset=\"UTF-8\"")
    );
    let ask = async |method: &str, path: &str| {
        let request = server.request(method, path).basic_auth("alice", Some("open sesame"));
        request.send().await.unwrap()
    };
    let answer = ask("GET", "/v2/").await;
    assert_eq!((answer.status().as_u16(), header(&answer, "x-content-type-options")), (200, "nosniff"));
    assert_eq!(ask("DELETE", "/v2/a/manifests/v1").await.status(), 405);
    let told = server.home.whole_log().lines().filter(|line| line.contains(" is ignored: ")).count();
    assert_eq!(told, 4, "{}", server.home.whole_log());
    server.stop().await;
}

#[tokio::test]
async fn the_whole_reference_of_distribution_starts_the_program() {
    let home = Home::new(options(REFERENCE, &[("REGISTRY_HTTP_HOST", "https://other.example")]));
    let client = certificate(&home);
    let server = home.start().await;
    let answer = ask(&client, server.http, "/my/nested/registry/v2/").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("nosniff"), "{answer}");
    assert!(ask(&client, server.http, "/v2/").await.starts_with("HTTP/1.1 404 "));
    let figures = reqwest::get(format!("{}/metrics", second_port(&server))).await.unwrap();
    let figures = figures.text().await.unwrap();
    for figure in [
        "sampan_store_free_bytes ",
        "sampan_node_peers 0",
        "sampan_http_requests_total{method=\"GET\",kind=\"base\"",
    ] {
        assert!(figures.contains(figure), "no {figure} in\n{figures}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_configuration_of_the_predecessor_serves_https() {
    let home = Home::new(options(PREDECESSOR, &[]));
    let client = certificate(&home);
    let server = home.start().await;
    assert!(ask(&client, server.http, "/v2/").await.starts_with("HTTP/1.1 200 "));
    assert!(server.home.prints(&["status"]).await.contains(&format!("https://{}", server.http)));
    // Metrics are off until they are switched on.
    let port = second_port(&server);
    assert_eq!(reqwest::get(format!("{port}/metrics")).await.unwrap().status(), 404);
    assert_eq!(reqwest::get(format!("{port}/debug/health")).await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_to_use_instead() {
    let home = Home::new(Options::default());
    let file = home.data().parent().unwrap().join("c.yml");
    for (text, told) in [
        ("storage:\n  s3:\n    bucket: b\n", "storage.filesystem.rootdirectory"),
        ("storage:\n  azure:\n    accountname: a\n", "storage.filesystem.rootdirectory"),
        ("storage: inmemory\n", "tmpfs"),
        ("proxy:\n  remoteurl: https://registry-1.docker.io\n", "ipfs.follow"),
        ("http:\n  tls:\n    letsencrypt:\n      email: a@example.org\n", "ACME client"),
        ("http:\n  tls:\n    certificate: cert.pem\n", "http.tls.key"),
        (
            "http:\n  tls:\n    certificate: /nowhere/cert.pem\n    key: /nowhere/key.pem\n",
            "/nowhere/cert.pem",
        ),
        ("http:\n  net: unix\n  addr: 127.0.0.1:0\n", "the whole path of a socket"),
        ("http:\n  headers:\n    X: [\"a\\nb\"]\n", "http.headers"),
    ] {
        fs::write(&file, text).unwrap();
        let mut command = home.bare();
        command.args(["serve", "--p2p", "/ip4/127.0.0.1/tcp/0", "--config"]).arg(&file);
        command.env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", home.data());
        if !text.contains("addr:") {
            command.env("REGISTRY_HTTP_ADDR", "127.0.0.1:0");
        }
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains(told), "{text}: {stderr}");
        assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
        assert!(!home.data().exists(), "nothing is left behind");
    }
}

#[tokio::test]
async fn a_request_is_one_line_in_the_log_where_that_is_switched_on() {
    let json = "log:\n  formatter: json\n";
    let server = Server::start(options(json, &[("REGISTRY_LOG_ACCESSLOG_DISABLED", "false")])).await;
    let answer = server
        .request("GET", "/v2/a/manifests/v%0a1?secret=1")
        .header("user-agent", "some \"client\"\t/1")
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-request-id", "id-1")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["x-request-id"], "id-1");
    let line = eventually("a line in the log", async || {
        let log = server.home.whole_log();
        log.lines().find(|line| line.contains("id-1")).map(str::to_owned)
    })
    .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["method"], "GET");
    assert_eq!(line["path"], "/v2/a/manifests/v%0a1");
    assert_eq!(line["status"], 404);
    assert_eq!(line["agent"], "\"some \\\"client\\\"\\t/1\"");
    assert_eq!(line["forwarded_for"], "\"192.0.2.1\"");
    assert!(line["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(line["ms"].is_u64() && line["bytes"].as_u64().unwrap() > 0);
    let home = server.stop().await;
    assert_eq!(home.whole_log().matches("id-1").count(), 1);

    let quiet = Server::start(options("", &[])).await;
    assert_eq!(quiet.get("/v2/").await.status(), 200);
    let home = quiet.stop().await;
    assert!(!home.whole_log().contains("/v2/"), "{}", home.whole_log());
}

#[tokio::test]
async fn a_read_only_registry_goes_on_serving_what_it_has() {
    let server = Server::start(options("", &[])).await;
    let image = Image::new(&[b"layer"]);
    server.push("a", "v1", &image).await;
    let mut home = server.stop().await;
    home.options.environment = vec![("REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED", "true")];
    let server = home.start().await;
    assert_eq!(server.pull("a", "v1").await, image);
    for (method, path) in [("POST", "/v2/a/blobs/uploads/"), ("DELETE", "/v2/a/manifests/v1")] {
        assert_eq!(server.send(method, path).await.status(), 405, "{method} {path}");
    }
    assert_eq!(server.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn a_socket_in_the_file_system_can_be_listened_on() {
    let home = Home::new(Options::default());
    let path = home.data().parent().unwrap().join("http.sock");
    let file = home.data().parent().unwrap().join("c.yml");
    fs::write(&file, format!("http:\n  net: unix\n  addr: {}\n", path.display())).unwrap();
    let mut command = home.command(&["serve", "--p2p", "/ip4/127.0.0.1/tcp/0", "--config"]);
    let mut process = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut stream =
        eventually("the socket is there", async || tokio::net::UnixStream::connect(&path).await.ok()).await;
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&process), rustix::process::Signal::TERM)
        .unwrap();
    let status = eventually("it stops", async || process.try_wait().unwrap()).await;
    assert!(status.success() && !Path::new(&path).exists());
}
