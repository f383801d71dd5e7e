//! The program; what it is made of stands in `lib.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sampan::run()
}
