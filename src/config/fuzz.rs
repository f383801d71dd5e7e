//! Fuzz targets for the configuration.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target is there to panic"
)]

use super::file;
use super::source::PREFIX;
use super::{Config, Environment, Flags, Said, Source};

/// More is never told, see `said`.
const MAX_TOLD: usize = 20;
/// One line about a key; most of it is its source and what is known.
const MAX_LINE: usize = 2048;

/// A configuration file. Lines behind a NUL are variables of the environment.
pub fn configuration(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (text, variables) = text.split_once('\0').unwrap_or((text, ""));
    let environment: Environment = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned()))
        .collect();
    let tree = match file::parse(text) {
        Ok(tree) => tree,
        Err(error) => return assert!(!error.to_string().contains('\n'), "{error:?}"),
    };
    let said = Said::gather(Some((&tree, Source::File("c.yml".into()))), &environment);
    assert!(said.problems.len() <= MAX_TOLD && said.warnings.len() <= MAX_TOLD);
    for remark in said.problems.iter().chain(&said.warnings) {
        let line = remark.to_string();
        assert!(line.len() <= MAX_LINE && !line.contains(char::is_control), "{line:?}");
    }
    if said.problems.is_empty() {
        let flags = Flags { data: Some("/data".into()), ..Flags::default() };
        // Keys that are right one by one may still not go together.
        if let Err(error) = Config::assemble(flags, &said, &environment) {
            let line = format!("{error:#}");
            assert!(line.len() <= MAX_LINE && !line.contains(char::is_control), "{line:?}");
        }
    }
}
