//! The answering side.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Ask, MAX_ASK, SOCKET};

/// Questions answered at once; commands are typed by people.
const MAX_ASKING: usize = 16;
/// Nobody takes longer to send one line.
const DEADLINE: Duration = Duration::from_secs(30);

/// Whoever knows the answers.
pub(crate) trait Answer: Send + Sync + 'static {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Value, String>>;
}

/// The open socket. Dropping it closes and removes it.
#[derive(Debug)]
pub(crate) struct Control {
    task: JoinHandle<()>,
    path: PathBuf,
}

impl Control {
    pub(crate) fn start(dir: &Path, answer: Arc<dyn Answer>) -> anyhow::Result<Self> {
        let path = dir.join(SOCKET);
        // Left by a process that did not stop in order; the directory's lock says that it is gone.
        let _ = std::fs::remove_file(&path);
        let cannot = || format!("{} cannot be opened; a shorter --data path may help", path.display());
        // Made where nobody else can reach it, and moved when it has its mode.
        let hidden = dir.join("keys").join(SOCKET);
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).with_context(cannot)?;
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600)).with_context(cannot)?;
        std::fs::rename(&hidden, &path).with_context(cannot)?;
        Ok(Self { task: tokio::spawn(accept(listener, answer)), path })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, answer: Arc<dyn Answer>) {
    let slots = Arc::new(Semaphore::new(MAX_ASKING));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let conversation = tokio::time::timeout(DEADLINE, converse(stream, answer.as_ref()));
                    if let Ok(Err(error)) = conversation.await {
                        tracing::debug!(%error, "a command went away");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket failed");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, answer: &dyn Answer) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_ASK)).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(ask) => answer.answer(ask).await,
        Err(_) => {
            Err("this registry does not know the question; is the command of another version?".to_owned())
        }
    };
    let mut reply = serde_json::to_vec(&reply)?;
    reply.push(b'\n');
    write.write_all(&reply).await?;
    Ok(())
}
