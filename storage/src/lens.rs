//! How a followed tree is seen here: which of its repositories, and below which prefix. The tree stays as its publisher
//! made it; only names are translated when it is read.

use std::fmt;
use std::sync::Arc;

use crate::layout::REPOSITORIES;

/// Whether a repository is shown, by the name that its publisher gave it.
pub type Shows = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A clone is cheap. The default shows everything as it is.
#[derive(Clone, Default)]
pub struct Lens {
    /// Ends with a slash, where there is one.
    prefix: Option<Arc<str>>,
    shows: Option<Shows>,
    closed: bool,
    member: bool,
}

impl Lens {
    /// `prefix` is the beginning of a repository's name, without the slash behind it.
    pub fn new(prefix: Option<&str>, shows: Option<Shows>) -> Self {
        Self { prefix: prefix.map(|prefix| format!("{prefix}/").into()), shows, ..Self::default() }
    }

    /// Through a closed one nothing is seen: whoever looks is told that the tree is too old.
    #[must_use]
    pub fn closed(self, closed: bool) -> Self {
        Self { closed, ..self }
    }

    /// The tree of one who writes tags together with me, so that the newest write of them all counts.
    #[must_use]
    pub fn member(self) -> Self {
        Self { member: true, ..self }
    }

    pub(crate) fn is_member(&self) -> bool {
        self.member
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The publisher's name of a repository that is asked for by this one; `None` if it is not shown.
    pub fn theirs<'a>(&self, ours: &'a str) -> Option<&'a str> {
        let theirs = match &self.prefix {
            Some(prefix) => ours.strip_prefix(&**prefix)?,
            None => ours,
        };
        self.shows(theirs).then_some(theirs)
    }

    /// The name under which a repository of the publisher is shown.
    pub fn ours(&self, theirs: &str) -> Option<String> {
        self.shows(theirs).then(|| format!("{}{theirs}", self.prefix.as_deref().unwrap_or_default()))
    }

    /// Where a list that goes on after `ours` goes on in the publisher's names: `None` where all of them come before.
    pub(crate) fn after<'a>(&self, ours: &'a str) -> Option<&'a str> {
        match &self.prefix {
            None => Some(ours),
            Some(prefix) => match ours.strip_prefix(&**prefix) {
                Some(theirs) => Some(theirs),
                None if ours < &**prefix => Some(""),
                None => None,
            },
        }
    }

    /// The publisher's path of what is asked for by this one. What is not below a repository is the same for all.
    pub(crate) fn path<'a>(&self, path: &'a str) -> Option<std::borrow::Cow<'a, str>> {
        let Some(below) = path.strip_prefix(REPOSITORIES).and_then(|rest| rest.strip_prefix('/')) else {
            return Some(path.into());
        };
        // Names of repositories have no component that starts with an underscore.
        let (repository, rest) = below.split_at_checked(below.find("/_").unwrap_or(below.len()))?;
        let theirs = self.theirs(repository)?;
        Some(if theirs.len() == repository.len() {
            path.into()
        } else {
            format!("{REPOSITORIES}/{theirs}{rest}").into()
        })
    }

    fn shows(&self, theirs: &str) -> bool {
        self.shows.as_ref().is_none_or(|shows| shows(theirs))
    }
}

impl fmt::Debug for Lens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lens")
            .field("prefix", &self.prefix)
            .field("closed", &self.closed)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lens() -> Lens {
        Lens::new(Some("mirror/acme"), Some(Arc::new(|name: &str| name.starts_with("app"))))
    }

    #[test]
    fn names_are_translated_both_ways_and_what_is_not_shown_is_not_there() {
        assert_eq!(lens().theirs("mirror/acme/app/web"), Some("app/web"));
        assert_eq!(lens().ours("app/web").as_deref(), Some("mirror/acme/app/web"));
        assert_eq!(lens().theirs("mirror/acme/other"), None);
        assert_eq!(lens().theirs("app/web"), None);
        assert_eq!(lens().ours("other"), None);
        assert_eq!(Lens::default().theirs("app/web"), Some("app/web"));
    }

    #[test]
    fn a_list_goes_on_where_it_stopped_whatever_stood_before() {
        assert_eq!(lens().after(""), Some(""));
        assert_eq!(lens().after("alpha"), Some(""));
        assert_eq!(lens().after("mirror/acme"), Some(""));
        assert_eq!(lens().after("mirror/acme/app"), Some("app"));
        assert_eq!(lens().after("mirror/b"), None);
        assert_eq!(lens().after("zeta"), None);
    }

    #[test]
    fn paths_below_repositories_are_translated_and_others_are_not() {
        let path = |path: &str| lens().path(path).map(std::borrow::Cow::into_owned);
        let blob = "docker/registry/v2/blobs/sha256/aa/aa/data";
        assert_eq!(path(blob).as_deref(), Some(blob));
        let tag = |name: &str| format!("{REPOSITORIES}/{name}/_manifests/tags/v1/current/link");
        assert_eq!(path(&tag("mirror/acme/app/web")), Some(tag("app/web")));
        assert_eq!(path(&tag("mirror/acme/other")), None);
        assert_eq!(path(&tag("app/web")), None);
    }
}
