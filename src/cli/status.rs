//! `sampan status`: what the running registry is doing.

use std::path::Path;

use super::print;
use crate::control::{self, Ask, Status};
use crate::registry::Collected;

pub(super) fn run(dir: &Path, json: bool) -> anyhow::Result<()> {
    let status: Status = control::must_ask(dir, &Ask::Status)?;
    if json {
        return print::json(&status);
    }
    let root = status.root;
    let row = |left: &str, right: String| vec![left.to_owned(), right];
    let mut rows = vec![
        row("name", status.name),
        row("peer", status.peer_id),
        row("root", root.clone()),
        row("sequence", status.sequence.to_string()),
        row("registry", status.url),
        row("network", status.network),
        row("peers", status.peers.to_string()),
        row("data", status.data),
    ];
    if let Some(public) = status.public_root.filter(|public| *public != root) {
        rows.push(row("public root", public));
    }
    rows.extend(status.unpublished.map(|why| row("not published", why)));
    rows.extend(status.members.map(|name| row("members", name)));
    rows.extend(status.reached.map(|reached| row("reached", reached)));
    rows.extend(status.addresses.into_iter().map(|address| row("p2p", address)));
    if status.clock_suspect {
        rows.push(row("clock", "tells a time that has passed; no name expires until it is set".to_owned()));
    }
    for follow in status.follows {
        rows.push(row("follows", follow.name));
        rows.push(row("", follow.describe));
    }
    if status.collections > 0 {
        let Collected { tags, manifests, blobs, bytes, .. } = status.collected;
        let runs = status.collections;
        let text = format!(
            "{tags} tags, {manifests} manifests, {blobs} blobs of {bytes} bytes in {runs} collections"
        );
        rows.push(row("collected", text));
    }
    if status.refused_records > 0 {
        rows.push(row("refused records", status.refused_records.to_string()));
    }
    print::table(&rows);
    Ok(())
}
