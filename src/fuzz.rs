//! Fuzz targets for what the program reads from clients and operators: each takes any bytes and checks what must hold
//! for all of them. Those of a room stand in that room.
//!
//! `fuzz/` runs them under libFuzzer, the unit test below runs them over the seeds. They are in no other build.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target is there to panic"
)]

pub use crate::auth::fuzz::{authorization, htpasswd, token};
pub use crate::bundle::fuzz::bundle;
pub use crate::config::fuzz::configuration;
pub use crate::content::fuzz::dnslink;
pub use crate::http::gateway::fuzz::gateway;
pub use crate::http::routing::fuzz::routing;
pub use crate::http::v2::fuzz::{content_range, forwarded, path, query, range};
pub use crate::pattern::fuzz::pattern;
pub use crate::registry::fuzz::manifest;
pub use crate::routers::fuzz::providers;

/// What a command asks the running registry.
pub fn ask(data: &[u8]) {
    use crate::control::Ask;
    let Ok(ask) = serde_json::from_slice::<Ask>(data) else { return };
    let line = serde_json::to_vec(&ask).unwrap();
    assert!(!line.contains(&b'\n'), "a question is one line");
    assert_eq!(format!("{:?}", serde_json::from_slice::<Ask>(&line).unwrap()), format!("{ask:?}"));
}

#[cfg(test)]
#[path = "../fuzz/seeds.rs"]
mod seeds;

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &[seeds::Target] = &[
        ("ask", ask),
        ("authorization", authorization),
        ("bundle", bundle),
        ("configuration", configuration),
        ("content_range", content_range),
        ("dnslink", dnslink),
        ("forwarded", forwarded),
        ("gateway", gateway),
        ("htpasswd", htpasswd),
        ("manifest", manifest),
        ("path", path),
        ("pattern", pattern),
        ("providers", providers),
        ("query", query),
        ("range", range),
        ("routing", routing),
        ("token", token),
    ];

    #[test]
    fn what_must_hold_for_all_bytes_holds_for_the_seeds() {
        seeds::run(env!("CARGO_MANIFEST_DIR"), TARGETS);
    }
}
