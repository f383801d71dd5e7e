//! `sampan cat`: the bytes of a file on IPFS.

use std::path::Path;

use super::print;
use crate::control::{self, Ask, Bytes};

pub(super) fn run(dir: &Path, path: &str) -> anyhow::Result<()> {
    let mut meter = print::Meter::start();
    let mut output = print::Counting::new(print::bytes(), |count| meter.show(&format!("{count} bytes")));
    let question = Ask::Cat { path: path.to_owned() };
    control::must_exchange::<()>(dir, &question, Bytes { input: None, output: &mut output }, &mut |_| {})
}
