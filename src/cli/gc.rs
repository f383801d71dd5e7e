//! `sampan gc`: collects garbage, or says what would go.

use std::path::Path;

use super::print;
use crate::config::parse_duration;
use crate::control::{self, Ask};
use crate::registry::{Collected, Garbage};
use crate::upkeep::GcAnswer;

#[derive(Debug, clap::Args)]
pub(super) struct Gc {
    /// Say what would go and why, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep what was pushed or asked for within this time [default: gc.grace of the configuration]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<std::time::Duration>,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &Path, gc: &Gc) -> anyhow::Result<()> {
    let ask = Ask::Gc { dry_run: gc.dry_run, grace: gc.grace };
    let mut meter = print::Meter::start();
    let answer: GcAnswer = control::must_ask_telling(dir, &ask, &mut |text| meter.show(text))?;
    drop(meter);
    if gc.json {
        return print::json(&answer);
    }
    let rows: Vec<Vec<String>> = answer.items.iter().map(row).collect();
    print::table(&rows);
    print::line(&summary(&answer.collected, gc.dry_run, rows.len()));
    Ok(())
}

fn row(garbage: &Garbage) -> Vec<String> {
    match garbage {
        Garbage::Tag { repository, tag, why } => {
            vec!["tag".to_owned(), format!("{repository}:{tag}"), why.clone()]
        }
        Garbage::Manifest { repository, digest, why } => {
            vec!["manifest".to_owned(), format!("{repository}@{digest}"), why.clone()]
        }
        Garbage::Link { repository, digest } => {
            let why = "no manifest of the repository names it";
            vec!["link".to_owned(), format!("{repository}@{digest}"), why.to_owned()]
        }
        Garbage::Blob { digest, size } => {
            vec!["blob".to_owned(), digest.clone(), format!("{size} bytes, no repository links it")]
        }
    }
}

fn summary(collected: &Collected, dry_run: bool, listed: usize) -> String {
    let Collected { repositories, tags, manifests, links, blobs, bytes, unsure } = collected;
    let done = if dry_run { "would remove" } else { "removed" };
    let more = (tags + manifests + links + blobs).saturating_sub(listed as u64);
    let more = if more > 0 { format!(" ({more} not listed)") } else { String::new() };
    let unsure = if *unsure > 0 {
        format!("; {unsure} left alone, because a manifest of theirs cannot be read")
    } else {
        String::new()
    };
    format!(
        "{done} {tags} tags, {manifests} manifests, {links} links, {blobs} blobs of {bytes} bytes in {repositories} repositories{more}{unsure}"
    )
}

fn duration(text: &str) -> Result<std::time::Duration, &'static str> {
    parse_duration(text).ok_or("a duration looks like 168h, 90m or 0s")
}
