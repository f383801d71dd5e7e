//! What the configuration says of a name that is followed: what of it is shown, under which names, and what of it is
//! brought here before anyone asks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sampan_storage::Lens;

use crate::content::Pointer;
use crate::pattern::Pattern;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Following {
    pub(crate) name: Pointer,
    pub(crate) policy: Policy,
    /// Repositories that are shown and mirrored, by the publisher's names. Empty: all of them.
    pub(crate) repositories: Vec<Pattern>,
    /// Stands before the publisher's names here.
    pub(crate) prefix: Option<String>,
    /// Bytes that a mirror fetches in a second at most.
    pub(crate) rate: Option<u64>,
    /// How long after the end of its last record it is still shown; without it for ever.
    pub(crate) max_stale: Option<Duration>,
}

/// What becomes of blobs. Directories, and what is small, always come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Policy {
    /// A blob comes when it is pulled first.
    #[default]
    Cache,
    /// All of them come, whether anyone asks or not.
    Mirror,
}

impl Following {
    /// All of it, as it is, when it is asked for.
    pub(crate) fn plain(name: Pointer) -> Self {
        Self {
            name,
            policy: Policy::Cache,
            repositories: Vec::new(),
            prefix: None,
            rate: None,
            max_stale: None,
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::plain(self.name.clone())
    }

    /// Whether a repository is shown, by its publisher's name.
    pub(crate) fn shows(&self, repository: &str) -> bool {
        self.repositories.is_empty() || self.repositories.iter().any(|pattern| pattern.matches(repository))
    }

    pub(crate) fn lens(&self) -> Lens {
        let shows = (!self.repositories.is_empty()).then(|| {
            let this = self.clone();
            Arc::new(move |repository: &str| this.shows(repository)) as _
        });
        Lens::new(self.prefix.as_deref(), shows)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cache => "cache",
            Self::Mirror => "mirror",
        })
    }
}
