//! What can be done with a repository.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Reading, lists included.
    Pull,
    /// Writing, with all that belongs to it: state and end of uploads, new tags and moved ones.
    Push,
    /// Deleting tags, manifests and blobs.
    Delete,
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions(u8);

const EVERY: [Action; 3] = [Action::Pull, Action::Push, Action::Delete];

impl Action {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl FromStr for Action {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        EVERY.into_iter().find(|action| action.name() == text).ok_or(())
    }
}

impl Actions {
    pub(crate) const ALL: Self = Self(0b111);

    pub(super) fn insert(&mut self, action: Action) {
        self.0 |= action.bit();
    }

    pub(super) fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Action> {
        EVERY.into_iter().filter(move |action| self.contains(*action))
    }

    /// Of names as scopes and tokens have them: `*` is every action, a name that means nothing here is passed over.
    pub(super) fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut actions = Self::default();
        for name in names {
            match name.parse() {
                Ok(action) => actions.insert(action),
                Err(()) if name == "*" => return Self::ALL,
                Err(()) => {}
            }
        }
        actions
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<T: IntoIterator<Item = Action>>(list: T) -> Self {
        let mut actions = Self::default();
        list.into_iter().for_each(|action| actions.insert(action));
        actions
    }
}

/// As in a scope: `pull,push`.
impl fmt::Display for Actions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Action::name).collect();
        formatter.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_actions_are_read_and_written() {
        let read = |text: &str| Actions::of_names(text.split(','));
        assert_eq!(read("push,pull").to_string(), "pull,push");
        assert_eq!(read("*"), Actions::ALL);
        assert_eq!(read("push,*,other"), Actions::ALL);
        assert!(read("PULL,other,").is_empty());
        assert!(!read("pull").contains(Action::Delete));
        assert_eq!(read("pull").union(read("delete")).to_string(), "pull,delete");
        assert_eq!(EVERY.into_iter().collect::<Actions>(), Actions::ALL);
    }
}
