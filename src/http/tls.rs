//! TLS by files. They are looked at again while connections come in, so that a new certificate needs no restart; a pair
//! that is not whole leaves the one before it in place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, version};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);
/// Letters of a client's name that are kept.
const MAX_NAME: usize = 256;

/// Who the client is, by its verified certificate: the common name of its subject, or else its first other name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerCertificate(pub(crate) Option<String>);

impl PeerCertificate {
    pub(super) fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let first = chain.and_then(<[_]>::first);
        Self(
            first
                .and_then(|certificate| name(certificate.as_ref()))
                .map(|name| name.chars().take(MAX_NAME).collect()),
        )
    }
}

/// What connections are made with, as the files say.
#[derive(Debug)]
pub(crate) struct Tls {
    files: config::Tls,
    protocols: Vec<Vec<u8>>,
    /// Between two looks at the files.
    interval: Duration,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    config: Arc<ServerConfig>,
    stamps: Vec<Option<(SystemTime, u64)>>,
    looked: Instant,
}

impl Tls {
    /// Reads the files, all of which must be right.
    pub(crate) fn open(files: config::Tls, http2: bool) -> anyhow::Result<Self> {
        Self::open_with(files, http2, LOOK)
    }

    pub(super) fn open_with(files: config::Tls, http2: bool, interval: Duration) -> anyhow::Result<Self> {
        let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stamps = stamps(&files);
        let config = Arc::new(load(&files, &protocols)?);
        let now = Mutex::new(Now { config, stamps, looked: Instant::now() });
        Ok(Self { files, protocols, interval, now })
    }

    /// For the next connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.looked.elapsed() >= self.interval {
            now.looked = Instant::now();
            self.look(&mut now);
        }
        Arc::clone(&now.config)
    }

    fn look(&self, now: &mut Now) {
        let stamps = stamps(&self.files);
        if stamps == now.stamps {
            return;
        }
        // What cannot be used is not tried again before it has changed.
        now.stamps = stamps;
        match load(&self.files, &self.protocols) {
            Ok(config) => {
                now.config = Arc::new(config);
                tracing::info!("the certificate has been read again");
            }
            Err(error) => {
                tracing::warn!("the new certificate cannot be used, and the one before it stays: {error:#}");
            }
        }
    }
}

/// When the files were changed last, and their lengths.
fn stamps(files: &config::Tls) -> Vec<Option<(SystemTime, u64)>> {
    let paths = [&files.certificate, &files.key].into_iter().chain(&files.client_cas);
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    paths.map(stamp).collect()
}

fn load(files: &config::Tls, protocols: &[Vec<u8>]) -> anyhow::Result<ServerConfig> {
    let config::Tls { certificate, key, client_cas, client_optional, only_13, suites } = files;
    let provider = Arc::new(provider(suites)?);
    let versions: &[_] = if *only_13 { &[&version::TLS13] } else { &[&version::TLS13, &version::TLS12] };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .context("http.tls.ciphersuites has no suite of the versions that http.tls.minimumtls allows")?;
    let builder = if client_cas.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for path in client_cas {
            for authority in certificates(path)? {
                roots
                    .add(authority)
                    .with_context(|| format!("{} has no usable authority", path.display()))?;
            }
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if *client_optional { verifier.allow_unauthenticated() } else { verifier };
        builder.with_client_cert_verifier(verifier.build().context("http.tls.clientcas cannot be used")?)
    };
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{} has no private key that can be read", key.display()))?;
    let mut config = builder.with_single_cert(chain, private).with_context(|| {
        format!("{} and {} are not a certificate and its key", certificate.display(), key.display())
    })?;
    config.alpn_protocols = protocols.to_vec();
    Ok(config)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let unreadable = || format!("{} has no certificate that can be read", path.display());
    let chain = CertificateDer::pem_file_iter(path).with_context(unreadable)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().with_context(unreadable)?;
    ensure!(!chain.is_empty(), "{} has no certificate", path.display());
    Ok(chain)
}

/// The suites that were asked for. Those of TLS 1.3 are all spoken where none of them is named.
fn provider(names: &[String]) -> anyhow::Result<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let known: Vec<String> = provider.cipher_suites.iter().map(suite_name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        bail!("http.tls.ciphersuites has {unknown}, which is not spoken; there are {}", known.join(", "));
    }
    let names_13 = names.iter().any(|name| name.starts_with("TLS_AES_") || name.starts_with("TLS_CHACHA20_"));
    provider.cipher_suites.retain(|suite| {
        names.contains(&suite_name(suite)) || (suite.version() == &version::TLS13 && !names_13)
    });
    Ok(provider)
}

/// IANA's name. rustls writes those of TLS 1.3 in another way.
fn suite_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

fn name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let common = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if let Some(common) = common.filter(|common| !common.is_empty()) {
        return Some(common.to_owned());
    }
    let others = certificate.subject_alternative_name().ok()??;
    others.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    })
}
