//! Delegated routing: who has content, where a peer is, and records of names, for nodes that have no DHT of their own
//! or do not want to wait for it (specs.ipfs.tech, "Delegated Routing V1 HTTP API").
//!
//! What this node knows of itself is said at once; the DHT is asked behind it, where the configuration allows that.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG,
    EXPIRES, HeaderValue, HttpDate, VARY,
};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use sampan_node::{Multiaddr, Name, PeerId};
use sampan_storage::Cid;
use sampan_storage::block::cid_of;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::State;
use super::conditional;
use super::error::HttpError;
use super::gateway::{self, GatewayError, RECORD};
use super::v2::query::Query;
use crate::content::{Network, Reach, age, left, parse_cid};

const NDJSON: &str = "application/x-ndjson";
/// What this node speaks: bitswap always, and HTTP where others can come to it.
const BITSWAP: &str = "transport-bitswap";
const HTTP: &str = "transport-ipfs-gateway-http";
/// Records in one answer (the specification, "Response Body").
const MAX_RECORDS: usize = 100;
/// Questions to the DHT that are out at once; others hear of this node alone.
const MAX_LOOKUPS: usize = 16;
/// Seconds that an answer may be kept: with records, and without, as the specification proposes.
const KEPT: u32 = 300;
const KEPT_EMPTY: u32 = 15;
/// A record of a name is no longer (IPNS record specification).
const MAX_RECORD: usize = sampan_node::ipns::MAX_RECORD;

/// What the handlers need beside the gateway's.
#[derive(Clone, Debug)]
pub(crate) struct Routing {
    network: Arc<dyn Network>,
    /// The DHT is asked.
    asks: bool,
    door: Door,
    lookups: Arc<Semaphore>,
}

/// How the gateway is reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door {
    /// Beginning of an address that is the same for everybody: `/ip4/192.0.2.1` or `/dns/example.org`.
    pub(crate) host: Option<String>,
    /// `None`: not over TCP, or not at the root of its host, so that no multiaddr says it.
    pub(crate) port: Option<u16>,
    pub(crate) tls: bool,
}

/// A peer, in the schema `peer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Record {
    schema: &'static str,
    #[serde(rename = "ID")]
    id: String,
    addrs: Vec<String>,
    protocols: Vec<&'static str>,
}

/// Which records and addresses a client can use (IPIP-484).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    protocols: Vec<String>,
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

impl Routing {
    pub(crate) fn new(network: Arc<dyn Network>, asks: bool, door: Door) -> Self {
        Self { network, asks, door, lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }

    async fn myself(&self) -> Record {
        let id = self.network.me().to_string();
        let addresses: Vec<String> =
            self.network.addresses().await.iter().map(|address| bare(address, &id)).collect();
        let http = self.door.addresses(&addresses);
        let protocols = if http.is_empty() { vec![BITSWAP] } else { vec![BITSWAP, HTTP] };
        Record { schema: "peer", id, addrs: http.into_iter().chain(addresses).collect(), protocols }
    }

    /// Whom the DHT names, with the addresses of those that are connected by now.
    async fn others(&self, cid: Cid) -> Vec<Record> {
        let Some(_turn) = self.lookups.try_acquire().ok().filter(|_| self.asks) else { return Vec::new() };
        let providers = self.network.providers(cid).await;
        let known = self.network.peers().await;
        let me = self.network.me();
        let others = providers.into_iter().filter(|peer| *peer != me).take(MAX_RECORDS - 1);
        others.map(|peer| connected(&known, peer).unwrap_or_else(|| Record::of(peer, &[]))).collect()
    }
}

impl Record {
    fn of(peer: PeerId, addresses: &[Multiaddr]) -> Self {
        let id = peer.to_string();
        let addrs = addresses.iter().map(|address| bare(address, &id)).collect();
        Self { schema: "peer", id, addrs, protocols: Vec::new() }
    }
}

impl Door {
    /// Where the operator says that clients come to: `https://example.org:8443`.
    pub(crate) fn at(url: &str) -> Self {
        let Some((scheme, rest)) = url.split_once("://") else { return Self::default() };
        let tls = scheme == "https";
        // A multiaddr has no path.
        if rest.contains('/') {
            return Self::default();
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (rest, Some(if tls { 443 } else { 80 })),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("/ip4/{ip}"),
            Ok(IpAddr::V6(ip)) => format!("/ip6/{ip}"),
            Err(_) => format!("/dns/{host}"),
        };
        Self { host: Some(host), port, tls }
    }

