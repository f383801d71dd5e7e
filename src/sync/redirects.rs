//! What a follower has been told of where to look, kept over a restart: records of names that have moved, what
//! followed domains pointed to last, and the names that members have told of. Without it, a start without the DNS, without
//! the old name's publisher or without the other members would go back to the trees before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use data_encoding::BASE64;
use sampan_node::ipns::{Record, Verified};
use sampan_node::{Name, replace_file};
use serde::{Deserialize, Serialize};

use crate::content::{Address, Domain};

/// In the data directory.
const FILE: &str = "redirects.json";
/// The file is as large as this at most: 256 records of 10 KiB in base64, and as many domains.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// As many as the node follows.
const MAX_EACH: usize = 256;
/// More boards than one switch has ports, and half of what the node follows.
const MAX_FOUND: usize = 128;

/// Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Redirects {
    path: Arc<PathBuf>,
    kept: Arc<Mutex<Kept>>,
}

/// As in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// The record of a name that has moved, by that name.
    #[serde(default)]
    moved: BTreeMap<String, String>,
    /// `/ipns/…` or `/ipfs/…`, by domain.
    #[serde(default)]
    domains: BTreeMap<String, String>,
    /// Names that members have told of.
    #[serde(default)]
    found: BTreeSet<String>,
}

impl Redirects {
    /// Blocks.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let damaged =
            || format!("{} cannot be read; without it followers begin where they began", path.display());
        let kept = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error).with_context(damaged),
            Ok(metadata) if metadata.len() > MAX_FILE => anyhow::bail!(damaged()),
            Ok(_) => serde_json::from_slice(&fs::read(&path).with_context(damaged)?).with_context(damaged)?,
        };
        Ok(Self { path: Arc::new(path), kept: Arc::new(Mutex::new(kept)) })
    }

    /// The record that says where a name has moved.
    pub(crate) fn moved(&self, name: &Name) -> Option<Verified> {
        let text = self.lock().moved.get(&name.to_string()).cloned()?;
        let bytes = BASE64.decode(text.as_bytes()).ok()?;
        Record::decode(Bytes::from(bytes)).and_then(|record| record.verify_signature(name)).ok()
    }

    /// What a domain pointed to last.
    pub(crate) fn domain(&self, domain: &Domain) -> Option<Address> {
        self.lock().domains.get(domain.as_str()).and_then(|text| text.parse().ok())
    }

    /// The names that members have told of, in their order.
    pub(crate) fn found(&self) -> Vec<Name> {
        self.lock().found.iter().filter_map(|name| name.parse().ok()).collect()
    }

    pub(crate) fn is_found(&self, name: &Name) -> bool {
        self.lock().found.contains(&name.to_string())
    }

    /// A member has told of this name. Whether there is room for it. Blocks; durable when it returns.
    pub(crate) fn add_found(&self, name: &Name) -> anyhow::Result<bool> {
        self.change(|kept| {
            if kept.found.len() < MAX_FOUND {
                kept.found.insert(name.to_string());
            }
        })?;
        Ok(self.is_found(name))
    }

    /// Members are followed no longer. Blocks.
    pub(crate) fn forget_found(&self) -> anyhow::Result<()> {
        self.change(|kept| kept.found.clear())
    }

    /// Blocks; durable when it returns.
    pub(crate) fn set_moved(&self, record: &Verified) -> anyhow::Result<()> {
        let (name, text) = (record.name().to_string(), BASE64.encode(record.bytes()));
        self.change(|kept| put(&mut kept.moved, name, text))
    }

    /// Blocks; durable when it returns.
    pub(crate) fn set_domain(&self, domain: &Domain, address: &Address) -> anyhow::Result<()> {
        let (domain, text) = (domain.to_string(), address.to_string());
        self.change(|kept| put(&mut kept.domains, domain, text))
    }

    /// What is followed no longer needs nothing here. Blocks.
    pub(crate) fn forget(&self, pointer: &str) -> anyhow::Result<()> {
        self.change(|kept| {
            kept.moved.remove(pointer);
            kept.domains.remove(pointer);
            kept.found.remove(pointer);
        })
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) -> anyhow::Result<()> {
        let mut kept = self.lock();
        let mut changed = kept.clone();
        change(&mut changed);
        if changed != *kept {
            replace_file(&self.path, &serde_json::to_vec_pretty(&changed)?)?;
            *kept = changed;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(map: &mut BTreeMap<String, String>, key: String, value: String) {
    if map.len() < MAX_EACH || map.contains_key(&key) {
        map.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use sampan_node::Keypair;
    use sampan_node::ipns::Draft;

    use super::*;

    #[test]
    fn what_was_told_is_known_again_and_forgotten_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (Keypair::generate(), Keypair::generate());
        let record = Record::sign(&old, &Draft::to_name(&new.name(), 7, SystemTime::now())).unwrap();
        let domain: Domain = "a.example".parse().unwrap();
        let address: Address = format!("/ipns/{}", new.name()).parse().unwrap();
        let redirects = Redirects::load(dir.path()).unwrap();
        redirects.set_moved(&record).unwrap();
        redirects.set_domain(&domain, &address).unwrap();
        assert!(redirects.add_found(&new.name()).unwrap());
        let redirects = Redirects::load(dir.path()).unwrap();
        assert_eq!(redirects.moved(&old.name()), Some(record));
        assert_eq!(redirects.domain(&domain), Some(address));
        redirects.forget(&old.name().to_string()).unwrap();
        redirects.forget("a.example").unwrap();
        assert_eq!(redirects.found(), [new.name()]);
        redirects.forget(&new.name().to_string()).unwrap();
        assert!(!redirects.is_found(&new.name()));
        let redirects = Redirects::load(dir.path()).unwrap();
        assert_eq!((redirects.moved(&old.name()), redirects.domain(&domain)), (None, None));
    }

    #[test]
    fn a_record_that_was_changed_on_the_disk_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (Keypair::generate(), Keypair::generate());
        let record = Record::sign(&new, &Draft::to_name(&new.name(), 7, SystemTime::now())).unwrap();
        let text = BASE64.encode(record.bytes());
        let file = serde_json::json!({"moved": {(old.name().to_string()): text}});
        fs::write(dir.path().join(FILE), file.to_string()).unwrap();
        assert_eq!(Redirects::load(dir.path()).unwrap().moved(&old.name()), None);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Redirects::load(dir.path()).unwrap_err().to_string().contains(FILE));
    }
}
