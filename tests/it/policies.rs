//! What lies here of followed names, and how much of it: quotas, eviction, pinned repositories, windows; and what the
//! registry says of all that.

use std::fs::{self, File, FileTimes};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Home, Options, Server, USERS, eventually, noise};
use crate::oci::{Image, json_of, sha256};

const MIB: usize = 1024 * 1024;
/// Nothing is spared because it was asked for just now.
const AT_ONCE: (&str, &str) = ("REGISTRY_IPFS_CACHE_GRACE", "0s");
/// alice, with the password of all [`USERS`], and bob.
const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";
const BOB: &str = "Basic Ym9iOm9wZW4gc2VzYW1l";

fn image(seed: &str) -> Image {
    Image::new(&[&noise(seed, MIB)])
}

/// A follower of this one, with what is said of it.
async fn follower(publisher: &Server, said: Value, environment: &[(&'static str, &'static str)]) -> Server {
    let mut section = json!({"name": publisher.name});
    section.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    let (peers, follow) = (vec![publisher.p2p.clone()], vec![section.to_string()]);
    Server::start(Options { peers, follow, environment: environment.to_vec(), ..Options::default() }).await
}

async fn sees(server: &Server, publisher: &Server) {
    // With all that was pushed folded into it.
    let root = json!(publisher.home.prints(&["root"]).await);
    eventually("the newest root is here", async || {
        (server.status().await["follows"][0]["root"] == root).then_some(())
    })
    .await;
}

/// Where the layer of an image lies.
fn file(server: &Server, image: &Image) -> PathBuf {
    let digest = sha256(&image.layers[0]);
    let hex = digest.strip_prefix("sha256:").unwrap();
    server.home.data().join("blobs/sha256").join(&hex[..2]).join(hex)
}

fn has(server: &Server, image: &Image) -> bool {
    file(server, image).exists()
}

/// As if nobody had asked for it for so long.
fn unused_for(server: &Server, image: &Image, time: Duration) {
    let file = File::options().write(true).open(file(server, image)).unwrap();
    file.set_times(FileTimes::new().set_accessed(SystemTime::now() - time)).unwrap();
}

