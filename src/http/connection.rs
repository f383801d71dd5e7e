//! One connection of a client: what it is doing, and how long its socket may do nothing.
//!
//! actix gives a deadline to the first head of a connection and to keeping alive, but none to a second head that
//! trickles in, to a body that nobody asked for, or to a client that does not read. So each socket is wrapped here, and
//! judged once a second while it is waited for.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use crate::budget::{Budget, Share};

/// What a client may send while no request of it is being answered. A client that is refused while it sends needs some,
/// to find the refusal.
const MAX_UNASKED: u64 = 8 * 1024 * 1024;
/// What the buffers of all connections may grow by together: heads on their way in, answers on their way out. It is
/// kept until the connection ends, because the buffers are.
const BUFFERS: usize = 4 * 1024 * 1024;
static BUDGET: Budget = Budget::new(BUFFERS);
/// What a connection may have without asking: actix begins with buffers of 8 KiB.
const FREE: usize = 8 * 1024;
/// actix reads no longer heads than this, and does not gather more of anything else.
const MAX_READ: usize = 128 * 1024;
/// The least and the largest piece of an answer. The large one is still in the processor's cache when it is sent; the
/// small one and the head fit into the buffer that is there.
const PIECES: Range<usize> = 2 * 1024..128 * 1024;
/// HTTP/2 requests of one connection at a time. Clients of registries have some ten.
const MAX_REQUESTS: u32 = 256;

/// Deadlines of every connection of a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between two looks at a connection that waits.
    pub(super) tick: Duration,
    /// A TLS handshake, from the connection on.
    pub(super) handshake: Duration,
    /// A connection without a request, whatever it sends.
    pub(super) idle: Duration,
    /// The same while many are open.
    pub(super) pressed: Duration,
    /// The same when the server stops. Frames of HTTP/2 that are on their way need some.
    pub(super) stopping: Duration,
    /// A client that takes nothing of what is written to it.
    pub(super) unread: Duration,
    /// A client that takes an answer in drops: [`LEAST_TAKEN`] in so long.
    pub(super) slow: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            pressed: Duration::from_secs(5),
            stopping: Duration::from_secs(1),
            unread: Duration::from_mins(1),
            slow: Duration::from_mins(5),
        }
    }
}

/// Bytes of answers that a client takes within [`Patience::slow`], at least. Pings of HTTP/2 stay below it.
const LEAST_TAKEN: u64 = 4096;

/// All connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    open: AtomicUsize,
    /// From so many on, idle ones have to go.
    many: usize,
    patience: Patience,
    stopping: CancellationToken,
}

impl Connections {
    pub(super) fn new(most: usize, patience: Patience, stopping: CancellationToken) -> Self {
        Self { open: AtomicUsize::new(0), many: (most * 3 / 4).max(1), patience, stopping }
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    fn idle_time(&self) -> Duration {
        let Patience { idle, pressed, stopping, .. } = self.patience;
        match (self.stopping.is_cancelled(), self.open.load(Ordering::Relaxed) >= self.many) {
            (true, _) => stopping,
            (false, true) => pressed,
            (false, false) => idle,
        }
    }
}

/// What a connection is doing. Its socket and its requests share it.
#[derive(Debug)]
pub(super) struct Connection {
    /// Requests that are being worked on.
    working: Cell<u32>,
    /// Requests whose answer is being sent.
    sending: Cell<u32>,
    idle_since: Cell<Instant>,
    unasked: Cell<u64>,
    /// Since when what has come is left to be understood before more of it is read.
    paused: Cell<Option<Instant>>,
    written: Cell<u64>,
    /// Who reads the socket.
    reader: RefCell<Option<Waker>>,
    /// What its buffers have grown by, for reading and for writing.
    incoming: RefCell<Share>,
    outgoing: RefCell<Share>,
}

impl Connection {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            working: Cell::new(0),
            sending: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            unasked: Cell::new(0),
            paused: Cell::new(None),
            written: Cell::new(0),
            reader: RefCell::new(None),
            incoming: RefCell::new(BUDGET.share()),
            outgoing: RefCell::new(BUDGET.share()),
        })
    }

    /// `None` where the client has too many requests open.
    pub(super) fn begin(self: &Rc<Self>) -> Option<Busy> {
        if self.requests() >= MAX_REQUESTS {
            return None;
        }
        self.working.set(self.working.get() + 1);
        self.unasked.set(0);
        if self.paused.take().is_some() {
            self.wake_reader();
        }
        Some(Busy { connection: Rc::clone(self), sending: false })
    }

    /// How long the next piece of an answer may be, of which so much is left. It will be held until the client has taken
    /// it; small answers are for nothing.
    pub(super) fn piece(&self, left: u64) -> usize {
        let most = usize::try_from(left).unwrap_or(PIECES.end).min(PIECES.end);
        if most <= PIECES.start {
            return most;
        }
        self.outgoing.borrow_mut().approach(most).clamp(PIECES.start, most)
    }

    /// Whether more may come, while there is no request that what has come belongs to.
    fn has_room(&self) -> bool {
        let bytes = usize::try_from(self.unasked.get()).unwrap_or(MAX_READ).min(MAX_READ);
        self.requests() > 0 || bytes <= FREE || self.incoming.borrow_mut().reach(bytes)
    }

    fn remember(&self, context: &Context<'_>) {
        let mut reader = self.reader.borrow_mut();
        if !reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
            *reader = Some(context.waker().clone());
        }
    }

    /// actix stops reading while the body of a request has no room. Where the handler ends without taking the body,
    /// nothing else would make it look again, and the connection would stay for ever.
    fn wake_reader(&self) {
        if let Some(reader) = self.reader.borrow_mut().take() {
            reader.wake();
        }
    }

    fn requests(&self) -> u32 {
        self.working.get() + self.sending.get()
    }
}

