//! Rules: who may do what in which repositories. What no rule allows is not allowed, and what anonymous clients may
//! do, everyone may.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use super::action::{Action, Actions};
use super::caller::Identity;
use crate::pattern::Pattern;

/// Rules of a configuration, and entries of a list in a rule. All of them are looked through for each request.
const MAX_ENTRIES: usize = 1000;

/// What a rule lists, and what stands in each list.
const FORM: &str = "a rule has the lists repositories, users and actions";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules(Arc<[Rule]>);

/// Each of the users may do each of the actions in each of the repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    repositories: Vec<Pattern>,
    users: Vec<Who>,
    actions: Actions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    /// Everyone.
    Anonymous,
    /// Everyone with a password.
    Authenticated,
    User(String),
    Certificate(String),
}

impl Rules {
    /// Without rules of the operator: whoever has a password may do everything, and anonymous clients what is said.
    pub(crate) fn plain(anonymous: Actions) -> Self {
        let rule =
            |who, actions| Rule { repositories: vec![Pattern::everything()], users: vec![who], actions };
        let anonymous = (!anonymous.is_empty()).then(|| rule(Who::Anonymous, anonymous));
        Self([rule(Who::Authenticated, Actions::ALL)].into_iter().chain(anonymous).collect())
    }

    /// A list of rules as a configuration has it; the message names the entry that is wrong.
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let list = value.as_array().filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| format!("must be a list with a rule; {FORM}"))?;
        if list.len() > MAX_ENTRIES {
            return Err(format!("has more than {MAX_ENTRIES} rules"));
        }
        let read = |(place, rule): (usize, &Value)| {
            Rule::read(rule).map_err(|problem| format!("has a wrong rule, number {}: {problem}", place + 1))
        };
        Ok(Self(list.iter().enumerate().map(read).collect::<Result<_, _>>()?))
    }

    /// One line for each rule.
    pub(crate) fn describe(&self) -> Vec<String> {
        self.0.iter().map(Rule::describe).collect()
    }

    pub(super) fn allow(&self, identity: &Identity, repository: &str, action: Action) -> bool {
        self.of(identity, action)
            .any(|rule| rule.repositories.iter().any(|pattern| pattern.matches(repository)))
    }

    /// Whether there may be any repository in which this is allowed.
    pub(super) fn allow_somewhere(&self, identity: &Identity, action: Action) -> bool {
        self.of(identity, action).any(|rule| !rule.repositories.is_empty())
    }

    /// Whether this is allowed in every repository.
    pub(super) fn allow_everywhere(&self, identity: &Identity, action: Action) -> bool {
        self.of(identity, action).any(|rule| rule.repositories.iter().any(Pattern::is_everything))
    }

    /// The patterns of repositories in which this is allowed, each once.
    pub(super) fn patterns(&self, identity: &Identity, action: Action) -> BTreeSet<&str> {
        self.of(identity, action).flat_map(|rule| &rule.repositories).map(Pattern::as_str).collect()
    }

    /// Whether a rule is for this identity by its name.
    pub(super) fn name(&self, identity: &Identity) -> bool {
        let named = |who: &Who| matches!(who, Who::User(_) | Who::Certificate(_)) && who.is(identity);
        self.0.iter().any(|rule| rule.users.iter().any(named))
    }

    fn of(&self, identity: &Identity, action: Action) -> impl Iterator<Item = &Rule> {
        let applies = move |rule: &&Rule| {
            rule.actions.contains(action) && rule.users.iter().any(|who| who.is(identity))
        };
        self.0.iter().filter(applies)
    }
}

impl Rule {
    fn read(value: &Value) -> Result<Self, String> {
        let Value::Object(fields) = value else { return Err(FORM.to_owned()) };
        if let Some(unknown) =
            fields.keys().find(|key| !["repositories", "users", "actions"].contains(&key.as_str()))
        {
            return Err(format!("{} is not known; {FORM}", shown(unknown)));
        }
        let list = |name: &str| {
            let list = fields.get(name).and_then(Value::as_array).filter(|list| !list.is_empty());
            let list = list.ok_or_else(|| format!("{name} must be a list with an entry; {FORM}"))?;
            if list.len() > MAX_ENTRIES {
                return Err(format!("{name} has more than {MAX_ENTRIES} entries"));
            }
            let text = |entry: &Value| {
                entry
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| format!("{name} has {entry}, which is no text"))
            };
            list.iter().map(text).collect::<Result<Vec<String>, String>>()
        };
        let pattern = |text: String| {
            Pattern::of_repositories(&text)
                .map_err(|error| format!("repositories has {}, which {error}", shown(&text)))
        };
        let who = |text: String| {
            text.parse::<Who>().map_err(|()| {
                let text = shown(&text);
                format!("users has {text}, which is not anonymous, authenticated, the name of a user or certificate:NAME")
            })
        };
        let action = |text: String| {
            let action = text.parse::<Action>();
            action.map_err(|()| format!("actions has {}, which is not pull, push or delete", shown(&text)))
        };
        Ok(Self {
            repositories: list("repositories")?.into_iter().map(pattern).collect::<Result<_, _>>()?,
            users: list("users")?.into_iter().map(who).collect::<Result<_, _>>()?,
            actions: list("actions")?.into_iter().map(action).collect::<Result<_, _>>()?,
        })
    }

    fn describe(&self) -> String {
        let users: Vec<String> = self.users.iter().map(Who::describe).collect();
        let repositories: Vec<&str> = self.repositories.iter().map(Pattern::as_str).collect();
        format!("{}: {} in {}", users.join(" "), self.actions, repositories.join(" "))
    }
}

