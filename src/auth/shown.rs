//! What holders of tokens have shown lately. A token is cut to one request: it lets its holder push to one repository,
//! and says nothing of the other from which a layer is to be linked, although the same holder has just pushed it there
//! with another token. What a token has granted counts for links until that token would have ended, and for nothing
//! else.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quick_cache::sync::Cache;
use sampan_storage::RepositoryName;

use super::grants::Grants;

/// Pairs of a holder and a repository; each takes some 100 bytes. What is forgotten is uploaded again.
const MAX_PAIRS: usize = 10_000;
/// No token counts for longer, whatever it says of itself.
const MAX_TIME: Duration = Duration::from_hours(1);

pub(super) struct Shown(Cache<(Arc<str>, String), SystemTime>);

impl Default for Shown {
    fn default() -> Self {
        Self(Cache::new(MAX_PAIRS))
    }
}

impl Shown {
    /// A token that was verified. One that names nobody counts for itself alone.
    pub(super) fn note(&self, holder: &Arc<str>, grants: &Grants, expires: f64, now: SystemTime) {
        if holder.is_empty() {
            return;
        }
        let end = Duration::try_from_secs_f64(expires).map_or(now, |expires| UNIX_EPOCH + expires);
        let end = end.min(now + MAX_TIME);
        for repository in grants.pulled() {
            self.0.insert((Arc::clone(holder), repository.to_owned()), end);
        }
    }

    pub(super) fn of(&self, holder: &Arc<str>, now: SystemTime) -> Vec<RepositoryName> {
        let shown = self.0.iter().filter(|((whose, _), end)| whose == holder && now < *end);
        shown.filter_map(|((_, repository), _)| repository.parse().ok()).collect()
    }

    pub(super) fn may_pull(&self, holder: &Arc<str>, repository: &str, now: SystemTime) -> bool {
        self.0.get(&(Arc::clone(holder), repository.to_owned())).is_some_and(|end| now < end)
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shown").field("pairs", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_holder_has_shown_counts_until_the_token_ends_and_for_nobody_else() {
        let (now, shown) = (SystemTime::now(), Shown::default());
        let expires = now.duration_since(UNIX_EPOCH).unwrap().as_secs_f64() + 60.0;
        let grants = Grants::of_scopes(["repository:a:pull,push repository:b:push"].into_iter());
        let (alice, bob, nobody): (Arc<str>, Arc<str>, Arc<str>) = ("alice".into(), "bob".into(), "".into());
        shown.note(&alice, &grants, expires, now);
        shown.note(&nobody, &grants, expires, now);
        assert!(shown.may_pull(&alice, "a", now));
        assert_eq!(shown.of(&alice, now), ["a".parse().unwrap()]);
        assert!(!shown.may_pull(&alice, "b", now), "it may push there and not pull");
        assert!(!shown.may_pull(&bob, "a", now) && !shown.may_pull(&nobody, "a", now));
        assert!(!shown.may_pull(&alice, "a", now + Duration::from_secs(61)));
        shown.note(&alice, &grants, f64::MAX, now);
        assert!(!shown.may_pull(&alice, "a", now + MAX_TIME), "no token counts for ever");
    }
}
