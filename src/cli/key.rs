//! `sampan key`: the keys of the data directory. What changes them needs the directory for itself, or asks the registry
//! that has it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use sampan_node::ipns::Record;
use sampan_node::{Keypair, Keystore, Label};
use serde::Serialize;

use super::print;
use crate::control::{self, Ask};

/// The largest key file that is read: more is none.
const MAX_FILE: u64 = 16 * 1024;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Key {
    /// Make a new Ed25519 key
    Gen { label: Label },
    /// List keys and their names
    Ls {
        #[arg(long)]
        json: bool,
    },
    /// Write a key to a file that does not exist yet, mode 0600
    Export {
        label: Label,
        file: PathBuf,
        /// As PKCS#8 PEM, not encrypted, instead of kubo's protobuf
        #[arg(long)]
        pem: bool,
    },
    /// Take in a key file of kubo, protobuf or PEM; `-` reads standard input
    Import { label: Label, file: PathBuf },
    /// Give the registry a new key; the old name points to the new one from then on
    Rotate,
}

#[derive(Debug, Serialize)]
struct Row {
    key: Label,
    name: String,
    /// What its name points to, as far as it is kept beside the key.
    value: Option<String>,
    sequence: Option<u64>,
}

pub(super) fn run(dir: &Path, key: Key) -> anyhow::Result<()> {
    let keystore = Keystore::new(dir.join(crate::app::KEYS));
    match key {
        Key::Gen { label } => add(dir, &keystore, &label, &Keypair::generate()),
        Key::Import { label, file } => {
            let key = Keypair::from_file(&read(&file)?);
            let key = key.with_context(|| format!("{} is no key that can be used", file.display()))?;
            add(dir, &keystore, &label, &key)
        }
        Key::Ls { json } => list(&keystore, json),
        Key::Export { label, file, pem } => {
            let key = keystore.load(&label)?;
            let bytes = if pem { key.to_pem().into_bytes() } else { key.to_protobuf() };
            write(&file, &bytes).with_context(|| format!("{} cannot be written", file.display()))
        }
        Key::Rotate => rotate(dir, &keystore),
    }
}

fn add(dir: &Path, keystore: &Keystore, label: &Label, key: &Keypair) -> anyhow::Result<()> {
    let name = key.name().to_string();
    if control::ask::<()>(dir, &Ask::KeyAdd { label: label.clone(), key: key.to_protobuf() })?.is_none() {
        // A directory that is new is made: a key that is taken in first is the one that a registry begins with.
        let store = sampan_storage::Store::open(dir)?;
        let added = keystore.create(label, key);
        store.close()?;
        added?;
    }
    print::line(&name);
    Ok(())
}

fn list(keystore: &Keystore, json: bool) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for key in keystore.labels()? {
        let name = keystore.load(&key)?.name().to_string();
        let record = keystore.record(&key)?;
        let value = record.as_ref().map(|record| record.value().to_owned());
        rows.push(Row { key, name, value, sequence: record.map(|record| record.sequence()) });
    }
    if json {
        return print::json(&rows);
    }
    let row = |row: Row| vec![row.key.to_string(), row.name, row.value.unwrap_or_default()];
    print::table(&rows.into_iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn rotate(dir: &Path, keystore: &Keystore) -> anyhow::Result<()> {
    if control::ask::<serde_json::Value>(dir, &Ask::Root)?.is_some() {
        bail!("a registry runs on {}; stop it, rotate, and start it again", dir.display());
    }
    let store = control::open_offline(dir)?;
    store.fold_blocking()?;
    let state = store.state();
    let signed = state.record.and_then(|bytes| Record::decode(bytes.into_vec()).ok());
    let last = state.sequence.max(signed.map_or(0, |record| record.sequence()));
    let rotated = keystore.rotate(last, SystemTime::now());
    store.close()?;
    let rotated = rotated?;
    print::line(&rotated.new.to_string());
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().take(MAX_FILE).read_to_end(&mut bytes)
    } else {
        fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(bytes)
}

fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(bytes)?;
    file.sync_all()
}
