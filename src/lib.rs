//! Sampan: a container registry and an IPFS node in one binary. The whole program but `main`, which picks the exit
//! code; nothing of it is meant for other programs.

mod app;
mod cli;
mod config;
mod control;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod http;
mod registry;
mod sync;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

/// Parses the command line, starts logging, runs the command.
pub fn run() -> ExitCode {
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
