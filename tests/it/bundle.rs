//! Bundles: what is pushed on one side of an air gap is pulled on the other, and nothing else gets there.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use sampan_node::Keypair;
use sampan_node::ipns::{Draft, Record};
use sampan_storage::block::{RAW, cid_of};
use sampan_storage::{Block, Cid, car};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::harness::{Home, Options, Server, USERS, eventually, noise};
use crate::oci::{Image, sha256};

const MIB: usize = 1024 * 1024;

/// A folder that is carried.
struct Medium(tempfile::TempDir);

impl Medium {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a bundle on it; what is said of it comes back.
    async fn create(&self, server: &Server, name: &str, options: &[&str]) -> Value {
        let path = self.path(name).display().to_string();
        server.home.json(&[&["bundle", "create", "--json", &path], options].concat()).await
    }

    async fn apply(&self, home: &Home, names: &[&str]) -> Result<String, String> {
        let paths: Vec<String> = names.iter().map(|name| self.path(name).display().to_string()).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let said = home.sampan(&[&["bundle", "apply"], paths.as_slice()].concat()).await;
        if said.code == Some(0) {
            return Ok(said.stdout);
        }
        assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:?}");
        Err(said.stderr)
    }

    /// It is refused for this reason, and nothing is followed that was not.
    async fn is_refused(&self, server: &Server, names: &[&str], reason: &str) {
        let before = follows(server).await;
        let refused = self.apply(&server.home, names).await.expect_err("it is refused");
        assert!(refused.contains(reason), "{refused}");
        assert_eq!(follows(server).await, before);
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

async fn follows(server: &Server) -> Value {
    let mut follows = server.home.json(&["follow", "ls", "--json"]).await;
    for follow in follows.as_array_mut().unwrap() {
        // These say how long ago it was heard of.
        for key in ["age", "describe", "notes"] {
            follow.as_object_mut().unwrap().remove(key);
        }
    }
    follows
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap().to_owned()
}

/// Two images of a layer that nobody else has, pushed one after the other, each in a bundle.
fn image(seed: &str, length: usize) -> Image {
    Image::new(&[&noise(seed, length)])
}

/// The sections of a CAR.
fn sections(bytes: &[u8]) -> Vec<(Cid, Vec<u8>)> {
    let reader = car::Reader::new(bytes).unwrap();
    reader.map(Result::unwrap).map(|section| (section.cid, section.data.to_vec())).collect()
}

fn car_of(root: Cid, sections: &[(Cid, Vec<u8>)]) -> Vec<u8> {
    let mut out = car::header(&[root, sections[1].0]);
    for (cid, data) in sections {
        car::write_section(&mut out, cid, data);
    }
    out
}

/// The same bundle with another record.
fn with_record(bytes: &[u8], record: &[u8]) -> Vec<u8> {
    let mut sections = sections(bytes);
    let mut description: Value = serde_json::from_slice(&sections[0].1).unwrap();
    let cid = cid_of(RAW, record);
    description["record"] = json!(cid.to_string());
    let root: Cid = description["root"].as_str().unwrap().parse().unwrap();
    let description = description.to_string().into_bytes();
    sections[0] = (cid_of(RAW, &description), description);
    sections[1] = (cid, record.to_vec());
    car_of(root, &sections)
}

/// The key of a registry.
async fn key_of(server: &Server) -> Keypair {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    server.home.prints(&["key", "export", "self", &file.display().to_string()]).await;
    Keypair::from_protobuf(&fs::read(file).unwrap()).unwrap()
}

/// A registry on the far side that is told by peers alone whom to follow.
async fn neighbour(of: &Server, name: &str) -> Server {
    let (peers, follow) = (vec![of.p2p.clone()], vec![name.to_owned()]);
    Server::start(Options { peers, follow, ..Options::default() }).await
}

async fn sees(server: &Server, repository: &str, tag: &str, image: &Image) {
    let expected = image.digest();
    let what = format!("{repository}:{tag} as it was pushed");
    eventually(&what, async || server.digest(repository, tag).await.filter(|it| *it == expected)).await;
}

#[tokio::test]
async fn a_bundle_and_its_increments_bring_a_registry_over_the_gap_in_order() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    let (one, two, three) = (image("one", 3 * MIB), image("two", 2 * MIB + 1), image("three", MIB + 7));
    here.push("team/boat", "v1", &one).await;
    let full = medium.create(&here, "full", &[]).await;
    assert_eq!(text(&full, "root"), here.home.prints(&["root"]).await);
    assert_eq!(text(&full, "name"), here.name);
    here.push("team/boat", "v2", &two).await;
    let first = medium.create(&here, "first", &["--since", &text(&full, "root")]).await;
    here.push("other", "v3", &three).await;
    let second = medium.create(&here, "second", &["--since", &text(&first, "root")]).await;
    for (bundle, changed) in [(&full, 3 * MIB), (&first, 2 * MIB), (&second, MIB)] {
        let bytes = usize::try_from(bundle["bytes"].as_u64().unwrap()).unwrap();
        assert!(bytes > changed && bytes < changed / 20 * 21 + MIB, "{bytes} for {changed}");
        let file = fs::metadata(bundle["files"][0]["file"].as_str().unwrap()).unwrap();
        assert_eq!(file.len(), bundle["bytes"].as_u64().unwrap());
    }

    let there = Server::start(Options::default()).await;
    medium.is_refused(&there, &["first"], &text(&full, "root")).await;
    assert!(medium.apply(&there.home, &["full"]).await.unwrap().contains("1 new blobs"));
    assert_eq!(there.pull("team/boat", "v1").await, one);
    medium.is_refused(&there, &["second"], &text(&first, "root")).await;
    medium.apply(&there.home, &["first"]).await.unwrap();
    let again = medium.apply(&there.home, &["first"]).await.unwrap();
    assert!(again.contains("is there already"), "{again}");
    medium.is_refused(&there, &["full"], "it is older than what is here").await;
    medium.apply(&there.home, &["second"]).await.unwrap();
    let fourth = Server::start(Options::default()).await;
    medium.apply(&fourth.home, &["second", "full", "first"]).await.unwrap();
    assert_eq!(fourth.pull("other", "v3").await, three);
    assert_eq!(there.pull("team/boat", "v1").await, one);
    assert_eq!(there.pull("team/boat", "v2").await, two);
    assert_eq!(there.pull("other", "v3").await, three);
    assert_eq!(there.catalog().await, ["other", "team/boat"]);

    // It stays, and others have it from there.
    let there = there.restart().await;
    there.home.prints(&["gc", "--grace", "0s"]).await;
    let verified = there.home.prints(&["verify"]).await;
    assert!(verified.contains(" 0 findings"), "{verified}");
    drop(here);
    let other = neighbour(&there, &text(&full, "name")).await;
    sees(&other, "other", "v3", &three).await;
    assert_eq!(other.pull("team/boat", "v1").await, one);
    assert_eq!(other.pull("other", "v3").await, three);

    // And carry it on, also from where it was only followed; what nobody has pulled there is fetched for that.
    let onward = medium.create(&other, "onward", &["--name", &text(&full, "name")]).await;
    assert_eq!(text(&onward, "root"), text(&second, "root"));
    let beyond = Server::start(Options::default()).await;
    medium.apply(&beyond.home, &["onward"]).await.unwrap();
    assert_eq!(beyond.pull("team/boat", "v2").await, two);
}

