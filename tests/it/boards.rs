//! Registries of one private network that all write: what is pushed to any of them is everywhere, and of a tag that
//! several write the push counts that knew of the others.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Home, Options, Server, eventually, noise};
use crate::oci::Image;

const KEY: &str = "6f1d2a7e5b8c90341f6e2d7c8b9a0f1e2d3c4b5a69788776655443322110ffee";

/// A board of the network that follows all others, as the section says.
async fn board(peers: &[&Server], auto: Value) -> Server {
    let peers = peers.iter().map(|server| server.p2p.clone()).collect();
    let flags = vec!["--network".to_owned(), "private".to_owned()];
    let home = Home::new(Options { peers, flags, follow: vec![auto.to_string()], ..Options::default() });
    fs::create_dir_all(home.data()).unwrap();
    fs::write(home.data().join("swarm.key"), format!("/key/swarm/psk/1.0.0/\n/base16/\n{KEY}\n")).unwrap();
    home.start().await
}

fn plain() -> Value {
    json!({"name": "auto"})
}

async fn shows(server: &Server, tag: &str, image: Option<&Image>) {
    let expected = image.map(Image::digest);
    let what = format!("boat:{tag} is {expected:?}");
    eventually(&what, async || (server.digest("boat", tag).await == expected).then_some(())).await;
}

async fn delete(server: &Server, reference: &str) -> u16 {
    let url = format!("http://{}/v2/boat/manifests/{reference}", server.http);
    server.client.delete(url).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_push_to_any_board_is_pulled_from_any_other_by_the_same_reference() {
    let first = board(&[], plain()).await;
    let second = board(&[&first], plain()).await;
    // It is connected to one only, and hears of the other there.
    let third = board(&[&second], plain()).await;
    let image = Image::new(&[&noise("boards", 300_000)]);
    first.push("boat", "v1", &image).await;
    shows(&third, "v1", Some(&image)).await;
    assert_eq!(third.pull("boat", "v1").await, image);
    let other = Image::new(&[b"third"]);
    third.push("boat", "v2", &other).await;
    shows(&first, "v2", Some(&other)).await;
    shows(&second, "v2", Some(&other)).await;
    assert_eq!(first.tags("boat").await, ["v1", "v2"]);
    // Those who are off are still read.
    drop(first);
    let third = third.restart().await;
    shows(&third, "v1", Some(&image)).await;
}

#[tokio::test]
async fn the_push_that_knew_of_another_wins_on_every_board() {
    let first = board(&[], plain()).await;
    let second = board(&[&first], plain()).await;
    let images: Vec<Image> = (0..6_u8).map(|number| Image::new(&[&[number; 100]])).collect();
    first.push("boat", "v1", &images[0]).await;
    shows(&second, "v1", Some(&images[0])).await;
    for (number, image) in images.iter().enumerate().skip(1) {
        let (writer, reader) = if number % 2 == 1 { (&second, &first) } else { (&first, &second) };
        writer.push("boat", "v1", image).await;
        assert_eq!(writer.digest("boat", "v1").await.unwrap(), image.digest());
        shows(reader, "v1", Some(image)).await;
    }
    let said = first.home.json(&["explain", "boat:v1", "--json"]).await;
    assert_eq!(
        (&said[0]["tree"], &said[0]["counter"], &said[0]["wins"]),
        (&Value::Null, &json!(5), &json!(false))
    );
    assert_eq!((&said[1]["counter"], &said[1]["wins"]), (&json!(6), &json!(true)));
    // A push of what it is already changes nothing.
    let root = second.status().await["root"].clone();
    second.push("boat", "v1", &images[5]).await;
    assert_eq!(second.status().await["root"], root);
}

#[tokio::test]
async fn a_tag_that_is_deleted_on_one_board_is_gone_on_all_until_it_is_pushed_again() {
    let first = board(&[], plain()).await;
    let second = board(&[&first], plain()).await;
    let (one, two) = (Image::new(&[b"one"]), Image::new(&[b"two"]));
    for tag in ["v1", "v2", "v3"] {
        first.push("boat", tag, &one).await;
    }
    shows(&second, "v3", Some(&one)).await;
    // What only another has.
    assert_eq!(delete(&second, "v1").await, 202);
    shows(&second, "v1", None).await;
    shows(&first, "v1", None).await;
    assert_eq!(first.tags("boat").await, ["v2", "v3"]);
    assert_eq!(second.tags("boat").await, ["v2", "v3"]);
    let page = second.get("/v2/boat/tags/list?n=1").await;
    assert!(page.headers().contains_key("link"));
    assert_eq!(crate::oci::json_of(page).await["tags"], json!(["v2"]));
    let text = first.home.prints(&["explain", "boat:v1"]).await;
    assert!(text.contains("has it deleted, write 2 of it") && text.contains("nothing answers"), "{text}");
    first.push("boat", "v1", &two).await;
    shows(&second, "v1", Some(&two)).await;
    // A manifest takes with it the tags that stand for it, wherever they were written, and no others.
    second.push("boat", "v3", &two).await;
    shows(&first, "v3", Some(&two)).await;
    assert_eq!(delete(&first, &one.digest()).await, 202);
    shows(&second, "v2", None).await;
    shows(&second, "v3", Some(&two)).await;
    assert_eq!(first.tags("boat").await, ["v1", "v3"]);
    for board in [&first, &second] {
        assert_eq!(board.home.sampan(&["verify"]).await.code, Some(0));
    }
}

#[tokio::test]
async fn boards_that_mirror_each_other_have_all_of_what_one_that_is_gone_has_pushed() {
    let auto = || json!({"name": "auto", "policy": "mirror"});
    let first = board(&[], auto()).await;
    let second = board(&[&first], auto()).await;
    let image = Image::new(&[&noise("mirrored boards", 3_000_000)]);
    first.push("boat", "v1", &image).await;
    let root = first.status().await["root"].clone();
    eventually("it is mirrored", async || {
        let mirror = second.status().await["follows"][0]["mirror"].clone();
        (mirror["finished"] == true && mirror["root"] == root).then_some(())
    })
    .await;
    drop(first);
    assert_eq!(second.pull("boat", "v1").await, image);
}
