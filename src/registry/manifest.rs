//! Manifests: parsed as far as a registry must know them. The bytes themselves are stored and served as they came.

use std::collections::BTreeMap;

use sampan_storage::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::descriptor::Descriptor;

/// distribution-spec, "Pushing Manifests": registries SHOULD accept at least 4 megabytes; more is refused by others.
pub(crate) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

pub(crate) const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const DOCKER_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const DOCKER_V1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// RFC 6838, section 4.2: each half of a media type is at most 127 characters.
const MAX_MEDIA_TYPE: usize = 255;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("the manifest cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a manifest is JSON in UTF-8: {0}")]
    Text(std::str::Utf8Error),
    #[error("schemaVersion must be 2")]
    SchemaVersion,
    #[error("the manifest says it is {body:?} but was sent as {header:?}")]
    MediaTypeMismatch { body: String, header: String },
    #[error("{0:?} is no media type")]
    MediaType(String),
    #[error("a manifest has either layers or manifests, not both")]
    Ambiguous,
    #[error("the content does not fit the media type {0:?}")]
    Structure(String),
    #[error("a manifest needs a config with layers, or manifests")]
    Empty,
    #[error("it names more than {limit} manifests of other repositories")]
    TooManyManifests { limit: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Image,
    Index,
}

/// Where a manifest names other content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A config or a layer.
    Blob,
    /// A manifest of an index. BuildKit's cache puts layers there, so it may be a blob too.
    Child,
}

#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) media_type: String,
    /// The body itself says the media type.
    pub(crate) declares_media_type: bool,
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    pub(crate) subject: Option<Descriptor>,
    pub(crate) references: Vec<(Role, Descriptor)>,
}

impl Document {
    /// Reads a manifest that a client sends as `content_type` (its parameters are ignored, as the spec asks).
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        let json: Json = serde_json::from_slice(bytes)?;
        if json.schema_version != Some(2) {
            return Err(ManifestError::SchemaVersion);
        }
        let header = content_type.map(without_parameters).filter(|header| !is_generic(header));
        let body = json.media_type.clone().filter(|body| !body.is_empty());
        if let (Some(body), Some(header)) = (&body, &header)
            && body != header
        {
            return Err(ManifestError::MediaTypeMismatch { body: body.clone(), header: header.clone() });
        }
        let declares_media_type = body.is_some();
        let media_type = body.or(header).unwrap_or_else(|| json.inferred().to_owned());
        if !is_media_type(&media_type) {
            return Err(ManifestError::MediaType(media_type));
        }
        let kind = json.kind(&media_type)?;

        let artifact_type =
            json.artifact_type.filter(|it| !it.is_empty()).or_else(|| match (&json.config, kind) {
                (Some(config), Kind::Image) => Some(config.media_type.clone()).filter(|it| !it.is_empty()),
                _ => None,
            });
        let blobs = json.config.into_iter().chain(json.layers.unwrap_or_default());
        let blobs = blobs.chain(json.blobs.unwrap_or_default()).map(|it| (Role::Blob, it));
        let children = json.manifests.unwrap_or_default().into_iter().map(|it| (Role::Child, it));
        Ok(Self {
            media_type,
            declares_media_type,
            artifact_type,
            annotations: json.annotations.filter(|it| !it.is_empty()),
            subject: json.subject,
            references: blobs.chain(children).collect(),
        })
    }

    /// How the referrers list describes this manifest (distribution-spec, "Listing Referrers").
    pub(crate) fn describe(&self, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest,
            size,
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
            urls: None,
        }
    }
}

/// The media type that stored bytes say they have, and the one that they look like.
pub(crate) fn sniff(bytes: &[u8]) -> (Option<String>, &'static str) {
    match serde_json::from_slice::<Outline>(bytes) {
        Ok(outline) => (outline.media_type.clone().filter(|it| is_media_type(it)), outline.inferred()),
        // The outline has fields that a document has not, and may find one of them twice.
        Err(_) => match Document::parse(bytes, None) {
            Ok(document) if document.declares_media_type => (Some(document.media_type), OCI_IMAGE),
            _ => (None, OCI_IMAGE),
        },
    }
}

/// `type/subtype` of characters that may stand in a header (RFC 6838, section 4.2).
pub(crate) fn is_media_type(text: &str) -> bool {
    let name = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    text.len() <= MAX_MEDIA_TYPE && text.split_once('/').is_some_and(|(kind, sub)| name(kind) && name(sub))
}

/// A manifest or index, by its media type.
pub(crate) fn is_manifest_type(media_type: &str) -> bool {
    [OCI_IMAGE, OCI_INDEX, DOCKER_IMAGE, DOCKER_LIST, OCI_ARTIFACT].contains(&media_type)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    /// Of the OCI artifact manifest, which only release candidates of OCI 1.1 had; some tools still push it.
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Json {
    fn inferred(&self) -> &'static str {
        if self.manifests.is_some() { OCI_INDEX } else { OCI_IMAGE }
    }

    /// One document must not be readable as two kinds (CVE-2021-41190).
    fn kind(&self, media_type: &str) -> Result<Kind, ManifestError> {
        let image = self.config.is_some() || self.layers.is_some() || self.blobs.is_some();
        let index = self.manifests.is_some();
        if self.fs_layers.is_some() || (image && index) {
            return Err(ManifestError::Ambiguous);
        }
        let mismatch = || ManifestError::Structure(media_type.to_owned());
        match media_type {
            OCI_INDEX | DOCKER_LIST if image => Err(mismatch()),
            OCI_INDEX | DOCKER_LIST => Ok(Kind::Index),
            OCI_IMAGE | DOCKER_IMAGE if index || self.config.is_none() => Err(mismatch()),
            OCI_IMAGE | DOCKER_IMAGE => Ok(Kind::Image),
            _ if index => Ok(Kind::Index),
            _ if image || media_type == OCI_ARTIFACT => Ok(Kind::Image),
            _ => Err(ManifestError::Empty),
        }
    }
}

