//! Commands that read the tree: through the running registry, or from the data directory when none runs.

use std::path::Path;

use super::print;
use crate::control::{self, Ask, Listed};
use crate::sync::listing;

pub(super) fn root(dir: &Path) -> anyhow::Result<()> {
    let root: String = if let Some(answer) = control::ask(dir, &Ask::Root)? {
        answer
    } else {
        let store = control::open_offline(dir)?;
        store.fold_blocking()?;
        let root = store.root().to_string();
        store.close()?;
        root
    };
    print::line(&root);
    Ok(())
}

pub(super) fn list(dir: &Path, path: &str) -> anyhow::Result<Vec<Listed>> {
    if let Some(answer) = control::ask(dir, &Ask::Ls { path: path.to_owned() })? {
        return Ok(answer);
    }
    let store = control::open_offline(dir)?;
    store.fold_blocking()?;
    let listed = listing::list(&store, &store.root(), path);
    store.close()?;
    listed
}
