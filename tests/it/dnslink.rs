//! Domains that point to registries, asked of a small DNS server; and registries that are one another's routers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::{RData, Record};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::harness::{Options, Server, eventually, noise};
use crate::oci::Image;

/// Answers TXT questions as a name server does. Dropping it ends it.
struct Zone {
    address: SocketAddr,
    texts: Arc<Mutex<HashMap<String, String>>>,
    task: JoinHandle<()>,
}

impl Zone {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let texts: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let zone = Arc::clone(&texts);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let query = asked.queries[0].clone();
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                let name = query.name().to_string().to_lowercase();
                match zone.lock().unwrap().get(&name) {
                    Some(text) => {
                        let data = RData::TXT(TXT::new(vec![text.clone()]));
                        answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
                    }
                    None => answer.metadata.response_code = ResponseCode::NXDomain,
                }
                answer.add_query(query);
                let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        Self { address, texts, task }
    }

    fn link(&self, domain: &str, to: &str) {
        self.texts.lock().unwrap().insert(format!("{domain}."), format!("dnslink={to}"));
    }

    /// What makes a server ask here.
    fn environment(&self) -> Vec<(&'static str, &'static str)> {
        vec![("REGISTRY_IPFS_DNS", self.address.to_string().leak())]
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn sees(server: &Server, image: &Image) {
    let expected = image.digest();
    eventually("the tag", async || server.digest("a", "v1").await.filter(|it| *it == expected)).await;
}

async fn row(server: &Server, name: &str) -> Value {
    let status = server.status().await;
    status["follows"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_follower_goes_where_the_domain_goes_and_stays_there_without_the_dns() {
    let zone = Zone::start().await;
    let (one, two) = (Server::start(Options::default()).await, Server::start(Options::default()).await);
    let (first, second) = (Image::new(&[&noise("one", 10_000)]), Image::new(&[&noise("two", 10_000)]));
    one.push("a", "v1", &first).await;
    two.push("a", "v1", &second).await;
    zone.link("_dnslink.images.example", &format!("/ipns/{}", one.name));
    let follower = Server::start(Options {
        peers: vec![one.p2p.clone(), two.p2p.clone()],
        follow: vec!["images.example".to_owned()],
        environment: zone.environment(),
        ..Options::default()
    })
    .await;
    sees(&follower, &first).await;
    assert_eq!(row(&follower, "images.example").await["link"], format!("/ipns/{}", one.name));

    // The domain itself counts where the label is missing; whoever asks, all learn of it.
    zone.texts.lock().unwrap().clear();
    zone.link("images.example", &format!("/ipns/{}", two.name));
    let found = follower.home.json(&["resolve", "images.example", "--json"]).await;
    assert_eq!((&found["value"], &found["from"]), (&format!("/ipns/{}", two.name).into(), &"the DNS".into()));
    sees(&follower, &second).await;
    eventually("the one before is left", async || row(&follower, &one.name).await.is_null().then_some(()))
        .await;
    assert_eq!(follower.pull("a", "v1").await, second);

    drop((zone, one, two));
    let follower = follower.restart().await;
    assert_eq!(follower.pull("a", "v1").await, second);
    assert!(row(&follower, "images.example").await["link"].is_string(), "what the DNS said last is kept");
}

#[tokio::test]
async fn a_domain_that_points_to_a_tree_is_read_as_that_tree() {
    let zone = Zone::start().await;
    let publisher = Server::start(Options::default()).await;
    let image = Image::new(&[&noise("tree", 10_000)]);
    publisher.push("a", "v1", &image).await;
    let root = publisher.home.prints(&["root"]).await;
    zone.link("_dnslink.tree.example", &format!("/ipfs/{root}"));
    zone.link("_dnslink.www.example", "/ipns/tree.example");
    let peers = vec![publisher.p2p.clone()];
    let follower =
        Server::start(Options { peers, environment: zone.environment(), ..Options::default() }).await;
    assert_eq!(follower.get("/ipns/www.example?format=raw").await.status(), 404, "nobody here knows it");
    follower.home.prints(&["follow", "add", "www.example"]).await;
    sees(&follower, &image).await;
    assert_eq!(row(&follower, "www.example").await["root"], root.as_str());
    let block = follower.get("/ipns/www.example?format=raw").await;
    assert_eq!(block.status(), 200);
    assert!(block.headers()["x-ipfs-roots"].to_str().unwrap().starts_with(&root));
    assert_eq!(follower.get("/ipns/www.example?format=ipns-record").await.status(), 400);
    let follower = follower.restart().await;
    sees(&follower, &image).await;
    follower.home.prints(&["follow", "rm", "www.example"]).await;
    assert_eq!(follower.digest("a", "v1").await, None);
}

#[tokio::test]
async fn a_domain_without_a_link_is_refused_by_name() {
    let zone = Zone::start().await;
    let server = Server::start(Options { environment: zone.environment(), ..Options::default() }).await;
    let said = server.home.sampan(&["resolve", "none.example"]).await;
    assert!(said.code == Some(1) && said.stderr.contains("_dnslink.none.example"), "{said:?}");
}

#[tokio::test]
async fn registries_find_records_and_content_through_a_router_and_tell_it_theirs() {
    let router = Server::start(Options::default()).await;
    let image = Image::new(&[&noise("routed", 300_000)]);
    router.push("a", "v1", &image).await;
    let second = router.home.prints(&["key", "gen", "second"]).await;
    let root = router.home.prints(&["root"]).await;
    router.home.prints(&["publish", "--key", "second", &root]).await;
    let url: &'static str = format!("http://{}", router.http).leak();
    let environment = vec![("REGISTRY_IPFS_ROUTERS", url)];
    let other = Server::start(Options { environment: environment.clone(), ..Options::default() }).await;
    // Nobody is connected: only the router can know.
    let found = other.home.json(&["resolve", &second, "--json"]).await;
    assert_eq!((&found["value"], &found["from"]), (&format!("/ipfs/{root}").into(), &"a router".into()));

    let follow = vec![router.name.clone()];
    let follower = Server::start(Options { follow, environment, ..Options::default() }).await;
    sees(&follower, &image).await;
    assert_eq!(follower.pull("a", "v1").await, image);

    let path = format!("/routing/v1/ipns/{}", other.name);
    eventually("its record at the router", async || {
        let answer = router.get(&path).await;
        let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        (kind.as_deref() == Some("application/vnd.ipfs.ipns-record")).then_some(())
    })
    .await;
}
