use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream;
use sampan_storage::{Algorithm, Blocks, Digest, Reference, Store};
use serde_json::{Value, json};

use super::{Collected, Garbage, Retention, Rule};
use crate::pattern::Pattern;
use crate::registry::manifest::{OCI_IMAGE, OCI_INDEX};
use crate::registry::{ManifestPush, Nowhere, Policy, Registry, RegistryError, Sight};

/// Everything may go at once.
const NOW: Duration = Duration::ZERO;

struct House {
    store: Store,
    registry: Registry,
    dir: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let registry = Registry::new(store.clone(), Arc::new(Nowhere), Policy::default());
        Self { store, registry, dir }
    }

    async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(content))]);
        self.registry.put_blob(&repository.parse().unwrap(), &digest, body).await.unwrap();
        digest
    }

    async fn push(&self, repository: &str, reference: &str, manifest: &Value) -> Digest {
        let text = manifest.to_string();
        let reference: Reference = match reference {
            "" => Reference::Digest(sha256(text.as_bytes())),
            tag => tag.parse().unwrap(),
        };
        let push = ManifestPush { reference, content_type: None, bytes: text.into(), tags: Vec::new() };
        let sight = Sight::All;
        self.registry.put_manifest(&repository.parse().unwrap(), push, &sight).await.unwrap().digest
    }

    /// An image of one layer; without a tag by its digest.
    async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        self.push_blob(repository, b"{}").await;
        self.push_blob(repository, layer).await;
        self.push(repository, tag, &image(layer, None)).await
    }

    async fn delete(&self, repository: &str, reference: &str) {
        let reference = reference.parse().unwrap();
        self.registry.delete_manifest(&repository.parse().unwrap(), &reference).await.unwrap();
    }

    async fn collect(&self, retention: Retention, dry_run: bool) -> (Collected, Vec<Garbage>) {
        let registry = self.registry.clone();
        let collect = move || {
            let mut items = Vec::new();
            let collected = registry.collect(&retention, dry_run, &mut |garbage, _| {
                items.extend(garbage);
                true
            });
            (collected.unwrap(), items)
        };
        tokio::task::spawn_blocking(collect).await.unwrap()
    }

    async fn has(&self, repository: &str, digest: &Digest) -> bool {
        let blob = self.registry.blob(&repository.parse().unwrap(), digest).await;
        assert!(matches!(blob, Ok(_) | Err(RegistryError::BlobUnknown(_))), "{blob:?}");
        blob.is_ok()
    }

    fn on_disk(&self, digest: &Digest) -> bool {
        self.store.blob(digest).unwrap().is_some()
    }

    fn set_age(&self, digest: &Digest, age: Duration) {
        let hex = digest.hex();
        let path = self.dir.path().join("blobs/sha256").join(&hex[..2]).join(&hex);
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content).to_string(), "size": content.len()})
}

fn image(layer: &[u8], subject: Option<&Value>) -> Value {
    let mut image = json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    if let Some(subject) = subject {
        image["subject"] = descriptor(OCI_IMAGE, subject.to_string().as_bytes());
    }
    image
}

fn at_once() -> Retention {
    Retention { grace: NOW, ..Retention::default() }
}

fn untagged_go() -> Retention {
    Retention { untagged: Some(NOW), ..at_once() }
}

#[tokio::test]
async fn a_blob_that_no_manifest_names_goes_after_the_grace_period() {
    let house = House::new();
    house.push_image("foo", "v1", b"kept").await;
    let orphan = house.push_blob("foo", b"orphan").await;
    let (collected, _) = house.collect(Retention::default(), false).await;
    assert_eq!(collected, Collected { repositories: 1, ..Collected::default() });
    assert!(house.has("foo", &orphan).await);
    let (collected, items) = house.collect(at_once(), false).await;
    let expected = Collected { repositories: 1, links: 1, blobs: 1, bytes: 6, ..Collected::default() };
    assert_eq!(collected, expected);
    assert_eq!(items.last(), Some(&Garbage::Blob { digest: orphan.to_string(), size: 6 }));
    assert!(!house.has("foo", &orphan).await && !house.on_disk(&orphan));
    assert!(house.has("foo", &sha256(b"kept")).await && house.has("foo", &sha256(b"{}")).await);
}

#[tokio::test]
async fn what_another_repository_names_stays_there_and_goes_here() {
    let house = House::new();
    house.push_image("foo", "v1", b"shared").await;
    let bar = house.push_image("bar", "v1", b"shared").await;
    house.delete("bar", &bar.to_string()).await;
    let (collected, _) = house.collect(at_once(), false).await;
    assert_eq!((collected.links, collected.blobs), (2, 0));
    assert!(house.has("foo", &sha256(b"shared")).await && !house.has("bar", &sha256(b"shared")).await);
    let foo = house.push_image("foo", "v1", b"shared").await;
    house.delete("foo", &foo.to_string()).await;
    let (collected, _) = house.collect(at_once(), false).await;
    assert_eq!((collected.links, collected.blobs), (2, 3), "layer, config and manifest");
    assert!(!house.on_disk(&sha256(b"shared")));
}

