//! Around every request: its id, the figures and the access log, and what each answer gets on its way out.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use actix_web::body::{BodySize, EitherBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};
use bytes::Bytes;
use futures::StreamExt;
use tracing::{Instrument, field};

use super::State;
use super::connection::{Busy, Connection};
use crate::metrics::{Answered, Kind, Method, OfKind, Status};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Letters of a client's own request id; others are replaced.
const MAX_ID: usize = 64;
/// Letters of a path, and of what a client calls itself, in the log.
const MAX_PATH: usize = 512;
const MAX_TEXT: usize = 128;

/// Headers of the operator, by name.
pub(crate) type Headers = Vec<(HeaderName, Vec<HeaderValue>)>;

/// A request from its head to the last byte of its answer. Its end is counted wherever it is dropped.
struct Visit {
    state: web::Data<State>,
    /// As long as it is there, the connection is not idle.
    busy: Option<Busy>,
    started: Instant,
    method: Method,
    kind: Kind,
    status: Option<u16>,
    sent: u64,
    line: Option<Line>,
}

/// What the access log says of a request.
struct Line {
    id: String,
    method: String,
    path: String,
    remote: String,
    forwarded_for: Option<String>,
    agent: String,
}

pub(super) async fn observe<B: MessageBody + Unpin + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<Watched<B>>>, Error> {
    let id = request_id(&request);
    let busy = request.conn_data::<Rc<Connection>>().map(Connection::begin);
    if let Some(None) = busy {
        let answer = HttpResponse::ServiceUnavailable().insert_header((RETRY_AFTER, "1")).finish();
        return Ok(request.into_response(answer).map_into_right_body());
    }
    let Some(mut visit) = Visit::begin(&request, busy.flatten(), &id) else {
        return Ok(request.into_response(HttpResponse::InternalServerError().finish()).map_into_right_body());
    };
    visit.count_body(&mut request);
    let span = tracing::info_span!("request", %id);
    let mut response = next.call(request).instrument(span).await?;
    visit.answer(response.status().as_u16());
    let headers = response.headers_mut();
    for (name, values) in
        visit.state.headers.iter().filter(|(name, _)| !headers.contains_key(name)).collect::<Vec<_>>()
    {
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
    Ok(response.map_body(|_, body| EitherBody::left(Watched { body, visit, rest: Bytes::new() })))
}

impl Visit {
    fn begin(request: &ServiceRequest, busy: Option<Busy>, id: &str) -> Option<Self> {
        let state = request.app_data::<web::Data<State>>()?.clone();
        state.metrics.in_flight.inc();
        let line = state.access_log.then(|| Line::of(request, id));
        let (method, kind) = (Method::of(request.method().as_str()), kind_of(request.path()));
        Some(Self { state, busy, started: Instant::now(), method, kind, status: None, sent: 0, line })
    }

    /// Counts what the client sends for a blob or a manifest.
    fn count_body(&self, request: &mut ServiceRequest) {
        let takes_body = matches!(self.kind, Kind::Upload | Kind::Manifest)
            && matches!(self.method, Method::Post | Method::Put | Method::Patch);
        if takes_body {
            let received = self.state.metrics.received.get_or_create_owned(&OfKind { kind: self.kind });
            let counted = request.take_payload().inspect(move |piece| {
                if let Ok(piece) = piece {
                    received.inc_by(piece.len() as u64);
                }
            });
            request.set_payload(Payload::Stream { payload: Box::pin(counted) });
        }
    }

    fn answer(&mut self, status: u16) {
        self.status = Some(status);
        if let Some(busy) = &mut self.busy {
            busy.send();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Self { state, started, method, kind, status, sent, line, .. } = self;
        let (metrics, took) = (&state.metrics, started.elapsed());
        let answered = Answered { method: *method, kind: *kind, status: Status::of(*status) };
        metrics.in_flight.dec();
        metrics.requests.get_or_create(&answered).inc();
        metrics.durations.get_or_create(&OfKind { kind: *kind }).observe(took.as_secs_f64());
        metrics.sent.get_or_create(&OfKind { kind: *kind }).inc_by(*sent);
        if let Some(Line { id, method, path, remote, forwarded_for, agent }) = line {
            tracing::info!(
                target: "sampan::access",
                %method,
                %path,
                status = status.unwrap_or_default(),
                bytes = *sent,
                ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                %remote,
                forwarded_for = forwarded_for.as_deref().map(field::debug),
                agent = ?agent,
                %id,
                "request",
            );
        }
    }
}

impl Line {
    fn of(request: &ServiceRequest, id: &str) -> Self {
        let header = |name| {
            let value = request.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).chars().take(MAX_TEXT).collect::<String>())
        };
        let path: String = request.uri().path().chars().take(MAX_PATH).collect();
        Self {
            id: id.to_owned(),
            method: request.method().as_str().chars().take(MAX_TEXT).collect(),
            path: path.escape_debug().to_string(),
            remote: request.peer_addr().map_or_else(|| "-".to_owned(), |address| address.to_string()),
            forwarded_for: header(FORWARDED_FOR),
            agent: header(USER_AGENT).unwrap_or_default(),
        }
    }
}

