//! `sampan ls`: one directory of the registry's tree.

use std::path::Path;

use super::{print, tree};

pub(super) fn run(dir: &Path, path: &str, json: bool) -> anyhow::Result<()> {
    let entries = tree::list(dir, path.trim_matches('/'))?;
    if json {
        return print::json(&entries);
    }
    let row =
        |entry: &crate::control::Listed| vec![entry.name.clone(), entry.size.to_string(), entry.cid.clone()];
    print::table(&entries.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
