//! What is said of HTTP, beside where it listens: TLS, what locations look like, headers, the second port.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;

use super::complete;
use super::reader::Reader;

/// Time for requests in flight when the registry stops.
const DRAIN: Duration = Duration::from_secs(20);
/// Longer is no stop: systemd and Docker have lost patience by then.
const MAX_DRAIN: Duration = Duration::from_hours(1);
const METRICS: &str = "/metrics";

#[derive(Clone, Debug, Default)]
pub(crate) struct Web {
    /// `http.addr` is the path of a socket.
    pub(crate) unix: bool,
    pub(crate) tls: Option<Tls>,
    pub(crate) locations: Locations,
    /// What stands before `/v2/`; empty, or it begins with a slash and ends without one.
    pub(crate) prefix: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) drain: Duration,
    pub(crate) http2: bool,
    /// HTTP/2 without TLS.
    pub(crate) h2c: bool,
    pub(crate) debug: Option<Debug>,
}

/// What the locations in answers begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Locations {
    /// A path, which is right behind every proxy.
    #[default]
    Relative,
    /// The scheme and host that the request, or the proxy before it, names.
    Asked,
    /// This URL, which ends without a slash.
    Fixed(String),
}

/// Files, and how strict TLS is.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_cas: Vec<PathBuf>,
    /// Clients without a certificate are let in too.
    pub(crate) client_optional: bool,
    /// TLS 1.3 and nothing older.
    pub(crate) only_13: bool,
    /// IANA names; all that are safe where there is none.
    pub(crate) suites: Vec<String>,
}

/// The second port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Debug {
    pub(crate) addr: String,
    /// The path of the metrics.
    pub(crate) metrics: Option<String>,
}

impl Web {
    pub(super) fn read(reader: &mut Reader<'_>) -> anyhow::Result<Self> {
        let unix = reader.text("http.net", "tcp") == "unix";
        let prefix = reader.text("http.prefix", "").trim_end_matches('/').to_owned();
        let host = reader.given("http.host");
        let relative = reader.switch("http.relativeurls", true);
        let locations = match host {
            Some(url) => Locations::Fixed(url.trim_end_matches('/').to_owned()),
            None if relative => Locations::Relative,
            None => Locations::Asked,
        };
        let drain = reader.duration("http.draintimeout", DRAIN).min(MAX_DRAIN);
        let tls = tls(reader)?;
        if unix && tls.is_some() {
            bail!("http.net is unix, where nobody listens in: take http.tls away");
        }
        let debug = debug(reader);
        let headers = reader.headers("http.headers");
        let http2 = !reader.switch("http.http2.disabled", false);
        let h2c = reader.switch("http.h2c.enabled", false);
        Ok(Self { unix, tls, locations, prefix, headers, drain, http2, h2c, debug })
    }
}

fn tls(reader: &mut Reader<'_>) -> anyhow::Result<Option<Tls>> {
    let certificate = reader.given("http.tls.certificate");
    let key = reader.given("http.tls.key");
    let client_cas: Vec<PathBuf> =
        reader.texts("http.tls.clientcas").into_iter().map(PathBuf::from).collect();
    let client_auth = reader.given("http.tls.clientauth");
    let only_13 = reader.text("http.tls.minimumtls", "tls1.2") == "tls1.3";
    let suites = reader.texts("http.tls.ciphersuites");
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate.into(), key.into()),
        (None, None) if client_cas.is_empty() && client_auth.is_none() => return Ok(None),
        (None, None) => bail!("client certificates need TLS: give http.tls.certificate and http.tls.key"),
        (Some(_), None) => bail!("http.tls.certificate needs http.tls.key, the file with its private key"),
        (None, Some(_)) => bail!("http.tls.key needs http.tls.certificate, the file with its certificate"),
    };
    let client_optional = match client_auth.as_deref() {
        Some("require-and-verify-client-cert" | "verify-client-cert-if-given") if client_cas.is_empty() => {
            bail!("http.tls.clientauth needs http.tls.clientcas, the files with the authorities of clients")
        }
        None | Some("require-and-verify-client-cert") => false,
        Some("verify-client-cert-if-given") => true,
        Some(other) => bail!(
            "http.tls.clientauth is {other}, which takes certificates from everyone and checks none: say verify-client-cert-if-given or require-and-verify-client-cert"
        ),
    };
    Ok(Some(Tls { certificate, key, client_cas, client_optional, only_13, suites }))
}

fn debug(reader: &mut Reader<'_>) -> Option<Debug> {
    let addr = reader.given("http.debug.addr");
    let enabled = reader.switch("http.debug.prometheus.enabled", false);
    let path = reader.text("http.debug.prometheus.path", METRICS);
    addr.map(|addr| Debug { addr: complete(&addr), metrics: enabled.then_some(path) })
}