    /// Multiaddrs of the gateway. Where it listens on every interface, those on which the node listens too.
    fn addresses(&self, node: &[String]) -> Vec<String> {
        let Some(port) = self.port else { return Vec::new() };
        let hosts: Vec<String> = match &self.host {
            Some(host) => vec![host.clone()],
            None => node.iter().filter_map(|address| host_of(address)).collect(),
        };
        let end = if self.tls { "tls/http" } else { "http" };
        let mut addresses: Vec<String> =
            hosts.into_iter().map(|host| format!("{host}/tcp/{port}/{end}")).collect();
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    }
}

impl Filter {
    pub(super) fn read(query: &Query) -> Self {
        let list = |name| {
            let text = query.get(name).unwrap_or_default().to_ascii_lowercase();
            text.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (unwanted, wanted): (Vec<String>, Vec<String>) =
            list("filter-addrs").into_iter().partition(|word| word.starts_with('!'));
        let unwanted = unwanted.into_iter().map(|word| word.trim_start_matches('!').to_owned()).collect();
        Self { protocols: list("filter-protocols"), wanted, unwanted }
    }

    /// The record with the addresses that pass, if any does.
    pub(super) fn pass(&self, mut record: Record) -> Option<Record> {
        let unknown = record.protocols.is_empty();
        let speaks = |word: &String| {
            (word == "unknown" && unknown)
                || record.protocols.iter().any(|known| known.eq_ignore_ascii_case(word))
        };
        if !self.protocols.is_empty() && !self.protocols.iter().any(speaks) {
            return None;
        }
        if self.wanted.is_empty() && self.unwanted.is_empty() {
            return Some(record);
        }
        if record.addrs.is_empty() {
            return self.wanted.iter().any(|word| word == "unknown").then_some(record);
        }
        record.addrs.retain(|address| {
            let has = |word: &String| address.split('/').any(|part| part.eq_ignore_ascii_case(word));
            !self.unwanted.iter().any(has) && (self.wanted.is_empty() || self.wanted.iter().any(has))
        });
        (!record.addrs.is_empty()).then_some(record)
    }
}

/// Adds the routes, below the prefix.
pub(super) fn routes(config: &mut web::ServiceConfig, prefix: &str) {
    let path = |tail: &str| format!("{prefix}/routing/v1/{tail}");
    config
        .route(&path("providers/{key}"), web::to(providers))
        .route(&path("peers/{key}"), web::to(peers))
        .route(&path("ipns/{key}"), web::to(names))
        .route(&path("{tail:.*}"), web::to(unknown));
}

async fn providers(request: HttpRequest, state: web::Data<State>, key: web::Path<String>) -> HttpResponse {
    open(find_providers(&request, &state, &key).await, "GET, OPTIONS")
}

/// What the specification may know, and this registry does not.
async fn unknown() -> HttpResponse {
    open(Err(GatewayError::RoutingPath.into()), "GET, OPTIONS")
}

async fn peers(request: HttpRequest, state: web::Data<State>, key: web::Path<String>) -> HttpResponse {
    open(find_peer(&request, &state, &key).await, "GET, OPTIONS")
}

async fn names(
    request: HttpRequest,
    state: web::Data<State>,
    key: web::Path<String>,
    body: web::Payload,
) -> HttpResponse {
    let answer = match request.method().as_str() {
        "PUT" => put_record(&request, &state, &key, body).await,
        _ => get_record(&request, &state, &key).await,
    };
    open(answer, "GET, OPTIONS")
}

async fn find_providers(request: &HttpRequest, state: &State, key: &str) -> Result<HttpResponse, HttpError> {
    if let Some(answer) = preflight(request, "GET, HEAD, OPTIONS")? {
        return Ok(answer);
    }
    let cid = parse_cid(key).ok_or(GatewayError::RoutingKey)?;
    let gateway = gateway::open(state)?;
    let filter = Filter::read(&Query::of(request)?);
    let routing = gateway.routing.clone();
    // What nobody may fetch is not to be found here, and where not everyone may have everything nobody else is asked.
    let gives = state.access.auth.gives_to_peers();
    let here = gateway.content.has(cid).await.map_err(GatewayError::from)?;
    let mut first = Vec::new();
    if here {
        first.extend(filter.pass(routing.myself().await));
    }
    let more = Box::pin(async move {
        let others = if gives { routing.others(cid).await } else { Vec::new() };
        others.into_iter().filter_map(|record| filter.pass(record)).collect()
    });
    Ok(list(request, "Providers", first, more).await)
}

async fn find_peer(request: &HttpRequest, state: &State, key: &str) -> Result<HttpResponse, HttpError> {
    if let Some(answer) = preflight(request, "GET, HEAD, OPTIONS")? {
        return Ok(answer);
    }
    // A peer id is written in the same ways as a name.
    let peer = key.parse::<Name>().map_err(|_| GatewayError::RoutingKey)?.peer_id();
    let routing = &gateway::open(state)?.routing;
    let filter = Filter::read(&Query::of(request)?);
    let found = if peer == routing.network.me() {
        Some(routing.myself().await)
    } else {
        connected(&routing.network.peers().await, peer)
    };
    let found = found.and_then(|record| filter.pass(record)).into_iter().collect();
    Ok(list(request, "Peers", found, Box::pin(std::future::ready(Vec::new()))).await)
}

async fn get_record(request: &HttpRequest, state: &State, key: &str) -> Result<HttpResponse, HttpError> {
    if let Some(answer) = preflight(request, "GET, HEAD, PUT, OPTIONS")? {
        return Ok(answer);
    }
    let name = key.parse::<Name>().map_err(|_| GatewayError::Address)?;
    let accept = header(request, ACCEPT);
    let takes = |text: &str| [RECORD, "*/*", "application/*"].iter().any(|known| text.contains(known));
    if !accept.is_empty() && !takes(&accept) {
        return Err(GatewayError::RecordType.into());
    }
    let record =
        gateway::open(state)?.names.record(name, Reach::Anywhere).await.map_err(GatewayError::from)?;
    // kubo-facing paths never carry a record that has expired.
    let Some(record) = record.filter(|record| left(record) > 0) else {
        let mut response = HttpResponse::Ok();
        response.insert_header((CACHE_CONTROL, format!("public, max-age={KEPT_EMPTY}")));
        response.insert_header((VARY, "Accept")).insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"));
        // Another type than that of a record says that there is none.
        return Ok(response.body("no record of this name is known here\n"));
    };
    let etag = conditional::etag(&cid_of(0x0300, record.bytes()).to_string());
    let mut response = HttpResponse::Ok();
    let (max_age, left) = (age(&record).max(1), left(&record));
    let caching = format!("public, max-age={max_age}, stale-while-revalidate={left}, stale-if-error={left}");
    response.insert_header((ETAG, etag.clone())).insert_header((CACHE_CONTROL, caching));
    response.insert_header((EXPIRES, HttpDate::from(record.validity()))).insert_header((VARY, "Accept"));
    if conditional::is_unchanged(request, &etag) {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    response.insert_header((CONTENT_TYPE, RECORD));
    Ok(gateway::sized(request, &mut response, record.bytes().clone()))
}

async fn put_record(
    request: &HttpRequest,
    state: &State,
    key: &str,
    mut body: web::Payload,
) -> Result<HttpResponse, HttpError> {
    let name = key.parse::<Name>().map_err(|_| GatewayError::Address)?;
    let kind = header(request, CONTENT_TYPE);
    if kind.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case(RECORD)) {
        return Err(GatewayError::RecordType.into());
    }
    if !state.access.auth.gives_to_peers() {
        return Err(GatewayError::Refused.into());
    }
    let mut record = Vec::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| GatewayError::RecordLength)?;
        if record.len() + piece.len() > MAX_RECORD {
            return Err(GatewayError::RecordLength.into());
        }
        record.extend_from_slice(&piece);
    }
    gateway::open(state)?.names.put(name, record.into()).await.map_err(GatewayError::from)?;
    Ok(HttpResponse::Ok().finish())
}

