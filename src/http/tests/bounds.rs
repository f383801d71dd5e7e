//! Clients that mean no good, on real sockets: each is let go, and others are served meanwhile.

use std::time::Duration;

use actix_web::web::ServiceConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::http::routes;
use crate::http::server::start;

const LONG: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(100);
/// Never loses patience.
const PATIENT: Patience = Patience {
    tick: Duration::from_millis(10),
    handshake: LONG,
    idle: LONG,
    pressed: LONG,
    stopping: LONG,
    unread: LONG,
    slow: LONG,
};
const GET: &[u8] = b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn patient(patience: Patience, options: Options) -> (Server, Arc<Metrics>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let state = state(&store, Arc::new(Nowhere), Policy::default(), local());
    let metrics = Arc::clone(&state.metrics);
    (Server::serving(dir, store, state, options, patience), metrics)
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Reads one answer that has no body of its own length beyond `{}`.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n{}") {
        let byte = stream.read_u8().await.unwrap();
        text.push(byte);
    }
    String::from_utf8(text).unwrap()
}

/// Sends again and again, until the server has closed.
async fn send_until_closed(mut stream: TcpStream, piece: &[u8], pause: Duration) {
    let mut sink = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut sink) => match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            },
            () = tokio::time::sleep(pause) => {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[actix_web::test]
async fn a_second_head_that_trickles_in_does_not_keep_its_connection() {
    let (server, _) = patient(Patience { idle: SHORT, ..PATIENT }, Options::default());
    let mut stream = connect(&server).await;
    stream.write_all(GET).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nx: ").await.unwrap();
    send_until_closed(stream, b"a", SHORT / 10).await;
    assert_eq!(server.get("/v2/").await.status(), StatusCode::OK);
}

#[actix_web::test]
async fn a_body_that_nobody_asked_for_comes_to_an_end() {
    let (server, _) = patient(Patience { idle: SHORT, ..PATIENT }, Options::default());
    for method in ["GET", "HEAD", "DELETE"] {
        let mut stream = connect(&server).await;
        let head = format!(
            "{method} /v2/a/tags/list HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
        send_until_closed(stream, chunk.as_bytes(), Duration::from_millis(1)).await;
    }
}

#[actix_web::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let (server, metrics) = patient(Patience { unread: SHORT, ..PATIENT }, Options::default());
    let blob = vec![9; 64 * 1024 * 1024];
    let digest = server.push_blob("a", &blob).await;
    let mut stream = connect(&server).await;
    let head = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let counted = "sampan_http_request_duration_seconds_count{kind=\"blob\"} 1";
    while !metrics.text().contains(counted) {
        tokio::time::sleep(SHORT / 10).await;
    }
    let mut taken = Vec::new();
    let _ = stream.read_to_end(&mut taken).await;
    assert!(taken.len() < blob.len(), "it was sent the whole");
}

#[actix_web::test]
async fn a_stream_that_is_not_read_ends_its_connection() {
    let options = Options { h2c: true, ..Options::default() };
    let (server, _) = patient(Patience { slow: SHORT, ..PATIENT }, options);
    let digest = server.push_blob("a", &vec![9; 8 * 1024 * 1024]).await;
    let (mut client, connection) = h2::client::handshake(connect(&server).await).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("http://localhost/v2/a/blobs/{digest}");
    let (answer, _) = client.send_request(http::Request::get(uri).body(()).unwrap(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    // Capacity is never given back, so that the window closes.
    while let Some(Ok(_)) = body.data().await {}
    let _ = connection.await.unwrap();
}

#[actix_web::test]
async fn streams_of_one_connection_are_bounded_and_refused_with_a_hint() {
    let options = Options { h2c: true, ..Options::default() };
    let (server, _) = patient(PATIENT, options);
    let digest = server.push_blob("a", &vec![9; 8 * 1024 * 1024]).await;
    let (client, connection) = h2::client::handshake(connect(&server).await).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let mut client = client.ready().await.unwrap();
    let mut open = Vec::new();
    let refused = loop {
        let request = http::Request::get(format!("http://localhost/v2/a/blobs/{digest}")).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        if answer.status() != 200 {
            break answer;
        }
        open.push(answer);
        client = client.ready().await.unwrap();
    };
    assert_eq!((refused.status().as_u16(), open.len()), (503, 256));
    assert_eq!(refused.headers()["retry-after"], "1");
}

#[actix_web::test]
async fn heads_that_are_too_large_are_refused() {
    let server = Server::start();
    let long =
        |bytes: usize| format!("GET /v2/ HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(bytes));
    let many = (0..200).map(|number| format!("x{number}: a\r\n")).collect::<Vec<_>>().concat();
    let many = format!("GET /v2/ HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    for (request, status) in [(long(200_000), "431"), (long(2_000_000), "431"), (many, "431")] {
        let mut stream = connect(&server).await;
        let (mut read, mut write) = stream.split();
        let mut told = Vec::new();
        let _ = tokio::join!(write.write_all(request.as_bytes()), read.read_to_end(&mut told));
        let told = String::from_utf8(told).unwrap();
        // A client that is still sending may not hear the answer.
        assert!(told.is_empty() || told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
    }
    // What is large and still a head.
    let mut stream = connect(&server).await;
    stream.write_all(long(64 * 1024).as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[actix_web::test]
async fn newcomers_get_in_when_idle_connections_hold_every_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let data = web::Data::new(state(&store, Arc::new(Nowhere), Policy::default(), local()));
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.name().parse().unwrap();
    let configure = move |config: &mut ServiceConfig| routes(config, &data);
    let patience = Patience { pressed: SHORT, ..PATIENT };
    let (server, stop) = start(listener, Options::default(), patience, 1, 4, configure).unwrap();
    actix_web::rt::spawn(server);
    let mut idle = Vec::new();
    for _ in 0..12 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Nobody has said a word, and only four have a place.
    let mut newcomer = TcpStream::connect(address).await.unwrap();
    newcomer.write_all(GET).await.unwrap();
    assert!(answer(&mut newcomer).await.starts_with("HTTP/1.1 200 "));
    stop.cut();
}

#[actix_web::test]
async fn a_connection_without_requests_does_not_hold_up_the_stop() {
    let options = Options { h2c: true, drain: LONG, ..Options::default() };
    let patience = Patience { stopping: SHORT, ..PATIENT };
    let (server, _) = patient(patience, options);
    let mut old = connect(&server).await;
    old.write_all(GET).await.unwrap();
    answer(&mut old).await;
    let (mut client, connection) = h2::client::handshake(connect(&server).await).await.unwrap();
    let connection = tokio::spawn(connection);
    let (answer, _) =
        client.send_request(http::Request::get("http://localhost/v2/").body(()).unwrap(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    server.stop.stop().await;
    let _ = connection.await.unwrap();
}

#[actix_web::test]
async fn http2_without_tls_is_spoken_where_it_is_switched_on() {
    let (server, _) = patient(PATIENT, Options { h2c: true, ..Options::default() });
    assert_eq!(server.get("/v2/").await.status(), StatusCode::OK);
    // The preface may come in pieces.
    let mut stream = connect(&server).await;
    stream.write_all(b"PRI * HTTP").await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(b"/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "the server begins with its settings");
}