#[tokio::test]
async fn what_was_cut_altered_or_signed_by_another_is_refused_and_changes_nothing() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    let one = image("cut", 2 * MIB + 99);
    here.push("team/boat", "v1", &one).await;
    medium.create(&here, "good", &[]).await;
    let good = medium.bytes("good");
    let there = Server::start(Options::default()).await;
    let refused = async |bytes: &[u8], reason: &str| {
        fs::write(medium.path("bad"), bytes).unwrap();
        medium.is_refused(&there, &["bad"], reason).await;
    };
    for cut in [0, 1, 60, 500, 900, 2_000, good.len() / 3, good.len() / 2, good.len() - 1] {
        refused(&good[..cut], "").await;
    }
    // Where a section ends, too.
    let last = sections(&good).last().unwrap().1.len();
    refused(&good[..good.len() - last - 40], "is cut off").await;
    for at in [2, 70, 400, 800, 1_300, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        refused(&bytes, "").await;
    }
    // A block that belongs to nothing.
    let mut more = sections(&good);
    let stray = Block::new(RAW, b"stray".as_slice().into());
    more.push((*stray.cid(), stray.data().to_vec()));
    let root: Cid = here.home.prints(&["root"]).await.parse().unwrap();
    refused(&car_of(root, &more), "more blocks than it says").await;
    let mut other = sections(&good);
    other[2] = more.pop().unwrap();
    refused(&car_of(root, &other), "no place in the tree").await;

    let stranger = Keypair::generate();
    let record = Record::sign(&stranger, &Draft::new(root, 1, SystemTime::now())).unwrap();
    refused(&with_record(&good, record.bytes()), "is not signed by").await;
    fs::write(medium.path("bad"), &good).unwrap();
    let path = medium.path("bad").display().to_string();
    let name = stranger.name().to_string();
    let said = there.home.sampan(&["bundle", "apply", "--name", &name, &path]).await;
    assert!(said.code == Some(1) && said.stderr.contains("another name"), "{said:?}");
    refused(b"no CAR at all", "is no bundle").await;
    medium.is_refused(&here, &["good"], "only a registry that has nothing yet").await;
    medium.apply(&there.home, &["good"]).await.unwrap();
    assert_eq!(there.pull("team/boat", "v1").await, one);
}

