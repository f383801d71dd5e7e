//! What a token grants, and the scopes by which it is asked for (Distribution's "Token Scope Documentation").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::action::{Action, Actions};

/// Scopes of one request for a token. Docker asks for a handful.
const MAX_SCOPES: usize = 64;

const REPOSITORY: &str = "repository";
const REGISTRY: &str = "registry";
const CATALOG: &str = "catalog";

/// Actions by the name of their repository, and the list of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grants {
    repositories: BTreeMap<String, Actions>,
    catalog: bool,
}

/// One entry of a token's claim `access`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Access {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    /// Some issuers write null where they grant nothing.
    actions: Option<Vec<String>>,
}

impl Grants {
    pub(super) fn allow(&self, repository: &str, action: Action) -> bool {
        self.repositories.get(repository).is_some_and(|actions| actions.contains(action))
    }

    pub(super) fn allow_catalog(&self) -> bool {
        self.catalog
    }

    /// Repositories that may be pulled from.
    pub(super) fn pulled(&self) -> impl Iterator<Item = &str> {
        let pulled = self.repositories.iter().filter(|(_, actions)| actions.contains(Action::Pull));
        pulled.map(|(name, _)| name.as_str())
    }

    pub(super) fn of_access(list: &[Access]) -> Self {
        let mut grants = Self::default();
        for Access { kind, name, actions } in list {
            let actions = actions.iter().flatten().map(String::as_str);
            grants.add(kind, name, actions);
        }
        grants
    }

    pub(super) fn to_access(&self) -> Vec<Access> {
        let catalog = self.catalog.then(|| Access {
            kind: REGISTRY.to_owned(),
            name: CATALOG.to_owned(),
            actions: Some(vec!["*".to_owned()]),
        });
        let repositories = self.repositories.iter().map(|(name, actions)| Access {
            kind: REPOSITORY.to_owned(),
            name: name.clone(),
            actions: Some(actions.iter().map(|action| action.name().to_owned()).collect()),
        });
        repositories.chain(catalog).collect()
    }

    /// What is asked for: values of `scope`, each with one scope or several with spaces between them. What cannot be
    /// read is not granted, nor what comes after the first 64.
    pub(super) fn of_scopes<'a>(scopes: impl Iterator<Item = &'a str>) -> Self {
        let mut grants = Self::default();
        for scope in scopes.flat_map(str::split_ascii_whitespace).take(MAX_SCOPES) {
            // A name may have colons of its own: `repository:host:5000/name:pull`.
            let parts = scope.split_once(':').and_then(|(kind, rest)| Some((kind, rest.rsplit_once(':')?)));
            if let Some((kind, (name, actions))) = parts {
                grants.add(kind, name, actions.split(','));
            }
        }
        grants
    }

    /// Only those that a caller may have.
    pub(super) fn confine(self, may: impl Fn(&str, Action) -> bool, catalog: bool) -> Self {
        let confine = |(name, actions): (String, Actions)| {
            let actions: Actions = actions.iter().filter(|action| may(&name, *action)).collect();
            (!actions.is_empty()).then_some((name, actions))
        };
        Self {
            repositories: self.repositories.into_iter().filter_map(confine).collect(),
            catalog: self.catalog && catalog,
        }
    }

    fn add<'a>(&mut self, kind: &str, name: &str, mut actions: impl Iterator<Item = &'a str>) {
        // `repository(plugin)` is a repository of that class.
        match kind.split('(').next() {
            Some(REPOSITORY) => {
                let granted = self.repositories.entry(name.to_owned()).or_default();
                *granted = granted.union(Actions::of_names(actions));
            }
            Some(REGISTRY) if name == CATALOG => self.catalog |= actions.any(|action| action == "*"),
            _ => {}
        }
    }
}

/// The scope that an action needs. Who pushes also looks at what is there.
pub(super) fn scope_of(repository: &str, action: Action) -> String {
    let actions = match action {
        Action::Pull => "pull",
        Action::Push => "pull,push",
        Action::Delete => "delete",
    };
    format!("{REPOSITORY}:{repository}:{actions}")
}

pub(super) fn scope_of_catalog() -> String {
    format!("{REGISTRY}:{CATALOG}:*")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_are_read_in_every_form() {
        let read = |scopes: &[&str]| Grants::of_scopes(scopes.iter().copied());
        let grants =
            read(&["repository:a/b:pull,push", "repository:c:* registry:catalog:*", "nonsense", "a:b"]);
        assert!(grants.allow("a/b", Action::Push) && !grants.allow("a/b", Action::Delete));
        assert!(grants.allow("c", Action::Delete) && grants.allow_catalog());
        assert!(!grants.allow("a", Action::Pull));
        assert!(read(&["repository(plugin):p:pull"]).allow("p", Action::Pull));
        assert!(read(&["repository:localhost:5000/a:pull"]).allow("localhost:5000/a", Action::Pull));
        assert!(!read(&["registry:catalog:pull", "other:a:pull"]).allow_catalog());
        let many = format!("{} repository:b:pull", "repository:a:pull ".repeat(MAX_SCOPES));
        assert!(read(&[&many]).allow("a", Action::Pull) && !read(&[&many]).allow("b", Action::Pull));
        // What a challenge asks for is what an action needs.
        for action in [Action::Pull, Action::Push, Action::Delete] {
            assert!(read(&[&scope_of("a", action)]).allow("a", action));
        }
        assert!(read(&[&scope_of_catalog()]).allow_catalog());
    }

    #[test]
    fn claims_are_read_and_written() {
        let claim = json!([
            {"type": "repository", "name": "a", "actions": ["pull", "push"]},
            {"type": "repository", "class": "plugin", "name": "p", "actions": ["*"]},
            {"type": "registry", "name": "catalog", "actions": ["*"]},
            {"type": "repository", "name": "none", "actions": null},
        ]);
        let access: Vec<Access> = serde_json::from_value(claim).unwrap();
        let grants = Grants::of_access(&access);
        assert!(
            grants.allow("a", Action::Push) && grants.allow("p", Action::Delete) && grants.allow_catalog()
        );
        assert!(!grants.allow("none", Action::Pull));
        assert_eq!(Grants::of_access(&grants.to_access()), grants);
    }

    #[test]
    fn a_grant_is_no_more_than_its_caller_may_have() {
        let asked =
            Grants::of_scopes(["repository:a:pull,push repository:b:pull registry:catalog:*"].into_iter());
        let granted = asked.confine(|name, action| name == "a" && action == Action::Pull, false);
        assert!(granted.allow("a", Action::Pull) && !granted.allow("a", Action::Push));
        assert!(!granted.allow("b", Action::Pull) && !granted.allow_catalog());
    }
}
