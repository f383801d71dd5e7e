//! The answering side.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::pipe::{Input, MAX_PIECE, Output, PIECES, Pipe};
use super::{Ask, MAX_ASK, Reply, SOCKET};

/// Questions answered at once; commands are typed by people.
const MAX_ASKING: usize = 16;
/// Nobody takes longer to send or take one line.
const DEADLINE: Duration = Duration::from_secs(30);
/// So often a command hears how far its answer has come, if it has come further.
const BEAT: Duration = Duration::from_millis(500);
/// After so many beats it hears so again in any case: that the registry is there.
const STILL: u32 = 20;

/// Whoever knows the answers. A command that goes away drops its answer.
pub(crate) trait Answer: Send + Sync + 'static {
    fn answer(&self, ask: Ask, tell: Tell, pipe: Pipe) -> BoxFuture<'_, Result<Value, String>>;
}

/// Says how far a long answer has come, in words. It never waits; of what is said in one beat the last counts.
#[derive(Clone, Debug)]
pub(crate) struct Tell(watch::Sender<String>);

impl Tell {
    pub(crate) fn tell(&self, text: String) {
        self.0.send_replace(text);
    }
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
                    if let Err(error) = converse(stream, answer.as_ref()).await {
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
    let mut read = BufReader::new(read);
    let mut line = String::new();
    timeout(DEADLINE, (&mut read).take(MAX_ASK).read_line(&mut line)).await??;
    let Ok(ask) = serde_json::from_str::<Ask>(&line) else {
        let text = "this registry does not know the question; is the command of another version?";
        return send(&mut write, &Reply::Err(text.to_owned())).await;
    };
    let (sender, mut told) = watch::channel(String::new());
    let (pieces, input) = mpsc::channel(PIECES);
    let (output, mut sent) = mpsc::channel(PIECES);
    let brings = ask.brings_bytes();
    let pipe = Pipe { input: Input(input), output: Output(output) };
    let mut answered = answer.answer(ask, Tell(sender), pipe);
    // Ends when the command has gone, or has sent all: then it waits for that.
    let heard = hear(read, brings, pieces);
    tokio::pin!(heard);
    let mut beats = tokio::time::interval(BEAT);
    let mut still = 0;
    loop {
        tokio::select! {
            // What was sent before the answer goes before it.
            biased;
            Some(bytes) = sent.recv() => {
                send(&mut write, &Reply::Data(bytes.len())).await?;
                timeout(DEADLINE, write.write_all(&bytes)).await??;
                still = 0;
            }
            reply = &mut answered => {
                while let Ok(bytes) = sent.try_recv() {
                    send(&mut write, &Reply::Data(bytes.len())).await?;
                    timeout(DEADLINE, write.write_all(&bytes)).await??;
                }
                let reply = match reply {
                    Ok(value) => Reply::Ok(value),
                    Err(text) => Reply::Err(text),
                };
                return send(&mut write, &reply).await;
            }
            () = &mut heard => return Ok(()),
            _ = beats.tick() => {
                still += 1;
                let changed = told.has_changed().unwrap_or(false);
                let text = told.borrow_and_update().clone();
                if !text.is_empty() && (changed || still >= STILL) {
                    send(&mut write, &Reply::Progress(text)).await?;
                    still = 0;
                }
            }
        }
    }
}

/// Reads what comes behind the question until the command goes away. Whoever brings nothing says nothing more.
async fn hear(mut read: BufReader<OwnedReadHalf>, brings: bool, pieces: mpsc::Sender<io::Result<Bytes>>) {
    if brings {
        loop {
            match piece(&mut read).await {
                Ok(piece) if piece.is_empty() => break,
                // Whoever answers may not want the rest.
                Ok(piece) => drop(pieces.send(Ok(piece)).await),
                Err(error) => {
                    // What broke off must not look whole.
                    let _ = pieces.send(Err(error)).await;
                    return;
                }
            }
        }
    }
    drop(pieces);
    let mut more = [0];
    let _ = read.read(&mut more).await;
}

/// One piece: its length as four bytes, the highest first, and its bytes. The last is empty.
async fn piece(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Bytes> {
    let length = read.read_u32().await? as usize;
    if length > MAX_PIECE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece is too long"));
    }
    let mut bytes = vec![0; length];
    read.read_exact(&mut bytes).await?;
    Ok(bytes.into())
}

async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(timeout(DEADLINE, write.write_all(&line)).await??)
}