/// The body of an answer, with the visit that ends when it does.
pub(super) struct Watched<B> {
    body: B,
    visit: Visit,
    /// What is left of the last piece, where that was too long.
    rest: Bytes,
}

impl<B: MessageBody + Unpin> MessageBody for Watched<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let Self { body, visit, rest } = self.get_mut();
        if rest.is_empty() {
            match ready!(Pin::new(body).poll_next(context)) {
                Some(Ok(piece)) => *rest = piece,
                end => return Poll::Ready(end),
            }
        }
        // Whatever the answer is made of, its connection holds a piece of it at a time.
        let most = visit.busy.as_ref().map_or(rest.len(), |busy| busy.piece(rest.len() as u64));
        let piece = Poll::Ready(Some(Ok(rest.split_to(rest.len().min(most)))));
        if let Poll::Ready(Some(Ok(piece))) = &piece {
            visit.sent += piece.len() as u64;
        }
        piece
    }
}

/// The client's own id where it is a plain one.
fn request_id(request: &ServiceRequest) -> String {
    let is_plain = |text: &&str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (1..=MAX_ID).contains(&text.len()) && text.bytes().all(plain)
    };
    let own = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_plain);
    own.map_or_else(new_id, str::to_owned)
}

/// Sixteen digits that nobody can guess the next of.
fn new_id() -> String {
    thread_local! {
        static KEY: RandomState = RandomState::new();
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }
    let count = COUNT.replace(COUNT.get().wrapping_add(1));
    format!("{:016x}", KEY.with(|key| key.hash_one(count)))
}

/// By the end of the path alone: names may hold any of these words.
fn kind_of(path: &str) -> Kind {
    let mut parts = path.rsplit('/');
    let mut part = || parts.next().unwrap_or_default();
    let (last, second, third) = (part(), part(), part());
    match (third, second, last) {
        (_, "v2", "") | (_, _, "v2") => Kind::Base,
        (_, "v2", "_catalog") => Kind::Catalog,
        (_, "tags", "list") => Kind::Tags,
        (_, "manifests", _) => Kind::Manifest,
        (_, "referrers", _) => Kind::Referrers,
        (_, "blobs", "uploads") | ("blobs", "uploads", _) => Kind::Upload,
        (_, "blobs", _) => Kind::Blob,
        (_, _, "healthz" | "readyz") => Kind::Health,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn ids_of_clients_are_kept_when_they_are_plain() {
        let id = |value: &str| {
            request_id(&TestRequest::default().insert_header((REQUEST_ID, value)).to_srv_request())
        };
        assert_eq!(id("Abc-1.2_3"), "Abc-1.2_3");
        assert_eq!(id(&"a".repeat(64)).len(), 64);
        for bad in ["", "a b", "a\tb", "ä", "a\"b", "a/b", &"a".repeat(65)] {
            let made = id(bad);
            assert!(made.len() == 16 && made != bad, "{bad}: {made}");
        }
        assert_ne!(new_id(), new_id());
    }

    #[test]
    fn requests_are_counted_by_what_they_are_about() {
        for (path, kind) in [
            ("/v2/", Kind::Base),
            ("/v2", Kind::Base),
            ("/p/v2/_catalog", Kind::Catalog),
            ("/v2/a/b/tags/list", Kind::Tags),
            ("/v2/a/manifests/v1", Kind::Manifest),
            ("/v2/manifests/blobs/sha256:00", Kind::Blob),
            ("/v2/a/blobs/uploads/", Kind::Upload),
            ("/v2/a/blobs/uploads", Kind::Upload),
            ("/v2/a/blobs/uploads/0b54be6d", Kind::Upload),
            ("/v2/a/referrers/sha256:00", Kind::Referrers),
            ("/readyz", Kind::Health),
            ("/favicon.ico", Kind::Other),
        ] {
            assert_eq!(kind_of(path), kind, "{path}");
        }
    }
}
