//! `sampan status`: what the running registry is doing.

use std::path::Path;

use super::print;
use crate::config::size_text;
use crate::control::{self, Ask, CacheStatus, Status};
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
        rows.extend(follow.notes.into_iter().map(|note| row("", note)));
    }
    rows.extend(cache(&status.cache).map(|text| row("cache", text)));
    for from in status.received {
        rows.push(row("fetched from", format!("{}, {} bytes", from.peer, from.bytes)));
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
        let invalid = status.invalid_records;
        let text = format!("{}, of which {invalid} were broken, foreign or expired", status.refused_records);
        rows.push(row("refused records", text));
    }
    print::table(&rows);
    Ok(())
}

/// Nothing where no limit is set.
fn cache(cache: &CacheStatus) -> Option<String> {
    let bytes = cache.bytes?;
    let size = cache.size.map(|size| format!(" of {}", size_text(size))).unwrap_or_default();
    let CacheStatus { evicted_blobs, evicted_bytes, .. } = cache;
    Some(format!("{bytes} bytes{size}, {evicted_blobs} blobs of {evicted_bytes} bytes have left it"))
}