/// Bytes of all files of blobs.
fn bytes(server: &Server) -> u64 {
    let fan_outs = fs::read_dir(server.home.data().join("blobs/sha256")).unwrap();
    let files = fan_outs.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    // One may go while it is looked at.
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[tokio::test]
async fn what_nobody_asked_for_longest_leaves_the_cache_and_comes_back() {
    let publisher = Server::start(Options::default()).await;
    let images = ["one", "two", "three", "mine"].map(image);
    let [one, two, three, mine] = &images;
    for (tag, image) in [("v1", one), ("v2", two), ("v3", three), ("v4", mine)] {
        publisher.push("boat", tag, image).await;
    }
    let follower = follower(&publisher, json!({"quota": 2 * MIB + MIB / 2}), &[AT_ONCE]).await;
    sees(&follower, &publisher).await;
    // What is pushed here too is nobody's cache, however old it is and whoever has it.
    follower.push("mine", "v1", mine).await;
    assert_eq!(follower.pull("boat", "v1").await, *one);
    assert_eq!(follower.pull("boat", "v2").await, *two);
    for (image, hours) in [(one, 2), (two, 3), (mine, 9)] {
        unused_for(&follower, image, Duration::from_hours(hours));
    }
    // A pull is a use: now the other one is the oldest.
    assert_eq!(follower.pull("boat", "v2").await, *two);
    assert_eq!(follower.pull("boat", "v3").await, *three);
    eventually("the oldest is gone", async || (!has(&follower, one)).then_some(())).await;
    assert!(has(&follower, two) && has(&follower, three) && has(&follower, mine));
    eventually("and it is counted", async || {
        let status = follower.status().await;
        let name = &status["follows"][0];
        (status["cache"]["evicted_blobs"] == 1
            && name["usage"]["cached"] == 2 * MIB
            && name["quota"] != Value::Null)
            .then_some(())
    })
    .await;
    assert_eq!(follower.pull("boat", "v1").await, *one, "it comes again");
    let status = follower.home.prints(&["status"]).await;
    assert!(status.contains("cached") && status.contains("have left it"), "{status}");
}

#[tokio::test]
async fn pulls_go_on_while_what_was_pulled_is_evicted() {
    const IMAGES: usize = 6;
    const ROUNDS: usize = 3;
    let publisher = Server::start(Options::default()).await;
    let images: Vec<Image> = (0..IMAGES).map(|number| image(&format!("image {number}"))).collect();
    for (number, image) in images.iter().enumerate() {
        publisher.push("boat", &format!("v{number}"), image).await;
    }
    let environment = [AT_ONCE, ("REGISTRY_IPFS_CACHE_SIZE", "3MiB")];
    let follower = follower(&publisher, json!({}), &environment).await;
    sees(&follower, &publisher).await;
    let pulls = images.iter().enumerate().map(|(number, image)| {
        let follower = &follower;
        async move {
            for _ in 0..ROUNDS {
                assert!(follower.pull("boat", &format!("v{number}")).await == *image, "v{number} is another");
            }
        }
    });
    futures::future::join_all(pulls).await;
    eventually("it is within the limit", async || {
        let status = follower.status().await;
        let evicted = status["cache"]["evicted_blobs"].as_u64().unwrap();
        (evicted >= 3 && bytes(&follower) <= 3 * MIB as u64).then_some(())
    })
    .await;
    for (number, image) in images.iter().enumerate() {
        assert!(follower.pull("boat", &format!("v{number}")).await == *image);
    }
}

#[tokio::test]
async fn a_push_that_names_what_is_cached_keeps_it() {
    const IMAGES: usize = 5;
    let publisher = Server::start(Options::default()).await;
    let images: Vec<Image> = (0..IMAGES).map(|number| image(&format!("image {number}"))).collect();
    for (number, image) in images.iter().enumerate() {
        publisher.push("boat", &format!("v{number}"), image).await;
    }
    // Whatever comes is too much at once.
    let environment = [AT_ONCE, ("REGISTRY_IPFS_CACHE_SIZE", "1KiB")];
    let follower = follower(&publisher, json!({}), &environment).await;
    sees(&follower, &publisher).await;
    let pushes = images.iter().enumerate().map(|(number, image)| {
        let follower = &follower;
        async move {
            let tag = format!("v{number}");
            assert_eq!(follower.pull("boat", &tag).await, *image);
            follower.tag("mine", &tag, image).await;
            assert_eq!(follower.pull("boat", &tag).await, *image);
        }
    });
    futures::future::join_all(pushes).await;
    drop(publisher);
    for (number, image) in images.iter().enumerate() {
        assert!(has(&follower, image), "v{number} was acknowledged");
        assert!(follower.pull("mine", &format!("v{number}")).await == *image);
    }
}

#[tokio::test]
async fn a_pinned_repository_comes_whole_and_stays_while_others_go() {
    let publisher = Server::start(Options::default()).await;
    let images = ["base", "one", "two", "three"].map(image);
    let [base, others @ ..] = &images;
    publisher.push("base/os", "v1", base).await;
    for (number, image) in others.iter().enumerate() {
        publisher.push("boat", &format!("v{number}"), image).await;
    }
    let said = json!({"pinned": ["base/*"], "quota": 2 * MIB + MIB / 2});
    let follower = follower(&publisher, said, &[AT_ONCE]).await;
    eventually("the pinned one is here before anyone asks", async || has(&follower, base).then_some(()))
        .await;
    sees(&follower, &publisher).await;
    assert!(!others.iter().any(|other| has(&follower, other)));
    unused_for(&follower, base, Duration::from_hours(1000));
    for (number, image) in others.iter().enumerate() {
        assert_eq!(follower.pull("boat", &format!("v{number}")).await, *image);
    }
    eventually("others are gone", async || {
        (bytes(&follower) <= 2 * MIB as u64 + MIB as u64 / 2).then_some(())
    })
    .await;
    assert!(has(&follower, base));
    drop(publisher);
    assert_eq!(follower.pull("base/os", "v1").await, *base);
}

#[tokio::test]
async fn a_mirror_stops_at_its_quota_says_why_and_keeps_what_it_has() {
    let publisher = Server::start(Options::default()).await;
    for number in 0..4 {
        publisher.push("boat", &format!("v{number}"), &image(&format!("image {number}"))).await;
    }
    let quota = 2 * MIB + MIB / 2;
    let mirror = follower(&publisher, json!({"policy": "mirror", "quota": quota}), &[AT_ONCE]).await;
    let told = eventually("it has stopped", async || {
        let told = mirror.status().await["follows"][0]["mirror"].clone();
        (told["full"] == true).then_some(told)
    })
    .await;
    assert!(told["stopped"].as_str().unwrap().contains("its quota of 2560KiB has no room"), "{told}");
    assert_eq!((&told["finished"], &told["kept"]), (&json!(false), &json!(2 * MIB)));
    assert_eq!(bytes(&mirror), 2 * MIB as u64);
    let text = mirror.home.prints(&["follow", "ls"]).await;
    assert!(text.contains("policy mirror") && text.contains("raise quota"), "{text}");
    // With more room it goes on from there.
    let mut home = mirror.stop().await;
    home.options.follow =
        vec![json!({"name": publisher.name, "policy": "mirror", "quota": "4MiB"}).to_string()];
    let mirror = home.start().await;
    eventually("all of it is here", async || {
        (mirror.status().await["follows"][0]["mirror"]["finished"] == true).then_some(())
    })
    .await;
    assert_eq!(bytes(&mirror), 4 * MIB as u64);
}

#[tokio::test]
async fn a_mirror_waits_for_its_window_and_says_so() {
    let publisher = Server::start(Options::default()).await;
    let image = image("night");
    publisher.push("boat", "v1", &image).await;
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600;
    let window = |from: u64, to: u64| format!("{:02}:00-{:02}:00", (hour + from) % 24, (hour + to) % 24);
    let section = |window: String| json!({"policy": "mirror", "window": window});
    let mirror = follower(&publisher, section(window(6, 8)), &[]).await;
    let told = eventually("it waits", async || {
        let told = mirror.status().await["follows"][0]["mirror"].clone();
        told["stopped"].is_string().then_some(told)
    })
    .await;
    let opens = format!("opens at {:02}:00 UTC", (hour + 6) % 24);
    assert!(told["stopped"].as_str().unwrap().contains(&opens), "{told}");
    assert_eq!((&told["full"], bytes(&mirror)), (&json!(false), 0));
    assert_eq!(mirror.pull("boat", "v1").await, image, "a pull waits for no window");
    let mut home = mirror.stop().await;
    let mut open = section(window(22, 4));
    open["name"] = json!(publisher.name);
    home.options.follow = vec![open.to_string()];
    let mirror = home.start().await;
    eventually("it is mirrored", async || {
        (mirror.status().await["follows"][0]["mirror"]["finished"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_status_is_told_over_http_as_by_command() {
    let publisher = Server::start(Options::default()).await;
    let image = image("status");
    publisher.push("boat", "v1", &image).await;
    let follower = publisher.start_follower(&publisher.p2p).await;
    sees(&follower, &publisher).await;
    assert_eq!(follower.pull("boat", "v1").await, image);
    let told = eventually("who gave how much", async || {
        let answer = follower.get("/api/status").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let told = json_of(answer).await;
        (told["received_bytes"].as_u64().unwrap() >= MIB as u64).then_some(told)
    })
    .await;
    assert_eq!(told["received"][0]["peer"], publisher.peer);
    let name = &told["follows"][0];
    assert_eq!((&name["name"], &name["policy"]), (&json!(publisher.name), &json!("cache")));
    assert!(name["age"].is_u64() && name["source"].is_string(), "{name}");
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&told), keys(&follower.status().await));
    assert_eq!(follower.send("POST", "/api/status").await.status(), 404);
}

#[tokio::test]
async fn over_http_the_status_is_for_those_who_may_see_everything() {
    let mut home = Home::new(Options::default());
    let users = home.data().with_file_name("users");
    fs::write(&users, USERS).unwrap();
    let (path, data) = (users.display(), home.data());
    home.options.file = Some(format!(
        "auth:\n  htpasswd:\n    path: {path}\n  rules:\n    - {{repositories: [\"open/**\"], users: [anonymous, authenticated], actions: [pull]}}\n    - {{repositories: [\"**\"], users: [alice], actions: [pull, push]}}\n"
    ));
    let server = home.start().await;
    let ask = async |login: Option<&str>| {
        let mut request = reqwest::Client::new().get(format!("http://{}/api/status", server.http));
        if let Some(login) = login {
            request = request.header("authorization", login);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, told) = ask(Some(ALICE)).await;
    assert!(status == 200 && told.contains(&server.name), "{status} {told}");
    // Whoever sees some repositories only, or has a wrong password, hears nothing.
    for (login, due) in [(None, 401), (Some(BOB), 403), (Some("Basic YWxpY2U6d3Jvbmc="), 401)] {
        let (status, told) = ask(login).await;
        assert!(status == due && !told.contains(&server.name), "{login:?}: {status} {told}");
        assert!(!told.contains(&data.display().to_string()));
    }
}