#[tokio::test]
async fn parts_are_applied_one_by_one_or_together() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    let small: Vec<Image> = (0..4).map(|at| image(&format!("part {at}"), 2 * MIB + 5)).collect();
    for (at, image) in small.iter().enumerate() {
        here.push("team/boat", &format!("v{at}"), image).await;
    }
    let made = medium.create(&here, "parts", &["--split", "5M"]).await;
    assert_eq!(made["parts"], 2, "{made}");
    assert!(made["files"].as_array().unwrap().iter().all(|file| file["bytes"].as_u64().unwrap() <= 5 << 20));
    let there = Server::start(Options::default()).await;
    medium.is_refused(&there, &["parts.002"], "part 1 of 2 comes first").await;
    let kept = medium.apply(&there.home, &["parts"]).await.unwrap();
    assert!(kept.contains("not visible yet: 2 blobs are to come"), "{kept}");
    assert_eq!(follows(&there).await, json!([]));
    assert_eq!(there.digest("team/boat", "v1").await, None);
    let there = there.restart().await;
    medium.apply(&there.home, &["parts.002"]).await.unwrap();
    for (at, image) in small.iter().enumerate() {
        assert_eq!(there.pull("team/boat", &format!("v{at}")).await, *image);
    }

    // What is larger than a part goes on in the next.
    let large = image("large", 9 * MIB);
    here.push("team/ship", "v1", &large).await;
    let since = text(&made, "root");
    let made = medium.create(&here, "large", &["--since", &since, "--split", "4M"]).await;
    assert_eq!(made["parts"], 3, "{made}");
    medium.apply(&there.home, &["large"]).await.unwrap();
    medium.is_refused(&there, &["large.003"], "goes on where part 2 ends").await;
    medium.is_refused(&there, &["parts", "large.002"], "goes on where part 1 ends").await;
    medium.apply(&there.home, &["large.003", "large", "large.002"]).await.unwrap();
    assert_eq!(there.pull("team/ship", "v1").await, large);
    let said = here.home.sampan(&["bundle", "create", "--split", "1M", "x"]).await;
    assert!(said.code == Some(2) && said.stderr.contains("at least 4 MiB"), "{said:?}");
}

