//! Patterns for names of repositories and tags: `*` stands for anything within one component, `**` for anything at
//! all, `?` for one letter. Everything else stands for itself.

use std::fmt;
use std::str::FromStr;

/// No name is longer than a few hundred letters.
const MAX_PATTERN: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(String);

#[derive(Debug, thiserror::Error)]
#[error(
    "a pattern is text of at most {MAX_PATTERN} letters of names, with * within a component and ** across them"
)]
pub(crate) struct PatternError;

impl Pattern {
    pub(crate) fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/*?".contains(&byte);
        let good = !text.is_empty() && text.len() <= MAX_PATTERN && text.bytes().all(letter);
        good.then(|| Self(text.to_owned())).ok_or(PatternError)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Every state that the pattern can be in is followed at once, so that the work is pattern times name, never more.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // `reached[i]`: the first `i` letters of the pattern stand for what was read so far.
    let mut reached = vec![false; pattern.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    skip_stars(pattern, &mut reached);
    for letter in name {
        let mut next = vec![false; pattern.len() + 1];
        for (at, token) in pattern.iter().enumerate() {
            if !reached.get(at).copied().unwrap_or_default() {
                continue;
            }
            let across = pattern.get(at + 1) == Some(&b'*') || (at > 0 && pattern.get(at - 1) == Some(&b'*'));
            let stays = *token == b'*' && (*letter != b'/' || across);
            let goes = token == letter || (*token == b'?' && *letter != b'/');
            if stays && let Some(state) = next.get_mut(at) {
                *state = true;
            }
            if goes
                && *token != b'*'
                && let Some(state) = next.get_mut(at + 1)
            {
                *state = true;
            }
        }
        reached = next;
        skip_stars(pattern, &mut reached);
    }
    reached.last().copied().unwrap_or_default()
}

/// A star may stand for nothing.
fn skip_stars(pattern: &[u8], reached: &mut [bool]) {
    for (at, token) in pattern.iter().enumerate() {
        if *token == b'*'
            && reached.get(at).copied().unwrap_or_default()
            && let Some(next) = reached.get_mut(at + 1)
        {
            *next = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_stays_in_a_component_and_two_cross_them() {
        let cases = [
            ("team/*", "team/app", true),
            ("team/*", "team/app/web", false),
            ("team/*", "team", false),
            ("team/**", "team/app/web", true),
            ("**", "any/thing", true),
            ("*", "any/thing", false),
            ("*", "any", true),
            ("**/web", "team/app/web", true),
            ("**/web", "web", false),
            ("**web", "web", true),
            ("a*c", "abbbc", true),
            ("a*c", "a/c", false),
            ("v?", "v1", true),
            ("v?", "v12", false),
            ("v1.*", "v1.2.3", true),
            ("latest", "latest", true),
            ("latest", "latest2", false),
        ];
        for (pattern, name, expected) in cases {
            let pattern: Pattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_take_no_long_time() {
        let pattern: Pattern = "*a".repeat(200).parse().unwrap();
        assert!(!pattern.matches(&"a".repeat(250).replace("aa", "ab")));
    }

    #[test]
    fn what_no_name_can_be_is_no_pattern() {
        for text in ["", "a b", "a\n", "[a]", &"a".repeat(MAX_PATTERN + 1)] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
