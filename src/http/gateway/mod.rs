//! The trustless gateway: blocks, CARs and records of names under `/ipfs` and `/ipns`, all of which a client can verify
//! (specs.ipfs.tech, "Trustless Gateway"). No file is put together here and no directory is shown.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod headers;
mod request;

use actix_web::body::{BodyStream, SizedStream};
use actix_web::http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use futures::stream::{self, TryStreamExt};
use sampan_storage::dag::file::root_size;
use sampan_storage::dag::path::Resolved;
use sampan_storage::dag::walk::Scope;

use super::State;
use super::body::HeadOf;
use super::conditional;
use super::error::HttpError;
use super::range::{self, Selection};
use crate::content::{Address, Content, ContentError, Names, PutError, Root, age, as_car};
use headers::Answer;
use request::{Car, Format, Wish};

/// Record bytes, as they travel between peers.
pub(super) const RECORD: &str = "application/vnd.ipfs.ipns-record";

/// What the handlers need.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) content: Content,
    pub(crate) names: Names,
    pub(crate) routing: super::routing::Routing,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("this is no path of content; it looks like /ipfs/<cid> or /ipns/<name>, with names behind it")]
    Address,
    #[error("say what is wanted with ?format=raw, car or ipns-record, or with Accept")]
    FormatMissing,
    #[error("only application/vnd.ipld.raw, application/vnd.ipld.car and {RECORD} are given here")]
    NotAcceptable,
    #[error("{name} is {expects}")]
    Parameter { name: &'static str, expects: &'static str },
    #[error("a record is that of a name alone: /ipns/<name>")]
    RecordOfPath,
    #[error("none of the bytes are in the file")]
    OutsideRange,
    #[error("this registry gives content to those that log in, and to nobody else")]
    Refused,
    #[error("it is not here, and the network shall not be asked")]
    NotCached,
    #[error("there is no current record of this name")]
    NoRecord,
    #[error("there is /routing/v1/providers/<cid>, /routing/v1/peers/<peer id> and /routing/v1/ipns/<name>")]
    RoutingPath,
    #[error("the path ends with a CID, or with a peer id")]
    RoutingKey,
    #[error("a record comes as Content-Type: {RECORD}, and is asked for with Accept: {RECORD}")]
    RecordType,
    #[error("a record has at most 10 KiB")]
    RecordLength,
    #[error(transparent)]
    Put(#[from] PutError),
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// Adds the routes, below the prefix.
pub(super) fn routes(config: &mut web::ServiceConfig, prefix: &str) {
    config
        .route(&format!("{prefix}/ipfs/{{tail:.*}}"), web::to(serve))
        .route(&format!("{prefix}/ipns/{{tail:.*}}"), web::to(serve));
}

async fn serve(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    handle(&request, &state).await.unwrap_or_else(|error| error.respond())
}

async fn handle(request: &HttpRequest, state: &State) -> Result<HttpResponse, HttpError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(HttpError::Method { allow: "GET, HEAD" });
    }
    let gateway = open(state)?;
    let path = request.uri().path().strip_prefix(state.urls.prefix()).unwrap_or_default();
    let wish = Wish::read(path, request.query_string(), request.headers())?;
    Ok(match &wish.format {
        Format::Raw => raw(request, gateway, &wish).await,
        Format::Car(options) => dag(request, gateway, &wish, *options).await,
        Format::Record => record(request, gateway, &wish).await,
    }?)
}

/// The gateway, which is on where there are routes to it.
pub(super) fn open(state: &State) -> Result<&Gateway, HttpError> {
    state.gateway.as_ref().ok_or(super::v2::path::PathError::Unknown.into())
}