/// Records as one object, or a line each as they come.
async fn list(
    request: &HttpRequest,
    what: &'static str,
    first: Vec<Record>,
    more: BoxFuture<'static, Vec<Record>>,
) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((VARY, "Accept"));
    if header(request, ACCEPT).contains(NDJSON) {
        let kept = if first.is_empty() { KEPT_EMPTY } else { KEPT };
        response.insert_header((CACHE_CONTROL, caching(kept))).insert_header((CONTENT_TYPE, NDJSON));
        let lines = stream::iter([first]).chain(stream::once(more)).map(|records| {
            Ok::<_, std::convert::Infallible>(records.iter().filter_map(line).collect::<String>().into())
        });
        let lines = lines.filter(|line: &Result<Bytes, _>| {
            std::future::ready(line.as_ref().is_ok_and(|line| !line.is_empty()))
        });
        return response.streaming(lines);
    }
    let records: Vec<Record> = first.into_iter().chain(more.await).take(MAX_RECORDS).collect();
    let kept = if records.is_empty() { KEPT_EMPTY } else { KEPT };
    response.insert_header((CACHE_CONTROL, caching(kept)));
    response.json(std::collections::BTreeMap::from([(what, records)]))
}

fn line(record: &Record) -> Option<String> {
    serde_json::to_string(record).ok().map(|line| line + "\n")
}

