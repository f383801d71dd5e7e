//! Content on IPFS, over HTTP and by the commands.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Home, Options, Server, contents, noise};
use crate::oci::{Image, json_of, sha256};

/// What a command writes that is no text.
fn bytes_of(home: &Home, arguments: &[&str], input: Stdio) -> Vec<u8> {
    let output = home.command(arguments).stdin(input).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "sampan {arguments:?}: {said}");
    output.stdout
}

#[tokio::test]
async fn files_are_added_under_the_cids_of_the_profile_and_come_back() {
    let server = Server::start(Options::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    fs::create_dir_all(path("tree/sub")).unwrap();
    fs::write(path("tree/hello"), b"hello world\n").unwrap();
    fs::write(path("tree/sub/empty"), b"").unwrap();
    fs::write(path("tree/sub/large"), noise("large", 2_500_000)).unwrap();
    fs::write(path("tree/.hidden"), b"x").unwrap();
    std::os::unix::fs::symlink("sub/large", path("tree/link")).unwrap();
    // IPIP-499's vectors, and those that every implementation knows.
    fs::write(path("hello"), b"hello world\n").unwrap();
    let hello = server.home.prints(&["add", &text("hello")]).await;
    assert_eq!(hello, "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4");
    let empty = server.home.prints(&["add", &text("tree/sub/empty")]).await;
    assert_eq!(empty, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
    let refused = server.home.sampan(&["add", &text("tree")]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("--recursive"), "{refused:?}");
    let tree = server.home.prints(&["add", "-r", &text("tree")]).await;
    assert_eq!(server.home.prints(&["add", "-r", &text("tree")]).await, tree, "the same again");

    let large = bytes_of(&server.home, &["cat", &format!("{tree}/sub/large")], Stdio::null());
    assert_eq!(large, noise("large", 2_500_000));
    server.home.prints(&["get", &format!("/ipfs/{tree}"), "-o", &text("out")]).await;
    let mut expected = contents(&path("tree"));
    expected.remove(std::path::Path::new(".hidden"));
    assert_eq!(contents(&path("out")), expected);
    assert_eq!(fs::read_link(path("out/link")).unwrap(), std::path::Path::new("sub/large"));
    let again = server.home.sampan(&["get", &tree, "-o", &text("out")]).await;
    assert!(again.code == Some(1) && again.stderr.contains("is there already"), "{again:?}");
    let nothing = server.home.sampan(&["cat", &format!("{tree}/nothing")]).await;
    assert!(nothing.code == Some(1) && nothing.stderr.contains("leads nowhere"), "{nothing:?}");
    let pins: Vec<String> = serde_json::from_value(server.home.json(&["pin", "ls", "--json"]).await).unwrap();
    assert_eq!(pins.len(), 3);

    // Over HTTP, with what a kubo asks for.
    let answer = server.get(&format!("/ipfs/{hello}?format=raw")).await;
    assert_eq!(answer.bytes().await.unwrap(), b"hello world\n".as_slice());
    let found: Value = json_of(server.get(&format!("/routing/v1/providers/{hello}")).await).await;
    let provider = &found["Providers"][0];
    assert_eq!(provider["ID"], server.peer.as_str());
    let http = format!("/ip4/127.0.0.1/tcp/{}/http", server.http.port());
    assert_eq!(provider["Addrs"][0], http.as_str());
    // And the name.
    let record = server.get(&format!("/routing/v1/ipns/{}", server.name)).await;
    assert_eq!(record.headers()["content-type"], "application/vnd.ipfs.ipns-record");
    let root = server.home.prints(&["root"]).await;
    let named = server.get(&format!("/ipns/{}?format=raw", server.name)).await;
    assert_eq!(named.headers()["x-ipfs-roots"], root.as_str());
}

#[tokio::test]
async fn a_dag_leaves_as_a_car_and_comes_as_one() {
    let (one, two) = (Server::start(Options::default()).await, Server::start(Options::default()).await);
    let dir = tempfile::tempdir().unwrap();
    let (file, car) = (dir.path().join("file"), dir.path().join("file.car"));
    fs::write(&file, noise("car", 3_000_000)).unwrap();
    let root = one.home.prints(&["add", &file.display().to_string()]).await;
    let exported = bytes_of(&one.home, &["dag", "export", &root], Stdio::null());
    fs::write(&car, &exported).unwrap();
    let from_stdin = Stdio::from(fs::File::open(&car).unwrap());
    let said = bytes_of(&two.home, &["dag", "import", "-"], from_stdin);
    assert!(String::from_utf8(said).unwrap().contains(&format!("pinned {root}")));
    assert_eq!(bytes_of(&two.home, &["cat", &root], Stdio::null()), noise("car", 3_000_000));
    fs::write(&car, &exported[..exported.len() - 1]).unwrap();
    let third = Server::start(Options::default()).await;
    let cut = third.home.sampan(&["dag", "import", &car.display().to_string()]).await;
    assert!(cut.code == Some(1) && cut.stderr.contains("cut off"), "{cut:?}");
    assert_eq!(third.home.json(&["pin", "ls", "--json"]).await, Value::Array(Vec::new()));
}

#[tokio::test]
async fn what_is_pinned_outlives_its_tags_and_a_collection() {
    let server = Server::start(Options::default()).await;
    let layer = noise("kept", 2_500_000);
    let image = Image::new(&[&layer]);
    server.push("team/app", "v1", &image).await;
    let root = server.home.prints(&["root"]).await;
    let digest = sha256(&layer);
    let hex = digest.strip_prefix("sha256:").unwrap();
    let blobs = "docker/registry/v2/blobs/sha256";
    let path = format!("{root}/{blobs}/{}/{hex}/data", &hex[..2]);
    let pinned = server.home.prints(&["pin", "add", &path]).await;
    let deleted = server.send("DELETE", &format!("/v2/team/app/manifests/{}", image.digest())).await;
    assert_eq!(deleted.status(), 202);
    server.home.prints(&["gc", "--grace", "0s"]).await;
    assert_eq!(bytes_of(&server.home, &["cat", &pinned], Stdio::null()), layer);
    let server = server.restart().await;
    assert_eq!(bytes_of(&server.home, &["cat", &pinned], Stdio::null()), layer);
    let verified = server.home.prints(&["verify"]).await;
    assert!(verified.contains(" 0 findings"), "{verified}");
    server.home.prints(&["pin", "rm", &pinned]).await;
    server.home.prints(&["gc", "--grace", "0s"]).await;
    let gone = server.home.sampan(&["cat", &pinned]).await;
    assert_eq!(gone.code, Some(1), "{gone:?}");
}
