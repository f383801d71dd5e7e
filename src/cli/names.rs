//! `sampan publish` and `sampan resolve`: names beside the registry's own, asked of the running registry.

use std::path::Path;

use sampan_node::{Label, Name};
use sampan_storage::Cid;

use super::print;
use crate::control::{self, Ask, Resolved};

#[derive(Debug, clap::Args)]
pub(super) struct Publish {
    /// Which key's name is to point there; `sampan key ls` lists them
    #[arg(long)]
    key: Label,
    /// A CID, /ipfs/CID or /ipns/NAME
    #[arg(value_parser = value)]
    value: String,
}

pub(super) fn publish(dir: &Path, publish: Publish) -> anyhow::Result<()> {
    let Publish { key, value } = publish;
    let published: Resolved = control::must_ask(dir, &Ask::Publish { key, value })?;
    print::line(&format!("{} sequence {}", published.name, published.sequence));
    Ok(())
}

pub(super) fn resolve(dir: &Path, name: Name, json: bool) -> anyhow::Result<()> {
    let resolved: Resolved = control::must_ask(dir, &Ask::Resolve { name })?;
    if json {
        return print::json(&resolved);
    }
    let Resolved { name, value, sequence, valid_for, ttl, from } = resolved;
    let hours = valid_for / 3600;
    let rows = [
        ("name", name),
        ("value", value),
        ("sequence", sequence.to_string()),
        ("valid for", if valid_for == 0 { "no longer".to_owned() } else { format!("{hours} hours") }),
        ("ttl", format!("{ttl} seconds")),
        ("from", from),
    ];
    print::table(&rows.map(|(left, right)| vec![left.to_owned(), right]));
    Ok(())
}

fn value(text: &str) -> Result<String, &'static str> {
    const SHAPE: &str = "what a name points to looks like bafy…, /ipfs/bafy… or /ipns/k51…";
    if text.starts_with("/ipns/") {
        return text.parse().map(|name: Name| format!("/ipns/{name}")).map_err(|_| SHAPE);
    }
    let cid = text.strip_prefix("/ipfs/").unwrap_or(text);
    cid.parse().map(|cid: Cid| format!("/ipfs/{cid}")).map_err(|_| SHAPE)
}
