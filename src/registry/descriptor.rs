//! Descriptors: what one piece of content says about another (image-spec, `descriptor.md`).

use std::collections::BTreeMap;

use sampan_storage::Digest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Fields that a registry reads. Others (`platform`, `data`) stay in the manifest's own bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(deserialize_with = "read_digest", serialize_with = "write_digest")]
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing)]
    pub(crate) urls: Option<Vec<String>>,
}

impl Descriptor {
    /// Content that its maker does not want in every registry (image-spec, "Non-Distributable Layers"), or that says
    /// itself where else it lies. It may be absent.
    pub(crate) fn is_foreign(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || self.media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

fn read_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn write_digest<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";

    #[test]
    fn writes_what_it_read_without_empty_fields() {
        let text =
            format!(r#"{{"mediaType":"a/b","digest":"sha256:{HEX}","size":7,"platform":{{"os":"linux"}}}}"#);
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        let out = serde_json::to_string(&descriptor).unwrap();
        assert_eq!(out, format!(r#"{{"mediaType":"a/b","digest":"sha256:{HEX}","size":7}}"#));
    }

    #[test]
    fn a_bad_digest_or_size_is_refused() {
        for text in [
            r#"{"mediaType":"a/b","digest":"sha256:00","size":1}"#.to_owned(),
            format!(r#"{{"digest":"sha256:{HEX}","size":-1}}"#),
            format!(r#"{{"digest":"sha256:{HEX}"}}"#),
        ] {
            assert!(serde_json::from_str::<Descriptor>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn foreign_layers_are_known_by_type_or_by_urls() {
        let of = |rest: &str| -> Descriptor {
            serde_json::from_str(&format!(r#"{{"digest":"sha256:{HEX}","size":1{rest}}}"#)).unwrap()
        };
        assert!(of(r#","urls":["https://a/b"]"#).is_foreign());
        assert!(
            of(r#","mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip""#).is_foreign()
        );
        assert!(
            of(r#","mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip""#).is_foreign()
        );
        assert!(!of(r#","urls":null"#).is_foreign());
    }
}
