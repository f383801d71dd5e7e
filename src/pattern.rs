//! Patterns for names of repositories and tags: `*` stands for letters without a slash, `**` for any letters, `?` for
//! one letter that is no slash. Everything else stands for itself.

use std::fmt;

/// Longest pattern; no name is longer.
const MAX_PATTERN: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Letter(u8),
    /// `?`
    One,
    /// `*`
    Segment,
    /// `**`
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no name can match; * stands for letters without a slash, ** for any, ? for one")]
pub(crate) struct PatternError;

impl Pattern {
    /// For names of repositories, which have no empty part and none that begins or ends with a separator.
    pub(crate) fn of_repositories(text: &str) -> Result<Self, PatternError> {
        let letter =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/*?".contains(&byte);
        let part = |part: &str| {
            !part.is_empty() && !part.starts_with(['.', '_', '-']) && !part.ends_with(['.', '_', '-'])
        };
        Self::read(text, text.bytes().all(letter) && text.split('/').all(part))
    }

    pub(crate) fn of_tags(text: &str) -> Result<Self, PatternError> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
        Self::read(text, text.bytes().all(letter) && !text.starts_with(['.', '-']))
    }

    pub(crate) fn everything() -> Self {
        Self { text: "**".to_owned(), pieces: vec![Piece::Path] }
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.pieces == [Piece::Path]
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Walks the name once with all the places of the pattern that have been reached, so that no pattern is slow.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let pieces = &self.pieces;
        let mut reached = vec![false; pieces.len() + 1];
        set(&mut reached, 0);
        self.skip(&mut reached);
        for byte in name.bytes() {
            let mut next = vec![false; pieces.len() + 1];
            for (place, piece) in pieces.iter().enumerate().filter(|(place, _)| is_set(&reached, *place)) {
                match piece {
                    Piece::Letter(letter) if *letter == byte => set(&mut next, place + 1),
                    Piece::One if byte != b'/' => set(&mut next, place + 1),
                    Piece::Segment if byte != b'/' => set(&mut next, place),
                    Piece::Path => set(&mut next, place),
                    Piece::Letter(_) | Piece::One | Piece::Segment => {}
                }
            }
            self.skip(&mut next);
            reached = next;
        }
        is_set(&reached, pieces.len())
    }

    fn read(text: &str, good: bool) -> Result<Self, PatternError> {
        if !good || text.is_empty() || text.len() > MAX_PATTERN || text.contains("***") {
            return Err(PatternError);
        }
        let mut pieces = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, behind @ ..] = rest {
            rest = behind;
            pieces.push(match (first, behind) {
                (b'*', [b'*', behind @ ..]) => {
                    rest = behind;
                    Piece::Path
                }
                (b'*', _) => Piece::Segment,
                (b'?', _) => Piece::One,
                (letter, _) => Piece::Letter(*letter),
            });
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// Stars also stand for nothing.
    fn skip(&self, reached: &mut [bool]) {
        for (place, piece) in self.pieces.iter().enumerate() {
            if is_set(reached, place) && matches!(piece, Piece::Segment | Piece::Path) {
                set(reached, place + 1);
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn is_set(places: &[bool], place: usize) -> bool {
    places.get(place).copied().unwrap_or_default()
}

fn set(places: &mut [bool], place: usize) {
    if let Some(place) = places.get_mut(place) {
        *place = true;
    }
}

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz {
    #![allow(
        clippy::missing_panics_doc,
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "a target is there to panic"
    )]

    use super::*;

    /// What the plain reader below is asked at most: it tries every way.
    const SHORT: usize = 12;

    /// A pattern, and on the next line a name: two ways to compare them agree.
    pub fn pattern(data: &[u8]) {
        let Ok(text) = str::from_utf8(data) else { return };
        let (text, name) = text.split_once('\n').unwrap_or((text, ""));
        for read in [Pattern::of_repositories, Pattern::of_tags] {
            let Ok(pattern) = read(text) else { continue };
            assert_eq!(read(pattern.as_str()), Ok(pattern.clone()));
            let matches = pattern.matches(name);
            assert!(!text.contains('*') && !text.contains('?') || Pattern::everything().matches(name));
            if text.len() <= SHORT && name.len() <= 2 * SHORT {
                assert_eq!(matches, plainly(text.as_bytes(), name.as_bytes()), "{text:?} {name:?}");
            }
        }
    }

    fn plainly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|from| plainly(rest, &name[from..])),
            [b'*', rest @ ..] => {
                let end = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
                (0..=end).any(|from| plainly(rest, &name[from..]))
            }
            [b'?', rest @ ..] => {
                name.split_first().is_some_and(|(first, name)| *first != b'/' && plainly(rest, name))
            }
            [letter, rest @ ..] => {
                name.split_first().is_some_and(|(first, name)| first == letter && plainly(rest, name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::of_repositories(pattern).unwrap().matches(name)
    }

    #[test]
    fn one_star_stays_in_its_segment_and_two_do_not() {
        for (pattern, name) in [
            ("a", "a"),
            ("*", "a"),
            ("**", "a/b/c"),
            ("team/*", "team/a"),
            ("team/**", "team/a/b"),
            ("team-*/app", "team-1/app"),
            ("team-?/app", "team-1/app"),
            ("**/app", "a/b/app"),
            ("a*", "a"),
            ("a/*/c", "a/b/c"),
            ("*a*a*a*", "aaa"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a", "b"),
            ("a", "a/b"),
            ("a", "aa"),
            ("*", "a/b"),
            ("a?", "a"),
            ("a?b", "a/b"),
            ("team/*", "team/a/b"),
            ("team/*", "team"),
            ("team/**", "team"),
            ("team/**", "teams/a"),
            ("a/*/c", "a/b/b/c"),
            ("**/app", "app"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_refused() {
        for bad in
            ["", "A", "/a", "a/", "a//b", "a b", "***", "a/**b***", "-a", "a/b_", "ä", &"a".repeat(256)]
        {
            assert_eq!(Pattern::of_repositories(bad), Err(PatternError), "{bad}");
        }
        for bad in ["", "a/b", "a b", ".a", "-a", "ä"] {
            assert_eq!(Pattern::of_tags(bad), Err(PatternError), "{bad}");
        }
        assert!(Pattern::of_tags("V1.*-RC?").unwrap().matches("V1.20-RC3"));
    }

    #[test]
    fn many_stars_take_no_long_time() {
        let pattern = Pattern::of_repositories(&"*a".repeat(120)).unwrap();
        assert!(!pattern.matches(&"ab".repeat(100)));
    }

    proptest! {
        #[test]
        fn a_pattern_without_stars_matches_itself_alone(name in "[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,3}", other in "[a-z0-9/]{1,20}") {
            prop_assert!(matches(&name, &name));
            prop_assert_eq!(matches(&name, &other), name == other);
            prop_assert!(matches("**", &other));
            prop_assert_eq!(matches("*", &other), !other.contains('/'));
        }
    }
}