impl Who {
    fn is(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Anonymous, _) | (Self::Authenticated, Identity::User(_)) => true,
            (Self::User(name), Identity::User(user)) => **name == **user,
            (Self::Certificate(name), Identity::Certificate(holder)) => **name == **holder,
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Anonymous => "anonymous".to_owned(),
            Self::Authenticated => "authenticated".to_owned(),
            Self::User(name) => name.clone(),
            Self::Certificate(name) => format!("certificate:{name}"),
        }
    }
}

impl FromStr for Who {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let name = |name: &str| {
            (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.to_owned()).ok_or(())
        };
        match (text, text.split_once(':')) {
            ("anonymous", _) => Ok(Self::Anonymous),
            ("authenticated", _) => Ok(Self::Authenticated),
            (_, None) => name(text).map(Self::User),
            (_, Some(("certificate", holder))) => name(holder).map(Self::Certificate),
            // A user's name has no colon: it ends there in an htpasswd file and in a request.
            (_, Some(_)) => Err(()),
        }
    }
}

/// A foreign text, short enough for a line.
fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(100).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::caller::Place;
    use super::*;

    fn user(name: &str) -> Identity {
        Identity::User(name.into())
    }

    #[test]
    fn rules_add_up_and_the_rest_is_denied() {
        let rules = Rules::read(&json!([
            {"repositories": ["public/**"], "users": ["anonymous"], "actions": ["pull"]},
            {"repositories": ["team/*", "tools"], "users": ["alice", "bob"], "actions": ["pull", "push"]},
            {"repositories": ["**"], "users": ["authenticated"], "actions": ["pull"]},
            {"repositories": ["team/*"], "users": ["alice"], "actions": ["delete"]},
            {"repositories": ["ci/**"], "users": ["certificate:runner"], "actions": ["push"]},
        ]))
        .unwrap();
        let may = |identity: &Identity, name: &str| -> String {
            let actions = ["pull", "push", "delete"].map(|action| action.parse::<Action>().unwrap());
            actions
                .into_iter()
                .filter(|action| rules.allow(identity, name, *action))
                .collect::<Actions>()
                .to_string()
        };
        let (anonymous, runner) = (Identity::Anonymous(Place::Here), Identity::Certificate("runner".into()));
        assert_eq!(may(&anonymous, "public/a"), "pull");
        assert_eq!(may(&anonymous, "team/a"), "");
        assert_eq!(may(&user("alice"), "team/a"), "pull,push,delete");
        assert_eq!(may(&user("bob"), "team/a"), "pull,push");
        assert_eq!(may(&user("carol"), "team/a"), "pull");
        assert_eq!(may(&user("carol"), "public/a"), "pull");
        // A certificate is neither a password nor a user of the same name.
        assert_eq!(may(&runner, "ci/a"), "push");
        assert_eq!(may(&runner, "public/a"), "pull");
        assert_eq!(may(&user("runner"), "ci/a"), "pull");
        assert_eq!(may(&Identity::Certificate("alice".into()), "team/a"), "");
        assert!(rules.allow_everywhere(&user("carol"), Action::Pull));
        assert!(!rules.allow_everywhere(&anonymous, Action::Pull));
        assert!(rules.allow_somewhere(&anonymous, Action::Pull));
        assert!(!rules.allow_somewhere(&anonymous, Action::Push));
        assert_eq!(rules.describe()[1], "alice bob: pull,push in team/* tools");
    }

    #[test]
    fn without_rules_a_password_is_everything() {
        let anonymous = Identity::Anonymous(Place::Here);
        let closed = Rules::plain(Actions::default());
        assert!(closed.allow(&user("a"), "a/b", Action::Delete));
        assert!(!closed.allow(&anonymous, "a", Action::Pull));
        // A client certificate that is asked for beside the password is no password.
        assert!(!closed.allow(&Identity::Certificate("a".into()), "a", Action::Pull));
        let open = Rules::plain([Action::Pull].into_iter().collect());
        assert!(open.allow(&anonymous, "a", Action::Pull) && !open.allow(&anonymous, "a", Action::Push));
    }

    #[test]
    fn a_wrong_rule_is_named() {
        let good = json!({"repositories": ["a"], "users": ["b"], "actions": ["pull"]});
        let with = |field: &str, value: Value| {
            let mut rule = good.clone();
            rule[field] = value;
            Rules::read(&json!([good, rule])).unwrap_err()
        };
        for (field, value, told) in [
            ("repositories", json!(["A"]), "repositories has A, which no name can match"),
            ("repositories", json!([]), "repositories must be a list with an entry"),
            ("users", json!("alice"), "users must be a list with an entry"),
            ("users", json!(["a:b"]), "users has a:b, which is not anonymous"),
            ("users", json!([1]), "users has 1, which is no text"),
            ("actions", json!(["pul"]), "actions has pul, which is not pull, push or delete"),
            ("repository", json!(["a"]), "repository is not known; a rule has the lists"),
        ] {
            let message = with(field, value);
            assert!(message.starts_with(&format!("has a wrong rule, number 2: {told}")), "{message}");
        }
        assert!(Rules::read(&json!({})).unwrap_err().starts_with("must be a list with a rule"));
        assert!(Rules::read(&json!([])).is_err() && Rules::read(&Value::Null).is_err());
        assert!(Rules::read(&json!(["a"])).unwrap_err().contains("number 1"));
    }
}
