//! The list `gc.rules`: which tags of which repositories a collection may take.

use serde::Deserialize;
use serde_json::Value;

use super::form::duration as parse_duration;
use crate::pattern::{Pattern, PatternError};
use crate::registry::Rule;

/// More is a program's work, and belongs into a program.
const MAX_RULES: usize = 1000;

pub(super) const SHAPE: &str =
    "must be a list of rules, each with repositories and some of newest, matching, within and untagged";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    repositories: Vec<String>,
    newest: Option<usize>,
    #[serde(default)]
    matching: Vec<String>,
    within: Option<String>,
    untagged: Option<String>,
}

/// The rules, or which of them is wrong and how.
pub(super) fn read(value: &Value) -> Result<Vec<Rule>, String> {
    let rules = value.as_array().filter(|rules| rules.len() <= MAX_RULES).ok_or(SHAPE)?;
    let numbered = rules.iter().enumerate();
    numbered.map(|(at, rule)| read_rule(rule).map_err(|text| format!("rule {}: {text}", at + 1))).collect()
}

fn read_rule(value: &Value) -> Result<Rule, String> {
    let written = Written::deserialize(value).map_err(|error| error.to_string())?;
    let duration = |name: &str, text: Option<String>| match text {
        Some(text) => parse_duration(&text)
            .map(Some)
            .ok_or_else(|| format!("{name} must be a duration such as 720h or 90m")),
        None => Ok(None),
    };
    if written.repositories.is_empty() {
        return Err("repositories must name some, for example [\"team/**\"]".to_owned());
    }
    Ok(Rule {
        repositories: patterns(&written.repositories, Pattern::of_repositories)?,
        newest: written.newest,
        matching: patterns(&written.matching, Pattern::of_tags)?,
        within: duration("within", written.within)?,
        untagged: duration("untagged", written.untagged)?,
    })
}

fn patterns(
    texts: &[String],
    read: impl Fn(&str) -> Result<Pattern, PatternError>,
) -> Result<Vec<Pattern>, String> {
    texts.iter().map(|text| read(text).map_err(|error| format!("{text:?}: {error}"))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_read_or_the_wrong_one_is_named() {
        let rules = json!([{"repositories": ["team/**"], "newest": 3, "matching": ["v*"], "within": "720h"}]);
        let rules = read(&rules).unwrap();
        assert_eq!(rules[0].newest, Some(3));
        assert_eq!(rules[0].within, Some(Duration::from_hours(720)));
        let bad = [
            (json!({}), "must be a list"),
            (json!([{"repositories": []}]), "rule 1: repositories must name some"),
            (json!([{"repositories": ["a"]}, {"newest": 3}]), "rule 2: missing field `repositories`"),
            (json!([{"repositories": ["a b"]}]), "rule 1: \"a b\": no name can match"),
            (json!([{"repositories": ["a"], "within": "long"}]), "rule 1: within must be a duration"),
            (json!([{"repositories": ["a"], "newst": 1}]), "unknown field `newst`"),
            (json!([{"repositories": ["a"], "newest": -1}]), "rule 1: invalid value"),
        ];
        for (value, message) in bad {
            let error = read(&value).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
