//! Takes values out of what was said, with their defaults, and notes each as it counts for `config show`.

use std::time::Duration;

use serde_json::Value;

use super::{Said, Setting, Source, form};
use crate::registry::Rule;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    said: &'a Said,
    settings: &'a mut Vec<Setting>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(said: &'a Said, settings: &'a mut Vec<Setting>) -> Self {
        Self { said, settings }
    }

    pub(super) fn switch(&mut self, key: &'static str, default: bool) -> bool {
        let (switch, source) = self.said.switch(key).unwrap_or((default, Source::Default));
        self.note(key, switch, source);
        switch
    }

    pub(super) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let (duration, source) = self.said.duration(key).unwrap_or((default, Source::Default));
        self.note(key, form::duration_text(duration), source);
        duration
    }

    pub(super) fn choices(&mut self, key: &'static str) {
        let (choices, source) = self.said.choices(key).unwrap_or_default();
        self.note(key, choices, source);
    }

    pub(super) fn rules(&mut self, key: &'static str) {
        let (rules, source) = self.said.rules(key).unwrap_or_default();
        self.note(key, rules.describe(), source);
    }

    /// A duration that has no default.
    pub(super) fn given_duration(&mut self, key: &'static str) -> Option<Duration> {
        let (duration, source) = self.said.duration(key).unzip();
        self.note(key, duration.map(form::duration_text), source.unwrap_or_default());
        duration
    }

    pub(super) fn retention(&mut self, key: &'static str) -> Vec<Rule> {
        let (rules, written, source) = self.said.retention(key).unwrap_or_default();
        self.note(key, written, source);
        rules
    }

    pub(super) fn number(&mut self, key: &'static str, default: u64) -> u64 {
        let (number, source) = self.said.number(key).unwrap_or((default, Source::Default));
        self.note(key, number, source);
        number
    }

    pub(super) fn size(&mut self, key: &'static str, default: u64) -> u64 {
        let (size, source) = self.said.number(key).unwrap_or((default, Source::Default));
        self.note(key, form::size_text(size), source);
        size
    }

    /// A number of bytes that has no default.
    pub(super) fn given_size(&mut self, key: &'static str) -> Option<u64> {
        let (size, source) = self.said.number(key).unzip();
        self.note(key, size.map(form::size_text), source.unwrap_or_default());
        size
    }

    /// A text, or the default.
    pub(super) fn text(&mut self, key: &'static str, default: &str) -> String {
        let (text, source) = self.said.text(key).unwrap_or_else(|| (default.to_owned(), Source::Default));
        self.note(key, text.as_str(), source);
        text
    }

    /// A text that has no default.
    pub(super) fn given(&mut self, key: &'static str) -> Option<String> {
        let said = self.said.text(key);
        let source = said.as_ref().map(|(_, source)| source.clone()).unwrap_or_default();
        let text = said.map(|(text, _)| text);
        self.note(key, text.clone(), source);
        text
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Vec<String> {
        let (texts, source) = self.said.texts(key).unwrap_or_default();
        self.note(key, texts.clone(), source);
        texts
    }

    pub(super) fn headers(&mut self, key: &'static str) -> Vec<(String, String)> {
        let (headers, source) = self.said.headers(key).unwrap_or_default();
        let shown: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        self.note(key, shown, source);
        headers
    }

    fn note(&mut self, key: &'static str, value: impl Into<Value>, source: Source) {
        self.settings.push(Setting { key, value: value.into(), source, ignored: false });
    }
}
