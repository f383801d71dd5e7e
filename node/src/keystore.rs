//! The directory of keys: each under a label, with the last record that was signed with it beside it.
//!
//! `self` is the registry's own; its record is kept by the program. These functions block.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ipns::{Draft, MAX_RECORD, Record, Verified};
use crate::key::{KeyError, KeyFault, KeyFile, Keypair, read_file, replace_file};
use crate::name::Name;

/// Keys of one node; each that publishes takes one of the node's names and topics.
pub const MAX_KEYS: usize = 64;

const KEY: &str = "key";
const RECORD: &str = "record";
/// The key that comes after `self` while a rotation is under way.
const NEXT: &str = "next";
const MAX_LABEL: usize = 64;

/// What a key is called here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is called by up to 64 of the characters a-z, 0-9, - and _, and begins with a letter or digit")]
pub struct ParseLabelError;

/// Keys at rest.
#[derive(Clone, Debug)]
pub struct Keystore {
    directory: PathBuf,
}

/// What became of a rotation.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// What the old key is called from now on.
    pub label: Label,
    pub old: Name,
    pub new: Name,
}

impl Label {
    /// The registry's own key.
    pub fn own() -> Self {
        Self("self".to_owned())
    }

    pub fn is_own(&self) -> bool {
        self.0 == "self"
    }

    /// The key of the name under which the registry's members find all of it.
    pub fn members() -> Self {
        Self("registry-members".to_owned())
    }

    /// Whether the registry alone publishes with this key.
    pub fn is_reserved(&self) -> bool {
        self.is_own() || *self == Self::members()
    }
}

impl Keystore {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// What the keys are called, in order. Files with other names are not ours.
    pub fn labels(&self) -> Result<Vec<Label>, KeyError> {
        let io = |source| KeyError::Io { path: self.directory.clone(), source };
        let mut labels = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let label = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if path.extension().is_some_and(|extension| extension == KEY)
                && let Some(label) = label
            {
                labels.push(label);
            }
        }
        labels.sort();
        labels.truncate(MAX_KEYS);
        Ok(labels)
    }

    pub fn load(&self, label: &Label) -> Result<Keypair, KeyError> {
        KeyFile::load(self.path(label, KEY))
    }

    /// Keeps a new key. One key has one label.
    pub fn create(&self, label: &Label, key: &Keypair) -> Result<(), KeyError> {
        if self.directory.exists() {
            let labels = self.labels()?;
            if labels.len() >= MAX_KEYS {
                return Err(KeyError::TooMany { directory: self.directory.clone() });
            }
            for other in labels {
                if self.load(&other)?.name() == key.name() {
                    return Err(KeyError::Exists { path: self.path(&other, KEY) });
                }
            }
        }
        KeyFile::create(self.path(label, KEY), key)
    }

    /// The last record that was signed with a key, whether or not it has expired.
    pub fn record(&self, label: &Label) -> Result<Option<Verified>, KeyError> {
        let path = self.path(label, RECORD);
        let bytes = match read_file(&path, MAX_RECORD as u64 + 1) {
            Err(KeyError::Missing { .. }) => return Ok(None),
            result => result?,
        };
        let name = self.load(label)?.name();
        let record = Record::decode(bytes).and_then(|record| record.verify_signature(&name));
        record.map(Some).map_err(|fault| KeyError::Record { path, fault })
    }

    /// Keeps the last record of a key; durable when this returns, and only then may anyone hear of it.
    pub fn keep_record(&self, label: &Label, record: &Bytes) -> Result<(), KeyError> {
        replace_file(&self.path(label, RECORD), record)
    }

    /// Puts a new key in the place of `self`. The old one stays under another label, with a last record that points to
    /// the new name. `last` is the sequence of the old name so far.
    pub fn rotate(&self, last: u64, now: SystemTime) -> Result<Rotated, KeyError> {
        // One that was cut short after its record was written counts as done.
        if let Some(rotated) = self.finish_rotation()? {
            return Ok(rotated);
        }
        let own = self.load(&Label::own())?;
        let new = KeyFile::load_or_create(self.directory.join(NEXT))?;
        let label = self.retired(&own)?;
        let draft = Draft::to_name(&new.name(), last.saturating_add(1), now);
        let path = self.path(&label, RECORD);
        let record = Record::sign(&own, &draft).map_err(|fault| KeyError::Record { path, fault })?;
        self.keep_record(&label, record.bytes())?;
        self.finish_rotation()?
            .ok_or_else(|| KeyError::Damaged { path: self.directory.join(NEXT), fault: KeyFault::Malformed })
    }

    /// Ends a rotation that was cut short after the last record of the old name was written. To be called before the
    /// key `self` is used.
    pub fn finish_rotation(&self) -> Result<Option<Rotated>, KeyError> {
        let next = self.directory.join(NEXT);
        let new = match KeyFile::load(&next) {
            Err(KeyError::Missing { .. }) => return Ok(None),
            result => result?.name(),
        };
        let old = self.load(&Label::own())?.name();
        for label in self.labels()?.into_iter().filter(|label| !label.is_own()) {
            let record = self.record(&label)?;
            if record.is_some_and(|record| *record.name() == old && record.target() == Some(new)) {
                let path = self.path(&Label::own(), KEY);
                let moved =
                    fs::rename(&next, &path).and_then(|()| fs::File::open(&self.directory)?.sync_all());
                moved.map_err(|source| KeyError::Io { path, source })?;
                return Ok(Some(Rotated { label, old, new }));
            }
        }
        Ok(None)
    }

    /// Keeps the own key under a second label: the one that it has already after a rotation that was cut short.
    fn retired(&self, own: &Keypair) -> Result<Label, KeyError> {
        let labels = self.labels()?;
        for label in labels.iter().filter(|label| !label.is_own()) {
            if self.load(label)?.name() == own.name() {
                return Ok(label.clone());
            }
        }
        if labels.len() >= MAX_KEYS {
            return Err(KeyError::TooMany { directory: self.directory.clone() });
        }
        let mut free = (1..=MAX_KEYS).map(|number| Label(format!("retired-{number}")));
        let free = free.find(|label| !labels.contains(label));
        let label = free.ok_or_else(|| KeyError::TooMany { directory: self.directory.clone() })?;
        KeyFile::create(self.path(&label, KEY), own)?;
        Ok(label)
    }

    fn path(&self, label: &Label, extension: &str) -> PathBuf {
        self.directory.join(Path::new(&label.0).with_extension(extension))
    }
}

