//! What the file and the environment say, key by key: gathered, checked against the table and read as its type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use sampan_node::{Multiaddr, PeerId};
use serde_json::Value;

use super::keys::{self, Key, Kind, Standing};
use super::retention;
use super::source::{Environment, PREFIX, Source};
use super::{auth, file, following, form};
use crate::auth::Rules;
use crate::registry::Rule;
use crate::sync::Following;

/// Problems that are told; who has more has another file in hand.
const MAX_TOLD: usize = 20;

/// Kubernetes sets such variables for a service that is named `registry`; they say nothing about this program.
const SERVICE_LINKS: [&str; 2] = ["PORT", "SERVICE"];

/// What was said and could be read, by key.
#[derive(Debug, Default)]
pub(crate) struct Said {
    readings: BTreeMap<&'static str, (Reading, Source)>,
    /// Sections that were named, also where they say nothing.
    sections: BTreeSet<String>,
    /// What is known and does nothing, as it was said.
    pub(super) ignored: Vec<(&'static Key, Value, Source)>,
    pub(crate) warnings: Vec<Remark>,
    pub(crate) problems: Vec<Remark>,
}

/// Something about a key that the reader of the file should know.
#[derive(Debug)]
pub(crate) struct Remark {
    key: String,
    source: Source,
    text: String,
}

#[derive(Debug)]
enum Reading {
    Switch(bool),
    Text(String),
    Number(u64),
    Duration(Duration),
    Texts(Vec<String>),
    Headers(Vec<(String, String)>),
    Multiaddrs(Vec<Multiaddr>),
    Peers(Vec<PeerId>),
    Names(Vec<Following>),
    /// With what was written.
    Retention(Vec<Rule>, Value),
    Choices(Vec<String>),
    Rules(Rules),
    Open,
}

/// Values as they were said; what comes later stands above what came before.
#[derive(Default)]
struct Gathering {
    values: BTreeMap<&'static str, (Value, Source)>,
    said: Said,
}

impl Said {
    /// `tree` is that of a file; the environment stands above it.
    pub(crate) fn gather(tree: Option<(&Value, Source)>, environment: &Environment) -> Self {
        let mut gathering = Gathering::default();
        if let Some((tree, source)) = tree {
            gathering.walk("", tree, &source);
        }
        // Shorter names first: an element of a list stands above the whole of it.
        let mut variables: Vec<_> = environment.iter().filter(|(_, value)| !value.is_empty()).collect();
        variables.sort_by_key(|(name, _)| (name.len(), name.as_str()));
        for (name, value) in variables {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                gathering.variable(name, rest, value);
            }
        }
        gathering.read()
    }

