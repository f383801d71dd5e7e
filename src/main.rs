//! The program; what it is made of stands in `lib.rs`.

use std::process::ExitCode;

/// One heap for all threads (docs/decisions/0017); `.cargo/config.toml` says how it is set.
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sampan::run()
}