/// One request of a connection, as long as this value lives.
#[derive(Debug)]
pub(super) struct Busy {
    connection: Rc<Connection>,
    sending: bool,
}

impl Busy {
    /// How long the next piece of its answer may be.
    pub(super) fn piece(&self, left: u64) -> usize {
        self.connection.piece(left)
    }

    /// The answer is there; what is left is to send it.
    pub(super) fn send(&mut self) {
        if !self.sending {
            self.sending = true;
            let Connection { working, sending, .. } = self.connection.as_ref();
            working.set(working.get().saturating_sub(1));
            sending.set(sending.get() + 1);
            self.connection.wake_reader();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let count = if self.sending { &self.connection.sending } else { &self.connection.working };
        count.set(count.get().saturating_sub(1));
        if self.connection.requests() == 0 {
            self.connection.idle_since.set(Instant::now());
        }
        self.connection.wake_reader();
    }
}

/// A socket with deadlines. Where one is over it ends: as if the client had closed it where nothing is lost by that, else
/// with an error.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    connection: Rc<Connection>,
    connections: Arc<Connections>,
    tick: Pin<Box<Sleep>>,
    /// Something is to be written and the client takes nothing.
    unread_since: Option<Instant>,
    /// When an answer was first seen to be taken slowly, and how far the writing was then.
    slow_since: Option<(Instant, u64)>,
}

