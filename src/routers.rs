//! Delegated routers as a client: who has content, and records of names, from others over HTTP (specs.ipfs.tech,
//! "Delegated Routing V1 HTTP API"). The other side of `http::routing`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, join_all};
use sampan_node::ipns::{MAX_RECORD, Record, Verified, select};
use sampan_node::{Multiaddr, Name, PeerId};
use sampan_storage::Cid;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Request};

/// A router asks its own DHT meanwhile; kubo waits as long.
const DEADLINE: Duration = Duration::from_secs(15);
/// Some hundred peers with their addresses take some 100 KiB.
const MAX_PROVIDERS: usize = 1024 * 1024;
/// Providers of one answer, and addresses of each, that are looked at.
const MAX_PEERS: usize = 100;
const MAX_ADDRESSES: usize = 32;
/// An answer to a PUT says nothing that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// A record for each push of a busy minute is more than a router wants.
const PAUSE: Duration = Duration::from_secs(1);

const RECORD: &str = "application/vnd.ipfs.ipns-record";
const JSON: &str = "application/json";
const BASE: &str = "/routing/v1";

/// The routers that the configuration names. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Routers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    /// Each without a slash at its end, and with `/routing/v1`.
    urls: Vec<String>,
    /// Records that wait to be put, the newest of each name.
    waiting: Mutex<HashMap<Name, Bytes>>,
    wake: Notify,
}

/// The body of an answer. What is of no use here is passed over.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(rename = "Providers")]
    providers: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Peer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    addrs: Option<Vec<String>>,
}

impl Routers {
    pub(crate) fn new(urls: &[String]) -> anyhow::Result<Self> {
        let urls = urls.iter().map(|url| {
            let url = url.trim_end_matches('/');
            format!("{}{BASE}", url.strip_suffix(BASE).unwrap_or(url))
        });
        let (client, urls) = (Client::new()?, urls.collect());
        Ok(Self(Arc::new(Shared { client, urls, waiting: Mutex::default(), wake: Notify::new() })))
    }

    /// Puts records until it is told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.wake.notified() => {}
            }
            let waiting: Vec<(Name, Bytes)> = self.waiting().drain().collect();
            for (name, record) in waiting {
                join_all(self.0.urls.iter().map(|url| self.put_one(url, name, record.clone()))).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn put_one(&self, url: &str, name: Name, record: Bytes) {
        let request = Request::put(&format!("{url}/ipns/{name}"), RECORD, record);
        match self.0.client.send(request, MAX_ANSWER, DEADLINE).await {
            Ok(answer) if answer.is_ok() => {}
            Ok(answer) => {
                tracing::debug!(%name, url, status = answer.status, "a router does not take a record");
            }
            Err(error) => tracing::debug!(%name, url, %error, "a record is not brought to a router"),
        }
    }

    async fn record_of(&self, url: &str, name: Name) -> Option<Verified> {
        let request = Request::get(&format!("{url}/ipns/{name}")).accept(RECORD);
        let answer = match self.0.client.send(request, MAX_RECORD, DEADLINE).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%name, url, %error, "a router was asked for a record in vain");
                return None;
            }
        };
        // Another type says that there is none.
        if !answer.is_ok() || !answer.content_type.starts_with(RECORD) {
            return None;
        }
        let record = Record::decode(answer.body).and_then(|record| record.verify(&name, SystemTime::now()));
        record.inspect_err(|error| tracing::debug!(%name, url, %error, "a router gave a wrong record")).ok()
    }

    async fn providers_of(&self, url: &str, cid: Cid) -> Vec<Multiaddr> {
        let request = Request::get(&format!("{url}/providers/{cid}")).accept(JSON);
        match self.0.client.send(request, MAX_PROVIDERS, DEADLINE).await {
            Ok(answer) if answer.is_ok() => addresses(&answer.body),
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::debug!(%cid, url, %error, "a router was asked for providers in vain");
                Vec::new()
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Name, Bytes>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl sampan_node::Routers for Routers {
    fn record(&self, name: Name) -> BoxFuture<'_, Option<Bytes>> {
        async move {
            let found = join_all(self.0.urls.iter().map(|url| self.record_of(url, name))).await;
            let best = found.into_iter().flatten().max_by(|a, b| select(a, b))?;
            Some(best.bytes().clone())
        }
        .boxed()
    }

    fn put(&self, name: Name, record: Bytes) {
        // As many names as the node has keys.
        self.waiting().insert(name, record);
        self.0.wake.notify_one();
    }

    fn providers(&self, cid: Cid) -> BoxFuture<'_, Vec<Multiaddr>> {
        async move {
            let found = join_all(self.0.urls.iter().map(|url| self.providers_of(url, cid))).await;
            found.into_iter().flatten().collect()
        }
        .boxed()
    }
}

