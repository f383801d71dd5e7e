//! The configuration file. Keys that are not known are an error.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use sampan_node::{Multiaddr, Name};
use serde::{Deserialize, Deserializer};

use super::{Anonymous, Network};

/// A configuration file is some lines; what is longer is another file.
const MAX_FILE: u64 = 1024 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// Distribution's format version; `0.1` is the only one there is.
    pub(super) version: Option<Scalar>,
    pub(super) http: Http,
    pub(super) storage: Storage,
    pub(super) ipfs: Ipfs,
    pub(super) anonymous: Option<Anonymous>,
    /// Accept manifests whose blobs are missing.
    pub(super) sparse: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    pub(super) addr: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Storage {
    pub(super) filesystem: Filesystem,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filesystem {
    pub(super) rootdirectory: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ipfs {
    pub(super) network: Option<Network>,
    #[serde(deserialize_with = "parsed")]
    pub(super) listen: Vec<Multiaddr>,
    #[serde(deserialize_with = "parsed")]
    pub(super) peers: Vec<Multiaddr>,
    #[serde(deserialize_with = "parsed")]
    pub(super) follow: Vec<Name>,
    pub(super) swarmkey: Option<PathBuf>,
}

/// A value that YAML may take for a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "the version is accepted and says nothing yet")]
pub(super) enum Scalar {
    Number(f64),
    Text(String),
}

impl File {
    pub(super) fn data(&self) -> Option<PathBuf> {
        self.storage.filesystem.rootdirectory.clone()
    }
}

pub(super) fn read(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    let length = std::fs::metadata(path).with_context(|| format!("{shown} cannot be read"))?.len();
    if length > MAX_FILE {
        return Err(anyhow!("{shown} is longer than 1 MiB and no configuration file"));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
    parse(&text).with_context(|| format!("{shown} is no valid configuration"))
}

fn parse(text: &str) -> anyhow::Result<File> {
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        // The library's message draws the place; the first line says what is wrong and where.
        anyhow!("{}", error.to_string().lines().next().unwrap_or_default().to_owned())
    })
}

/// A list of texts, each read as its type.
fn parsed<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_shape_of_distribution_is_read() {
        let text = "version: 0.1\nhttp:\n  addr: :5000\nstorage:\n  filesystem:\n    rootdirectory: /data\n\
                    ipfs:\n  network: private\n  follow:\n    - \
                    k51qzi5uqu5dilisnqdpktic6r9zfvlb889l47pt9fjm0asnmbihd64myweskr\nanonymous: push\n";
        let file = parse(text).unwrap();
        assert_eq!(file.http.addr.as_deref(), Some(":5000"));
        assert_eq!(file.data(), Some(PathBuf::from("/data")));
        assert_eq!(file.ipfs.network, Some(Network::Private));
        assert_eq!(file.ipfs.follow.len(), 1);
        assert_eq!(file.anonymous, Some(Anonymous::Push));
    }

    #[test]
    fn an_unknown_key_and_a_wrong_name_are_errors_of_one_line() {
        for text in ["htpp:\n  addr: x\n", "ipfs:\n  follow: [nonsense]\n", "http: [\n"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
        assert!(parse("").unwrap().http.addr.is_none());
    }
}