/// How a connection ends.
enum End {
    Quiet,
    Cut,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, connections: Arc<Connections>) -> Self {
        connections.open.fetch_add(1, Ordering::Relaxed);
        let tick = Box::pin(tokio::time::sleep(connections.patience.tick));
        Self {
            stream,
            connection: Connection::new(),
            connections,
            tick,
            unread_since: None,
            slow_since: None,
        }
    }

    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Called while the socket is waited for; wakes its task for the next look.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<End> {
        while self.tick.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            self.tick.as_mut().reset((now + self.connections.patience.tick).into());
            if let Some(end) = self.judge(now) {
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    }

    fn judge(&mut self, now: Instant) -> Option<End> {
        let patience = self.connections.patience;
        if self.unread_since.is_some_and(|since| now - since > patience.unread) {
            return Some(End::Cut);
        }
        if self.connection.paused.get().is_some_and(|since| now - since >= patience.tick) {
            return Some(End::Quiet);
        }
        if self.connection.requests() == 0 && self.unread_since.is_none() {
            self.slow_since = None;
            let idle = now - self.connection.idle_since.get();
            return (idle > self.connections.idle_time()).then_some(End::Quiet);
        }
        // While a handler works, nobody can tell how long it may take.
        if self.connection.working.get() > 0 {
            self.slow_since = None;
            return None;
        }
        let written = self.connection.written.get();
        match self.slow_since {
            Some((_, from)) if written - from >= LEAST_TAKEN => self.slow_since = Some((now, written)),
            Some((since, _)) if now - since > patience.slow => return Some(End::Cut),
            Some(_) => {}
            None => self.slow_since = Some((now, written)),
        }
        None
    }

    /// What arrives between requests is a head, or a body that nobody takes.
    fn is_unasked(&self, bytes: usize) -> bool {
        if self.connection.requests() > 0 {
            return false;
        }
        let unasked = self.connection.unasked.get() + bytes as u64;
        self.connection.unasked.set(unasked);
        unasked > MAX_UNASKED || self.connection.idle_since.get().elapsed() > self.connections.idle_time()
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.unread_since = None;
                self.connection.written.set(self.connection.written.get() + bytes as u64);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => {
                self.unread_since.get_or_insert_with(Instant::now);
                // Whatever the end is called, what is to be written is lost.
                self.poll_end(context).map(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if !this.connection.has_room() {
            // The head may be whole by now, for actix reads as long as there is something. Its request goes on with
            // reading; without one it ends.
            this.connection.paused.set(this.connection.paused.get().or_else(|| Some(Instant::now())));
            this.connection.remember(context);
            return this.poll_end(context).map(|end| match end {
                End::Quiet => Ok(()),
                End::Cut => Err(io::ErrorKind::TimedOut.into()),
            });
        }
        this.connection.paused.set(None);
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let bytes = buffer.filled().len() - before;
                if bytes > 0 && this.is_unasked(bytes) {
                    buffer.set_filled(before);
                }
                this.connection.remember(context);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => this.poll_end(context).map(|end| match end {
                End::Quiet => Ok(()),
                End::Cut => Err(io::ErrorKind::TimedOut.into()),
            }),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const LONG: Duration = Duration::from_hours(1);
    const SHORT: Duration = Duration::from_millis(20);
    const PATIENT: Patience = Patience {
        tick: Duration::from_millis(5),
        handshake: LONG,
        idle: LONG,
        pressed: LONG,
        stopping: LONG,
        unread: LONG,
        slow: LONG,
    };

    /// The guarded end of a pipe that holds 16 bytes, and the client's.
    fn guard(most: usize, patience: Patience) -> (Guarded<DuplexStream>, DuplexStream, Arc<Connections>) {
        let connections = Arc::new(Connections::new(most, patience, CancellationToken::new()));
        let (near, far) = duplex(16);
        (Guarded::new(near, Arc::clone(&connections)), far, connections)
    }

    #[tokio::test]
    async fn an_idle_connection_ends_as_if_the_client_had_closed_it() {
        let (mut guarded, _client, _) = guard(100, Patience { idle: SHORT, ..PATIENT });
        assert_eq!(guarded.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_end_of_a_request_wakes_a_connection_that_has_stopped_reading() {
        let (mut guarded, mut client, _) = guard(100, PATIENT);
        client.write_all(b"x").await.unwrap();
        let mut busy = guarded.connection().begin();
        let mut given = false;
        let woken = std::future::poll_fn(|context| {
            if given {
                return Poll::Ready(());
            }
            let mut bytes = [0; 8];
            assert!(Pin::new(&mut guarded).poll_read(context, &mut ReadBuf::new(&mut bytes)).is_ready());
            given = true;
            Poll::Pending
        });
        let mut woken = Box::pin(woken);
        assert!(futures::poll!(&mut woken).is_pending());
        tokio::select! {
            biased;
            () = tokio::time::sleep(SHORT * 50) => panic!("nothing has woken it"),
            () = async { busy.take().unwrap().send(); woken.await } => {}
        }
    }

    #[tokio::test]
    async fn one_with_a_request_waits_until_it_is_answered() {
        let (mut guarded, mut client, _) = guard(100, Patience { idle: SHORT, ..PATIENT });
        let busy = guarded.connection().begin().unwrap();
        let mut buffer = [0; 8];
        tokio::select! {
            _ = guarded.read(&mut buffer) => panic!("it has ended"),
            () = tokio::time::sleep(SHORT * 5) => {}
        }
        client.write_all(b"x").await.unwrap();
        assert_eq!(guarded.read(&mut [0; 8]).await.unwrap(), 1);
        drop(busy);
        assert_eq!(guarded.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn while_many_are_open_idle_ones_go_early() {
        let (mut first, _client, connections) = guard(4, Patience { pressed: SHORT, ..PATIENT });
        let second = Guarded::new(duplex(16).0, Arc::clone(&connections));
        let mut buffer = [0; 8];
        tokio::select! {
            _ = first.read(&mut buffer) => panic!("it has ended"),
            () = tokio::time::sleep(SHORT * 5) => {}
        }
        let third = Guarded::new(duplex(16).0, Arc::clone(&connections));
        assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0);
        drop((first, second, third));
        assert_eq!(connections.open.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn when_the_server_stops_idle_ones_go() {
        let (mut guarded, _client, connections) = guard(100, Patience { stopping: SHORT, ..PATIENT });
        connections.stopping.cancel();
        assert_eq!(guarded.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (mut guarded, _client, _) = guard(100, Patience { unread: SHORT, ..PATIENT });
        let _busy = guarded.connection().begin().unwrap();
        let error = guarded.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_in_drops_is_cut_off() {
        let (mut guarded, mut client, _) = guard(100, Patience { slow: SHORT * 5, ..PATIENT });
        let mut busy = guarded.connection().begin().unwrap();
        busy.send();
        let drops = async {
            while client.read_u8().await.is_ok() {
                tokio::time::sleep(SHORT / 4).await;
            }
        };
        let (written, ()) = tokio::join!(
            async {
                let written = guarded.write_all(&vec![0; 1_000_000]).await;
                drop(guarded);
                written
            },
            drops
        );
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nobody_sends_for_ever_what_was_not_asked_for() {
        let (mut guarded, mut client, _) = guard(100, PATIENT);
        let flood = tokio::spawn(async move { while client.write_all(&[0; 16]).await.is_ok() {} });
        let mut taken = 0;
        let mut buffer = vec![0; 16];
        while let length @ 1.. = guarded.read(&mut buffer).await.unwrap() {
            taken += length as u64;
        }
        assert!(taken <= MAX_UNASKED);
        drop(guarded);
        flood.await.unwrap();
    }

    #[test]
    fn requests_of_one_connection_are_bounded() {
        let connection = Connection::new();
        let mut open: Vec<Busy> = std::iter::from_fn(|| connection.begin()).collect();
        assert_eq!(open.len(), 256);
        open.iter_mut().step_by(2).for_each(Busy::send);
        assert!(connection.begin().is_none());
        open.pop();
        assert!(connection.begin().is_some());
        drop(open);
        assert_eq!(connection.requests(), 0);
    }
}