/// Where the providers of an answer are, each address with its peer id at the end.
fn addresses(body: &[u8]) -> Vec<Multiaddr> {
    let Ok(Answer { providers: Some(providers) }) = serde_json::from_slice(body) else { return Vec::new() };
    let peers =
        providers.into_iter().take(MAX_PEERS).filter_map(|peer| serde_json::from_value::<Peer>(peer).ok());
    peers.flat_map(Peer::addresses).collect()
}

impl Peer {
    fn addresses(self) -> Vec<Multiaddr> {
        let Ok(id) = self.id.parse::<PeerId>() else { return Vec::new() };
        let end = format!("/p2p/{id}");
        let addresses = self.addrs.unwrap_or_default().into_iter().take(MAX_ADDRESSES);
        // Gateways over HTTP are not spoken to by the node.
        let of_node =
            addresses.filter(|address| !address.split('/').any(|part| matches!(part, "http" | "https")));
        let whole = of_node.filter_map(|address| match address.split_once("/p2p/") {
            Some(_) if address.ends_with(&end) && address.matches("/p2p/").count() == 1 => {
                address.parse().ok()
            }
            // Another's, or by way of another.
            Some(_) => None,
            None => format!("{}{end}", address.trim_end_matches('/')).parse().ok(),
        });
        whole.collect()
    }
}

/// Fuzz target for what routers answer.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz {
    #![allow(
        clippy::missing_panics_doc,
        clippy::unwrap_used,
        clippy::panic,
        reason = "a target is there to panic"
    )]

    use super::{MAX_ADDRESSES, MAX_PEERS, addresses};

    /// The body of an answer.
    pub fn providers(data: &[u8]) {
        let found = addresses(data);
        assert!(found.len() <= MAX_PEERS * MAX_ADDRESSES);
        for address in found {
            let text = address.to_string();
            assert_eq!(text.matches("/p2p/").count(), 1, "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWHVXoJnv2ifmr9K6LWwJPXxkfvzZRHzjiTZMvybeTnwPy";

    #[test]
    fn addresses_of_an_answer_end_with_the_peer_and_what_is_strange_is_passed_over() {
        let body = serde_json::json!({"Providers": [
            {"Schema": "peer", "ID": PEER, "Protocols": ["transport-bitswap"], "Addrs": [
                "/ip4/192.0.2.1/tcp/4001",
                format!("/ip4/192.0.2.2/tcp/4001/p2p/{PEER}"),
                "/ip4/192.0.2.3/tcp/5000/http",
                "/ip4/192.0.2.4/tcp/4001/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC/p2p-circuit",
                "nonsense",
            ]},
            {"Schema": "bitswap", "Protocol": "transport-bitswap", "Signature": "m"},
            {"Schema": "peer", "ID": "nobody", "Addrs": ["/ip4/192.0.2.5/tcp/1"]},
            {"Schema": "peer", "ID": PEER, "Addrs": null},
            7,
        ]});
        let found: Vec<String> =
            addresses(body.to_string().as_bytes()).iter().map(ToString::to_string).collect();
        let expected = ["192.0.2.1", "192.0.2.2"].map(|ip| format!("/ip4/{ip}/tcp/4001/p2p/{PEER}"));
        assert_eq!(found, expected);
        for empty in ["", "{}", "[]", r#"{"Providers":null}"#, r#"{"Providers":7}"#] {
            assert_eq!(addresses(empty.as_bytes()), []);
        }
    }

    #[test]
    fn the_base_of_a_router_is_written_with_or_without_its_path() {
        for url in
            ["http://a:5000", "http://a:5000/", "http://a:5000/routing/v1", "http://a:5000/routing/v1/"]
        {
            assert_eq!(Routers::new(&[url.to_owned()]).unwrap().0.urls, ["http://a:5000/routing/v1"]);
        }
    }
}