    pub(super) fn switch(&self, key: &str) -> Option<(bool, Source)> {
        match self.readings.get(key)? {
            (Reading::Switch(switch), source) => Some((*switch, source.clone())),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<(String, Source)> {
        match self.readings.get(key)? {
            (Reading::Text(text), source) => Some((text.clone(), source.clone())),
            _ => None,
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<(u64, Source)> {
        match self.readings.get(key)? {
            (Reading::Number(number), source) => Some((*number, source.clone())),
            _ => None,
        }
    }

    pub(super) fn duration(&self, key: &str) -> Option<(Duration, Source)> {
        match self.readings.get(key)? {
            (Reading::Duration(duration), source) => Some((*duration, source.clone())),
            _ => None,
        }
    }

    pub(super) fn texts(&self, key: &str) -> Option<(Vec<String>, Source)> {
        match self.readings.get(key)? {
            (Reading::Texts(list), source) => Some((list.clone(), source.clone())),
            _ => None,
        }
    }

    pub(super) fn headers(&self, key: &str) -> Option<(Vec<(String, String)>, Source)> {
        match self.readings.get(key)? {
            (Reading::Headers(headers), source) => Some((headers.clone(), source.clone())),
            _ => None,
        }
    }

    pub(super) fn multiaddrs(&self, key: &str) -> Option<(Vec<Multiaddr>, Source)> {
        match self.readings.get(key)? {
            (Reading::Multiaddrs(list), source) => Some((list.clone(), source.clone())),
            _ => None,
        }
    }

    pub(super) fn peers(&self, key: &str) -> Option<(Vec<PeerId>, Source)> {
        match self.readings.get(key)? {
            (Reading::Peers(list), source) => Some((list.clone(), source.clone())),
            _ => None,
        }
    }

    pub(super) fn names(&self, key: &str) -> Option<(Vec<Following>, Source)> {
        match self.readings.get(key)? {
            (Reading::Names(list), source) => Some((list.clone(), source.clone())),
            _ => None,
        }
    }

    pub(super) fn retention(&self, key: &str) -> Option<(Vec<Rule>, Value, Source)> {
        match self.readings.get(key)? {
            (Reading::Retention(rules, value), source) => {
                Some((rules.clone(), value.clone(), source.clone()))
            }
            _ => None,
        }
    }

    pub(super) fn choices(&self, key: &str) -> Option<(Vec<String>, Source)> {
        match self.readings.get(key)? {
            (Reading::Choices(list), source) => Some((list.clone(), source.clone())),
            _ => None,
        }
    }

    pub(super) fn rules(&self, key: &str) -> Option<(Rules, Source)> {
        match self.readings.get(key)? {
            (Reading::Rules(rules), source) => Some((rules.clone(), source.clone())),
            _ => None,
        }
    }

    /// Whether anything was said below this path, or the section itself was.
    pub(super) fn names_section(&self, section: &str) -> bool {
        self.sections.contains(section) || self.readings.keys().any(|key| keys::is_below(key, section))
    }

    fn problem(&mut self, key: &str, source: &Source, text: String) {
        if self.problems.len() < MAX_TOLD {
            self.problems.push(Remark { key: key.to_owned(), source: source.clone(), text });
        }
    }

    fn warning(&mut self, key: &str, source: &Source, text: String) {
        if self.warnings.len() < MAX_TOLD {
            self.warnings.push(Remark { key: key.to_owned(), source: source.clone(), text });
        }
    }
}

impl Display for Remark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, source, text } = self;
        match source {
            Source::Environment(name) if key.is_empty() => write!(formatter, "{name} {text}"),
            _ => write!(formatter, "{source}: {key} {text}"),
        }
    }
}

impl Gathering {
    /// One value of the tree, with what lies inside. The depth is that of the table.
    fn walk(&mut self, path: &str, value: &Value, source: &Source) {
        if self.said.problems.len() >= MAX_TOLD {
            return;
        }
        if let Some(key) = keys::find(path) {
            // A key without a value takes nothing back.
            if !value.is_null() || key.kind.says_by_being() {
                self.values.insert(key.path, (value.clone(), source.clone()));
            }
            return;
        }
        if !keys::is_section(path) {
            let text = format!("is not known; the nearest is {}", keys::nearest(path));
            return self.said.problem(&shown(path), source, text);
        }
        if !path.is_empty() {
            self.said.sections.insert(path.to_owned());
        }
        match value {
            Value::Null => {}
            Value::Object(inside) => {
                for (name, value) in inside {
                    // A name with a dot in it would be taken for a path.
                    let name = name.replace('.', "_");
                    self.walk(&below(path, &name), value, source);
                }
            }
            // Distribution's short form: `storage: filesystem`.
            Value::String(name) if !path.is_empty() && is_known(&below(path, name)) => {
                self.walk(&below(path, name), &Value::Null, source);
            }
            _ if path.is_empty() => {
                self.said.problem("the whole", source, "must be sections of `key: value`".to_owned());
            }
            _ => self.said.problem(path, source, "must be a section of `key: value`".to_owned()),
        }
    }

