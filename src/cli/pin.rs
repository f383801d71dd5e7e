//! `sampan pin`: roots that stay, with all below them, whatever becomes of the trees.

use std::path::Path;

use super::print;
use crate::control::{self, Ask};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Pin {
    /// Keep a DAG; what is not here is fetched from peers
    Add {
        /// A CID, /ipfs/CID or /ipns/NAME, with or without names behind it
        path: String,
    },
    /// Let a DAG go; what nothing else keeps is collected later
    Rm { cid: String },
    /// List what is pinned
    Ls {
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(dir: &Path, pin: &Pin) -> anyhow::Result<()> {
    match pin {
        Pin::Add { path } => {
            let mut meter = print::Meter::start();
            let question = Ask::PinAdd { path: path.clone() };
            let root: String = control::must_ask_telling(dir, &question, &mut |text| meter.show(text))?;
            drop(meter);
            print::line(&root);
        }
        Pin::Rm { cid } => control::must_ask::<()>(dir, &Ask::PinRm { cid: cid.clone() })?,
        Pin::Ls { json } => {
            let roots: Vec<String> = control::must_ask(dir, &Ask::PinLs)?;
            if *json {
                return print::json(&roots);
            }
            for root in roots {
                print::line(&root);
            }
        }
    }
    Ok(())
}
