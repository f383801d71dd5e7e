//! Sampan: a container registry and an IPFS node in one binary. The whole program but `main`, which picks the exit
//! code; nothing of it is meant for other programs.

mod app;
mod auth;
mod budget;
mod bundle;
mod cli;
mod client;
mod config;
mod content;
mod control;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod http;
mod metrics;
mod pattern;
mod registry;
mod routers;
mod sync;
mod telemetry;
mod upkeep;

use std::process::ExitCode;

use clap::Parser;

/// Parses the command line and runs the command.
pub fn run() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return cli::refuse(&error),
    };
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}
