//! The commands: what they print, and how they refuse.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Home, Options, Said, Server, contents, noise};
use crate::oci::Image;

/// Flags of a server that would start, if it were not for what a test has prepared.
const SERVE: [&str; 5] = ["serve", "--addr", "127.0.0.1:0", "--p2p", "/ip4/127.0.0.1/tcp/0"];

/// An error is one line that says what is wrong, with words that the user can act on.
#[track_caller]
fn assert_refused(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    assert_eq!(said.stdout, "", "{said:?}");
    let one_line = said.stderr.ends_with('\n') && said.stderr.lines().count() == 1;
    assert!(one_line && said.stderr.starts_with("sampan: "), "{said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "no {word:?} in {said:?}");
    }
}

async fn serve(home: &Home, flags: &[&str]) -> Said {
    home.sampan(&[&SERVE, flags].concat()).await
}

/// A data directory that was used and stopped in order.
async fn used() -> Home {
    let server = Server::start(Options::default()).await;
    server.push("a", "v1", &Image::new(&[b"layer"])).await;
    server.stop().await
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused() {
    let server = Server::start(Options::default()).await;
    // The first one goes on to write its journal; these do not change.
    let kept =
        || ["LOCK", "VERSION", "keys/self.key"].map(|file| fs::read(server.home.data().join(file)).unwrap());
    let before = kept();
    assert_refused(&serve(&server.home, &[]).await, 1, &[server.home.data().to_str().unwrap()]);
    assert_eq!(kept(), before);
    assert_eq!(server.home.prints(&["name"]).await, server.name);
    assert_eq!(server.status().await["name"], server.name.as_str());
}

#[tokio::test]
async fn a_port_that_is_in_use_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let home = Home::new(Options::default());
    let (addr, p2p) = (format!("127.0.0.1:{port}"), format!("/ip4/127.0.0.1/tcp/{port}"));
    let said = home.sampan(&["serve", "--addr", &addr, "--p2p", "/ip4/127.0.0.1/tcp/0"]).await;
    assert_refused(&said, 1, &[&addr, "--addr"]);
    let said = home.sampan(&["serve", "--addr", "127.0.0.1:0", "--p2p", &p2p]).await;
    assert_refused(&said, 1, &[&p2p, "--p2p"]);
    assert!(!home.data().exists(), "nothing is left behind");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let home = Home::new(Options::default());
    assert_refused(&serve(&home, &["--adr", "x"]).await, 2, &["--adr", "--help"]);
    assert_refused(&home.sampan(&["sevre"]).await, 2, &["sevre", "--help"]);
    assert_refused(&serve(&home, &["--follow", "library/alpine"]).await, 2, &["library/alpine", "k51"]);
    assert_refused(&home.sampan(&["follow", "add", "k51"]).await, 2, &["k51"]);
    assert_refused(&serve(&home, &["--network", "wan"]).await, 2, &["wan", "lan"]);
    assert_refused(&home.sampan(&["serve", "--p2p", "0.0.0.0:4001"]).await, 2, &["/ip4/0.0.0.0/tcp/4001"]);
    assert_refused(&home.sampan(&["serve", "--addr", "nowhere"]).await, 1, &["nowhere", "--addr"]);
    assert_refused(&serve(&home, &["--config", "/no/such/file.yml"]).await, 1, &["/no/such/file.yml"]);
    assert_refused(&serve(&home, &["--network", "private"]).await, 1, &["swarm.key"]);
    assert!(!home.data().exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_configuration_with_an_unknown_key_is_refused() {
    let home = Home::new(Options::default());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "http:\n  adr: 127.0.0.1:0\n").unwrap();
    let path = file.path().to_str().unwrap();
    assert_refused(&serve(&home, &["--config", path]).await, 1, &[path, "adr"]);
    assert!(!home.data().exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_data_directory_of_a_newer_version_is_refused() {
    let home = used().await;
    fs::write(home.data().join("VERSION"), "9999\n").unwrap();
    let before = contents(&home.data());
    assert_refused(&serve(&home, &[]).await, 1, &["9999"]);
    assert_refused(&home.sampan(&["root"]).await, 1, &["9999"]);
    assert_eq!(contents(&home.data()), before);
}

#[tokio::test]
async fn a_key_that_does_not_parse_is_refused() {
    let home = used().await;
    fs::write(home.data().join("keys/self.key"), b"not a key").unwrap();
    let before = contents(&home.data());
    assert_refused(&serve(&home, &[]).await, 1, &["keys/self.key"]);
    assert_refused(&home.sampan(&["name"]).await, 1, &["keys/self.key"]);
    assert_eq!(contents(&home.data()), before);
}

#[tokio::test]
async fn a_directory_of_something_else_is_refused() {
    let home = Home::new(Options::default());
    fs::create_dir(home.data()).unwrap();
    fs::write(home.data().join("letter.txt"), "Dear Ann").unwrap();
    let before = contents(&home.data());
    assert_refused(&serve(&home, &[]).await, 1, &[home.data().to_str().unwrap()]);
    assert_eq!(contents(&home.data()), before);
}

#[tokio::test]
async fn without_a_running_registry_some_commands_say_how_to_start_one() {
    let home = used().await;
    let name = home.prints(&["name"]).await;
    for command in [
        vec!["status"],
        vec!["status", "--json"],
        vec!["peers"],
        vec!["follow", "ls"],
        vec!["follow", "add", &name],
    ] {
        assert_refused(&home.sampan(&command).await, 1, &["sampan serve --data"]);
    }
    let empty = Home::new(Options::default());
    for command in ["name", "root", "ls", "status"] {
        assert_refused(&empty.sampan(&[command]).await, 1, &[empty.data().to_str().unwrap()]);
    }
    assert!(!empty.data().exists(), "nothing is left behind");
}

#[tokio::test]
async fn the_control_socket_and_the_key_are_for_their_owner() {
    let server = Server::start(Options::default()).await;
    let mode = |file| fs::metadata(server.home.data().join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("control.sock"), 0o600);
    assert_eq!(mode("keys/self.key"), 0o600);
    let home = server.stop().await;
    assert!(!home.data().join("control.sock").exists());
}

#[tokio::test]
async fn status_tells_who_where_and_how_far() {
    let server = Server::start(Options::default()).await;
    let status = server.status().await;
    let text = |key: &str| status[key].as_str().unwrap_or_else(|| panic!("{key} in {status}")).to_owned();
    assert_eq!(text("name"), server.name);
    assert!(text("name").starts_with("k51"));
    assert_eq!(text("peer_id"), server.peer);
    assert_eq!(text("root"), server.home.prints(&["root"]).await);
    assert!(text("root").starts_with("bafy"));
    assert_eq!(text("http"), server.http.to_string());
    assert_eq!(text("network"), "lan");
    assert_eq!(text("data"), server.home.data().to_str().unwrap());
    assert_eq!(status["addresses"], Value::from(vec![server.p2p.clone()]));
    assert!(server.p2p.ends_with(&format!("/p2p/{}", server.peer)));
    assert_eq!(status["follows"], Value::Array(Vec::new()));
    assert_eq!(status["refused_records"], 0);

    let before = status["sequence"].as_u64().unwrap();
    server.push("a", "v1", &Image::new(&[b"layer"])).await;
    server.home.prints(&["root"]).await;
    let after = server.status().await;
    assert!(after["sequence"].as_u64().unwrap() > before);
    assert_ne!(after["root"], status["root"]);

    let told = server.home.prints(&["status"]).await;
    for what in [&server.name, &server.peer, &server.p2p] {
        assert!(told.contains(what), "{told}");
    }
}

#[tokio::test]
async fn name_root_and_ls_say_the_same_with_and_without_a_running_registry() {
    let server = Server::start(Options::default()).await;
    server.push("team/a", "v1", &Image::new(&[&noise("ls", 1_200_000)])).await;
    server.push("b", "v1", &Image::new(&[b"layer"])).await;
    let tags = "docker/registry/v2/repositories/team/a/_manifests/tags";
    let commands: [&[&str]; 7] = [
        &["name"],
        &["root"],
        &["ls"],
        &["ls", "docker/registry/v2/repositories"],
        &["ls", "/docker/registry/v2/repositories/"],
        &["ls", tags],
        &["ls", tags, "--json"],
    ];
    let mut online = Vec::new();
    for command in commands {
        online.push(server.home.prints(command).await);
    }
    assert_eq!(online[0], server.name);
    let names = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&online[2]), ["docker"]);
    assert_eq!(names(&online[3]), ["b", "team"]);
    assert_eq!(online[4], online[3]);
    assert_eq!(names(&online[5]), ["v1"]);
    let listed: Value = serde_json::from_str(&online[6]).unwrap();
    assert_eq!(listed[0]["name"], "v1");
    assert!(listed[0]["cid"].is_string() && listed[0]["size"].is_u64(), "{listed}");
    let nowhere = ["ls", "docker/nowhere"];
    let refused = server.home.sampan(&nowhere).await;
    assert_refused(&refused, 1, &["docker/nowhere"]);

    let home = server.stop().await;
    for (command, expected) in commands.iter().zip(&online) {
        assert_eq!(&home.prints(command).await, expected, "{command:?}");
    }
    let offline = home.sampan(&nowhere).await;
    assert_refused(&offline, 1, &["docker/nowhere"]);
    assert_eq!(offline.stderr, refused.stderr);
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_panic() {
    let home = Home::new(Options::default());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = home.command(&["failpoints"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test]
async fn a_command_connects_to_a_peer() {
    let (one, two) = (Server::start(Options::default()).await, Server::start(Options::default()).await);
    assert_eq!(two.status().await["peers"], 0);
    let said = two.home.prints(&["swarm", "connect", &one.p2p]).await;
    assert_eq!(said.trim(), format!("connected to {}", one.peer));
    let peers = two.home.json(&["peers", "--json"]).await;
    assert_eq!(peers[0]["id"], one.peer, "{peers}");
    let said = two.home.sampan(&["swarm", "connect", "/ip4/127.0.0.1/tcp/1"]).await;
    assert_eq!(said.code, Some(1));
}