fn caching(kept: u32) -> String {
    format!("public, max-age={kept}, stale-while-revalidate=172800, stale-if-error=172800")
}

fn connected(known: &[(PeerId, Vec<Multiaddr>)], peer: PeerId) -> Option<Record> {
    let (_, addresses) = known.iter().find(|(id, _)| *id == peer)?;
    Some(Record::of(peer, addresses))
}

/// The answer to a browser that asks first; an error where the method is none.
fn preflight(request: &HttpRequest, allow: &'static str) -> Result<Option<HttpResponse>, HttpError> {
    match request.method().as_str() {
        "OPTIONS" => Ok(Some(HttpResponse::NoContent().finish())),
        "GET" | "HEAD" => Ok(None),
        _ => Err(HttpError::Method { allow }),
    }
}

/// Pages of any origin may ask (the specification, "CORS and Web Browsers").
fn open(answer: Result<HttpResponse, HttpError>, methods: &'static str) -> HttpResponse {
    let mut response = answer.unwrap_or_else(|error| error.respond());
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    response
}

fn header(request: &HttpRequest, name: actix_web::http::header::HeaderName) -> String {
    let values: Vec<&str> = request.headers().get_all(name).filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// An address without the peer id at its end, which stands beside it.
fn bare(address: &Multiaddr, id: &str) -> String {
    let text = address.to_string();
    text.strip_suffix(&format!("/p2p/{id}")).map_or_else(|| text.clone(), str::to_owned)
}

/// `/ip4/192.0.2.1` of an address that begins with one.
fn host_of(address: &str) -> Option<String> {
    let mut parts = address.split('/').skip(1);
    let (kind, host) = (parts.next()?, parts.next()?);
    matches!(kind, "ip4" | "ip6").then(|| format!("/{kind}/{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_is_where_the_operator_says_or_where_the_node_listens() {
        let at = |url: &str| Door::at(url).addresses(&["/ip4/192.0.2.1/tcp/4001".to_owned()]);
        assert_eq!(at("https://example.org"), ["/dns/example.org/tcp/443/tls/http"]);
        assert_eq!(at("http://example.org:8080"), ["/dns/example.org/tcp/8080/http"]);
        assert_eq!(at("https://192.0.2.7:8443"), ["/ip4/192.0.2.7/tcp/8443/tls/http"]);
        assert_eq!(at("https://[2001:db8::1]"), ["/ip6/2001:db8::1/tcp/443/tls/http"]);
        assert_eq!(at("https://[2001:db8::1]:444"), ["/ip6/2001:db8::1/tcp/444/tls/http"]);
        assert_eq!(at("https://example.org/registry"), [""; 0]);
        let everywhere = Door { host: None, port: Some(5000), tls: false };
        let node = [
            "/ip4/192.0.2.1/tcp/4001",
            "/ip4/192.0.2.1/udp/4001/quic-v1",
            "/ip6/::1/tcp/4001",
            "/dns/a/tcp/1",
        ];
        let node = node.map(str::to_owned);
        assert_eq!(everywhere.addresses(&node), ["/ip4/192.0.2.1/tcp/5000/http", "/ip6/::1/tcp/5000/http"]);
        assert_eq!(Door::default().addresses(&node), [""; 0]);
    }
}

/// Fuzz target for the filters of a client.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz {
    #![allow(
        clippy::missing_panics_doc,
        clippy::unwrap_used,
        clippy::panic,
        reason = "a target is there to panic"
    )]

    use super::{BITSWAP, Filter, Query, Record, line};

    /// A query string on the first line, addresses on those behind it.
    pub fn routing(data: &[u8]) {
        let Ok(text) = str::from_utf8(data) else { return };
        let mut lines = text.lines();
        let Ok(query) = Query::read(lines.next().unwrap_or_default()) else { return };
        let addrs: Vec<String> = lines.map(str::to_owned).collect();
        let record = Record { schema: "peer", id: String::new(), addrs, protocols: vec![BITSWAP] };
        let filter = Filter::read(&query);
        let Some(passed) = filter.pass(record.clone()) else { return };
        assert!(passed.addrs.iter().all(|address| record.addrs.contains(address)), "nothing is made up");
        assert_eq!(passed.protocols, record.protocols);
        let line = line(&passed).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "a record is one line");
        // What has passed passes again.
        assert_eq!(filter.pass(passed.clone()), Some(passed));
    }
}
