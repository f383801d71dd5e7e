//! The one place that writes to the terminal. A reader that has gone, as behind `| head`, has seen enough.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;

use serde::Serialize;

pub(super) fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Standard output for bytes that are no text.
pub(super) fn bytes() -> impl io::Write {
    io::stdout()
}

/// Counts what is written, and tells it.
pub(super) struct Counting<W, F> {
    output: W,
    count: u64,
    told: F,
}

impl<W: io::Write, F: FnMut(u64)> Counting<W, F> {
    pub(super) fn new(output: W, told: F) -> Self {
        Self { output, count: 0, told }
    }
}

impl<W: io::Write, F: FnMut(u64)> io::Write for Counting<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.count += written as u64;
        (self.told)(self.count);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Columns as wide as their widest cell.
pub(super) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String does not fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        line(text.trim_end());
    }
}

/// How far a command has come, on standard error: one line that changes on a terminal, else a line now and then.
/// A command that takes less than a second shows nothing.
#[derive(Debug)]
pub(super) struct Meter {
    /// When something may be shown.
    due: Instant,
    terminal: bool,
    shown: bool,
}

impl Meter {
    const PATIENCE: Duration = Duration::from_secs(1);
    const ON_TERMINAL: Duration = Duration::from_millis(500);
    const ELSEWHERE: Duration = Duration::from_secs(10);

    pub(super) fn start() -> Self {
        Self { due: Instant::now() + Self::PATIENCE, terminal: io::stderr().is_terminal(), shown: false }
    }

    pub(super) fn show(&mut self, text: &str) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.shown = true;
        let _ = if self.terminal {
            self.due = now + Self::ON_TERMINAL;
            write!(io::stderr(), "\r\x1b[K{text}")
        } else {
            self.due = now + Self::ELSEWHERE;
            writeln!(io::stderr(), "{text}")
        };
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.shown && self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// What could not be understood, as one line; help and version as they are.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(u8::from(error.use_stderr()) * 2);
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told: Vec<&str> = lines.take_while(|line| !line.starts_with("Usage:")).collect();
    let told = told.join("; ");
    let told = told.trim_start_matches("error: ").trim_end_matches("; For more information, try '--help'.");
    let _ = writeln!(io::stderr(), "sampan: {told}; `sampan --help` says what there is");
    ExitCode::from(2)
}

/// An error as one line, with its causes.
pub(crate) fn complain(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Errors that show their source in their own message say it once.
        if !text.contains(&cause) {
            let _ = write!(text, "{}{cause}", if text.is_empty() { "" } else { ": " });
        }
    }
    let _ = writeln!(io::stderr(), "sampan: {}", text.replace('\n', " "));
}
