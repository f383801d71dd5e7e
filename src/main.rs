//! Sampan: a container registry and an IPFS node in one binary. This file parses, starts and picks the exit code.

mod app;
mod cli;
mod config;
mod control;
mod http;
mod registry;
mod sync;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return cli::refuse(&error),
    };
    telemetry::start();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}
