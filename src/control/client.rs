//! The asking side. Blocking: a command does one thing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sampan_storage::Store;
use serde::de::DeserializeOwned;

use super::{Ask, MAX_ANSWER, Reply, SOCKET};

/// The registry answers from memory; a list of a huge directory takes seconds. What takes longer says so.
const DEADLINE: Duration = Duration::from_mins(1);

/// The running registry's answer, or `None` when none runs on this directory.
pub(crate) fn ask<T: DeserializeOwned>(dir: &Path, ask: &Ask) -> anyhow::Result<Option<T>> {
    ask_telling(dir, ask, &mut |_| {})
}

/// The same for an answer that takes its time; `told` hears how far it has come.
pub(crate) fn ask_telling<T: DeserializeOwned>(
    dir: &Path,
    ask: &Ask,
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
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.by_ref().take(MAX_ANSWER).read_line(&mut line).context("the registry did not answer")?;
        match serde_json::from_str(&line).context("the registry's answer was cut off")? {
            Reply::Progress(text) => told(&text),
            Reply::Ok(value) => return Ok(Some(serde_json::from_value(value)?)),
            Reply::Err(message) => bail!("{message}"),
        }
    }
}

/// For what only a running registry can do.
pub(crate) fn must_ask<T: DeserializeOwned>(dir: &Path, question: &Ask) -> anyhow::Result<T> {
    must_ask_telling(dir, question, &mut |_| {})
}

/// The same for an answer that takes its time.
pub(crate) fn must_ask_telling<T: DeserializeOwned>(
    dir: &Path,
    question: &Ask,
    told: &mut dyn FnMut(&str),
) -> anyhow::Result<T> {
    ask_telling(dir, question, told)?.ok_or_else(|| {
        let dir = dir.display();
        anyhow!(
            "no registry runs on {dir}; start one with `sampan serve --data {dir}`, or give another --data"
        )
    })
}

/// The data directory itself, when no registry runs on it.
pub(crate) fn open_offline(dir: &Path) -> anyhow::Result<Store> {
    if !dir.join("VERSION").exists() {
        let dir = dir.display();
        bail!("{dir} is no data directory; start a registry on it with `sampan serve --data {dir}`");
    }
    Ok(Store::open(dir)?)
}