/// The block at the end of a path.
async fn raw(request: &HttpRequest, gateway: &Gateway, wish: &Wish) -> Result<HttpResponse, GatewayError> {
    let (found, answer) = locate(gateway, wish).await?;
    let etag = conditional::etag(&format!("{}.raw", found.cid));
    let data = read(gateway, wish, &found).await?;
    let mut response = answer.begin(&etag, &format!("{}.bin", found.cid));
    if conditional::is_unchanged(request, &etag) {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    response.insert_header((CONTENT_TYPE, request::RAW)).insert_header((ACCEPT_RANGES, "bytes"));
    let size = data.len() as u64;
    if request.method() == Method::HEAD {
        return Ok(response.body(HeadOf(size)));
    }
    let ranges = request.headers().get(RANGE).and_then(|value| value.to_str().ok());
    let ranges = ranges.filter(|_| conditional::is_same_range(request, &etag));
    match range::select(ranges, size) {
        // Several parts of so little are not worth their framing.
        Selection::Parts(parts) if parts.len() == 1 => {
            let Some(part) = parts.into_iter().next() else { return Ok(response.body(data)) };
            let cut = |at: u64| usize::try_from(at).unwrap_or(data.len()).min(data.len());
            response.status(StatusCode::PARTIAL_CONTENT);
            response.insert_header((CONTENT_RANGE, range::content_range(&part, size)));
            Ok(response.body(data.slice(cut(part.start)..cut(part.end))))
        }
        Selection::Unsatisfiable => {
            response.status(StatusCode::RANGE_NOT_SATISFIABLE);
            Ok(response.insert_header((CONTENT_RANGE, range::unsatisfied(size))).finish())
        }
        Selection::Parts(_) | Selection::Whole => Ok(response.body(data)),
    }
}

/// A DAG, or part of it.
async fn dag(
    request: &HttpRequest,
    gateway: &Gateway,
    wish: &Wish,
    options: Car,
) -> Result<HttpResponse, GatewayError> {
    let (found, answer) = locate(gateway, wish).await?;
    let root = read(gateway, wish, &found).await?;
    if let Scope::Entity(range) = options.scope
        && let Ok(size) = root_size(&found.cid, &root)
        && size > 0
        && range.begins_after(size)
    {
        return Err(GatewayError::OutsideRange);
    }
    // The first CID proves the way, the last is where it leads.
    let first = found.roots.first().unwrap_or(&found.cid);
    let etag = conditional::etag(&format!("{}.{first}.{}.car", options.tag(), found.cid));
    let mut response = answer.begin(&etag, &format!("{}.car", found.cid));
    if conditional::is_unchanged(request, &etag) {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    response.insert_header((CONTENT_TYPE, options.content_type())).insert_header((ACCEPT_RANGES, "none"));
    if request.method() == Method::HEAD {
        return Ok(response.body(BodyStream::new(stream::empty::<Result<Bytes, std::convert::Infallible>>())));
    }
    let blocks = gateway.content.walk(&found, options.scope, options.dups, wish.reach)?;
    // Where it breaks off the connection is cut, so that nobody takes it for the whole.
    let bytes = as_car(&found.cid, blocks)
        .inspect_err(|error| tracing::debug!(%error, "a CAR breaks off"))
        .map_err(|error| Box::new(error) as Box<dyn std::error::Error>);
    Ok(response.body(BodyStream::new(bytes)))
}

/// The record of a name.
async fn record(request: &HttpRequest, gateway: &Gateway, wish: &Wish) -> Result<HttpResponse, GatewayError> {
    let Address { root: Root::Name(name), path } = &wish.address else {
        // A domain has none of its own.
        return Err(GatewayError::RecordOfPath);
    };
    if !path.is_empty() {
        return Err(GatewayError::RecordOfPath);
    }
    let record = gateway.names.record(*name, wish.reach).await?;
    let record = record.filter(|record| !record.is_expired(std::time::SystemTime::now()));
    let record = record.ok_or(GatewayError::NoRecord)?;
    let etag = conditional::etag(&sampan_storage::block::cid_of(0x0300, record.bytes()).to_string());
    let answer = Answer { wish, roots: Vec::new(), age: Some(age(&record)) };
    let mut response = answer.begin(&etag, &format!("{name}.ipns-record"));
    if conditional::is_unchanged(request, &etag) {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    response.insert_header((CONTENT_TYPE, RECORD));
    Ok(sized(request, &mut response, record.bytes().clone()))
}

/// Where the path leads.
async fn locate<'a>(gateway: &Gateway, wish: &'a Wish) -> Result<(Resolved, Answer<'a>), GatewayError> {
    let located = gateway.content.locate(&gateway.names, &wish.address, wish.reach).await;
    let (found, age) = located.map_err(|error| wish.judge(error))?;
    let answer = Answer { wish, roots: found.roots.clone(), age };
    Ok((found, answer))
}

/// The block at the end of the path, so that what is not here is an error and no empty answer.
async fn read(gateway: &Gateway, wish: &Wish, found: &Resolved) -> Result<Bytes, GatewayError> {
    gateway.content.block(found.cid, wish.reach).await.map_err(|error| wish.judge(error))
}

pub(super) fn sized(request: &HttpRequest, response: &mut HttpResponseBuilder, body: Bytes) -> HttpResponse {
    let size = body.len() as u64;
    if request.method() == Method::HEAD {
        return response.body(HeadOf(size));
    }
    let body = stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    response.body(SizedStream::new(size, body))
}
