//! Content as it is written: `/ipfs/<cid>/…` and `/ipns/<name>/…`; a command may leave the first part out.

use std::fmt;
use std::str::FromStr;

use sampan_node::Name;
use sampan_storage::Cid;
use sampan_storage::dag::path::{MAX_PATH, Resolved};

use super::{Content, ContentError, Domain, Names, Pointer, Reach, parse_cid};

/// Where a path begins, and the names below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) root: Root,
    pub(crate) path: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Cid(Cid),
    Name(Name),
    Domain(Domain),
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
            "ipns" => root.parse::<Pointer>().ok().map(Root::from),
            _ => None,
        };
        let root = root.filter(|_| path.len() <= MAX_PATH).ok_or(ParseAddressError)?;
        Ok(Self { root, path })
    }
}

impl From<Pointer> for Root {
    fn from(pointer: Pointer) -> Self {
        match pointer {
            Pointer::Name(name) => Self::Name(name),
            Pointer::Domain(domain) => Self::Domain(domain),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Cid(cid) => write!(f, "/ipfs/{cid}")?,
            Root::Name(name) => write!(f, "/ipns/{name}")?,
            Root::Domain(domain) => write!(f, "/ipns/{domain}")?,
        }
        self.path.iter().try_for_each(|name| write!(f, "/{name}"))
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
        let target = names.resolve(address.clone(), reach).await?;
        Ok((self.find(target.root, target.path, reach).await?, target.max_age))
    }
}
