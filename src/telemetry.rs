//! Logs go to standard error: warnings and what an operator wants to know. `SAMPAN_LOG` says otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Libraries below are quiet: what of theirs matters is said again by the rooms that use them. A client that tries TLS
/// on the plain port, as many do first, is no error of ours.
const DEFAULT: &str =
    "warn,sampan=info,sampan_node=info,sampan_storage=info,libp2p=error,netlink=error,actix_http=off";

pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("SAMPAN_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
