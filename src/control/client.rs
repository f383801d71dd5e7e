//! The asking side. Blocking: a command does one thing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sampan_storage::Store;
use serde::de::DeserializeOwned;

use super::pipe::{MAX_PIECE, PIECE};
use super::{Ask, MAX_ANSWER, Reply, SOCKET};

/// The registry answers from memory; a list of a huge directory takes seconds. What takes longer says so.
const DEADLINE: Duration = Duration::from_mins(1);

/// What goes along with a question, and where the bytes of its answer go to.
pub(crate) struct Bytes<'a> {
    /// Sent by a thread of its own, which ends with the process where the registry answers before it has all.
    pub(crate) input: Option<Box<dyn Read + Send>>,
    pub(crate) output: &'a mut dyn Write,
}

/// The running registry's answer, or `None` when none runs on this directory.
pub(crate) fn ask<T: DeserializeOwned>(dir: &Path, ask: &Ask) -> anyhow::Result<Option<T>> {
    ask_telling(dir, ask, &mut |_| {})
}

/// For what only a running registry can do.
pub(crate) fn must_ask<T: DeserializeOwned>(dir: &Path, question: &Ask) -> anyhow::Result<T> {
    must_ask_telling(dir, question, &mut |_| {})
}

/// The same for an answer that takes its time; `told` hears how far it has come.
pub(crate) fn must_ask_telling<T: DeserializeOwned>(
    dir: &Path,
    question: &Ask,
    told: &mut dyn FnMut(&str),
) -> anyhow::Result<T> {
    running(dir, ask_telling(dir, question, told)?)
}

/// The same with bytes in one direction or the other.
pub(crate) fn must_exchange<T: DeserializeOwned>(
    dir: &Path,
    question: &Ask,
    bytes: Bytes<'_>,
    told: &mut dyn FnMut(&str),
) -> anyhow::Result<T> {
    running(dir, exchange(dir, question, bytes, told)?)
}

/// The data directory itself, when no registry runs on it.
pub(crate) fn open_offline(dir: &Path) -> anyhow::Result<Store> {
    if !dir.join("VERSION").exists() {
        let dir = dir.display();
        bail!("{dir} is no data directory; start a registry on it with `sampan serve --data {dir}`");
    }
    Ok(Store::open(dir)?)
}

fn running<T>(dir: &Path, answer: Option<T>) -> anyhow::Result<T> {
    answer.ok_or_else(|| {
        let dir = dir.display();
        anyhow!(
            "no registry runs on {dir}; start one with `sampan serve --data {dir}`, or give another --data"
        )
    })
}

/// The same for an answer that takes its time; `told` hears how far it has come.
pub(crate) fn ask_telling<T: DeserializeOwned>(
    dir: &Path,
    ask: &Ask,
    told: &mut dyn FnMut(&str),
) -> anyhow::Result<Option<T>> {
    exchange(dir, ask, Bytes { input: None, output: &mut io::sink() }, told)
}

fn exchange<T: DeserializeOwned>(
    dir: &Path,
    ask: &Ask,
    bytes: Bytes<'_>,
    told: &mut dyn FnMut(&str),
) -> anyhow::Result<Option<T>> {
    let mut stream = match UnixStream::connect(dir.join(SOCKET)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("the registry on {} cannot be asked", dir.display()));
        }
    };
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let Bytes { input, output } = bytes;
    let failed = input.map(|input| {
        let (stream, (tell, failed)) = (stream.try_clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            // A registry that has answered hears no more, and says why itself.
            if let Err(error) = stream.and_then(|stream| pour(input, stream)) {
                let _ = tell.send(error);
            }
        });
        failed
    });
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let read = stream.by_ref().take(MAX_ANSWER).read_line(&mut line);
        let reply = read
            .context("the registry did not answer")
            .and_then(|_| serde_json::from_str(&line).context("the registry's answer was cut off"));
        match reply {
            Ok(Reply::Progress(text)) => told(&text),
            Ok(Reply::Data(length)) => {
                if length > MAX_PIECE {
                    bail!("the registry's answer cannot be read");
                }
                let copied = io::copy(&mut stream.by_ref().take(length as u64), output);
                if copied.context("the answer could not be written")? < length as u64 {
                    bail!("the registry's answer was cut off");
                }
            }
            Ok(Reply::Ok(value)) => {
                output.flush().context("the answer could not be written")?;
                return Ok(Some(serde_json::from_value(value)?));
            }
            Ok(Reply::Err(message)) => {
                // The registry only knows that the bytes broke off.
                return match failed.and_then(|failed| failed.try_recv().ok()) {
                    Some(error) => Err(error).context("what was to be sent could not be read"),
                    None => Err(anyhow!("{message}")),
                };
            }
            Err(error) => {
                return match failed.and_then(|failed| failed.try_recv().ok()) {
                    Some(cause) => Err(cause).context("what was to be sent could not be read"),
                    None => Err(error),
                };
            }
        }
    }
}

/// Sends all of the input in pieces, and that it was all. Only what is wrong with the input is told.
fn pour(mut input: impl Read, mut stream: UnixStream) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = match input.read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Cut off, so that the registry does not take it for the whole.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                return Err(error);
            }
        };
        let length = u32::try_from(read).unwrap_or_default().to_be_bytes();
        let sent =
            stream.write_all(&length).and_then(|()| stream.write_all(piece.get(..read).unwrap_or_default()));
        if sent.is_err() || read == 0 {
            return Ok(());
        }
    }
}
