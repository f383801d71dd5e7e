//! `sampan adopt`, `restore`, `roots` and `rollback`: what becomes of the registry's own tree.

use std::path::Path;

use sampan_node::Name;

use super::print;
use crate::control::{self, Ask, RootStatus};
use crate::sync::{Reclaimed, Taken};

#[derive(Debug, clap::Args)]
pub(super) struct Adopt {
    /// A name that is followed [default: the registry's own, as it was published elsewhere]
    name: Option<Name>,
    /// Keep what is here, also where both have a tag
    #[arg(long)]
    merge: bool,
    #[arg(long)]
    json: bool,
}

pub(super) fn adopt(dir: &Path, adopt: &Adopt) -> anyhow::Result<()> {
    ask(dir, &Ask::Adopt { name: adopt.name, merge: adopt.merge }, adopt.json)
}

/// A registry that was lost has nothing of its own, but what was pushed since then stays.
pub(super) fn restore(dir: &Path, json: bool) -> anyhow::Result<()> {
    ask(dir, &Ask::Adopt { name: None, merge: true }, json)
}

pub(super) fn rollback(dir: &Path, root: String, json: bool) -> anyhow::Result<()> {
    ask(dir, &Ask::Rollback { root }, json)
}

pub(super) fn roots(dir: &Path, json: bool) -> anyhow::Result<()> {
    let roots: Vec<RootStatus> = control::must_ask(dir, &Ask::Roots)?;
    if json {
        return print::json(&roots);
    }
    let row = |root: &RootStatus| {
        let age = root.age.map_or_else(|| "current".to_owned(), |age| format!("until {age} s ago"));
        vec![root.root.clone(), age]
    };
    print::table(&roots.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn ask(dir: &Path, ask: &Ask, json: bool) -> anyhow::Result<()> {
    let mut meter = print::Meter::start();
    let reclaimed: Reclaimed = control::must_ask_telling(dir, ask, &mut |text| meter.show(text))?;
    drop(meter);
    if json {
        return print::json(&reclaimed);
    }
    let Reclaimed { root, sequence, taken, blobs } = reclaimed;
    let Taken { tags, manifests, removed, differing, .. } = taken;
    print::line(&format!(
        "took root {root} (sequence {sequence}): {tags} tags, {manifests} manifests, {removed} removed"
    ));
    if differing > 0 {
        print::line(&format!("{differing} tags were different on both sides"));
    }
    if let Some(blobs) = blobs {
        print::line(&format!("{} blobs of {} bytes came from peers", blobs.fetched, blobs.bytes));
        if blobs.missing > 0 {
            print::line(&format!(
                "{} blobs are with nobody who is connected; they are fetched when they are asked for",
                blobs.missing
            ));
        }
    }
    Ok(())
}