/// What tells the kinds of manifest apart, read without building the rest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    signatures: Option<IgnoredAny>,
}

impl Outline {
    fn inferred(&self) -> &'static str {
        match self {
            Self { schema_version: Some(1), signatures: Some(_), .. } => DOCKER_V1_SIGNED,
            Self { schema_version: Some(1), .. } => DOCKER_V1,
            Self { manifests: Some(_), .. } => OCI_INDEX,
            _ => OCI_IMAGE,
        }
    }
}

fn without_parameters(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What curl and careless clients send: it says nothing about a manifest.
fn is_generic(media_type: &str) -> bool {
    ["", "application/json", "application/octet-stream", "application/x-www-form-urlencoded"]
        .contains(&media_type)
}

#[cfg(test)]
mod tests {
    use sampan_storage::Algorithm;

    use super::*;

    fn descriptor(media_type: &str) -> String {
        let digest = Digest::of(Algorithm::Sha256, media_type.as_bytes());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":3}}"#)
    }

    fn image(extra: &str) -> String {
        let config = descriptor("application/vnd.oci.image.config.v1+json");
        format!(r#"{{"schemaVersion":2{extra},"config":{config},"layers":[{}]}}"#, descriptor("a/layer"))
    }

    fn parse(text: &str, content_type: &str) -> Result<Document, ManifestError> {
        Document::parse(text.as_bytes(), Some(content_type))
    }

    #[test]
    fn an_image_names_its_config_and_layers() {
        let document = parse(&image(""), OCI_IMAGE).unwrap();
        assert!(!document.declares_media_type);
        assert_eq!(document.references.len(), 2);
        assert_eq!(document.artifact_type.as_deref(), Some("application/vnd.oci.image.config.v1+json"));
    }

    #[test]
    fn an_index_names_its_manifests_and_takes_no_artifact_type_from_a_config() {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}],"layers":null}}"#, descriptor(OCI_IMAGE));
        let document = parse(&text, OCI_INDEX).unwrap();
        assert_eq!(document.artifact_type, None);
        assert_eq!(document.references.iter().map(|(role, _)| *role).collect::<Vec<_>>(), [Role::Child]);
        assert_eq!(parse(r#"{"schemaVersion":2,"manifests":[]}"#, "").unwrap().media_type, OCI_INDEX);
    }

    #[test]
    fn the_body_and_the_header_must_agree() {
        let declared = image(&format!(r#","mediaType":"{OCI_IMAGE}""#));
        assert!(parse(&declared, &format!("{OCI_IMAGE}; charset=utf-8")).is_ok());
        assert!(Document::parse(declared.as_bytes(), None).is_ok());
        let other = parse(&declared, DOCKER_IMAGE);
        assert!(matches!(other, Err(ManifestError::MediaTypeMismatch { .. })), "{other:?}");
    }

    #[test]
    fn a_document_of_two_kinds_is_refused() {
        let both = image(r#","manifests":[]"#);
        assert!(matches!(parse(&both, OCI_IMAGE), Err(ManifestError::Ambiguous)));
        assert!(matches!(parse(&image(""), OCI_INDEX), Err(ManifestError::Structure(_))));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(parse(index, DOCKER_IMAGE), Err(ManifestError::Structure(_))));
        let twice = image(&format!(r#","config":{}"#, descriptor("a/b")));
        assert!(matches!(parse(&twice, OCI_IMAGE), Err(ManifestError::Json(_))));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"schemaVersion":1}"#,
            r#"{"schemaVersion":2}"#,
            "{\"schemaVersion\":2",
        ] {
            assert!(parse(text, OCI_IMAGE).is_err(), "{text}");
        }
        let deep = format!(r#"{{"schemaVersion":2,"x":{}"#, "[".repeat(100_000));
        assert!(parse(&deep, OCI_IMAGE).is_err());
        assert!(parse(&image(""), "a/b\r\nX: y").is_err());
    }

    #[test]
    fn unknown_types_of_artifacts_are_taken() {
        let text =
            image(r#","mediaType":"application/vnd.example+json","artifactType":"a/b","new":{"x":[1]}"#);
        let document = parse(&text, "application/vnd.example+json").unwrap();
        assert_eq!(document.artifact_type.as_deref(), Some("a/b"));
        assert!(document.declares_media_type);
    }

    #[test]
    fn the_type_of_stored_bytes_is_read_or_inferred() {
        assert_eq!(sniff(image("").as_bytes()), (None, OCI_IMAGE));
        assert_eq!(sniff(br#"{"manifests":[],"mediaType":"a/b"}"#), (Some("a/b".into()), OCI_INDEX));
        assert_eq!(sniff(br#"{"schemaVersion":1,"signatures":[]}"#), (None, DOCKER_V1_SIGNED));
        assert_eq!(sniff(br#"{"schemaVersion":1}"#), (None, DOCKER_V1));
        assert_eq!(sniff(br#"{"mediaType":"a/b\nc"}"#), (None, OCI_IMAGE));
        assert_eq!(sniff(b"\xff"), (None, OCI_IMAGE));
    }

    #[test]
    fn what_was_taken_as_an_index_is_no_image_because_a_foreign_field_stands_twice() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[],"signatures":0,"signatures":0}}"#
        );
        assert_eq!(parse(&text, OCI_INDEX).unwrap().media_type, OCI_INDEX);
        assert_eq!(sniff(text.as_bytes()).0.as_deref(), Some(OCI_INDEX));
    }
}
