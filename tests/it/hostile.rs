//! A publisher that means no good, or has lost its mind: its key is right and its trees are not. What a follower spends on
//! them is bounded, the last good root stays, and status says why.

use std::fs;

use sampan_storage::block::{DAG_PB, RAW, cid_of};
use sampan_storage::dag::unixfs::{Data, Kind};
use sampan_storage::{Cid, Digest, layout};
use serde_json::{Value, json};

use crate::forge::{Forge, Publisher, digest_of};
use crate::harness::{Options, Server, contents, eventually, noise};
use crate::oci::{Image, header, json_of, problem};
use crate::wire::Wire;

const MIB: usize = 1024 * 1024;
const REPOSITORIES: &str = "docker/registry/v2/repositories";
/// What a follower may have resident at its peak, in a build that is made for debugging.
const MEMORY: u64 = 192 * MIB as u64;

fn good() -> Image {
    Image::new(&[b"the last good one"])
}

/// A publisher whose first root is good, and one who follows it and has seen that.
async fn both(section: &Value) -> (Publisher, Server) {
    let publisher = Publisher::start().await;
    let (root, blocks) = Forge::with("good", "v1", &good()).make();
    publisher.publish(&root, &blocks).await;
    let follower = follower(&[(&publisher.name, section)], &publisher.server.p2p).await;
    sees(&follower, "good", "v1", &good()).await;
    (publisher, follower)
}

async fn follower(follow: &[(&str, &Value)], peer: &str) -> Server {
    let section = |(name, more): &(&str, &Value)| {
        let mut section = json!({"name": name});
        section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        section.to_string()
    };
    let follow = follow.iter().map(section).collect();
    Server::start(Options { peers: vec![peer.to_owned()], follow, ..Options::default() }).await
}

async fn sees(server: &Server, repository: &str, tag: &str, image: &Image) {
    let expected = image.digest();
    let what = format!("{repository}:{tag} as it was published");
    eventually(&what, async || server.digest(repository, tag).await.filter(|it| *it == expected)).await;
}

async fn follow(server: &Server) -> Value {
    server.status().await["follows"][0].clone()
}

/// Waits until status says of the followed name what is wrong with its newest root.
async fn refused(server: &Server, why: &str) {
    eventually(&format!("the reason {why:?}"), async || {
        let error = follow(server).await["error"].clone();
        error.as_str().is_some_and(|error| error.contains(why)).then_some(())
    })
    .await;
    // For people as well, and the last good root stays.
    let said = server.home.prints(&["status"]).await;
    assert!(said.contains(why), "{said}");
    assert_eq!(server.pull("good", "v1").await, good());
    assert!(server.peak() < MEMORY, "{} MiB", server.peak() / MIB as u64);
}

/// Waits until it reads this root.
async fn adopted(server: &Server, root: &Cid) {
    let root = json!(root.to_string());
    eventually("the newest root", async || (follow(server).await["root"] == root).then_some(())).await;
}

/// The files of blobs, by their digests.
fn blobs(server: &Server) -> Vec<(String, Vec<u8>)> {
    let files = contents(&server.home.data().join("blobs/sha256"));
    files
        .into_iter()
        .map(|(path, bytes)| (path.file_name().unwrap().to_str().unwrap().into(), bytes))
        .collect()
}

/// Every file of a blob is what it is named by.
fn are_sound(server: &Server) {
    for (name, bytes) in blobs(server) {
        assert_eq!(digest_of(&bytes).hex(), name);
    }
}

async fn missing_blob(server: &Server, repository: &str, digest: &Digest) -> (u16, String, String) {
    problem(server.get(&format!("/v2/{repository}/blobs/{digest}")).await).await
}

/// A tree with other bytes under the digests of an image's layer and config.
fn with_other_bytes(image: &Image) -> Forge {
    let mut forge = Forge::with("good", "v1", &good());
    forge.image("bad", "v1", image);
    let layer = &image.layers[0];
    forge.file(&layout::blob(&digest_of(layer)), &noise("other bytes", layer.len()));
    forge.file(&layout::blob(&digest_of(&image.config)), &noise("other config", image.config.len()));
    forge
}

