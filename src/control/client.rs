//! The asking side. Blocking: a command does one thing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sampan_storage::Store;
use serde::de::DeserializeOwned;

use super::{Ask, MAX_ANSWER, SOCKET};

/// The registry answers from memory; a list of a huge directory takes seconds.
const DEADLINE: Duration = Duration::from_mins(1);

/// The running registry's answer, or `None` when none runs on this directory.
pub(crate) fn ask<T: DeserializeOwned>(dir: &Path, ask: &Ask) -> anyhow::Result<Option<T>> {
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
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut answer).context("the registry did not answer")?;
    let answer: Result<serde_json::Value, String> =
        serde_json::from_str(&answer).context("the registry's answer was cut off")?;
    match answer {
        Ok(value) => Ok(Some(serde_json::from_value(value)?)),
        Err(message) => bail!("{message}"),
    }
}

/// For what only a running registry can do.
pub(crate) fn must_ask<T: DeserializeOwned>(dir: &Path, question: &Ask) -> anyhow::Result<T> {
    ask(dir, question)?.ok_or_else(|| {
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
