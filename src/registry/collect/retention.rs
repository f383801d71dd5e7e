//! Retention: which tags of a repository may go, by the operator's rules. Pure; knows no store.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use sampan_storage::{Digest, RepositoryName, Tag};

use crate::pattern::Pattern;

/// What a collection keeps.
#[derive(Clone, Debug)]
pub(crate) struct Retention {
    /// What was pushed, asked for or mounted more recently stays, whatever else is said.
    pub(crate) grace: Duration,
    /// Manifests without a tag that nothing refers to go at this age; `None`: they stay.
    pub(crate) untagged: Option<Duration>,
    /// The first one that names a repository counts there.
    pub(crate) rules: Vec<Rule>,
}

/// Tags of some repositories stay if one of the three keeps them; with none of the three, all stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) repositories: Vec<Pattern>,
    /// So many, by when their manifest was pushed last.
    pub(crate) newest: Option<usize>,
    pub(crate) matching: Vec<Pattern>,
    /// Pushed no longer ago than this.
    pub(crate) within: Option<Duration>,
    /// As [`Retention::untagged`], for these repositories.
    pub(crate) untagged: Option<Duration>,
}

/// A tag, what it points to, and when that was pushed; unknown where its bytes are not here.
#[derive(Clone, Debug)]
pub(super) struct Tagged {
    pub(super) tag: Tag,
    pub(super) digest: Option<Digest>,
    pub(super) pushed: Option<SystemTime>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { grace: Duration::from_hours(1), untagged: None, rules: Vec::new() }
    }
}

impl Retention {
    pub(super) fn rule(&self, repository: &RepositoryName) -> Option<&Rule> {
        let names = |rule: &&Rule| rule.repositories.iter().any(|it| it.matches(repository.as_str()));
        self.rules.iter().find(names)
    }

    /// Age at which untagged manifests of the repository go. Where a rule lets tags go, what they leave goes too.
    pub(super) fn untagged(&self, rule: Option<&Rule>) -> Option<Duration> {
        let limited = rule.filter(|rule| rule.limits()).map(|_| self.grace);
        rule.and_then(|rule| rule.untagged).or(self.untagged).or(limited)
    }
}

impl Rule {
    fn limits(&self) -> bool {
        self.newest.is_some() || !self.matching.is_empty() || self.within.is_some()
    }

    /// The tags that nothing keeps, and why.
    pub(super) fn outdated(&self, mut tags: Vec<Tagged>, now: SystemTime) -> Vec<(Tagged, String)> {
        if !self.limits() {
            return Vec::new();
        }
        // Unknown is newest: what cannot be judged stays.
        tags.sort_by_key(|tagged| Reverse((tagged.pushed.is_none(), tagged.pushed)));
        let why = self.why();
        let kept = |place: usize, tagged: &Tagged| {
            let Some(pushed) = tagged.pushed else { return true };
            let age = now.duration_since(pushed).unwrap_or_default();
            self.newest.is_some_and(|newest| place < newest)
                || self.within.is_some_and(|within| age <= within)
                || self.matching.iter().any(|pattern| pattern.matches(tagged.tag.as_str()))
        };
        let outdated = tags.into_iter().enumerate().filter(|(place, tagged)| !kept(*place, tagged));
        outdated.map(|(_, tagged)| (tagged, why.clone())).collect()
    }

    fn why(&self) -> String {
        let newest = self.newest.map(|newest| format!("not among the newest {newest}"));
        let within = self.within.map(|within| format!("older than {}", hours(within)));
        let patterns: Vec<String> = self.matching.iter().map(ToString::to_string).collect();
        let matching = (!patterns.is_empty()).then(|| format!("matches none of {}", patterns.join(", ")));
        newest.into_iter().chain(within).chain(matching).collect::<Vec<_>>().join(", ")
    }
}

fn hours(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds > 0 && seconds.is_multiple_of(3600) {
        format!("{}h", seconds / 3600)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(count: u64, now: SystemTime) -> Vec<Tagged> {
        let tagged = |number: u64| Tagged {
            tag: format!("v{number}").parse().unwrap(),
            digest: None,
            pushed: Some(now - Duration::from_hours(number)),
        };
        (0..count).map(tagged).collect()
    }

    fn gone(rule: &Rule, tags: Vec<Tagged>, now: SystemTime) -> Vec<String> {
        rule.outdated(tags, now).into_iter().map(|(tagged, _)| tagged.tag.to_string()).collect()
    }

    #[test]
    fn a_tag_stays_if_any_of_the_three_keeps_it() {
        let now = SystemTime::now();
        let newest = Rule { newest: Some(2), ..Rule::default() };
        assert_eq!(gone(&newest, tags(4, now), now), ["v2", "v3"]);
        let within = Rule { within: Some(Duration::from_hours(2)), ..newest.clone() };
        assert_eq!(gone(&within, tags(4, now), now), ["v3"]);
        let matching = Rule { matching: vec![Pattern::of_tags("v3").unwrap()], ..within };
        assert!(gone(&matching, tags(4, now), now).is_empty());
        assert!(gone(&Rule::default(), tags(4, now), now).is_empty(), "a rule that limits nothing");
    }

    #[test]
    fn what_cannot_be_judged_stays() {
        let now = SystemTime::now();
        let mut some = tags(3, now);
        some[2].pushed = None;
        let rule = Rule { newest: Some(1), ..Rule::default() };
        assert_eq!(gone(&rule, some, now), ["v0", "v1"]);
        let future = vec![Tagged { pushed: Some(now + Duration::from_hours(9)), ..tags(1, now)[0].clone() }];
        let rule = Rule { within: Some(Duration::from_hours(1)), ..Rule::default() };
        assert!(gone(&rule, future, now).is_empty(), "a clock that ran ahead");
    }

    #[test]
    fn the_first_rule_that_names_a_repository_counts() {
        let rule = |pattern: &str, newest| Rule {
            repositories: vec![Pattern::of_repositories(pattern).unwrap()],
            newest: Some(newest),
            ..Rule::default()
        };
        let retention = Retention { rules: vec![rule("team/*", 1), rule("**", 2)], ..Retention::default() };
        let newest = |name: &str| retention.rule(&name.parse().unwrap()).unwrap().newest;
        assert_eq!((newest("team/app"), newest("team/app/web")), (Some(1), Some(2)));
        assert_eq!(retention.untagged(retention.rules.first()), Some(retention.grace));
        assert_eq!(retention.untagged(None), None);
    }
}
