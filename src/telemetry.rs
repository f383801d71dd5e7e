//! Logs go to standard error: warnings and what an operator wants to know. The configuration says how much and in which
//! form; `SAMPAN_LOG` stands above it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Level, Logs};

/// Libraries below are quiet: what of theirs matters is said again by the rooms that use them. A client that tries TLS
/// on the plain port, as many do first, is no error of ours.
const QUIET: &str = "libp2p=error,netlink=error,actix_http=off";

/// Called once.
pub(crate) fn start(logs: Logs) {
    let filter = EnvFilter::try_from_env("SAMPAN_LOG").unwrap_or_else(|_| EnvFilter::new(filter(logs.level)));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if logs.json { subscriber.json().flatten_event(true).init() } else { subscriber.init() }
}

fn filter(level: Level) -> String {
    let (others, ours) = match level {
        Level::Error => ("error", "error"),
        Level::Warn => ("warn", "warn"),
        Level::Info => ("warn", "info"),
        Level::Debug => ("warn", "debug"),
    };
    // The access log has a switch of its own.
    let rooms = format!("sampan={ours},sampan_node={ours},sampan_storage={ours},sampan::access=info");
    format!("{others},{rooms},{QUIET}")
}
