//! `sampan dag`: DAGs leave and come as CAR files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::print;
use crate::content::{Imported, PinRoots};
use crate::control::{self, Ask, Bytes};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Dag {
    /// Write a DAG to standard output, as a CARv1
    Export {
        /// A CID, /ipfs/CID or /ipns/NAME, with or without names behind it
        path: String,
    },
    /// Take the blocks of CAR files, each checked, and pin their roots
    Import {
        /// CARv1 or CARv2; - is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(dir: &Path, dag: &Dag) -> anyhow::Result<()> {
    match dag {
        Dag::Export { path } => {
            let mut meter = print::Meter::start();
            let mut output =
                print::Counting::new(print::bytes(), |count| meter.show(&format!("{count} bytes")));
            let bytes = Bytes { input: None, output: &mut output };
            control::must_exchange::<()>(dir, &Ask::Export { path: path.clone() }, bytes, &mut |_| {})
        }
        Dag::Import { files, json } => files.iter().try_for_each(|file| import(dir, file, *json)),
    }
}

fn import(dir: &Path, file: &Path, json: bool) -> anyhow::Result<()> {
    let input: Box<dyn Read + Send> = if file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("{} cannot be read", file.display()))?)
    };
    let mut meter = print::Meter::start();
    let bytes = Bytes { input: Some(input), output: &mut io::sink() };
    let question = Ask::Import { pin: PinRoots::Named };
    let imported: Imported = control::must_exchange(dir, &question, bytes, &mut |text| meter.show(text))?;
    drop(meter);
    if json {
        return print::json(&imported);
    }
    imported.roots.iter().for_each(|root| print::line(&format!("pinned {root}")));
    print::line(&format!("{} blocks of {} bytes", imported.blocks, imported.bytes));
    Ok(())
}
