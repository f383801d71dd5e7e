//! `sampan follow add|rm|ls`: other registries, by name.

use std::path::Path;

use super::{Follow, print};
use crate::control::{self, Ask, FollowStatus};

pub(super) fn run(dir: &Path, follow: Follow) -> anyhow::Result<()> {
    match follow {
        Follow::Add { name } => {
            let () = control::must_ask(dir, &Ask::FollowAdd { name: name.clone() })?;
            print::line(&format!("following {name}"));
        }
        Follow::Rm { name } => {
            let () = control::must_ask(dir, &Ask::FollowRm { name: name.clone() })?;
            print::line(&format!("no longer following {name}"));
        }
        Follow::Ls { json } => {
            let follows: Vec<FollowStatus> = control::must_ask(dir, &Ask::FollowLs)?;
            if json {
                return print::json(&follows);
            }
            let row = |follow: &FollowStatus| vec![follow.name.clone(), follow.describe.clone()];
            print::table(&follows.iter().map(row).collect::<Vec<_>>());
        }
    }
    Ok(())
}
