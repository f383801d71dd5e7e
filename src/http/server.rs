//! The server: from a bound socket through TLS to actix, with the bounds that each step has.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, Extensions, Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::rt::net::{TcpStream, UnixStream};
use actix_web::{App, web};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Connections, Guarded, Patience};
use super::listener::{Listener, SocketFile};
use super::observe::observe;
use super::tls::{PeerCertificate, Tls};
use super::{State, debug, routes};

/// A client keeps its connection for the next request for so long; docker's own registry and nginx do the same.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Time for the first head of a connection. Slow links of small boards need some.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Time for a client to close after the last answer.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Handshakes at a time. They are what costs most of all that a stranger can ask for.
const MAX_HANDSHAKES: usize = 256;
/// Connections of one worker. Beyond them newcomers wait in the system's queue, and idle ones are closed early.
const MAX_CONNECTIONS: usize = 4096;
/// The same of the second port, where a few watchers come.
const MAX_DEBUG_CONNECTIONS: usize = 64;
/// Threads of one worker that read and write the disk.
const BLOCKING_THREADS: usize = 64;
/// An answer that has so much to write is written: each of its pieces by itself, however small.
const WRITE_BUFFER: usize = 2 * 1024;
/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two looks at a preface that comes in pieces.
const PEEK_AGAIN: Duration = Duration::from_millis(5);
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 22;

/// How a listener serves.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) tls: Option<Tls>,
    /// HTTP/2 without TLS, for clients that begin with it.
    pub(crate) h2c: bool,
    /// Time for requests in flight at the end.
    pub(crate) drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { tls: None, h2c: false, drain: Duration::from_secs(20) }
    }
}

/// Stops a server. Its own future ends then.
#[derive(Debug)]
pub(crate) struct Stop {
    handle: ServerHandle,
    stopping: CancellationToken,
    _socket: Option<SocketFile>,
}

impl Stop {
    /// Takes no new connection, lets requests in flight come to their end or to the deadline, and returns.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.handle.stop(true).await;
    }

    /// At once, and without waiting for it.
    #[cfg(test)]
    pub(super) fn cut(&self) {
        self.stopping.cancel();
        drop(self.handle.stop(false));
    }
}

/// Serves the registry. The server runs while its future is awaited.
pub(crate) fn serve(
    listener: Listener,
    state: web::Data<State>,
    options: Options,
) -> io::Result<(Server, Stop)> {
    serve_with(listener, state, options, Patience::default())
}

pub(super) fn serve_with(
    listener: Listener,
    state: web::Data<State>,
    options: Options,
    patience: Patience,
) -> io::Result<(Server, Stop)> {
    let workers = available_parallelism().map_or(1, NonZeroUsize::get);
    start(listener, options, patience, workers, MAX_CONNECTIONS, move |config| routes(config, &state))
}

/// Serves health and metrics on the second port.
pub(crate) fn serve_debug(
    listener: Listener,
    state: web::Data<State>,
    metrics: Option<String>,
) -> io::Result<(Server, Stop)> {
    let routes = move |config: &mut web::ServiceConfig| debug::routes(config, &state, metrics.as_deref());
    start(listener, Options::default(), Patience::default(), 1, MAX_DEBUG_CONNECTIONS, routes)
}

