//! What the configuration says of a name that is followed: what of it is shown, under which names, and what of it is
//! brought here before anyone asks.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sampan_storage::Lens;

use crate::content::Pointer;
use crate::pattern::Pattern;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Following {
    pub(crate) whom: Whom,
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

/// Whose registry it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Whom {
    One(Pointer),
    /// Each name that a member tells of: their tags and mine are written together.
    Members,
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
    pub(crate) fn plain(whom: Whom) -> Self {
        Self {
            whom,
            policy: Policy::Cache,
            repositories: Vec::new(),
            prefix: None,
            rate: None,
            max_stale: None,
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::plain(self.whom.clone())
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
        let lens = Lens::new(self.prefix.as_deref(), shows);
        if self.whom == Whom::Members { lens.member() } else { lens }
    }
}

/// How a configuration says that members are followed.
const AUTO: &str = "auto";

impl From<Pointer> for Whom {
    fn from(pointer: Pointer) -> Self {
        Self::One(pointer)
    }
}

impl FromStr for Whom {
    type Err = <Pointer as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == AUTO { Ok(Self::Members) } else { text.parse().map(Self::One) }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(pointer) => pointer.fmt(f),
            Self::Members => f.write_str(AUTO),
        }
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
