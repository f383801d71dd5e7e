//! What a part of a bundle says of itself: its first block, JSON. Nothing in it is signed: it tells what to expect, and
//! all that is taken is checked against the record and the blocks.

use anyhow::{Context, bail};
use sampan_node::Name;
use sampan_storage::Cid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version that is written, and the newest that is read.
pub(crate) const VERSION: u32 = 1;
/// A name, three CIDs and a pattern of 255 letters take less than half of it.
pub(crate) const MAX_DESCRIPTION: usize = 4096;
/// Parts of one bundle: each is a file that somebody carries, and all their names fit into one question.
pub(crate) const MAX_PARTS: u32 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    #[serde(rename = "sampan-bundle")]
    pub(crate) version: u32,
    pub(crate) name: Name,
    pub(crate) sequence: u64,
    #[serde(with = "text")]
    pub(crate) root: Cid,
    /// The root whose blocks are left out.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe")]
    pub(crate) base: Option<Cid>,
    /// The raw block that is the record.
    #[serde(with = "text")]
    pub(crate) record: Cid,
    /// Repositories whose blobs go along, where these are not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repositories: Option<String>,
    /// From 1 to `parts`.
    pub(crate) part: u32,
    pub(crate) parts: u32,
    /// The first block goes on with what the part before has begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) continues: bool,
    /// Blocks of the tree in this part, and in those after it.
    pub(crate) tree: u64,
    pub(crate) tree_left: u64,
    /// Blocks of blobs in this part.
    pub(crate) blobs: u64,
}

impl Description {
    pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Marked {
            #[serde(rename = "sampan-bundle")]
            version: u32,
        }
        if bytes.len() > MAX_DESCRIPTION {
            bail!("it is no bundle");
        }
        let marked: Marked = serde_json::from_slice(bytes).ok().context("it is no bundle")?;
        if marked.version > VERSION {
            bail!("it was made by a newer version of sampan (bundle {}); upgrade sampan", marked.version);
        }
        let description: Self = serde_json::from_slice(bytes).context("its description cannot be read")?;
        let Self { part, parts, .. } = description;
        if part == 0 || part > parts || parts > MAX_PARTS {
            bail!("its description cannot be read: part {part} of {parts}");
        }
        Ok(description)
    }

    pub(crate) fn encode(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Whether both are of one bundle.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        let bare =
            |it: &Self| Self { part: 1, continues: false, tree: 0, tree_left: 0, blobs: 0, ..it.clone() };
        bare(self) == bare(other)
    }
}

/// CIDs as people see them.
mod text {
    use super::{Cid, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Cid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| serde::de::Error::custom("no CID"))
    }
}

mod maybe {
    use super::{Cid, Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Cid>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(cid) => serializer.collect_str(cid),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cid>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|_| serde::de::Error::custom("no CID"))
    }
}