/// `most` connections for each worker.
pub(super) fn start(
    listener: Listener,
    options: Options,
    patience: Patience,
    workers: usize,
    most: usize,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> io::Result<(Server, Stop)> {
    let stopping = CancellationToken::new();
    let drain = options.drain;
    let connections = Arc::new(Connections::new(workers * most, patience, stopping.clone()));
    let door = Arc::new(Door { connections, handshakes: Semaphore::new(MAX_HANDSHAKES), options });
    let builder = Server::build()
        .workers(workers)
        .worker_max_blocking_threads(BLOCKING_THREADS)
        .max_concurrent_connections(most)
        .shutdown_timeout(drain.as_secs().max(1))
        .disable_signals();
    let signal = builder.graceful_shutdown_signal();
    let http = move || {
        let (routes, signal) = (routes.clone(), signal.clone());
        let signal = move || {
            let signal = signal.clone();
            async move { signal.notified().await }
        };
        http(move || App::new().configure(routes.clone()).wrap(from_fn(observe)), signal)
    };
    let (builder, socket) = match listener {
        Listener::Tcp(listener) => {
            let accept = move || {
                let door = Arc::clone(&door);
                fn_service(move |stream| tcp(Arc::clone(&door), stream)).and_then(http())
            };
            (builder.listen("http", listener, accept)?, None)
        }
        Listener::Unix(listener, file) => {
            let accept = move || {
                let door = Arc::clone(&door);
                fn_service(move |stream: UnixStream| {
                    let wire = Wire::Unix(Guarded::new(stream, Arc::clone(&door.connections)));
                    async move { Ok::<_, DispatchError>((wire, Protocol::Http1, None)) }
                })
                .and_then(http())
            };
            (builder.listen_uds("http", listener, accept)?, Some(file))
        }
    };
    let server = builder.run();
    let stop = Stop { handle: server.handle(), stopping, _socket: socket };
    Ok((server, stop))
}

/// What a connection passes before it speaks HTTP.
#[derive(Debug)]
struct Door {
    connections: Arc<Connections>,
    handshakes: Semaphore,
    options: Options,
}

async fn tcp(
    door: Arc<Door>,
    stream: TcpStream,
) -> Result<(Wire, Protocol, Option<SocketAddr>), DispatchError> {
    let peer = stream.peer_addr().ok();
    stream.set_nodelay(true)?;
    let guarded = Guarded::new(stream, Arc::clone(&door.connections));
    let Some(tls) = &door.options.tls else {
        let protocol = if door.options.h2c { spoken(guarded.stream()).await? } else { Protocol::Http1 };
        return Ok((Wire::Plain(guarded), protocol, peer));
    };
    let handshake = async {
        let mut first = [0];
        guarded.stream().peek(&mut first).await?;
        if first != [TLS_HANDSHAKE] {
            Box::pin(refuse_plain(guarded)).await?;
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), guarded).await?;
        // Whoever says nothing holds no place.
        let _slot = door.handshakes.acquire().await.map_err(io::Error::other)?;
        hello.into_stream(tls.current()).await
    };
    // Whoever fails here is told by TLS itself; the log would be full of scanners.
    let stream = timeout(door.connections.patience().handshake, Box::pin(handshake))
        .await
        .map_err(io::Error::from)??;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
    Ok((Wire::Tls(Box::new(stream)), protocol, peer))
}

/// Which HTTP a client without TLS begins with.
async fn spoken(stream: &TcpStream) -> io::Result<Protocol> {
    let look = async {
        let mut seen = [0; PREFACE.len()];
        loop {
            let length = stream.peek(&mut seen).await?;
            let seen = seen.get(..length).unwrap_or_default();
            if seen == PREFACE {
                return Ok(Protocol::Http2);
            }
            if seen.is_empty() || !PREFACE.starts_with(seen) {
                return Ok(Protocol::Http1);
            }
            tokio::time::sleep(PEEK_AGAIN).await;
        }
    };
    timeout(HEAD_TIME, look).await?
}

/// Tells a client that speaks HTTP without TLS what is wrong; to anything else nothing is said.
async fn refuse_plain(mut stream: Guarded<TcpStream>) -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Length: 41\r\nConnection: close\r\n\r\nThis port takes HTTPS, and that was HTTP\n";
    let mut sent = [0; 16 * 1024];
    let length = stream.read(&mut sent).await?;
    if sent.get(..length).and_then(<[u8]>::first).is_some_and(u8::is_ascii_uppercase) {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

/// actix over a wire, whatever it is made of.
fn http<F, I, S, B, G, R>(
    app: F,
    stopping: G,
) -> impl ServiceFactory<
    (Wire, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
>
where
    F: Fn() -> I,
    I: IntoServiceFactory<S, actix_http::Request>,
    S: ServiceFactory<actix_http::Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<actix_http::Response<B>> + 'static,
    <S::Service as actix_service::Service<actix_http::Request>>::Future: 'static,
    S::Service: 'static,
    B: actix_web::body::MessageBody + 'static,
    G: Fn() -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let app = app().into_factory().map_err(|error| error.into().error_response());
    HttpService::build()
        .graceful_shutdown_signal(stopping)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIME)
        .client_disconnect_timeout(CLOSE_TIME)
        .h1_write_buffer_size(WRITE_BUFFER)
        .on_connect_ext(Wire::introduce)
        .finish(map_config(app, |()| AppConfig::default()))
}

/// A connection that HTTP is spoken on.
#[derive(Debug)]
enum Wire {
    Plain(Guarded<TcpStream>),
    Tls(Box<TlsStream<Guarded<TcpStream>>>),
    Unix(Guarded<UnixStream>),
}

impl Wire {
    /// What requests can ask about their connection.
    fn introduce(&self, known: &mut Extensions) {
        let connection: &Rc<Connection> = match self {
            Self::Plain(stream) => stream.connection(),
            Self::Tls(stream) => {
                let (stream, session) = stream.get_ref();
                known.insert(PeerCertificate::of(session.peer_certificates()));
                known.insert(Secure);
                stream.connection()
            }
            Self::Unix(stream) => stream.connection(),
        };
        known.insert(Rc::clone(connection));
    }
}

/// Marks connections with TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secure;

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => {
                let mut stream = Pin::new(stream.as_mut());
                // Else it would gather more while its client takes nothing.
                if stream.get_ref().1.wants_write() {
                    ready!(stream.as_mut().poll_flush(context))?;
                }
                stream.poll_write(context, bytes)
            }
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, pieces),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