impl FromStr for Label {
    type Err = ParseLabelError;

    fn from_str(text: &str) -> Result<Self, ParseLabelError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= MAX_LABEL && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseLabelError)
        }
    }
}

impl TryFrom<String> for Label {
    type Error = ParseLabelError;

    fn try_from(text: String) -> Result<Self, ParseLabelError> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Keystore, Keypair) {
        let directory = tempfile::tempdir().unwrap();
        let store = Keystore::new(directory.path().join("keys"));
        let own = Keypair::generate();
        store.create(&Label::own(), &own).unwrap();
        (directory, store, own)
    }

    #[test]
    fn after_a_rotation_the_old_name_points_to_the_new_one_with_a_higher_sequence() {
        let (_directory, store, own) = store();
        let rotated = store.rotate(7, SystemTime::now()).unwrap();
        let new = store.load(&Label::own()).unwrap().name();
        assert_eq!((rotated.old, rotated.new), (own.name(), new));
        assert_ne!(new, own.name());
        let last = store.record(&rotated.label).unwrap().unwrap();
        assert_eq!((last.name(), last.target(), last.sequence()), (&own.name(), Some(new), 8));
        assert_eq!(last.cid(), None);
        assert_eq!(store.labels().unwrap().len(), 2);
        // And once more: a chain.
        let again = store.rotate(8, SystemTime::now()).unwrap();
        assert_eq!(again.old, new);
        assert_eq!(store.labels().unwrap().len(), 3);
    }

    #[test]
    fn a_rotation_that_was_cut_short_is_ended_or_begun_again() {
        let (_directory, store, own) = store();
        // Before the record: nothing has happened yet.
        let next = KeyFile::load_or_create(store.directory.join(NEXT)).unwrap();
        let label = store.retired(&own).unwrap();
        assert!(store.finish_rotation().unwrap().is_none());
        assert_eq!(store.load(&Label::own()).unwrap().name(), own.name());
        // After it, and before the new key is in its place.
        let draft = Draft::to_name(&next.name(), 1, SystemTime::now());
        store.keep_record(&label, Record::sign(&own, &draft).unwrap().bytes()).unwrap();
        let rotated = store.finish_rotation().unwrap().unwrap();
        assert_eq!((rotated.label, rotated.new), (label, next.name()));
        assert_eq!(store.load(&Label::own()).unwrap().name(), next.name());
        assert!(store.finish_rotation().unwrap().is_none());
    }

    #[test]
    fn one_key_has_one_label_and_a_label_is_no_path() {
        let (_directory, store, own) = store();
        let second: Label = "second".parse().unwrap();
        assert!(matches!(store.create(&second, &own), Err(KeyError::Exists { .. })));
        store.create(&second, &Keypair::generate()).unwrap();
        assert!(matches!(store.create(&second, &Keypair::generate()), Err(KeyError::Exists { .. })));
        for bad in ["", "../x", "a/b", "a.b", "-a", "A", "ü", &"a".repeat(65)] {
            assert_eq!(bad.parse::<Label>(), Err(ParseLabelError), "{bad:?}");
        }
    }

    #[test]
    fn a_record_of_another_key_is_refused_by_name() {
        let (_directory, store, _) = store();
        let draft = Draft::to_name(&Keypair::generate().name(), 1, SystemTime::now());
        let foreign = Record::sign(&Keypair::generate(), &draft).unwrap();
        store.keep_record(&Label::own(), foreign.bytes()).unwrap();
        let error = store.record(&Label::own()).unwrap_err();
        assert!(
            matches!(error, KeyError::Record { .. }) && error.to_string().contains("self.record"),
            "{error}"
        );
    }
}
