//! The program: builds what it is made of, runs it, and stops it in reverse order.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::web;
use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use sampan_node::bitswap::Serving;
use sampan_node::{Events, KeyFile, Keypair, Multiaddr, Name, Node, PeerId};
use sampan_storage::Store;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::config::{self, Config, Network};
use crate::control::{Answer, Ask, Control, FollowStatus, PeerStatus, Status};
use crate::http;
use crate::registry::{Policy, Registry};
use crate::sync::{Fetcher, Followed, Follower, StoreRecords, listing, publish};

/// The node's own key, and that of its name, in the data directory.
pub(crate) const KEY: &str = "keys/self.key";

/// What to do when the node does not start.
const LISTEN: &str = "the node does not start; give another address with --p2p MULTIADDR";

/// A running registry and node.
pub(crate) struct App {
    running: Arc<Running>,
    events: Events,
    listener: std::net::TcpListener,
    state: web::Data<http::State>,
    key: Keypair,
}

/// What answers questions about itself.
struct Running {
    store: Store,
    node: Node,
    follower: Follower,
    name: Name,
    http: SocketAddr,
    network: Network,
    addresses: Vec<Multiaddr>,
}

impl App {
    /// Opens data, ports and node. Nothing is left behind when one of them fails.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Self> {
        let listener = config::bind(&config.http)?;
        let http = listener.local_addr()?;
        let network = match config.network {
            Network::Lan => sampan_node::Network::Lan,
            Network::Public => sampan_node::Network::Public,
            Network::Private => {
                let path = config.swarm_key();
                let key = config::read_swarm_key(&path)?.parse();
                sampan_node::Network::Private(key.with_context(|| format!("{}", path.display()))?)
            }
        };
        // What can be wrong from outside is found out before anything is written.
        let path = config.data.join(KEY);
        let known = path.exists().then(|| KeyFile::load(&path)).transpose()?;
        let listen = if config.p2p.is_empty() { sampan_node::default_listen() } else { config.p2p.clone() };
        sampan_node::check_ports(&listen).context(LISTEN)?;
        let auth = match &config.auth {
            Some(settings) => Auth::start(settings).context("authentication cannot be set up")?,
            None => Auth::open(config.anonymous_push),
        };
        // Peers have no names yet that a rule could be about.
        let serving = if auth.is_open() { Serving::Everyone } else { Serving::Nobody };
        if serving == Serving::Nobody {
            tracing::info!("authentication is set up: the node gives no content to its peers");
        }
        let dir = config.data.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(&dir)).await??;
        let key = known.map_or_else(|| KeyFile::load_or_create(&path), Ok)?;
        let name = key.name();
        let records = StoreRecords::new(store.clone(), name);
        let settings = sampan_node::Config {
            key: key.clone(),
            network,
            listen,
            peers: config.peers.clone(),
            agent: concat!("sampan/", env!("CARGO_PKG_VERSION")).to_owned(),
            mdns: true,
            serving,
        };
        let (node, events) =
            sampan_node::start(settings, Arc::new(store.clone()), Arc::new(records)).await.context(LISTEN)?;
        let follower = Follower::new(store.clone(), node.clone());
        let origin = Arc::new(Fetcher::new(store.clone(), node.clone()));
        let registry =
            Registry::new(store.clone(), origin, Policy { delete: config.delete, sparse: config.sparse });
        let access = http::Access { auth, loopback: config::is_loopback(&http) };
        let state = web::Data::new(http::State { registry, access });
        let addresses = node.addresses().await;
        let running = Running { store, node, follower, name, http, network: config.network, addresses };
        let app = Self { running: Arc::new(running), events, listener, state, key };
        app.follow_all(&config.follow).await?;
        Ok(app)
    }

    /// Names of the configuration and those that were added; others that were followed once are forgotten.
    async fn follow_all(&self, configured: &[Name]) -> anyhow::Result<()> {
        let Running { store, follower, .. } = self.running.as_ref();
        store.set_order(configured.iter().map(ToString::to_string).collect());
        for follow in store.state().follows {
            match follow.name.parse::<Name>() {
                Ok(name) if follow.kept || configured.contains(&name) => follower.follow(name).await?,
                _ => store.unfollow(&follow.name).await?,
            }
        }
        for name in configured {
            follower.follow(*name).await?;
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &Name {
        &self.running.name
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.running.node.peer_id()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.running.http
    }

    pub(crate) fn addresses(&self) -> &[Multiaddr] {
        &self.running.addresses
    }

    /// Runs until a signal ends it, then stops: requests first, then sync, then the node, then the disk.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { running, events, listener, state, key } = self;
        let signals = Signals::new()?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(publish(running.store.clone(), running.node.clone(), key, stop.clone()));
        tasks.spawn(running.follower.clone().listen(events, stop.clone()));
        tasks.close();
        let control = Control::start(running.store.dir(), Arc::clone(&running) as Arc<dyn Answer>)?;
        let server = http::serve(listener, state)?;
        let handle = server.handle();
        let mut serving = tokio::spawn(server);

        let failed = tokio::select! {
            () = signals.wait() => None,
            ended = &mut serving => Some(ended),
        };
        tracing::info!("stopping");
        drop(control);
        if failed.is_none() {
            // Bounded by the server: what is cut off can be resumed.
            handle.stop(true).await;
        }
        stop.cancel();
        tasks.wait().await;
        running.node.shutdown().await;
        let store = running.store.clone();
        drop(running);
        tokio::task::spawn_blocking(move || store.close()).await??;
        match failed {
            Some(ended) => ended?.context("HTTP stopped serving"),
            None => Ok(()),
        }
    }
}

