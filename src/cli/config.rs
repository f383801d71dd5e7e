//! `sampan config show|check`: what counts and where it comes from, and what is wrong with a file.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{Config as Command, print};
use crate::config::{self, Config, Flags, Setting};

pub(super) fn run(data: Option<PathBuf>, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show { config, json } => show(Flags { data, config, ..Flags::default() }, json),
        Command::Check { file } => check(&file),
    }
}

fn show(flags: Flags, json: bool) -> anyhow::Result<()> {
    let (config, warnings) = Config::load(flags)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let settings = config.settings;
    if json {
        let object = |setting: &Setting| {
            let Setting { key, value, source, ignored } = setting;
            json!({"key": key, "value": value, "source": source.to_string(), "ignored": ignored})
        };
        return print::json(&settings.iter().map(object).collect::<Vec<_>>());
    }
    let row = |setting: &Setting| {
        let ignored = if setting.ignored { ", ignored" } else { "" };
        vec![setting.key.to_owned(), text(&setting.value), format!("{}{ignored}", setting.source)]
    };
    print::table(&settings.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

/// A warning is told and harms nothing.
fn check(file: &Path) -> anyhow::Result<()> {
    let said = config::check(file)?;
    for warning in &said.warnings {
        tell(&format!("warning: {warning}"));
    }
    let Some((last, others)) = said.problems.split_last() else {
        print::line(&format!("{} is fine", file.display()));
        return Ok(());
    };
    for problem in others {
        tell(&problem.to_string());
    }
    // The last one is told by the caller, in the same form.
    Err(anyhow!("{last}"))
}

fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "sampan: {line}");
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