#[tokio::test]
async fn a_kill_at_any_time_costs_no_more_than_doing_it_again() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    let image =
        Image::new(&[&noise("kill a", 2 * MIB), &noise("kill b", 2 * MIB), &noise("kill c", 2 * MIB)]);
    here.push("team/boat", "v1", &image).await;
    medium.create(&here, "good", &[]).await;
    let good = medium.bytes("good");
    let there = Server::start(Options::default()).await;
    let mut command = there.home.command(&["bundle", "apply", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let half = good[..good.len() / 2].to_vec();
    let input = spawn_blocking(move || input.write_all(&half).map(|()| input)).await.unwrap().unwrap();
    let data = there.home.data();
    let kept = || {
        let layer = |layer: &Vec<u8>| sha256(layer).strip_prefix("sha256:").unwrap().to_owned();
        image
            .layers
            .iter()
            .map(layer)
            .filter(|hex| data.join("blobs/sha256").join(&hex[..2]).join(hex).exists())
            .count()
    };
    eventually("a blob is kept", async || (kept() > 0).then_some(())).await;
    let home = there.kill();
    drop(input);
    assert!(!spawn_blocking(move || child.wait()).await.unwrap().unwrap().success());
    let mut before = kept();
    assert!((1..3).contains(&before), "{before}");

    // Around the moment at which it becomes visible.
    let mut home = home;
    for point in ["adopt.pack.after", "adopt.entry.after"] {
        home.options.environment = vec![("SAMPAN_FAILPOINT", point)];
        let there = home.start().await;
        assert_eq!(there.digest("team/boat", "v1").await, None, "{point}");
        assert!(medium.apply(&there.home, &["good"]).await.is_err(), "{point}");
        home = there.kill();
        assert!(kept() >= before);
        before = kept();
    }
    home.options.environment.clear();
    let there = home.start().await;
    assert_eq!(before, 3);
    let applied = medium.apply(&there.home, &["good"]).await.unwrap();
    assert!(applied.contains("0 new blobs"), "{applied}");
    assert_eq!(there.pull("team/boat", "v1").await, image);
    let there = there.kill().start().await;
    assert_eq!(there.pull("team/boat", "v1").await, image);
}

#[tokio::test]
async fn a_record_that_has_expired_is_taken_and_passed_on() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    let one = image("expired", 2 * MIB);
    here.push("team/boat", "v1", &one).await;
    let made = medium.create(&here, "fresh", &[]).await;
    let root: Cid = text(&made, "root").parse().unwrap();
    let mut draft = Draft::new(root, made["sequence"].as_u64().unwrap(), SystemTime::now());
    draft.validity = SystemTime::now() - Duration::from_hours(31 * 24);
    let record = Record::sign(&key_of(&here).await, &draft).unwrap();
    fs::write(medium.path("old"), with_record(&medium.bytes("fresh"), record.bytes())).unwrap();
    let name = here.name.clone();
    drop(here);

    let there = Server::start(Options::default()).await;
    // One follows before there is anything, the other after.
    let early = neighbour(&there, &name).await;
    medium.apply(&there.home, &["old"]).await.unwrap();
    let late = neighbour(&there, &name).await;
    for server in [&there, &early, &late] {
        sees(server, "team/boat", "v1", &one).await;
        assert_eq!(server.pull("team/boat", "v1").await, one);
        assert_eq!(follows(server).await[0]["stale"], true);
    }
    // Who allows nothing that old knows it and does not show it.
    let strict = json!({"name": name, "max_stale": "24h"}).to_string();
    let options = Options { peers: vec![there.p2p.clone()], follow: vec![strict], ..Options::default() };
    let strict = Server::start(options).await;
    eventually("the tree is refused", async || (follows(&strict).await[0]["refused"] == true).then_some(()))
        .await;
    let answer = strict.get("/v2/team/boat/manifests/v1").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("max_stale"));
    assert!(strict.catalog().await.is_empty());
    // Routers and other kubo-facing paths do not get it.
    let routed = there.get(&format!("/routing/v1/ipns/{name}")).await;
    assert_ne!(routed.headers()["content-type"], "application/vnd.ipfs.ipns-record");
}