#[tokio::test]
async fn children_and_referrers_stay_with_what_keeps_them() {
    let house = House::new();
    let child = image(b"child", None);
    let child_digest = house.push_image("foo", "", b"child").await;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_IMAGE, child.to_string().as_bytes())],
    });
    let index_digest = house.push("foo", "latest", &index).await;
    house.push_blob("foo", b"signature").await;
    let signature = house.push("foo", "", &image(b"signature", Some(&child))).await;
    let (collected, _) = house.collect(untagged_go(), false).await;
    assert_eq!((collected.manifests, collected.blobs), (0, 0));

    house.delete("foo", "latest").await;
    let (collected, _) = house.collect(at_once(), false).await;
    assert_eq!(collected.manifests, 0, "untagged manifests stay where nobody says otherwise");
    let (collected, items) = house.collect(untagged_go(), false).await;
    assert_eq!((collected.manifests, collected.blobs), (3, 6));
    for digest in [child_digest, index_digest, signature] {
        let gone = |item: &Garbage| matches!(item, Garbage::Manifest { digest: it, .. } if *it == digest.to_string());
        assert!(items.iter().any(gone));
    }
    let repositories = house.store.mine().repositories(None, 9).unwrap();
    assert!(repositories.is_empty(), "an emptied repository does not show");
}

#[tokio::test]
async fn a_rule_takes_old_tags_with_all_that_only_they_kept() {
    let house = House::new();
    for age in 1..=3_u64 {
        let digest =
            house.push_image("team/app", &format!("v{age}"), format!("layer {age}").as_bytes()).await;
        house.set_age(&digest, Duration::from_hours(age));
    }
    let other = house.push_image("other", "v1", b"other layer").await;
    house.set_age(&other, Duration::from_hours(99));
    let rule = Rule {
        repositories: vec![Pattern::of_repositories("team/*").unwrap()],
        newest: Some(1),
        ..Rule::default()
    };
    let retention = Retention { rules: vec![rule], ..at_once() };
    let (would, items) = house.collect(retention.clone(), true).await;
    assert!(house.has("team/app", &sha256(b"layer 3")).await, "a dry run removes nothing");
    let (collected, same) = house.collect(retention, false).await;
    assert_eq!((would, &items), (collected, &same));
    assert_eq!((collected.tags, collected.manifests, collected.blobs), (2, 2, 4));
    assert!(house.has("team/app", &sha256(b"layer 1")).await);
    assert!(!house.on_disk(&sha256(b"layer 2")) && !house.on_disk(&sha256(b"layer 3")));
    let why = items.iter().find_map(|item| match item {
        Garbage::Tag { tag, why, .. } if tag == "v3" => Some(why.as_str()),
        _ => None,
    });
    assert_eq!(why, Some("not among the newest 1"));
}

#[tokio::test]
async fn what_is_pinned_stays_and_a_push_that_comes_after_finds_it() {
    let house = House::new();
    let blob = house.push_blob("foo", b"on its way").await;
    let pin = house.store.pin(vec![blob]);
    let (collected, _) = house.collect(at_once(), false).await;
    assert_eq!((collected.links, collected.blobs), (0, 0));
    drop(pin);
    house.push_blob("foo", b"{}").await;
    house.push("foo", "v1", &image(b"on its way", None)).await;
    house.collect(at_once(), false).await;
    assert!(house.has("foo", &blob).await);
}

#[tokio::test]
async fn nothing_goes_where_a_manifest_cannot_be_read() {
    let house = House::new();
    let manifest = house.push_image("foo", "v1", b"layer").await;
    let orphan = house.push_blob("foo", b"orphan").await;
    let hex = manifest.hex();
    std::fs::remove_file(house.dir.path().join("blobs/sha256").join(&hex[..2]).join(&hex)).unwrap();
    let (collected, _) = house.collect(untagged_go(), false).await;
    assert_eq!((collected.unsure, collected.links, collected.manifests, collected.blobs), (1, 0, 0, 0));
    assert!(house.on_disk(&orphan) && house.on_disk(&sha256(b"layer")));
}

#[tokio::test]
async fn two_blobs_share_a_leaf_and_one_goes_without_the_other() {
    let house = House::new();
    let leaf = vec![7; 1024 * 1024];
    let (one, two) = ([leaf.as_slice(), b"one"].concat(), [leaf.as_slice(), b"two"].concat());
    house.push_image("foo", "v1", &one).await;
    let gone = house.push_blob("foo", &two).await;
    // The leaf alone is a blob as well.
    let alone = house.push_blob("foo", &leaf).await;
    let (collected, _) = house.collect(at_once(), false).await;
    assert_eq!(collected.blobs, 2);
    assert!(!house.on_disk(&gone) && !house.on_disk(&alone));
    let cid = sampan_storage::block::cid_of(sampan_storage::block::RAW, &leaf);
    assert_eq!(house.store.get(&cid).unwrap().unwrap(), leaf, "a peer still gets it");
    assert!(house.has("foo", &sha256(&one)).await);
}

#[tokio::test]
async fn a_collection_that_is_told_to_stop_removes_no_blobs() {
    let house = House::new();
    let orphan = house.push_blob("foo", b"orphan").await;
    let registry = house.registry.clone();
    let stopped = move || registry.collect(&at_once(), false, &mut |_, _| false).unwrap();
    let collected = tokio::task::spawn_blocking(stopped).await.unwrap();
    assert_eq!(collected.blobs, 0);
    assert!(house.on_disk(&orphan));
}
