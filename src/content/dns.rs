//! How TXT records are asked for: of the system's name servers, of one that the configuration names, or over HTTPS
//! (RFC 8484).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::client::{Client, Request};

/// One attempt; there are two.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;
/// A DNS message is never longer.
const MAX_MESSAGE: usize = 64 * 1024;
/// Texts of one name that are looked at.
const MAX_TEXTS: usize = 64;

const MESSAGE: &str = "application/dns-message";

/// The port: who knows TXT records.
pub(crate) trait Txt: Send + Sync + std::fmt::Debug {
    /// The texts of a name, which ends with a dot. None is no error.
    fn txt(&self, name: String) -> BoxFuture<'_, Result<Texts, DnsError>>;
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    pub(crate) values: Vec<String>,
    pub(crate) ttl: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("{0}")]
    Failed(String),
    #[error("the registry is stopping")]
    Stopped,
}

/// Who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Server {
    /// Those of `/etc/resolv.conf`, which is read each time: a board gets new ones when it changes networks.
    #[default]
    System,
    Plain(SocketAddr),
    Https(String),
}

/// The way to it.
#[derive(Clone, Debug)]
pub(crate) enum Dns {
    Plain(Option<SocketAddr>),
    Https(Arc<Client>, String),
}

impl Dns {
    pub(crate) fn new(server: &Server) -> anyhow::Result<Self> {
        Ok(match server {
            Server::System => Self::Plain(None),
            Server::Plain(address) => Self::Plain(Some(*address)),
            Server::Https(url) => Self::Https(Arc::new(Client::new()?), url.clone()),
        })
    }
}

impl Txt for Dns {
    fn txt(&self, name: String) -> BoxFuture<'_, Result<Texts, DnsError>> {
        async move {
            let name = Name::from_ascii(&name).map_err(failed)?;
            match self {
                Self::Plain(server) => plain(*server, name).await,
                Self::Https(client, url) => https(client, url, name).await,
            }
        }
        .boxed()
    }
}

async fn plain(server: Option<SocketAddr>, name: Name) -> Result<Texts, DnsError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = match server {
        None => TokioResolver::builder(provider).map_err(failed)?,
        Some(address) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            let server = NameServerConfig::new(address.ip(), true, connections.into());
            TokioResolver::builder_with_config(ResolverConfig::from_name_servers(vec![server]), provider)
        }
    };
    let options = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    // What is remembered is remembered above.
    options.cache_size = 0;
    let resolver = builder.build().map_err(failed)?;
    match resolver.txt_lookup(name).await {
        Ok(found) => Ok(texts(found.answers())),
        Err(error) if error.is_no_records_found() => Ok(Texts::default()),
        Err(error) => Err(failed(error)),
    }
}

async fn https(client: &Client, url: &str, name: Name) -> Result<Texts, DnsError> {
    let mut message = Message::query();
    // So that caches on the way see that two questions are one (RFC 8484, 4.1).
    message.metadata.id = 0;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, RecordType::TXT));
    let body = message.to_vec().map_err(failed)?;
    let request = Request::post(url, MESSAGE, body.into()).accept(MESSAGE);
    let answer = client.send(request, MAX_MESSAGE, TIMEOUT * 2).await.map_err(failed)?;
    if !answer.is_ok() {
        return Err(DnsError::Failed(format!("{url} answers {}", answer.status)));
    }
    let message = Message::from_vec(&answer.body).map_err(failed)?;
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(texts(&message.answers)),
        code => Err(DnsError::Failed(format!("{url} answers {code}"))),
    }
}

/// The pieces of each record belong together.
fn texts(records: &[Record]) -> Texts {
    let mut ttl = u32::MAX;
    let values = records.iter().take(MAX_TEXTS).filter_map(|record| {
        let RData::TXT(txt) = &record.data else { return None };
        ttl = ttl.min(record.ttl);
        Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned())
    });
    Texts { values: values.collect(), ttl: Duration::from_secs(ttl.into()) }
}

fn failed(error: impl std::fmt::Display) -> DnsError {
    DnsError::Failed(error.to_string())
}
