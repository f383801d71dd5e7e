//! Paths of the registry tree: the layout that CNCF Distribution's filesystem driver uses, so that an exported
//! tree serves from a stock Distribution (its `registry/storage/paths.go`). `_referrers`, `_counters` and
//! `mediatype` are ours and lie where Distribution does not look.

use bytes::Bytes;

use crate::digest::Digest;
use crate::name::{RepositoryName, Tag};

pub const REPOSITORIES: &str = "docker/registry/v2/repositories";
pub const BLOBS: &str = "docker/registry/v2/blobs";

/// A link file holds a digest as text; sha512 makes 135 bytes.
pub const MAX_LINK: u64 = 256;

/// What a path of the tree stands for. Paths that mean nothing to a registry are not parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Blob(Digest),
    Layer(RepositoryName, Digest),
    Revision(RepositoryName, Digest),
    Tag(RepositoryName, Tag),
    Referrer { repository: RepositoryName, subject: Digest, referrer: Digest },
}

impl Item {
    /// The repository that it is in; blobs are in none.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Blob(_) => None,
            Self::Layer(repository, _)
            | Self::Revision(repository, _)
            | Self::Tag(repository, _)
            | Self::Referrer { repository, .. } => Some(repository),
        }
    }
}

/// The blob's bytes.
pub fn blob(digest: &Digest) -> String {
    let hex = digest.hex();
    let fan_out = hex.get(..2).unwrap_or_default();
    format!("{BLOBS}/{}/{fan_out}/{hex}/data", digest.algorithm())
}

/// The link that makes a blob visible in a repository.
pub fn layer(repository: &RepositoryName, digest: &Digest) -> String {
    format!("{REPOSITORIES}/{repository}/_layers/{}/link", of(digest))
}

/// The link that makes a manifest visible in a repository.
pub fn revision(repository: &RepositoryName, digest: &Digest) -> String {
    format!("{}/link", revision_dir(repository, digest))
}

/// The media type of a manifest whose body does not say it.
pub fn media_type(repository: &RepositoryName, digest: &Digest) -> String {
    format!("{}/mediatype", revision_dir(repository, digest))
}

/// The tag's current link.
pub fn tag(repository: &RepositoryName, tag: &Tag) -> String {
    format!("{}/current/link", tag_dir(repository, tag))
}

/// One of the manifests that the tag has pointed to.
pub fn tag_index(repository: &RepositoryName, tag: &Tag, digest: &Digest) -> String {
    format!("{}/index/{}/link", tag_dir(repository, tag), of(digest))
}

/// Everything of a tag.
pub fn tag_dir(repository: &RepositoryName, tag: &Tag) -> String {
    format!("{REPOSITORIES}/{repository}/_manifests/tags/{tag}")
}

/// How often a tag has been written or deleted, as text, where several registries write it. Where there is a counter and no
/// tag, the last of them was a delete.
pub fn counter(repository: &RepositoryName, tag: &Tag) -> String {
    format!("{}/{tag}", counters(repository))
}

/// The counters of all tags.
pub fn counters(repository: &RepositoryName) -> String {
    format!("{REPOSITORIES}/{repository}/_counters")
}

/// Everything of a manifest in a repository.
pub fn revision_dir(repository: &RepositoryName, digest: &Digest) -> String {
    format!("{REPOSITORIES}/{repository}/_manifests/revisions/{}", of(digest))
}

/// The link from a subject to a manifest that refers to it.
pub fn referrer(repository: &RepositoryName, subject: &Digest, referrer: &Digest) -> String {
    format!("{REPOSITORIES}/{repository}/_referrers/{}/{}/link", of(subject), of(referrer))
}

/// The content of a link file.
pub fn link(digest: &Digest) -> Bytes {
    Bytes::from(digest.to_string())
}

pub fn parse_link(bytes: &[u8]) -> Option<Digest> {
    std::str::from_utf8(bytes).ok()?.trim_ascii_end().parse().ok()
}

/// Reads a path backwards into what it stands for.
pub fn parse(path: &str) -> Option<Item> {
    if let Some(rest) = path.strip_prefix(BLOBS) {
        let parts: Vec<&str> = rest.split('/').collect();
        return match parts.as_slice() {
            ["", algorithm, fan_out, hex, "data"] if hex.get(..2) == Some(fan_out) => {
                Some(Item::Blob(digest(algorithm, hex)?))
            }
            _ => None,
        };
    }
    let rest = path.strip_prefix(REPOSITORIES)?.strip_prefix('/')?;
    // Names of repositories have no component that starts with an underscore.
    let (repository, item) = rest.split_at(rest.find("/_")?);
    let repository: RepositoryName = repository.parse().ok()?;
    let parts: Vec<&str> = item.split('/').collect();
    match parts.as_slice() {
        ["", "_layers", algorithm, hex, "link"] => Some(Item::Layer(repository, digest(algorithm, hex)?)),
        ["", "_manifests", "revisions", algorithm, hex, "link"] => {
            Some(Item::Revision(repository, digest(algorithm, hex)?))
        }
        ["", "_manifests", "tags", tag, "current", "link"] => Some(Item::Tag(repository, tag.parse().ok()?)),
        ["", "_referrers", subject_algorithm, subject, algorithm, hex, "link"] => Some(Item::Referrer {
            repository,
            subject: digest(subject_algorithm, subject)?,
            referrer: digest(algorithm, hex)?,
        }),
        _ => None,
    }
}

fn of(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm(), digest.hex())
}

fn digest(algorithm: &str, hex: &str) -> Option<Digest> {
    format!("{algorithm}:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn paths_are_those_of_distribution_and_read_back() {
        let repository: RepositoryName = "foo/bar".parse().unwrap();
        let name: Tag = "v1".parse().unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let hex = digest.hex();
        assert_eq!(blob(&digest), format!("docker/registry/v2/blobs/sha256/2d/{hex}/data"));
        assert_eq!(parse(&blob(&digest)), Some(Item::Blob(digest)));
        assert_eq!(
            tag(&repository, &name),
            "docker/registry/v2/repositories/foo/bar/_manifests/tags/v1/current/link"
        );
        assert_eq!(parse(&tag(&repository, &name)), Some(Item::Tag(repository.clone(), name)));
        assert_eq!(parse(&layer(&repository, &digest)), Some(Item::Layer(repository.clone(), digest)));
        assert_eq!(parse(&revision(&repository, &digest)), Some(Item::Revision(repository.clone(), digest)));
        let path = referrer(&repository, &digest, &digest);
        let item = Item::Referrer { repository, subject: digest, referrer: digest };
        assert_eq!(parse(&path), Some(item));
    }

    #[test]
    fn foreign_paths_mean_nothing() {
        for path in
            ["", "docker/registry/v2/repositories/../_layers/sha256/00/link", "a/b", BLOBS, REPOSITORIES]
        {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_blob_in_the_wrong_folder_means_nothing() {
        let path = blob(&Digest::of(Algorithm::Sha256, b"x"));
        assert!(parse(&path).is_some());
        assert_eq!(parse(&path.replacen("/2d/", "/2e/", 1)), None);
    }

    #[test]
    fn a_link_reads_back_with_or_without_newline() {
        let digest = Digest::of(Algorithm::Sha512, b"x");
        assert_eq!(parse_link(&link(&digest)), Some(digest));
        assert_eq!(parse_link(format!("{digest}\n").as_bytes()), Some(digest));
        assert_eq!(parse_link(b"\xff"), None);
    }
}
