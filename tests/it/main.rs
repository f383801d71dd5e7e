//! The hermetic tests: one binary, no network beyond loopback, nothing installed.
//!
//! They start the program as users do, each on a data directory and ports of its own, and speak to it over HTTP and
//! the command line. What a room does alone is tested beside its code.
#![cfg(test)]

mod harness;
mod oci;
mod wire;
mod writer;

mod access;
mod audience;
mod boards;
mod bundle;
mod command_line;
mod configuration;
mod content;
mod dnslink;
mod durable;
mod fixtures;
mod following;
mod forge;
mod hardening;
mod hostile;
mod names;
mod policies;
mod push_pull;
mod tidy;
mod verify;
mod views;