#[tokio::test]
async fn a_part_of_the_repositories_is_whole_and_the_rest_is_named_only() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    let (ours, theirs) = (image("ours", 2 * MIB), image("theirs", 3 * MIB));
    here.push("team/boat", "v1", &ours).await;
    here.push("other/ship", "v1", &theirs).await;
    let made = medium.create(&here, "team", &["--repos", "team/*"]).await;
    assert!(made["bytes"].as_u64().unwrap() < 2 * MIB as u64 + MIB as u64 / 2, "{made}");
    let there = Server::start(Options::default()).await;
    medium.apply(&there.home, &["team"]).await.unwrap();
    assert_eq!(there.pull("team/boat", "v1").await, ours);
    assert_eq!(there.catalog().await, ["other/ship", "team/boat"]);
    let layer = format!("/v2/other/ship/blobs/{}", sha256(&theirs.layers[0]));
    assert_eq!(there.get(&layer).await.status(), 404);
    // A neighbour can follow it nevertheless, and a whole bundle brings the rest.
    let other = neighbour(&there, &here.name).await;
    sees(&other, "team/boat", "v1", &ours).await;
    medium.create(&here, "all", &[]).await;
    medium.apply(&there.home, &["all"]).await.unwrap();
    assert_eq!(there.pull("other/ship", "v1").await, theirs);
}

#[tokio::test]
async fn any_node_imports_a_bundle_as_the_car_that_it_is() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    here.push("team/boat", "v1", &image("car", 2 * MIB)).await;
    let full = medium.create(&here, "full", &[]).await;
    here.push("team/boat", "v2", &image("car too", 2 * MIB)).await;
    let next = medium.create(&here, "next", &["--since", &text(&full, "root")]).await;
    let there = Server::start(Options::default()).await;
    let import = async |name: &str| {
        let path = medium.path(name).display().to_string();
        there.home.sampan(&["dag", "import", &path]).await
    };
    let early = import("next").await;
    assert_eq!(early.code, Some(1), "{early:?}");
    for (name, made) in [("full", &full), ("next", &next)] {
        let said = import(name).await;
        assert!(said.stdout.contains(&format!("pinned {}", text(made, "root"))), "{said:?}");
    }
}

#[tokio::test]
async fn a_bundle_has_what_the_record_of_its_name_signs_and_never_more() {
    let medium = Medium::new();
    let mut home = Home::new(Options::default());
    let users = medium.path("users");
    fs::write(&users, USERS).unwrap();
    let rules = format!(
        "auth:\n  htpasswd:\n    path: {}\n  rules:\n    - {{repositories: [\"open/*\"], users: [anonymous], actions: [pull]}}\n    - {{repositories: [\"**\"], users: [authenticated], actions: [pull, push, delete]}}\n",
        users.display()
    );
    let member = Keypair::generate().peer_id();
    let file = format!("{rules}ipfs:\n  members: [\"{member}\"]\n");
    home.options.file = Some(file);
    let mut here = home.start().await;
    reqwest::get(format!("http://{}/v2/", here.http)).await.unwrap();
    here.client = as_alice();
    let (open, hidden) = (image("open", MIB), image("hidden", MIB));
    here.push("open/boat", "v1", &open).await;
    here.push("secret/ship", "v1", &hidden).await;
    medium.create(&here, "open", &[]).await;
    let members = here.home.json(&["status", "--json"]).await["members"].as_str().unwrap().to_owned();
    medium.create(&here, "members", &["--name", &members]).await;
    let has = |name: &str, word: &[u8]| medium.bytes(name).windows(word.len()).any(|window| window == word);
    assert!(has("open", &open.layers[0]) && has("members", &hidden.layers[0]));
    assert!(!has("open", &hidden.layers[0]) && !has("open", b"secret"));

    let there = Server::start(Options::default()).await;
    medium.is_refused(&there, &["members"], "the name is for members").await;
    medium.apply(&there.home, &["open"]).await.unwrap();
    assert_eq!(there.pull("open/boat", "v1").await, open);
    assert_eq!(there.catalog().await, ["open/boat"]);

    // The members' bundle is the whole backup: with the keys it makes the same registry, in two trees.
    let home = Home::new(Options { file: here.home.options.file.clone(), ..Options::default() });
    fs::create_dir_all(home.data().join("keys")).unwrap();
    for key in ["self.key", "registry-members.key"] {
        fs::copy(here.home.data().join("keys").join(key), home.data().join("keys").join(key)).unwrap();
    }
    let before = here.status().await;
    drop(here);
    let mut again = home.start().await;
    reqwest::get(format!("http://{}/v2/", again.http)).await.unwrap();
    again.client = as_alice();
    medium.apply(&again.home, &["members"]).await.unwrap();
    let after = again.status().await;
    for what in ["name", "members", "root", "public_root"] {
        assert_eq!(after[what], before[what], "{what}");
    }
    assert_eq!(again.pull("open/boat", "v1").await, open);
    assert_eq!(again.pull("secret/ship", "v1").await, hidden);
}