    /// One `REGISTRY_…` variable, named by the rest.
    fn variable(&mut self, name: &str, rest: &str, value: &str) {
        let source = Source::Environment(shown(name));
        let path = rest.to_ascii_lowercase().replace('_', ".");
        let owner = keys::KEYS.iter().find(|key| key.kind.is_open() && keys::is_below(&path, key.path));
        let element = path.rsplit_once('.').and_then(|(list, place)| {
            let key = keys::find(list).filter(|key| key.kind.is_list())?;
            Some((key, place.parse::<usize>().ok()?))
        });
        if let Some(key) = keys::find(&path).or(owner) {
            let value = match (key.kind, value) {
                (Kind::Switch, "true") => Value::Bool(true),
                (Kind::Switch, "false") => Value::Bool(false),
                (Kind::Headers, text) => file::parse(text).unwrap_or_else(|_| Value::from(text)),
                (kind, text) if kind.is_yaml() && text.trim_start().starts_with('[') => {
                    file::parse(text).unwrap_or_else(|_| Value::from(text))
                }
                (Kind::Rules, text) => file::parse(text).unwrap_or_else(|_| Value::from(text)),
                (_, text) => Value::from(text),
            };
            self.values.insert(key.path, (value, source));
        } else if let Some((key, place)) = element {
            self.element(key, place, value, source);
        } else if keys::is_section(&path) {
            match file::parse(value) {
                Ok(tree) => self.walk(&path, &tree, &source),
                Err(error) => self.said.problem(&path, &source, format!("is no valid YAML: {error}")),
            }
        } else if !SERVICE_LINKS.iter().any(|link| rest == *link || rest.starts_with(&format!("{link}_"))) {
            let nearest = keys::nearest(&path).to_ascii_uppercase().replace('.', "_");
            self.said.warning("", &source, format!("is not known; the nearest is {PREFIX}{nearest}"));
        }
    }

    /// One element of a list in the place of another, or behind the last.
    fn element(&mut self, key: &'static Key, place: usize, value: &str, source: Source) {
        let mut list: Vec<Value> = match self.values.get(key.path) {
            Some((Value::Array(list), _)) => list.clone(),
            Some((value, _)) => texts(value).unwrap_or_default().into_iter().map(Value::from).collect(),
            None => Vec::new(),
        };
        let length = list.len();
        match list.get_mut(place) {
            Some(element) => *element = value.into(),
            None if place == length => list.push(value.into()),
            None => {
                let text = format!("has {length} elements, so the next is number {length}");
                return self.said.problem(key.path, &source, text);
            }
        }
        self.values.insert(key.path, (Value::from(list), source));
    }

