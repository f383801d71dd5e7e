//! `sampan publish` and `sampan resolve`: names beside the registry's own, asked of the running registry.

use std::path::Path;

use sampan_node::Label;
use sampan_storage::Cid;

use super::print;
use crate::content::Pointer;
use crate::control::{self, Ask, Resolved};

#[derive(Debug, clap::Args)]
pub(super) struct Publish {
    /// Which key's name is to point there; `sampan key ls` lists them
    #[arg(long)]
    key: Label,
    /// A CID, /ipfs/CID, /ipns/NAME or /ipns/DOMAIN
    #[arg(value_parser = value)]
    value: String,
}

pub(super) fn publish(dir: &Path, publish: Publish) -> anyhow::Result<()> {
    let Publish { key, value } = publish;
    let published: Resolved = control::must_ask(dir, &Ask::Publish { key, value })?;
    print::line(&format!("{} sequence {}", published.name, published.sequence.unwrap_or_default()));
    Ok(())
}

pub(super) fn resolve(dir: &Path, name: Pointer, json: bool) -> anyhow::Result<()> {
    let resolved: Resolved = control::must_ask(dir, &Ask::Resolve { name })?;
    if json {
        return print::json(&resolved);
    }
    let Resolved { name, value, sequence, valid_for, ttl, from, heard, age } = resolved;
    let valid_for = valid_for.map(|seconds| match seconds {
        0 => "no longer".to_owned(),
        seconds => format!("{} hours", seconds / 3600),
    });
    let heard = heard.zip(age).map(|(way, age)| format!("by {way}, {age} seconds ago"));
    let rows = [
        ("name", Some(name)),
        ("value", Some(value)),
        ("sequence", sequence.map(|sequence| sequence.to_string())),
        ("valid for", valid_for),
        ("ttl", Some(format!("{ttl} seconds"))),
        ("from", Some(from)),
        ("heard", heard),
    ];
    let rows = rows.into_iter().filter_map(|(left, right)| Some(vec![left.to_owned(), right?]));
    print::table(&rows.collect::<Vec<_>>());
    Ok(())
}

fn value(text: &str) -> Result<String, &'static str> {
    const SHAPE: &str = "what a name points to looks like bafy…, /ipfs/bafy… or /ipns/k51…";
    if text.starts_with("/ipns/") {
        return text.parse().map(|name: Pointer| format!("/ipns/{name}")).map_err(|_| SHAPE);
    }
    let cid = text.strip_prefix("/ipfs/").unwrap_or(text);
    cid.parse().map(|cid: Cid| format!("/ipfs/{cid}")).map_err(|_| SHAPE)
}
