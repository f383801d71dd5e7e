//! Where a value comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The variables of the process that matter here, by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// What the names of overriding variables begin with, as in Distribution.
pub(super) const PREFIX: &str = "REGISTRY_";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    #[default]
    Default,
    File(PathBuf),
    Environment(String),
    Flag(&'static str),
    /// A list that is added up.
    Several(Vec<Source>),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path) => path.display().fmt(formatter),
            Self::Environment(name) => formatter.write_str(name),
            Self::Flag(name) => formatter.write_str(name),
            Self::Several(sources) => {
                let sources: Vec<String> = sources.iter().map(Self::to_string).collect();
                formatter.write_str(&sources.join(", "))
            }
        }
    }
}

/// The environment of this process. Values that are no text are read as far as they are.
pub(crate) fn environment() -> Environment {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let said = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    said.filter(|(name, _)| name.starts_with(PREFIX) || name == super::SAMPAN_DATA).collect()
}