    /// Each value by the standing and the kind of its key.
    fn read(self) -> Said {
        let Self { mut values, mut said } = self;
        // In the order of the table, which is that of the document.
        for key in keys::KEYS {
            let Some((value, source)) = values.remove(key.path) else { continue };
            if says_nothing(&value) && !key.kind.says_by_being() {
                continue;
            }
            if key.standing == Standing::Refused {
                if value != Value::Bool(false) {
                    said.problem(key.path, &source, format!("is refused: {}", plain(key.says)));
                }
                continue;
            }
            match read(key.kind, &value) {
                Err(text) => said.problem(key.path, &source, text),
                Ok(_) if key.standing == Standing::Ignored => {
                    said.warning(key.path, &source, format!("is ignored: {}", plain(key.says)));
                    said.ignored.push((key, value, source));
                }
                Ok(reading) => {
                    said.readings.insert(key.path, (reading, source));
                }
            }
        }
        // What is wrong with a value is told already; what is wrong with all of them together, only then.
        if said.problems.is_empty()
            && let Err(auth::Problem { key, source, text }) = auth::settings(&said)
        {
            said.problem(key, &source, text);
        }
        said
    }
}

/// A value as its kind, or what it should have been.
fn read(kind: Kind, value: &Value) -> Result<Reading, String> {
    let text = || match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match kind {
        Kind::Switch => {
            value.as_bool().map(Reading::Switch).ok_or_else(|| "must be true or false".to_owned())
        }
        Kind::Text => text().map(Reading::Text).ok_or_else(|| "must be a text".to_owned()),
        Kind::Address => {
            let port =
                |text: &str| text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let address = text().filter(|text| port(text) || text.starts_with('/')).map(Reading::Text);
            address.ok_or_else(|| "must be HOST:PORT, or :PORT for every interface".to_owned())
        }
        Kind::Choice(choices) => {
            let choice = text().filter(|text| choices.contains(&text.as_str())).map(Reading::Text);
            choice.ok_or_else(|| format!("must be {}", choices.join(" or ")))
        }
        Kind::Number => {
            let number = text().and_then(|text| text.parse().ok()).map(Reading::Number);
            number.ok_or_else(|| "must be a number that is not negative".to_owned())
        }
        Kind::Size => {
            let size = text().and_then(|text| form::size(&text)).map(Reading::Number);
            size.ok_or_else(|| "must be a number of bytes such as 4MiB".to_owned())
        }
        Kind::Duration => {
            let duration = text().and_then(|text| form::duration(&text)).map(Reading::Duration);
            duration.ok_or_else(|| "must be a duration such as 60s, 1h30m or 168h".to_owned())
        }
        Kind::Url => {
            let url = text().filter(|text| form::is_origin(text)).map(Reading::Text);
            url.ok_or_else(|| "must be a URL such as https://registry.example:5000".to_owned())
        }
        Kind::Path => {
            let path = text().filter(|text| form::is_path(text)).map(Reading::Text);
            path.ok_or_else(|| {
                "must be a path that begins with / and has letters, digits and -._~ only".to_owned()
            })
        }
        Kind::Texts => texts(value).map(Reading::Texts).ok_or_else(|| "must be a list of texts".to_owned()),
        Kind::Urls => {
            let urls = texts(value).filter(|urls| urls.iter().all(|url| form::is_origin(url)));
            urls.map(Reading::Texts)
                .ok_or_else(|| "must be URLs such as http://router.example:5000".to_owned())
        }
        Kind::Dns => {
            let server = text().filter(|text| form::dns(text).is_some()).map(Reading::Text);
            server.ok_or_else(|| "must be an IP address such as 192.0.2.1:53, or a URL such as https://dns.example/dns-query".to_owned())
        }
        Kind::Headers => form::headers(value).map(Reading::Headers),
        Kind::Multiaddrs => list(value, "a multiaddr such as /ip4/0.0.0.0/tcp/4001").map(Reading::Multiaddrs),
        Kind::Peers => list(value, "a peer id, which looks like 12D3Koo…").map(Reading::Peers),
        Kind::Names => following::read(value).map(Reading::Names),
        Kind::Retention => retention::read(value).map(|rules| Reading::Retention(rules, value.clone())),
        Kind::Choices(choices) => {
            let known = |text: &String| choices.contains(&text.as_str());
            let texts = texts(value).ok_or_else(|| format!("must be a list of {}", choices.join(", ")))?;
            if let Some(text) = texts.iter().find(|text| !known(text)) {
                return Err(format!("has {}, which is not one of {}", shown(text), choices.join(", ")));
            }
            Ok(Reading::Choices(texts))
        }
        Kind::Rules => Rules::read(value).map(Reading::Rules),
        Kind::Any | Kind::Driver => Ok(Reading::Open),
    }
}

fn list<T: FromStr>(value: &Value, what: &str) -> Result<Vec<T>, String> {
    let texts = texts(value).ok_or_else(|| format!("must be a list; each is {what}"))?;
    let parse = |text: &String| text.parse().map_err(|_| format!("has {}, which is not {what}", shown(text)));
    texts.iter().map(parse).collect()
}

/// The elements of a list, which may be one text with commas.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Some(parts.map(str::to_owned).collect())
        }
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Nothing, an empty section, list or text.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(section) => section.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_known(path: &str) -> bool {
    keys::find(path).is_some() || keys::is_section(path)
}

fn below(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// What the document says, within a line of text.
fn plain(says: &str) -> String {
    says.trim_end_matches('.').replace('`', "")
}

/// A foreign text, short enough for a line.
pub(super) fn shown(text: &str) -> String {
    const MAX: usize = 100;
    let clean = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    clean.take(MAX).collect()
}
