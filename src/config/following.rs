//! The list `ipfs.follow`: names, or sections that say more of one.

use sampan_storage::RepositoryName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::form;
use super::said::shown;
use crate::pattern::Pattern;
use crate::sync::{Following, Policy, Whom};

/// More is another kind of program.
const MAX_FOLLOWED: usize = 1000;

const NAME: &str = "the name of a registry, which looks like k51… or example.org, or auto";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    policy: Option<String>,
    #[serde(default)]
    repositories: Vec<String>,
    prefix: Option<String>,
    rate: Option<Value>,
    max_stale: Option<String>,
}

/// The names, or which of them is wrong and how.
pub(super) fn read(value: &Value) -> Result<Vec<Following>, String> {
    let items = match value {
        Value::String(text) => text.split(',').map(|part| Value::from(part.trim())).collect(),
        Value::Array(items) if items.len() <= MAX_FOLLOWED => items.clone(),
        _ => return Err(format!("must be a list; each is {NAME}")),
    };
    items.iter().filter(|item| item.as_str() != Some("")).map(read_one).collect()
}

/// As it would be written.
pub(super) fn write(following: &[Following]) -> Value {
    following.iter().map(write_one).collect()
}

fn read_one(value: &Value) -> Result<Following, String> {
    let name = |text: &str| text.parse().map_err(|_| format!("has {}, which is not {NAME}", shown(text)));
    if let Some(text) = value.as_str() {
        return name(text).map(Following::plain);
    }
    if !value.is_object() {
        return Err(format!("must be a list; each is {NAME}"));
    }
    let written = Written::deserialize(value).map_err(|error| {
        format!("has an element that is not right: {error}; it may have name, policy, repositories, prefix, rate and max_stale")
    })?;
    let wrong = |text: &str| Err(format!("has {}: {text}", shown(&written.name)));
    let mut following = Following::plain(name(&written.name)?);
    let is_auto = following.whom == Whom::Members;
    following.policy = match written.policy.as_deref() {
        None | Some("cache") => Policy::Cache,
        Some("mirror") => Policy::Mirror,
        Some(_) => return wrong("policy must be cache or mirror"),
    };
    for text in &written.repositories {
        match Pattern::of_repositories(text) {
            Ok(pattern) => following.repositories.push(pattern),
            Err(error) => return wrong(&format!("{}: {error}", shown(text))),
        }
    }
    if let Some(prefix) = &written.prefix {
        let prefix = prefix.trim_matches('/');
        if prefix.parse::<RepositoryName>().is_err() {
            return wrong("prefix must be the beginning of a repository's name, such as mirror/acme");
        }
        if is_auto {
            return wrong(
                "members write the same repositories, which have the same name everywhere: no prefix",
            );
        }
        following.prefix = Some(prefix.to_owned());
    }
    if let Some(rate) = &written.rate {
        let text =
            rate.as_str().map_or_else(|| rate.to_string(), |text| text.trim_end_matches("/s").to_owned());
        following.rate = form::size(&text).filter(|rate| *rate > 0);
        if following.rate.is_none() {
            return wrong("rate must be bytes in a second such as 4MiB");
        }
    }
    if let Some(text) = &written.max_stale {
        following.max_stale = form::duration(text);
        if following.max_stale.is_none() {
            return wrong("max_stale must be a duration such as 168h");
        }
    }
    Ok(following)
}

fn write_one(following: &Following) -> Value {
    let name = following.whom.to_string();
    if following.is_plain() {
        return name.into();
    }
    let mut written = json!({"name": name, "policy": following.policy.to_string()});
    let repositories: Vec<&str> = following.repositories.iter().map(Pattern::as_str).collect();
    if let Some(object) = written.as_object_mut() {
        let mut put =
            |key: &str, value: Option<Value>| object.extend(value.map(|value| (key.to_owned(), value)));
        put("repositories", (!repositories.is_empty()).then(|| repositories.into()));
        put("prefix", following.prefix.clone().map(Value::from));
        put("rate", following.rate.map(Value::from));
        put("max_stale", following.max_stale.map(|time| format!("{}s", time.as_secs()).into()));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr";

    #[test]
    fn names_and_sections_stand_in_one_list() {
        let list = json!([
            KEY,
            {"name": "example.org", "policy": "mirror", "repositories": ["app/**"], "prefix": "mirror/acme", "rate": "4MiB", "max_stale": "168h"},
        ]);
        let read = read(&list).unwrap();
        assert!(read[0].is_plain());
        assert_eq!(read[1].policy, Policy::Mirror);
        assert!(read[1].shows("app/web") && !read[1].shows("other"));
        assert_eq!((read[1].prefix.as_deref(), read[1].rate), (Some("mirror/acme"), Some(4 << 20)));
        assert_eq!(read[1].max_stale, Some(std::time::Duration::from_hours(168)));
        let written = write(&read);
        assert_eq!(written[0], KEY);
        assert_eq!(super::read(&written).unwrap(), read);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let bad = [
            (json!({"a": "b"}), "must be a list"),
            (json!([1]), "must be a list"),
            (json!(["no name"]), "has no name, which is not the name of a registry"),
            (json!([{"name": "example.org", "polcy": "mirror"}]), "unknown field `polcy`"),
            (json!([{"policy": "mirror"}]), "missing field `name`"),
            (
                json!([{"name": "example.org", "policy": "all"}]),
                "example.org: policy must be cache or mirror",
            ),
            (json!([{"name": "example.org", "repositories": ["a b"]}]), "a b: no name can match"),
            (json!([{"name": "example.org", "prefix": "../up"}]), "prefix must be the beginning"),
            (json!([{"name": "example.org", "max_stale": "old"}]), "max_stale must be a duration"),
            (json!([{"name": "example.org", "rate": "fast"}]), "rate must be bytes in a second"),
        ];
        for (value, message) in bad {
            let error = read(&value).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
