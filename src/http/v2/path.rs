//! Paths below `/v2/`, read from the right, because a repository name may hold any number of slashes.

use percent_encoding::percent_decode_str;
use sampan_storage::digest::DigestError;
use sampan_storage::name::NameError;
use sampan_storage::{Digest, Reference, RepositoryName, UploadId};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Catalog,
    Tags(RepositoryName),
    Manifest(RepositoryName, Reference),
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, UploadId),
    Referrers(RepositoryName, Digest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("there is nothing under this path")]
    Unknown,
    #[error("{}", NameError::Repository)]
    Name,
    #[error("{}", NameError::Tag)]
    Tag {
        /// It was to be made, not looked up.
        pushed: bool,
    },
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error("there is no such upload in this repository")]
    Upload,
}

impl Route {
    /// Reads the path of a request, still percent-encoded, from its start.
    pub(crate) fn parse(path: &str) -> Result<Self, PathError> {
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| PathError::Unknown)?;
        let tail = match decoded.strip_prefix("/v2") {
            Some("") => "",
            Some(rest) => rest.strip_prefix('/').ok_or(PathError::Unknown)?,
            None => return Err(PathError::Unknown),
        };
        match tail {
            "" => return Ok(Self::Base),
            "_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        if let Some(name) =
            tail.strip_suffix("/blobs/uploads/").or_else(|| tail.strip_suffix("/blobs/uploads"))
        {
            return Ok(Self::Uploads(repository(name)?));
        }
        if let Some(name) = tail.strip_suffix("/tags/list") {
            return Ok(Self::Tags(repository(name)?));
        }
        let (rest, last) = tail.rsplit_once('/').ok_or(PathError::Unknown)?;
        if let Some(name) = rest.strip_suffix("/manifests") {
            let reference = last.parse().map_err(|error| match error {
                NameError::Digest(error) => PathError::Digest(error),
                NameError::Tag | NameError::Repository => PathError::Tag { pushed: false },
            })?;
            return Ok(Self::Manifest(repository(name)?, reference));
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(repository(name)?, last.parse().map_err(|_| PathError::Upload)?));
        }
        if let Some(name) = rest.strip_suffix("/blobs") {
            return Ok(Self::Blob(repository(name)?, last.parse()?));
        }
        if let Some(name) = rest.strip_suffix("/referrers") {
            return Ok(Self::Referrers(repository(name)?, last.parse()?));
        }
        Err(PathError::Unknown)
    }
}

fn repository(name: &str) -> Result<RepositoryName, PathError> {
    name.parse().map_err(|_| PathError::Name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sampan_storage::Algorithm;

    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn every_resource_is_found() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let id = "0b54be6d-8a34-4ee5-a1bb-9a5c8a9b3f0e";
        let tag = Reference::Tag("v1".parse().unwrap());
        for (path, route) in [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            ("/v2/a/b/manifests/v1".to_owned(), Route::Manifest(name("a/b"), tag.clone())),
            (format!("/v2/a/manifests/{digest}"), Route::Manifest(name("a"), Reference::Digest(digest))),
            (format!("/v2/a/b/c/d/e/f/g/h/blobs/{digest}"), Route::Blob(name("a/b/c/d/e/f/g/h"), digest)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            (format!("/v2/a/blobs/uploads/{id}"), Route::Upload(name("a"), id.parse().unwrap())),
            (format!("/v2/a/referrers/{digest}"), Route::Referrers(name("a"), digest)),
            // Clients that encode the colon.
            (
                format!("/v2/a/blobs/{}", digest.to_string().replace(':', "%3A")),
                Route::Blob(name("a"), digest),
            ),
            // Words of the API are names too.
            ("/v2/manifests/manifests/v1".to_owned(), Route::Manifest(name("manifests"), tag.clone())),
            ("/v2/a/blobs/uploads/manifests/v1".to_owned(), Route::Manifest(name("a/blobs/uploads"), tag)),
            ("/v2/tags/list/tags/list".to_owned(), Route::Tags(name("tags/list"))),
        ] {
            assert_eq!(Route::parse(&path), Ok(route), "{path}");
        }
    }

    #[test]
    fn what_is_no_resource_says_why() {
        let tag = PathError::Tag { pushed: false };
        for (path, error) in [
            ("/", PathError::Unknown),
            ("/v2x", PathError::Unknown),
            ("/v2/a", PathError::Unknown),
            ("/v2//", PathError::Unknown),
            ("/v2/_catalog/", PathError::Unknown),
            ("/v2/a/unknown/v1", PathError::Unknown),
            ("/v2/%ff/manifests/v1", PathError::Unknown),
            ("/v2/A/manifests/v1", PathError::Name),
            ("/v2//manifests/v1", PathError::Name),
            ("/v2/../manifests/v1", PathError::Name),
            ("/v2/a/../../etc/manifests/v1", PathError::Name),
            ("/v2/a%2f..%2f..%2fetc/manifests/v1", PathError::Name),
            ("/v2/a%00b/manifests/v1", PathError::Name),
            ("/v2/a%252fb/manifests/v1", PathError::Name),
            ("/v2/_a/tags/list", PathError::Name),
            ("/v2/a/manifests/.v1", tag),
            ("/v2/a/manifests/", tag),
            ("/v2/a/manifests/a%2f", PathError::Unknown),
            ("/v2/a/manifests/sha256:00", PathError::Digest(DigestError::Hex)),
            ("/v2/a/blobs/sha256:baddigeststring", PathError::Digest(DigestError::Hex)),
            ("/v2/a/blobs/md5:00", PathError::Digest(DigestError::Algorithm)),
            ("/v2/a/blobs/x", PathError::Digest(DigestError::Form)),
            ("/v2/a/referrers/x", PathError::Digest(DigestError::Form)),
            ("/v2/a/blobs/uploads/..", PathError::Upload),
            ("/v2/a/blobs/uploads/../x", PathError::Unknown),
        ] {
            assert_eq!(Route::parse(path), Err(error), "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_answered(path in "/v2/(.{0,10}|[a-z0-9/_.%:-]{0,60}|([a-z]{1,3}/){0,4}(blobs|manifests|uploads|tags|list|referrers|/|%2[fF]){0,6})") {
            let _ = Route::parse(&path);
        }
    }
}