/// A client with the password of alice.
fn as_alice() -> reqwest::Client {
    use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
    let alice = HeaderValue::from_static("Basic YWxpY2U6b3BlbiBzZXNhbWU=");
    let headers = HeaderMap::from_iter([(AUTHORIZATION, alice)]);
    reqwest::Client::builder().timeout(crate::harness::DEADLINE).default_headers(headers).build().unwrap()
}

#[tokio::test]
async fn a_bundle_that_is_not_made_leaves_no_file() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    let path = medium.path("none").display().to_string();
    let unknown = Keypair::generate().name().to_string();
    let since = cid_of(RAW, b"no root").to_string();
    for (options, reason) in [
        (["--name", unknown.as_str()], "neither this registry's own"),
        (["--since", since.as_str()], "are not here"),
        (["--since", "nonsense"], "is no CID"),
    ] {
        let said = here.home.sampan(&[&["bundle", "create", &path], options.as_slice()].concat()).await;
        assert!(said.code == Some(1) && said.stderr.contains(reason), "{said:?}");
    }
    assert_eq!(fs::read_dir(Path::new(&path).parent().unwrap()).unwrap().count(), 0);
    fs::write(&path, "something").unwrap();
    let said = here.home.sampan(&["bundle", "create", &path]).await;
    assert!(said.code == Some(1) && said.stderr.contains("is there already"), "{said:?}");
}

#[tokio::test]
async fn a_registry_is_the_same_again_from_its_bundle_and_its_key() {
    let (medium, here) = (Medium::new(), Server::start(Options::default()).await);
    let (one, two, later) = (image("backup", 2 * MIB + 3), Image::new(&[b"small", b""]), image("later", MIB));
    here.push("team/boat", "v1", &one).await;
    here.push("other", "v2", &two).await;
    let follower = here.start_follower(&here.p2p).await;
    sees(&follower, "other", "v2", &two).await;
    let made = medium.create(&here, "backup", &[]).await;
    let key = medium.path("key").display().to_string();
    here.home.prints(&["key", "export", "self", &key]).await;
    let (name, sequence) = (here.name.clone(), here.status().await["sequence"].clone());
    drop(here);

    let mut home = Home::new(Options::default());
    home.options.peers = vec![follower.p2p.clone()];
    home.prints(&["key", "import", "self", &key]).await;
    home.options.environment = vec![("SAMPAN_FAILPOINT", "journal.sync.after:1")];
    let again = home.start().await;
    assert_eq!(again.name, name);
    // An empty tree is not published, so the first entry is the restored root.
    assert!(medium.apply(&again.home, &["backup"]).await.is_err());
    let mut home = again.kill();
    home.options.environment.clear();
    let mut again = home.start().await;
    for _ in 0..2 {
        assert_eq!(again.home.prints(&["root"]).await, text(&made, "root"));
        assert_eq!(again.status().await["sequence"], sequence);
        assert_eq!(again.catalog().await, ["other", "team/boat"]);
        assert_eq!(again.tags("team/boat").await, ["v1"]);
        assert_eq!(again.pull("team/boat", "v1").await, one);
        assert_eq!(again.pull("other", "v2").await, two);
        let verified = again.home.prints(&["verify"]).await;
        assert!(verified.contains(" 0 findings"), "{verified}");
        // Without its index it is the same.
        let home = again.stop().await;
        fs::remove_dir_all(home.data().join("db")).unwrap();
        again = home.start().await;
    }
    again.push("team/boat", "v2", &later).await;
    sees(&follower, "team/boat", "v2", &later).await;
    medium.is_refused(&again, &["backup"], "only a registry that has nothing yet").await;
}
