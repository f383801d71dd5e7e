//! TLS and HTTP/2, with certificates made for each test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config;
use crate::http::tls::{PeerCertificate, Tls};

/// An authority and what it has signed, as files.
struct Authority {
    dir: tempfile::TempDir,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// A certificate and its key, in two files.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { dir, certificate, key }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Signs a certificate for localhost, with this common name.
    fn sign(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let signed = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        let file = |what: &str| self.dir.path().join(format!("{name}.{what}"));
        let pair = Pair { certificate: file("pem"), key: file("key") };
        std::fs::write(&pair.certificate, signed.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    fn client(&self, pair: Option<&Pair>, protocols: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match pair {
            Some(Pair { certificate, key }) => {
                let certificate = CertificateDer::from_pem_file(certificate).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_file(key).unwrap())
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

fn files(pair: &Pair) -> config::Tls {
    config::Tls {
        certificate: pair.certificate.clone(),
        key: pair.key.clone(),
        client_cas: Vec::new(),
        client_optional: false,
        only_13: false,
        suites: Vec::new(),
    }
}

fn serve(files: config::Tls) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let state = state(&store, Arc::new(Nowhere), Policy::default(), local());
    let options =
        Options { tls: Some(Tls::open_with(files, true, Duration::ZERO).unwrap()), ..Options::default() };
    Server::serving(dir, store, state, options, Patience::default())
}

async fn connect(server: &Server, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address).await?;
    client.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// An answer over HTTP/1.1, or nothing where the server does not let the client in.
async fn ask(server: &Server, client: &TlsConnector, request: &str) -> Option<String> {
    let mut stream = connect(server, client).await.ok()?;
    stream
        .write_all(format!("{request}\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    (!answer.is_empty()).then(|| String::from_utf8(answer).unwrap())
}

async fn is_let_in(server: &Server, client: &TlsConnector) -> bool {
    ask(server, client, "GET /v2/ HTTP/1.1").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// The names in the certificate that the server shows.
async fn shown(server: &Server, client: &TlsConnector) -> Option<String> {
    let stream = connect(server, client).await.unwrap();
    PeerCertificate::of(stream.get_ref().1.peer_certificates()).0
}

#[actix_web::test]
async fn head_says_the_length_in_both_versions_of_http() {
    let authority = Authority::new();
    let server = serve(files(&authority.sign("server")));
    let stream = connect(&server, &authority.client(None, &["h2"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let task = tokio::spawn(connection);
    let mut send = async |method: &str, path: String, body: &[u8]| {
        let uri = format!("https://localhost{path}");
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        let (answer, mut sender) = client.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            sender.send_data(body.to_vec().into(), true).unwrap();
        }
        let answer = answer.await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let (mut stream, mut content) = (answer.into_body(), Vec::new());
        while let Some(piece) = stream.data().await {
            let piece = piece.unwrap();
            stream.flow_control().release_capacity(piece.len()).unwrap();
            content.extend_from_slice(&piece);
        }
        (status, headers, content)
    };
    let small = sha256(b"small");
    let (status, headers, _) = send("POST", format!("/v2/a/blobs/uploads/?digest={small}"), b"small").await;
    assert_eq!(
        (status, headers["location"].to_str().unwrap()),
        (201, format!("/v2/a/blobs/{small}").as_str())
    );
    let (status, headers, content) = send("HEAD", format!("/v2/a/blobs/{small}"), b"").await;
    assert_eq!((status, &headers["content-length"], content.len()), (200, &http::HeaderValue::from(5), 0));
    let (status, headers, content) = send("GET", format!("/v2/a/blobs/{small}"), b"").await;
    assert_eq!(
        (status, &headers["content-length"], content.as_slice()),
        (200, &http::HeaderValue::from(5), &b"small"[..])
    );
    task.abort();

    let old = authority.client(None, &["http/1.1"]);
    let answer = ask(&server, &old, &format!("HEAD /v2/a/blobs/{small} HTTP/1.1")).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.to_lowercase().contains("\r\ncontent-length: 5"),
        "{head}"
    );
    assert_eq!(body, "");
}

#[actix_web::test]
async fn a_new_pair_is_taken_and_a_broken_one_leaves_the_old() {
    let authority = Authority::new();
    let (first, second, third) = (authority.sign("first"), authority.sign("second"), authority.sign("third"));
    let server = serve(files(&first));
    let client = authority.client(None, &[]);
    let shown = async || shown(&server, &client).await;
    assert_eq!(shown().await.as_deref(), Some("first"));
    // Half of a new pair: a certificate with the key of another.
    std::fs::copy(&second.certificate, &first.certificate).unwrap();
    assert_eq!(shown().await.as_deref(), Some("first"));
    std::fs::copy(&second.key, &first.key).unwrap();
    assert_eq!(shown().await.as_deref(), Some("second"));
    std::fs::remove_file(&first.key).unwrap();
    assert_eq!(shown().await.as_deref(), Some("second"));
    std::fs::copy(&third.certificate, &first.certificate).unwrap();
    std::fs::copy(&third.key, &first.key).unwrap();
    assert_eq!(shown().await.as_deref(), Some("third"));
}

#[actix_web::test]
async fn clients_show_a_certificate_of_the_right_authority() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let (server_pair, mine, theirs) =
        (authority.sign("server"), authority.sign("mine"), strangers.sign("theirs"));
    let [nobody, member, stranger] =
        [None, Some(&mine), Some(&theirs)].map(|pair| authority.client(pair, &["http/1.1"]));
    let strict = serve(config::Tls { client_cas: vec![authority.path()], ..files(&server_pair) });
    assert!(is_let_in(&strict, &member).await);
    assert!(!is_let_in(&strict, &nobody).await);
    assert!(!is_let_in(&strict, &stranger).await);
    let optional = serve(config::Tls {
        client_cas: vec![authority.path()],
        client_optional: true,
        ..files(&server_pair)
    });
    assert!(is_let_in(&optional, &member).await);
    assert!(is_let_in(&optional, &nobody).await);
    assert!(!is_let_in(&optional, &stranger).await);
}

#[test]
fn a_client_is_known_by_the_name_in_its_certificate() {
    let authority = Authority::new();
    let name = |path: &Path| PeerCertificate::of(Some(&[CertificateDer::from_pem_file(path).unwrap()])).0;
    assert_eq!(name(&authority.sign("alice").certificate).as_deref(), Some("alice"));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["bob.example".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let certificate = params.self_signed(&key).unwrap();
    assert_eq!(PeerCertificate::of(Some(&[certificate.der().clone()])).0.as_deref(), Some("bob.example"));
    assert_eq!(PeerCertificate::of(None).0, None);
    assert_eq!(PeerCertificate::of(Some(&[CertificateDer::from(vec![0; 10])])).0, None);
}

#[test]
fn files_and_suites_that_cannot_be_used_say_why() {
    let authority = Authority::new();
    let (pair, other) = (authority.sign("server"), authority.sign("other"));
    let refusal = |files: config::Tls| format!("{:#}", Tls::open(files, true).unwrap_err());
    let missing = config::Tls { certificate: "/nowhere/cert.pem".into(), ..files(&pair) };
    assert!(refusal(missing).contains("/nowhere/cert.pem has no certificate that can be read"));
    let swapped =
        config::Tls { certificate: pair.key.clone(), key: pair.certificate.clone(), ..files(&pair) };
    assert!(refusal(swapped).contains("has no certificate"));
    let mixed = config::Tls { key: other.key.clone(), ..files(&pair) };
    assert!(refusal(mixed).contains("are not a certificate and its key"));
    let no_authority = config::Tls { client_cas: vec![pair.key.clone()], ..files(&pair) };
    assert!(refusal(no_authority).contains("has no certificate"));
    let suites = |names: &[&str], only_13| config::Tls {
        suites: names.iter().map(|&name| name.to_owned()).collect(),
        only_13,
        ..files(&pair)
    };
    let unknown = refusal(suites(&["TLS_RSA_WITH_AES_128_CBC_SHA"], false));
    assert!(unknown.contains("TLS_RSA_WITH_AES_128_CBC_SHA, which is not spoken"), "{unknown}");
    assert!(unknown.contains("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), "{unknown}");
    assert!(Tls::open(suites(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"], false), true).is_ok());
    assert!(Tls::open(suites(&["TLS_AES_128_GCM_SHA256"], true), true).is_ok());
}

#[actix_web::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let authority = Authority::new();
    let server = serve(files(&authority.sign("server")));
    let answer = wire::exchange(&server, b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("takes HTTPS, and that was HTTP\n"),
        "{answer}"
    );
    let length: usize =
        answer.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), length);
    assert_eq!(wire::exchange(&server, b"\0\0\0").await, "");
    assert!(is_let_in(&server, &authority.client(None, &[])).await);
}
