//! `sampan get`: a file or a directory on IPFS becomes one here.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sampan_storage::tree;

use super::print;
use crate::content::{Kind, Stat};
use crate::control::{self, Ask, Bytes};

/// Directories below each other, as in a tree.
const MAX_DEPTH: usize = tree::MAX_DEPTH;

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// A CID, /ipfs/CID or /ipns/NAME, with or without names behind it
    path: String,
    /// Where it goes; it must not be there yet [default: the last part of the path]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// What has come so far.
struct Getting<'a> {
    dir: &'a Path,
    meter: print::Meter,
    files: u64,
    bytes: u64,
}

pub(super) fn run(dir: &Path, get: &Get) -> anyhow::Result<()> {
    let last = get.path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let output = get.output.clone().unwrap_or_else(|| PathBuf::from(last));
    if output.symlink_metadata().is_ok() {
        bail!("{} is there already; give another place with --output", output.display());
    }
    let mut getting = Getting { dir, meter: print::Meter::start(), files: 0, bytes: 0 };
    getting.take(&get.path, &output, 0)?;
    let Getting { files, bytes, meter, .. } = getting;
    drop(meter);
    print::line(&format!("{files} files of {bytes} bytes in {}", output.display()));
    Ok(())
}

impl Getting<'_> {
    /// Nothing that is there is written to or followed: everything is made new.
    fn take(&mut self, path: &str, output: &Path, depth: usize) -> anyhow::Result<()> {
        let stat: Stat = control::must_ask(self.dir, &Ask::Stat { path: path.to_owned() })?;
        let cannot = || format!("{} cannot be made", output.display());
        match stat.kind {
            Kind::File => {
                let file = File::create_new(output).with_context(cannot)?;
                self.fill(&stat.cid, file).with_context(|| format!("{path} could not be brought"))?;
                self.files += 1;
            }
            Kind::Symlink => {
                std::os::unix::fs::symlink(stat.target.unwrap_or_default(), output).with_context(cannot)?;
            }
            Kind::Directory if depth >= MAX_DEPTH => bail!("{path} is too deep"),
            Kind::Directory => {
                fs::create_dir(output).with_context(cannot)?;
                for (name, cid) in &stat.entries {
                    if name.contains('/') || !tree::is_path(name) {
                        bail!("{path} has an entry {name:?}, which is no name of a file");
                    }
                    self.take(cid, &output.join(name), depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn fill(&mut self, cid: &str, file: File) -> anyhow::Result<()> {
        let (meter, before, mut last) = (&mut self.meter, self.bytes, 0);
        let mut output = print::Counting::new(file, |count| {
            last = count;
            meter.show(&format!("{} bytes", before + count));
        });
        let bytes = Bytes { input: None, output: &mut output };
        control::must_exchange::<()>(self.dir, &Ask::Cat { path: cid.to_owned() }, bytes, &mut |_| {})?;
        drop(output);
        self.bytes += last;
        Ok(())
    }
}