/// Whether the whole of a blob is answered. Before its first byte or behind it the connection may be cut.
async fn is_whole(server: &Server, digest: &Digest) -> bool {
    match server.request("GET", &format!("/v2/bad/blobs/{digest}")).send().await {
        Ok(answer) => answer.status() == 200 && answer.bytes().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn other_bytes_under_a_digest_are_neither_kept_nor_served_and_who_has_the_right_ones_is_asked() {
    let image = Image::new(&[&noise("right bytes", 3 * MIB)]);
    let (layer, config) = (digest_of(&image.layers[0]), digest_of(&image.config));
    let (publisher, follower) = both(&json!({})).await;
    let (root, blocks) = with_other_bytes(&image).make();
    publisher.publish(&root, &blocks).await;
    sees(&follower, "bad", "v1", &image).await;
    // The first pull finds out, and the connection is cut before the last byte.
    assert!(!is_whole(&follower, &layer).await);
    for digest in [&layer, &config, &layer] {
        // The first answer may say so as well as be cut: it is small.
        is_whole(&follower, digest).await;
        let (status, code, why) = missing_blob(&follower, "bad", digest).await;
        assert_eq!((status, code.as_str()), (404, "BLOB_UNKNOWN"));
        assert!(why.contains("something else"), "{why}");
        assert_eq!(follower.send("HEAD", &format!("/v2/bad/blobs/{digest}")).await.status(), 404);
    }
    assert!(!blobs(&follower).iter().any(|(name, _)| [layer.hex(), config.hex()].contains(name)));
    assert_eq!(follower.pull("good", "v1").await, good());

    // Behind the hostile name stands one that has the right bytes.
    publisher.server.push("bad", "v1", &image).await;
    let names = [(publisher.name.as_str(), &json!({})), (publisher.server.name.as_str(), &json!({}))];
    let second = self::follower(&names, &publisher.server.p2p).await;
    sees(&second, "bad", "v1", &image).await;
    for digest in [&layer, &config] {
        is_whole(&second, digest).await;
    }
    eventually("the tree behind has come", async || {
        let follows = second.status().await["follows"].clone();
        let all = follows.as_array().unwrap().clone();
        all.iter().all(|follow| follow["root"].is_string()).then_some(())
    })
    .await;
    assert_eq!(second.pull("bad", "v1").await, image);
    are_sound(&second);
}

#[tokio::test]
async fn a_mirror_says_what_of_a_root_is_wrong_and_does_not_fetch_it_again_and_again() {
    let image = Image::new(&[&noise("mirrored wrong", 3 * MIB)]);
    let publisher = Publisher::start().await;
    let wire = Wire::to(&publisher.server).await;
    let (root, blocks) = with_other_bytes(&image).make();
    publisher.publish(&root, &blocks).await;
    let follower = follower(&[(&publisher.name, &json!({"policy": "mirror"}))], &wire.address).await;
    let mirror = eventually("what is wrong", async || {
        let mirror = follow(&follower).await["mirror"].clone();
        mirror["error"].is_string().then_some(mirror)
    })
    .await;
    let layer = digest_of(&image.layers[0]).to_string();
    let why = mirror["error"].as_str().unwrap();
    assert!(why.contains(&layer) && why.contains("something else"), "{why}");
    assert!(follower.home.prints(&["status"]).await.contains("something else"));
    assert_eq!((&mirror["finished"], &mirror["fetched"]), (&json!(false), &json!(0)));
    let passed = wire.passed();
    for _ in 0..3 {
        let answer = follower.get(&format!("/v2/bad/blobs/{layer}")).await;
        assert_eq!(answer.status(), 404);
    }
    assert!(wire.passed() < passed + MIB as u64, "it came again");
    are_sound(&follower);
    assert_eq!(follower.pull("good", "v1").await, good());
}

#[tokio::test]
async fn links_and_sizes_that_lie_are_not_found_and_take_nothing() {
    let (publisher, follower) = both(&json!({})).await;
    let image = Image::new(&[&noise("linked", 100_000)]);
    let mut forge = Forge::with("good", "v1", &good());
    forge.image("bad", "v1", &image);
    let repository = "bad".parse().unwrap();
    let tag = |name: &str| layout::tag(&repository, &name.parse().unwrap());
    // A manifest that nobody has, tags that are no links, a blob that is no file, and one of an exbibyte.
    let nobody = digest_of(b"nobody has it");
    forge.file(&layout::revision(&repository, &nobody), &layout::link(&nobody));
    forge.file(&tag("nobody"), &layout::link(&nobody));
    forge.file(&tag("garbage"), b"\xff\x00 no digest \x1b[31m");
    forge.file(&tag("huge"), &noise("a huge tag", 3 * MIB));
    forge.file(&tag("large"), &noise("a large tag", 30_000));
    let directory = forge.directory(&[]);
    forge.put(&tag("directory"), directory, 1);
    let (no_file, endless) = (digest_of(b"no file"), digest_of(b"endless"));
    let symlink = forge.node(&Data { data: Some("/etc/passwd".into()), ..Data::new(Kind::Symlink) }, &[]);
    forge.put(&layout::blob(&no_file), symlink, 1);
    forge.layer("bad", &no_file);
    let leaf = forge.block(&sampan_storage::Block::new(RAW, vec![7; MIB].into()));
    let (mut file, mut size) = (leaf, MIB as u64);
    for _ in 0..4 {
        let data =
            Data { filesize: Some(size * 1024), blocksizes: vec![size; 1024], ..Data::new(Kind::File) };
        file = forge.node(&data, &vec![("", file); 1024]);
        size *= 1024;
    }
    forge.put(&layout::blob(&endless), file, u64::MAX);
    forge.layer("bad", &endless);
    // The manifest says one size, the tree another.
    let lies = Image { manifest: image.manifest.replace("\"size\":100000", "\"size\":5"), ..image.clone() };
    forge.image("lies", "v1", &lies);
    let (root, blocks) = forge.make();
    publisher.publish(&root, &blocks).await;
    adopted(&follower, &root).await;

    for name in ["nobody", "garbage", "huge", "large", "directory"] {
        let answer = follower.get(&format!("/v2/bad/manifests/{name}")).await;
        let (status, code, message) = problem(answer).await;
        assert_eq!((status, code.as_str()), (404, "MANIFEST_UNKNOWN"), "{name}: {message}");
    }
    let by_digest = follower.get(&format!("/v2/bad/manifests/{nobody}")).await;
    assert_eq!(by_digest.status(), 404);
    let (status, _, why) = missing_blob(&follower, "bad", &no_file).await;
    assert_eq!(status, 404, "{why}");
    let (status, _, why) = missing_blob(&follower, "bad", &endless).await;
    assert!(status == 507 && why.contains("disk"), "{status} {why}");
    assert_eq!(follower.pull("bad", "v1").await, image);
    assert_eq!(follower.blob("lies", &digest_of(&image.layers[0]).to_string()).await, image.layers[0]);
    assert_eq!(follower.pull("good", "v1").await, good());
    are_sound(&follower);
    assert!(follower.peak() < MEMORY, "{} MiB", follower.peak() / MIB as u64);
}

#[tokio::test]
async fn a_tree_that_is_wider_than_anything_is_refused_with_the_reason_and_little_memory() {
    let (publisher, follower) = both(&json!({})).await;
    let mut forge = Forge::with("good", "v2", &good());
    let names: Vec<String> = (0..3000).map(|number| format!("{number:0>200}")).collect();
    let mut wide = forge.directory(&[]);
    for _ in 0..50 {
        let links: Vec<(&str, Cid)> = names.iter().map(|name| (name.as_str(), wide)).collect();
        wide = forge.directory(&links);
    }
    forge.put(&format!("{REPOSITORIES}/wide"), wide, 1);
    let (root, blocks) = forge.make();
    publisher.publish(&root, &blocks).await;
    refused(&follower, "too large to be followed").await;
    assert_eq!(follower.digest("good", "v2").await, None);
    // The next one that is right is taken.
    let (root, blocks) = Forge::with("good", "v3", &good()).make();
    publisher.publish(&root, &blocks).await;
    sees(&follower, "good", "v3", &good()).await;
    assert_eq!(follow(&follower).await["error"], Value::Null);
}

#[tokio::test]
async fn names_that_are_none_are_nowhere_to_be_seen() {
    let (publisher, follower) = both(&json!({})).await;
    let mut forge = Forge::with("good", "v1", &good());
    // What a repository is, to be hung under any name.
    let image = Image::new(&[b"below a bad name"]);
    let digest = digest_of(image.manifest.as_bytes());
    forge.blob(image.manifest.as_bytes());
    let file = cid_of(RAW, digest.to_string().as_bytes());
    forge.image("model", "v1", &image);
    let link = forge.directory(&[("link", file)]);
    let current = forge.directory(&[("current", link)]);
    let long = "n".repeat(10_000);
    let bad = [
        "..",
        "",
        ".",
        "/",
        "UPPER",
        "a b",
        "\x1b[31mred",
        "nul\0",
        "line\nbreak",
        "-dash",
        "a--",
        long.as_str(),
        "../../escape",
        "\u{202e}override",
        "emoji\u{1f6a2}",
    ];
    let hung = |forge: &mut Forge, cid: Cid| {
        let links: Vec<(&str, Cid)> = bad.iter().map(|name| (*name, cid)).collect();
        forge.directory(&links)
    };
    let by_digest = forge.directory(&[(digest.hex().as_str(), link)]);
    let sha256 = forge.directory(&[("sha256", by_digest)]);
    let tags = hung(&mut forge, current);
    let manifests = forge.directory(&[("revisions", sha256), ("tags", tags)]);
    let repository =
        forge.directory(&[("_manifests", manifests), ("_layers", sha256), ("_referrers", sha256)]);
    let repositories = hung(&mut forge, repository);
    forge.put(&format!("{REPOSITORIES}/below"), repositories, 1);
    forge.put(&format!("{REPOSITORIES}/tagged"), repository, 1);
    // A name that is passed over may lead anywhere, also to what nobody has.
    let nowhere =
        forge.directory(&[("..", cid_of(DAG_PB, b"nobody has it")), ("\x07", cid_of(DAG_PB, b"nor this"))]);
    forge.put(&format!("{REPOSITORIES}/nowhere"), nowhere, 1);
    let (root, blocks) = forge.make();
    publisher.publish(&root, &blocks).await;
    adopted(&follower, &root).await;

    assert_eq!(follower.catalog().await, ["good", "model", "tagged"]);
    assert_eq!(follower.tags("tagged").await, ["UPPER", "a--"], "these are tags");
    let referrers = json_of(follower.get(&format!("/v2/tagged/referrers/{digest}")).await).await;
    assert_eq!(referrers["manifests"], json!([]));
    for name in ["below/..", "below/UPPER", "below/%1b%5b31mred", "below", "below//", "below/a%20b"] {
        let answer = follower.get(&format!("/v2/{name}/tags/list")).await;
        assert!(answer.status().is_client_error(), "{name}: {}", answer.status());
        let said = follower.home.sampan(&["explain", &format!("{name}:v1")]).await;
        assert!(!said.stdout.contains(&digest.to_string()), "{said:?}");
    }
    let seen = [follower.home.whole_log(), follower.home.prints(&["status", "--json"]).await];
    for text in seen {
        for name in ["UPPER", "\x1b[31mred", "nnnnnnnn", "override", "escape"] {
            assert!(!text.contains(name), "{name:?} in {text}");
        }
    }
    let files = contents(&follower.home.data());
    assert!(files.keys().all(|path| !path.to_str().unwrap().contains("UPPER")));

    // Nothing of it keeps this registry from its own work.
    follower.push("mine", "v1", &image).await;
    follower.send("DELETE", &format!("/v2/mine/manifests/{}", image.digest())).await;
    follower.home.prints(&["gc", "--grace", "0s"]).await;
    let verified = follower.home.prints(&["verify"]).await;
    assert!(verified.contains(" 0 findings"), "{verified}");
    let home = follower.stop().await;
    fs::remove_dir_all(home.data().join("db")).unwrap();
    let follower = home.start().await;
    assert_eq!(follower.catalog().await, ["good", "model", "tagged"]);

    // One that is no text at all makes no tree.
    let mut forge = Forge::with("good", "v2", &good());
    let no_text = forge.no_text("a?b", repository);
    forge.put(&format!("{REPOSITORIES}/notext"), no_text, 1);
    let (root, blocks) = forge.make();
    publisher.publish(&root, &blocks).await;
    refused(&follower, "not UTF-8").await;
}

#[tokio::test]
async fn roots_that_flip_end_with_the_newest_and_the_last_good_one_answers_meanwhile() {
    const FLIPS: usize = 20;
    let (publisher, follower) = both(&json!({"policy": "mirror"})).await;
    let images = [Image::new(&[&noise("one side", 300_000)]), Image::new(&[&noise("the other", 300_000)])];
    let mut roots = Vec::new();
    for image in &images {
        let mut forge = Forge::with("good", "v1", &good());
        forge.image("flips", "v1", image);
        let (root, blocks) = forge.make();
        publisher.take(&blocks).await;
        roots.push(root);
    }
    for flip in 0..FLIPS {
        publisher.point(&roots[flip % 2]).await;
        assert_eq!(follower.pull("good", "v1").await, good());
    }
    // The one that came before, again.
    let last = (FLIPS - 1) % 2;
    adopted(&follower, &roots[last]).await;
    sees(&follower, "flips", "v1", &images[last]).await;
    eventually("it is mirrored", async || {
        let mirror = follow(&follower).await["mirror"].clone();
        (mirror["finished"] == true && mirror["root"] == roots[last].to_string()).then_some(())
    })
    .await;
    let sequence = follow(&follower).await["sequence"].as_u64().unwrap();
    assert_eq!(sequence, FLIPS as u64);
    drop(publisher);
    assert_eq!(follower.pull("flips", "v1").await, images[last]);
    are_sound(&follower);
    assert!(follower.peak() < MEMORY, "{} MiB", follower.peak() / MIB as u64);
}

#[tokio::test]
async fn a_publisher_that_goes_half_way_through_a_mirror_leaves_what_was_there_and_no_half_of_a_blob() {
    let publisher = Publisher::start().await;
    let wire = Wire::to(&publisher.server).await;
    let (root, blocks) = Forge::with("good", "v1", &good()).make();
    publisher.publish(&root, &blocks).await;
    let follower = follower(&[(&publisher.name, &json!({"policy": "mirror"}))], &wire.address).await;
    sees(&follower, "good", "v1", &good()).await;
    let image = Image::new(&[&noise("first half", 6 * MIB), &noise("second half", 6 * MIB)]);
    let mut forge = Forge::with("good", "v1", &good());
    forge.image("half", "v1", &image);
    let (root, blocks) = forge.make();
    publisher.take(&blocks).await;
    wire.hold_after(8 * MIB as u64);
    publisher.point(&root).await;
    sees(&follower, "half", "v1", &image).await;
    eventually("half of it has come", async || (wire.passed() > 6 * MIB as u64).then_some(())).await;
    drop(publisher.server.kill());
    let mirror = eventually("what is missing", async || {
        let mirror = follow(&follower).await["mirror"].clone();
        mirror["missing"].as_u64().is_some_and(|missing| missing > 0).then_some(mirror)
    })
    .await;
    assert_eq!(mirror["finished"], false);
    assert!(mirror["error"].as_str().unwrap().contains("no peer gave it"), "{mirror}");
    assert_eq!(follower.pull("good", "v1").await, good());
    are_sound(&follower);
    // As it was asked for by its digest: whole, or not found.
    for layer in &image.layers {
        let answer = follower.get(&format!("/v2/half/blobs/{}", digest_of(layer))).await;
        match answer.status().as_u16() {
            200 => assert!(answer.bytes().await.map_or(true, |bytes| bytes == layer.as_slice())),
            status => assert_eq!(status, 404),
        }
    }
    assert!(!contents(&follower.home.data().join("blobs")).is_empty());
}

#[tokio::test]
async fn a_root_without_its_blobs_is_mirrored_as_far_as_it_goes_and_the_next_one_whole() {
    let (publisher, follower) = both(&json!({"policy": "mirror"})).await;
    let (gone, here) = (Image::new(&[&noise("gone", 2 * MIB)]), Image::new(&[&noise("here", 2 * MIB)]));
    let mut forge = Forge::with("good", "v1", &good());
    forge.image("gone", "v1", &gone);
    let (root, blocks) = forge.make();
    let is_leaf = |block: &&sampan_storage::Block| block.cid().codec() == RAW && block.data().len() > 500_000;
    let without: Vec<_> = blocks.iter().filter(|block| !is_leaf(block)).cloned().collect();
    publisher.publish(&root, &without).await;
    adopted(&follower, &root).await;
    // It is overtaken while nobody gives what it lacks; what both have is not lost over it.
    let mut forge = Forge::with("good", "v1", &good());
    forge.image("here", "v1", &here);
    let (next, more) = forge.make();
    publisher.publish(&next, &more).await;
    adopted(&follower, &next).await;
    let mut forge = Forge::with("good", "v1", &good());
    forge.image("here", "v1", &here);
    forge.image("gone", "v1", &gone);
    let (last, all) = forge.make();
    publisher.publish(&last, &all).await;
    eventually("all of it is mirrored", async || {
        let mirror = follow(&follower).await["mirror"].clone();
        (mirror["finished"] == true && mirror["root"] == last.to_string()).then_some(())
    })
    .await;
    drop(publisher);
    assert_eq!(follower.pull("here", "v1").await, here);
    assert_eq!(follower.pull("gone", "v1").await, gone);
}

#[tokio::test]
async fn what_stands_where_directories_should_is_passed_over() {
    let (publisher, follower) = both(&json!({})).await;
    let image = Image::new(&[b"deep"]);
    let mut forge = Forge::with("good", "v1", &good());
    forge.image("model", "v1", &image);
    forge.image("a/b/c", "v1", &image);
    // Repositories inside of repositories' own directories.
    let inner = forge.directory(&[]);
    let mut deep = inner;
    for _ in 0..100 {
        deep = forge.directory(&[("d", deep)]);
    }
    let bottom = forge.directory(&[("d", cid_of(DAG_PB, b"nobody has what is below the bound"))]);
    let mut below = bottom;
    for _ in 0..100 {
        below = forge.directory(&[("d", below)]);
    }
    forge.put(&format!("{REPOSITORIES}/deep"), deep, 1);
    forge.put(&format!("{REPOSITORIES}/deeper"), below, 1);
    let symlink = forge.node(&Data { data: Some("/etc".into()), ..Data::new(Kind::Symlink) }, &[]);
    let metadata = forge.node(&Data { data: Some("x".into()), ..Data::new(Kind::Metadata) }, &[]);
    let raw = forge.block(&sampan_storage::Block::new(RAW, b"no directory".as_slice().into()));
    for (name, cid) in [("symlink", symlink), ("metadata", metadata), ("raw", raw)] {
        forge.put(&format!("{REPOSITORIES}/{name}"), cid, 1);
        forge.put(&format!("{REPOSITORIES}/in{name}/_layers"), cid, 1);
        forge.put(&format!("{REPOSITORIES}/in{name}/_manifests/tags"), cid, 1);
        forge.put(&format!("{REPOSITORIES}/in{name}/_manifests/revisions/sha256"), cid, 1);
    }
    forge.put("docker/registry/v2/blobs/sha512", symlink, 1);
    forge.put("docker/registry/v2/blobs/sha256/00", raw, 1);
    let digest = digest_of(image.manifest.as_bytes());
    forge.file(
        &format!("{REPOSITORIES}/a/_layers/inner/_manifests/revisions/sha256/{}/link", digest.hex()),
        b"x",
    );
    let (root, blocks) = forge.make();
    publisher.publish(&root, &blocks).await;
    adopted(&follower, &root).await;
    assert_eq!(follower.catalog().await, ["a/b/c", "good", "model"]);
    assert_eq!(follower.pull("a/b/c", "v1").await, image);
    assert_eq!(follower.pull("good", "v1").await, good());
    for repository in ["symlink", "inraw", "a/_layers/inner", "deep"] {
        let answer = follower.get(&format!("/v2/{repository}/tags/list")).await;
        assert!(
            answer.status().is_client_error() || json_of(answer).await["tags"] == json!([]),
            "{repository}"
        );
    }
    follower.push("mine", "v1", &image).await;
    follower.home.prints(&["gc", "--grace", "0s"]).await;
    let verified = follower.home.prints(&["verify"]).await;
    assert!(verified.contains(" 0 findings"), "{verified}");
}

#[tokio::test]
async fn a_directory_that_nobody_has_keeps_the_last_good_root_and_status_says_so() {
    let (publisher, follower) = both(&json!({})).await;
    let mut forge = Forge::with("good", "v2", &good());
    let lost = cid_of(DAG_PB, b"a directory that nobody has");
    forge.put(&format!("{REPOSITORIES}/lost"), lost, 1);
    let (root, blocks) = forge.make();
    publisher.publish(&root, &blocks).await;
    refused(&follower, "directories").await;
    let said = follow(&follower).await;
    assert!(said["heard"].as_u64() > said["sequence"].as_u64(), "{said}");
    let answer = follower.send("HEAD", "/v2/good/manifests/v1").await;
    assert_eq!(header(&answer, "docker-content-digest"), good().digest());
    // Patience is not without end, and neither is it given up for the next one.
    let (root, blocks) = Forge::with("good", "v3", &good()).make();
    publisher.publish(&root, &blocks).await;
    sees(&follower, "good", "v3", &good()).await;
}
