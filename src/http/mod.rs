//! HTTP: the registry's API, over actix. Handlers translate between requests and [`Registry`] and decide nothing;
//! errors become answers in `error` alone.

mod access;
mod body;
mod conditional;
mod error;
mod range;
#[cfg(test)]
mod tests;
pub(crate) mod v2;

use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpResponse, HttpServer, web};

use crate::registry::Registry;

pub(crate) use access::Access;

/// A client keeps its connection for the next request for so long; docker's own registry and nginx do the same.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Time for the head of a request. Slow links of small boards need some.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Time for a client to close after the last answer.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Time for requests in flight when the server stops.
const STOP_SECONDS: u64 = 20;
/// Connections of one worker.
const MAX_CONNECTIONS: usize = 4096;
/// Threads of one worker that read and write the disk.
const BLOCKING_THREADS: usize = 64;
/// What an answer gathers before it is written to its connection.
const WRITE_BUFFER: usize = 128 * 1024;

/// What every handler sees.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    pub(crate) access: Access,
}

/// Adds the registry's routes. `web::Data<State>` must be there.
pub(crate) fn configure(config: &mut web::ServiceConfig) {
    config.route("/healthz", web::get().to(healthz)).configure(v2::configure);
}

/// Serves on a bound socket. The server runs while its future is awaited; its handle stops it in order.
pub(crate) fn serve(listener: TcpListener, state: web::Data<State>) -> io::Result<Server> {
    let workers = available_parallelism().map_or(1, NonZeroUsize::get);
    let server = HttpServer::new(move || App::new().app_data(state.clone()).configure(configure))
        .workers(workers)
        .worker_max_blocking_threads(BLOCKING_THREADS)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIME)
        .client_disconnect_timeout(CLOSE_TIME)
        .max_connections(MAX_CONNECTIONS)
        .h1_write_buffer_size(WRITE_BUFFER)
        .tcp_nodelay(true)
        .shutdown_timeout(STOP_SECONDS)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}
