//! Content as it is written: `/ipfs/<cid>/…` and `/ipns/<name>/…`; a command may leave the first part out.

use std::str::FromStr;

use sampan_node::Name;
use sampan_storage::Cid;
use sampan_storage::dag::path::{MAX_PATH, Resolved};

use super::{Content, ContentError, Names, Reach, parse_cid};

/// Where a path begins, and the names below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) root: Root,
    pub(crate) path: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Cid(Cid),
    Name(Name),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a path of content looks like /ipfs/<cid>/name or /ipns/<name>/name, with at most {MAX_PATH} names")]
pub(crate) struct ParseAddressError;

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let mut parts = text.split('/').filter(|part| !part.is_empty()).map(str::to_owned);
        let first = parts.next().ok_or(ParseAddressError)?;
        let (space, root) = match first.as_str() {
            "ipfs" | "ipns" => (first, parts.next().ok_or(ParseAddressError)?),
            _ => ("ipfs".to_owned(), first),
        };
        Self::of(&space, &root, parts.collect())
    }
}

impl Address {
    /// `space` is `ipfs` or `ipns`.
    pub(crate) fn of(space: &str, root: &str, path: Vec<String>) -> Result<Self, ParseAddressError> {
        let root = match space {
            "ipfs" => parse_cid(root).map(Root::Cid),
            "ipns" => root.parse().ok().map(Root::Name),
            _ => None,
        };
        let root = root.filter(|_| path.len() <= MAX_PATH).ok_or(ParseAddressError)?;
        Ok(Self { root, path })
    }
}

impl Content {
    /// Where an address leads, and for how many seconds that may be believed where it begins with a name.
    pub(crate) async fn locate(
        &self,
        names: &Names,
        address: &Address,
        reach: Reach,
    ) -> Result<(Resolved, Option<u64>), ContentError> {
        let (root, mut path, age) = match &address.root {
            Root::Cid(cid) => (*cid, Vec::new(), None),
            Root::Name(name) => {
                let target = names.resolve(*name, reach).await?;
                (target.root, target.path, Some(target.max_age))
            }
        };
        path.extend(address.path.iter().cloned());
        Ok((self.find(root, path, reach).await?, age))
    }
}