impl Answer for Running {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Value, String>> {
        self.reply(ask).map(|reply| reply.map_err(|error| format!("{error:#}"))).boxed()
    }
}

impl Running {
    async fn reply(&self, ask: Ask) -> anyhow::Result<Value> {
        Ok(match ask {
            Ask::Status => serde_json::to_value(self.status().await)?,
            Ask::Root => {
                self.store.fold().await?;
                serde_json::to_value(self.store.root().to_string())?
            }
            Ask::Ls { path } => {
                self.store.fold().await?;
                let store = self.store.clone();
                let list = move || listing::list(&store, &store.root(), &path);
                serde_json::to_value(tokio::task::spawn_blocking(list).await??)?
            }
            Ask::FollowAdd { name } => {
                self.store.follow(&name.to_string()).await?;
                self.follower.follow(name).await?;
                Value::Null
            }
            Ask::FollowRm { name } => {
                self.follower.unfollow(&name).await;
                self.store.unfollow(&name.to_string()).await?;
                Value::Null
            }
            Ask::FollowLs => serde_json::to_value(self.follows())?,
            Ask::Peers => {
                let peers = self.node.peers().await.into_iter().map(|peer| PeerStatus {
                    id: peer.id.to_string(),
                    agent: peer.agent.unwrap_or_default(),
                    addresses: peer.addresses.iter().map(ToString::to_string).collect(),
                });
                serde_json::to_value(peers.collect::<Vec<_>>())?
            }
        })
    }

    async fn status(&self) -> Status {
        let stats = self.node.stats();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.to_string(),
            peer_id: self.node.peer_id().to_string(),
            root: self.store.root().to_string(),
            sequence: self.store.state().sequence,
            addresses: self.node.addresses().await.iter().map(ToString::to_string).collect(),
            http: self.http.to_string(),
            network: format!("{:?}", self.network).to_lowercase(),
            data: self.store.dir().display().to_string(),
            peers: self.node.peers().await.len(),
            follows: self.follows(),
            refused_records: stats.records_invalid + stats.records_older + stats.records_not_followed,
        }
    }

    fn follows(&self) -> Vec<FollowStatus> {
        self.follower.followed().into_iter().map(describe).collect()
    }
}

fn describe(followed: Followed) -> FollowStatus {
    let Followed { name, root, sequence, heard, stale, error } = followed;
    let state = match (&root, sequence) {
        (Some(root), Some(sequence)) => format!("sequence {sequence}, root {root}"),
        _ => "not found yet".to_owned(),
    };
    let notes = [
        stale.then(|| "stale: its record has expired".to_owned()),
        heard.map(|heard| format!("fetching sequence {heard}")),
        error.clone(),
    ];
    let describe = std::iter::once(state).chain(notes.into_iter().flatten()).collect::<Vec<_>>().join(", ");
    let root = root.map(|root| root.to_string());
    FollowStatus { name: name.to_string(), root, sequence, heard, stale, error, describe }
}

/// SIGTERM and Ctrl-C.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
