//! A wire to a node that can be held and counted: a TCP proxy on loopback, between a follower and its publisher.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::Server;

/// The wire. Dropping it closes it for newcomers.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The multiaddr of the node behind it.
    pub(crate) address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes that came from the node behind.
    passed: AtomicU64,
    /// Bytes from behind after which the wire is still.
    limit: watch::Sender<u64>,
}

impl Wire {
    pub(crate) async fn to(server: &Server) -> Self {
        let behind = server.p2p.split('/').nth(4).unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { passed: AtomicU64::new(0), limit: watch::Sender::new(u64::MAX) });
        let both = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(format!("127.0.0.1:{behind}")).await else { continue };
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(far_read, near_write, Some(Arc::clone(&both))));
                tokio::spawn(pass(near_read, far_write, None));
            }
        });
        Self { address: format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", server.peer), shared, task }
    }

    /// Lets so many bytes more through from the node behind, and then none until [`Wire::release`].
    pub(crate) fn hold_after(&self, bytes: u64) {
        self.shared.limit.send_replace(self.passed() + bytes);
    }

    pub(crate) fn release(&self) {
        self.shared.limit.send_replace(u64::MAX);
    }

    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Copies until either side ends.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counted: Option<Arc<Shared>>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if let Some(shared) = &counted {
            let passed = shared.passed.fetch_add(length as u64, Ordering::Relaxed);
            let mut limit = shared.limit.subscribe();
            if limit.wait_for(|limit| passed < *limit).await.is_err() {
                return;
            }
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
