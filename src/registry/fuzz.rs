//! Fuzz targets for manifests.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target is there to panic"
)]

use sampan_storage::{Algorithm, Digest};

use super::descriptor::Descriptor;
use super::manifest::{
    DOCKER_IMAGE, DOCKER_LIST, Document, OCI_IMAGE, OCI_INDEX, Role, is_media_type, sniff,
};

/// What a client may say beside the body.
const CONTENT_TYPES: [Option<&str>; 8] = [
    None,
    Some(OCI_IMAGE),
    Some(OCI_INDEX),
    Some(DOCKER_IMAGE),
    Some(DOCKER_LIST),
    Some("application/vnd.oci.artifact.manifest.v1+json"),
    Some("application/json; charset=utf-8"),
    Some("application/vnd.example+json"),
];

/// Manifests. The first byte chooses the content type.
pub fn manifest(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let (said, looks_like) = sniff(body);
    assert!(said.as_deref().is_none_or(is_media_type) && is_media_type(looks_like));
    let content_type = CONTENT_TYPES.get(usize::from(*choice) % CONTENT_TYPES.len()).copied().flatten();
    let Ok(document) = Document::parse(body, content_type) else { return };
    assert!(is_media_type(&document.media_type));
    let (blobs, children): (Vec<_>, Vec<_>) =
        document.references.iter().partition(|(role, _)| *role == Role::Blob);
    assert!(blobs.is_empty() || children.is_empty(), "one document is not two kinds");
    match document.media_type.as_str() {
        OCI_IMAGE | DOCKER_IMAGE => assert!(children.is_empty()),
        OCI_INDEX | DOCKER_LIST => assert!(blobs.is_empty()),
        _ => {}
    }
    // As what it was taken it is served.
    let served = said.unwrap_or_else(|| looks_like.to_owned());
    assert!(served == document.media_type || !document.declares_media_type, "{served}");
    assert!(document.references.len() * 71 <= body.len(), "each is named by a digest");

    let descriptor = document.describe(Digest::of(Algorithm::Sha256, body), body.len() as u64);
    let json = serde_json::to_vec(&descriptor).unwrap();
    assert_eq!(serde_json::from_slice::<Descriptor>(&json).unwrap(), descriptor);
}
