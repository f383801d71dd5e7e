//! `sampan verify`: what lies on the disk against what it should be, through the running registry, or on the data
//! directory when none runs.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use sampan_storage::verify::{Finding, Report, Verify as Options};

use super::print;
use crate::config::parse_size;
use crate::control::{self, Ask};
use crate::upkeep::describe_progress;

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// Make good what can be: from what is here, and from peers while the registry runs
    #[arg(long)]
    repair: bool,
    /// Bytes to read in a second, such as 8MiB [default: as many as the disk gives]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    rate: Option<u64>,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &Path, verify: &Verify) -> anyhow::Result<()> {
    let Verify { repair, rate, json } = *verify;
    let mut meter = print::Meter::start();
    let asked = control::ask_telling(dir, &Ask::Verify { repair, rate }, &mut |text| meter.show(text))?;
    let running = asked.is_some();
    let report: Report = match asked {
        Some(report) => report,
        None => offline(dir, Options { repair, rate, trees_only: false }, &mut meter)?,
    };
    drop(meter);
    if json {
        print::json(&report)?;
    } else {
        print::table(&report.findings.iter().map(row).collect::<Vec<_>>());
        print::line(&summary(&report));
    }
    match (report.bad(), repair, running) {
        (0, ..) => Ok(()),
        (bad, false, _) => bail!("{bad} findings; `sampan verify --repair` makes good what it can"),
        (bad, true, true) => {
            bail!("{bad} findings could not be repaired; push what is missing again, or connect a follower")
        }
        (bad, true, false) => {
            bail!("{bad} findings could not be repaired; start the registry, so that peers can be asked")
        }
    }
}

fn offline(dir: &Path, options: Options, meter: &mut print::Meter) -> anyhow::Result<Report> {
    let store = control::open_offline(dir)?;
    let report = store.verify(options, &mut |progress| {
        meter.show(&describe_progress(&progress));
        ControlFlow::Continue(())
    });
    store.close()?;
    Ok(report?)
}

fn row(finding: &Finding) -> Vec<String> {
    let Finding { kind, subject, outcome } = finding;
    vec![subject.clone(), kind.describe().to_owned(), outcome.describe().to_owned()]
}

fn summary(report: &Report) -> String {
    let Report { blobs, blocks, entries, rows, sparse, findings, more, .. } = report;
    let listed = if *more > 0 { format!(" ({more} not listed)") } else { String::new() };
    let sparse = match sparse {
        0 => String::new(),
        sparse => format!("; {sparse} that followed names have are not here, which is no damage"),
    };
    format!(
        "{blobs} blobs, {blocks} blocks in packs, {entries} files in trees and {rows} rows of the index checked, \
         {} findings{listed}{sparse}",
        findings.len() as u64 + more
    )
}

fn size(text: &str) -> Result<u64, &'static str> {
    parse_size(text).filter(|rate| *rate > 0).ok_or("a size looks like 8MiB, 500K or 1048576")
}
