//! The program: builds what it is made of, runs it, and stops it in reverse order.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_web::web;
use anyhow::{Context, bail};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use sampan_node::bitswap::{Serving, Stats as Exchanged};
use sampan_node::ipns::{Record, Verified, select};
use sampan_node::{Events, KeyFile, Keypair, Keystore, Multiaddr, Name, Node, PeerId, Records, Via, Wall};
use sampan_storage::verify::Verify;
use sampan_storage::{Cid, Store};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::config::{self, Config, Network, Web};
use crate::content::{self, Content, Dns, Domain, Domains, Names, Pointer, Reach};
use crate::control::{Answer, Ask, Control, FollowStatus, PeerStatus, Pipe, Resolved, Status, Tell};
use crate::http::{self, Listener};
use crate::metrics::Metrics;
use crate::registry::{Collected, Policy, Registry};
use crate::routers::Routers;
use crate::sync::{
    Fetcher, Followed, Follower, Healer, Kept, Publisher, Redirects, StoreRecords, ask_routers, listing,
    publish,
};
use crate::upkeep::{Collector, Totals, Verifier, purge_uploads, scrub, watch_clock};

/// The node's own key, and that of its name, in the data directory.
pub(crate) const KEY: &str = "keys/self.key";
/// Its directory, with the other keys.
pub(crate) const KEYS: &str = "keys";

/// What to do when the node does not start.
const LISTEN: &str = "the node does not start; give another address with --p2p MULTIADDR";

/// A running registry and node.
pub(crate) struct App {
    running: Arc<Running>,
    events: Events,
    doors: Doors,
    state: web::Data<http::State>,
    key: Keypair,
    schedule: Schedule,
}

/// What happens by the clock.
struct Schedule {
    gc: Option<Duration>,
    scrub: Option<config::Scrub>,
    uploads: config::UploadPurge,
}

/// What is bound and not yet served.
struct Doors {
    listener: Listener,
    options: http::Options,
    /// The second port, and the path of its metrics.
    debug: Option<(Listener, Option<String>)>,
}

/// What answers questions about itself.
struct Running {
    store: Store,
    node: Node,
    keystore: Keystore,
    records: Arc<StoreRecords>,
    follower: Follower,
    publisher: Publisher,
    collector: Collector,
    verifier: Verifier,
    healer: Healer,
    library: Content,
    names: Names,
    domains: Domains,
    routers: Option<Routers>,
    stop: CancellationToken,
    name: Name,
    http: String,
    url: String,
    network: Network,
    addresses: Vec<Multiaddr>,
}

impl App {
    /// Opens data, ports and node. Nothing is left behind when one of them fails.
    pub(crate) async fn start(config: &Config) -> anyhow::Result<Self> {
        let doors = Doors::open(config)?;
        let headers = http::headers(&config.web.headers)?;
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
        let serving = if auth.gives_to_peers() { Serving::Everyone } else { Serving::Nobody };
        if serving == Serving::Nobody {
            tracing::info!("authentication is set up: the node gives no content to its peers");
        }
        let dir = config.data.clone();
        let store = tokio::task::spawn_blocking(move || Store::open(&dir)).await??;
        let keystore = Keystore::new(config.data.join(KEYS));
        let known = match keystore.finish_rotation()? {
            Some(_) => None,
            None => known,
        };
        let key = known.map_or_else(|| KeyFile::load_or_create(&path), Ok)?;
        let kept = Kept::load(&keystore)?;
        let name = key.name();
        let redirects = Redirects::load(&config.data)?;
        let records = Arc::new(StoreRecords::new(store.clone(), name, kept.clone(), redirects.clone()));
        let domains = Domains::new(Arc::new(Dns::new(&config.dns)?));
        let routers = (!config.routers.is_empty()).then(|| Routers::new(&config.routers)).transpose()?;
        let settings = sampan_node::Config {
            key: key.clone(),
            network,
            listen,
            peers: config.peers.clone(),
            acquaintance: config.acquaintance.clone(),
            agent: concat!("sampan/", env!("CARGO_PKG_VERSION")).to_owned(),
            mdns: true,
            serving,
            routers: routers.clone().map(|routers| Arc::new(routers) as _),
            wall: Wall::system(),
        };
        let (node, events) = sampan_node::start(settings, Arc::new(store.clone()), Arc::clone(&records) as _)
            .await
            .context(LISTEN)?;
        let follower = Follower::new(store.clone(), node.clone(), domains.clone(), redirects);
        let publisher = Publisher::new(keystore.clone(), node.clone(), kept);
        let fetcher = Fetcher::new(store.clone(), node.clone());
        let healer = Healer::new(store.clone(), node.clone(), fetcher.clone(), name);
        let verifier = Verifier::new(store.clone(), healer.clone());
        let Config { delete, read_only, sparse, .. } = *config;
        let registry = Registry::new(store.clone(), Arc::new(fetcher), Policy { delete, read_only, sparse });
        let access = http::Access { auth, loopback: doors.listener.is_local() };
        let Web { locations, prefix, .. } = &config.web;
        let collector = Collector::new(registry.clone(), config.retention.clone());
        let network: Arc<dyn content::Network> = Arc::new(content::Node(node.clone()));
        // A command is its owner's, and may ask whom it likes; of strangers the configuration speaks.
        let library = Content::new(store.clone(), Some(Arc::clone(&network)));
        let names = Names::new(Arc::clone(&records) as _, Arc::clone(&network), domains.clone(), true);
        let gateway = config.gateway.enabled.then(|| {
            let asks = config.gateway.fetch;
            let asked = asks.then(|| Arc::clone(&network));
            http::Gateway {
                content: Content::new(store.clone(), asked),
                names: Names::new(Arc::clone(&records) as _, Arc::clone(&network), domains.clone(), asks),
                routing: http::Routing::new(network, asks, doors.reached(&config.web)),
            }
        });
        let state = web::Data::new(http::State {
            registry,
            access,
            health: http::Health::new(store.clone(), read_only),
            gateway,
            metrics: Arc::new(figures(&store, &node, &collector)),
            urls: http::Urls::new(locations.clone(), prefix.clone()),
            pages: config.pages,
            headers,
            access_log: config.logs.access,
        });
        let addresses = node.addresses().await;
        let (http, url) = (doors.listener.name(), doors.url());
        let stop = CancellationToken::new();
        let network = config.network;
        let running = Running {
            store,
            node,
            keystore,
            records,
            follower,
            publisher,
            collector,
            verifier,
            healer,
            library,
            names,
            domains,
            routers,
            stop,
            name,
            http,
            url,
            network,
            addresses,
        };
        let schedule = Schedule { gc: config.gc_interval, scrub: config.scrub, uploads: config.upload_purge };
        let app = Self { running: Arc::new(running), events, doors, state, key, schedule };
        app.running.follower.follow_all(&config.follow).await?;
        Ok(app)
    }

    pub(crate) fn name(&self) -> &Name {
        &self.running.name
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.running.node.peer_id()
    }

    /// Where the registry is, with its scheme.
    pub(crate) fn url(&self) -> String {
        self.running.url.clone()
    }

    pub(crate) fn addresses(&self) -> &[Multiaddr] {
        &self.running.addresses
    }

    /// Runs until a signal ends it, then stops: requests first, then sync, then the node, then the disk.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { running, events, doors, state, key, schedule } = self;
        let signals = Signals::new()?;
        let stop = running.stop.clone();
        let tasks = TaskTracker::new();
        tasks.spawn(publish(running.store.clone(), running.node.clone(), key, stop.clone()));
        tasks.spawn(running.publisher.clone().run(stop.clone()));
        tasks.spawn(watch_clock(running.node.wall().clone(), stop.clone()));
        tasks.spawn(running.follower.clone().listen(events, stop.clone()));
        if let Some(routers) = running.routers.clone() {
            tasks.spawn(routers.run(stop.clone()));
            tasks.spawn(ask_routers(running.follower.clone(), running.node.clone(), stop.clone()));
        }
        if let Some(interval) = schedule.gc {
            tasks.spawn(running.collector.clone().run(interval, stop.clone()));
        }
        if let Some(settings) = schedule.scrub {
            tasks.spawn(scrub(running.store.clone(), running.healer.clone(), settings, stop.clone()));
        }
        if schedule.uploads.enabled {
            tasks.spawn(purge_uploads(running.store.clone(), schedule.uploads, stop.clone()));
        }
        tasks.close();
        let control = Control::start(running.store.dir(), Arc::clone(&running) as Arc<dyn Answer>)?;
        let Doors { listener, options, debug } = doors;
        let debug = debug.map(|(listener, metrics)| http::serve_debug(listener, state.clone(), metrics));
        let debug = debug.transpose()?.map(|(server, stop)| (tokio::spawn(server), stop));
        let (server, stop_http) = http::serve(listener, state.clone(), options)?;
        let mut serving = tokio::spawn(server);

        let failed = tokio::select! {
            () = signals.wait() => None,
            ended = &mut serving => Some(ended),
        };
        tracing::info!("stopping");
        state.health.stop();
        drop(control);
        if failed.is_none() {
            // Bounded by the server: what is cut off can be resumed.
            stop_http.stop().await;
        }
        // Last of the ports: until here it has told that the registry is stopping.
        if let Some((_, stop)) = debug {
            stop.stop().await;
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

impl Doors {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let Web { unix, tls, http2, h2c, drain, debug, .. } = &config.web;
        let tls = tls.clone().map(|files| http::Tls::open(files, *http2)).transpose()?;
        let listener = if *unix { Listener::unix(&config.http)? } else { Listener::tcp(&config.http)? };
        let debug = debug.as_ref().map(|debug| {
            let listener = Listener::tcp(&debug.addr)
                .with_context(|| format!("http.debug.addr is {}, which cannot be used", debug.addr))?;
            tracing::info!("health and figures are on http://{}", listener.name());
            anyhow::Ok((listener, debug.metrics.clone()))
        });
        let options = http::Options { tls, h2c: *h2c, drain: *drain };
        Ok(Self { listener, options, debug: debug.transpose()? })
    }

    /// How others reach the gateway.
    fn reached(&self, web: &Web) -> http::Door {
        if let config::Locations::Fixed(url) = &web.locations {
            return http::Door::at(url);
        }
        let address = match &self.listener {
            // A multiaddr has no path.
            Listener::Tcp(listener) if web.prefix.is_empty() => listener.local_addr().ok(),
            Listener::Tcp(_) | Listener::Unix(..) => None,
        };
        let tls = self.options.tls.is_some();
        let host = address.map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
        let host = host.map(|ip| if ip.is_ipv4() { format!("/ip4/{ip}") } else { format!("/ip6/{ip}") });
        http::Door { host, port: address.map(|address| address.port()), tls }
    }

    fn url(&self) -> String {
        let scheme = match (&self.listener, &self.options.tls) {
            (Listener::Unix(..), _) => "unix",
            (Listener::Tcp(_), Some(_)) => "https",
            (Listener::Tcp(_), None) => "http",
        };
        format!("{scheme}://{}", self.listener.name())
    }
}

/// What can be asked for figures, a line for each.
fn figures(store: &Store, node: &Node, collector: &Collector) -> Metrics {
    let mut metrics = Metrics::new();
    let of = |read: fn(&Store) -> u64| {
        let store = store.clone();
        move || read(&store)
    };
    let exchange = |read: fn(&Exchanged) -> u64| {
        let bitswap = node.bitswap();
        move || read(&bitswap.stats())
    };
    metrics.gauge(
        "store_free_bytes",
        "Free on the data directory's file system",
        of(|store| store.space().map_or(0, |space| space.free)),
    );
    metrics.gauge(
        "store_reserve_bytes",
        "Kept free of pushes",
        of(|store| store.space().map_or(0, |space| space.reserve)),
    );
    metrics.gauge("store_pack_bytes", "Length of all packs", of(|store| store.figures().pack_bytes));
    metrics.gauge("store_uploads_open", "Upload sessions in memory", of(|store| store.figures().uploads));
    metrics.gauge(
        "store_index_damaged",
        "1 while the index is built anew",
        of(|store| store.is_damaged().into()),
    );
    metrics.counter(
        "store_quarantined_blobs",
        "Blobs that failed a check since the start",
        of(Store::losses),
    );
    metrics.gauge(
        "store_followed_names",
        "Names that are followed",
        of(|store| store.state().follows.len() as u64),
    );
    metrics.counter(
        "store_journal_entries",
        "Entries of the journal",
        of(|store| store.figures().journal_position),
    );
    metrics.counter("store_folds", "The sequence of the last fold", of(|store| store.figures().sequence));
    let bitswap = node.bitswap();
    metrics.gauge("node_peers", "Connected peers", move || bitswap.connected_peers() as u64);
    metrics.counter(
        "bitswap_sent_blocks",
        "Blocks that peers were sent",
        exchange(|stats| stats.blocks_sent),
    );
    metrics.counter("bitswap_sent_bytes", "Their bytes", exchange(|stats| stats.bytes_sent));
    metrics.counter(
        "bitswap_received_blocks",
        "Blocks that peers sent",
        exchange(|stats| stats.blocks_received),
    );
    metrics.counter("bitswap_received_bytes", "Their bytes", exchange(|stats| stats.bytes_received));
    metrics.counter("bitswap_duplicate_blocks", "Blocks that came again", exchange(|stats| stats.duplicates));
    let garbage = |read: fn(&Totals) -> u64| {
        let collector = collector.clone();
        move || read(&collector.totals())
    };
    metrics.counter("gc_runs", "Collections of garbage", garbage(|totals| totals.runs));
    metrics.counter("gc_failures", "Collections that ended with an error", garbage(|totals| totals.failed));
    metrics.counter("gc_tags", "Tags that were removed", garbage(|totals| totals.collected.tags));
    metrics.counter(
        "gc_manifests",
        "Manifests that were removed",
        garbage(|totals| totals.collected.manifests),
    );
    metrics.counter("gc_blobs", "Blobs that were removed", garbage(|totals| totals.collected.blobs));
    metrics.counter("gc_bytes", "Their bytes", garbage(|totals| totals.collected.bytes));
    let asked = node.clone();
    metrics.counter("node_records_taken", "Records of names that were taken", move || {
        asked.stats().records_taken
    });
    let asked = node.clone();
    metrics.counter("node_records_invalid", "Records that were broken, foreign or expired", move || {
        asked.stats().records_invalid
    });
    metrics
}

impl Answer for Running {
    fn answer(&self, ask: Ask, tell: Tell, pipe: Pipe) -> BoxFuture<'_, Result<Value, String>> {
        self.reply(ask, tell, pipe).map(|reply| reply.map_err(|error| format!("{error:#}"))).boxed()
    }
}

impl Running {
    async fn reply(&self, ask: Ask, tell: Tell, pipe: Pipe) -> anyhow::Result<Value> {
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
                self.follower.follow(&name).await?;
                Value::Null
            }
            Ask::FollowRm { name } => {
                self.follower.unfollow(&name).await?;
                self.store.unfollow(&name.to_string()).await?;
                Value::Null
            }
            Ask::FollowLs => serde_json::to_value(self.follows())?,
            Ask::Gc { dry_run, grace } => {
                let told = move |so_far: &Collected| {
                    tell.tell(format!(
                        "{} repositories, {} manifests, {} blobs of {} bytes",
                        so_far.repositories, so_far.manifests, so_far.blobs, so_far.bytes
                    ));
                };
                let answer = self.collector.collect(dry_run, grace, self.stop.clone(), told).await?;
                serde_json::to_value(answer)?
            }
            Ask::Verify { repair, rate } => {
                let options = Verify { repair, rate, trees_only: false };
                serde_json::to_value(self.verifier.verify(options, &tell, &self.stop).await?)?
            }
            Ask::Stat { path } => {
                let cid = self.locate(&path).await?;
                serde_json::to_value(self.library.stat(cid).await?)?
            }
            Ask::Cat { path } => {
                let cid = self.locate(&path).await?;
                if self.library.stat(cid).await?.kind != content::Kind::File {
                    bail!("{path} is no file; `sampan get` brings directories");
                }
                let mut bytes = self.library.cat(cid);
                while let Some(bytes) = bytes.next().await {
                    pipe.output.send(bytes?).await?;
                }
                Value::Null
            }
            Ask::Export { path } => {
                let cid = self.locate(&path).await?;
                let mut car = self.library.export(cid)?;
                while let Some(bytes) = car.next().await {
                    pipe.output.send(bytes?).await?;
                }
                Value::Null
            }
            Ask::Import { pin } => {
                let told = move |text| tell.tell(text);
                told("waiting for blocks".to_owned());
                serde_json::to_value(self.library.import(pipe.input.blocking(), pin, told).await?)?
            }
            Ask::PinAdd { path } => {
                let told = move |text| tell.tell(text);
                told("looking for blocks".to_owned());
                let cid = self.locate(&path).await?;
                self.library.pin(cid, told).await?;
                Value::from(cid.to_string())
            }
            Ask::PinRm { cid } => {
                let root = content::parse_cid(&cid).with_context(|| format!("{cid} is no CID"))?;
                if !self.library.unpin(root).await? {
                    bail!("{cid} is not pinned");
                }
                Value::Null
            }
            Ask::PinLs => self.library.pins().iter().map(ToString::to_string).collect(),
            Ask::KeyAdd { label, key } => {
                self.keystore.create(&label, &Keypair::from_protobuf(&key)?)?;
                Value::Null
            }
            Ask::Publish { key, value } => {
                let record = self.publisher.publish(key, value).await?;
                serde_json::to_value(resolved(&record, "this registry", None))?
            }
            Ask::Resolve { name: Pointer::Name(name) } => serde_json::to_value(self.resolve(name).await?)?,
            Ask::Resolve { name: Pointer::Domain(domain) } => {
                serde_json::to_value(self.resolve_domain(&domain).await?)?
            }
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

    /// Where a path of content leads.
    async fn locate(&self, path: &str) -> anyhow::Result<Cid> {
        let (found, _) = self.library.locate(&self.names, &path.parse()?, Reach::Anywhere).await?;
        if found.within {
            bail!("{path} leads into a block of data, which is no file");
        }
        Ok(found.cid)
    }

    /// The better of what is kept here and what the network says.
    async fn resolve(&self, name: Name) -> anyhow::Result<Resolved> {
        let read = |bytes| Record::decode(bytes).ok()?.verify_signature(&name).ok();
        let kept = self.records.record(&name).and_then(read);
        let found = self.node.resolve(name).await;
        match (kept, found) {
            (Some(kept), Some(found)) if select(&found.record, &kept).is_gt() => {
                Ok(resolved(&found.record, &found.via.to_string(), Some((found.via, Duration::ZERO))))
            }
            (Some(kept), _) => Ok(resolved(&kept, "this registry", self.follower.last_heard(&name))),
            (None, Some(found)) => {
                Ok(resolved(&found.record, &found.via.to_string(), Some((found.via, Duration::ZERO))))
            }
            (None, None) => bail!(
                "no record of {name} was found: neither here, nor at connected peers, in the DHT or at a router"
            ),
        }
    }

    /// What the DNS says now; where it does not answer, what it said last.
    async fn resolve_domain(&self, domain: &Domain) -> anyhow::Result<Resolved> {
        let (link, from) = match self.domains.ask(domain).await {
            Ok(link) => (link, "the DNS"),
            Err(error) => (self.domains.known(domain).ok_or(error)?, "this registry"),
        };
        Ok(Resolved {
            name: domain.to_string(),
            value: link.address.to_string(),
            sequence: None,
            valid_for: None,
            ttl: link.ttl.as_secs(),
            from: from.to_owned(),
            heard: None,
            age: None,
        })
    }

    async fn status(&self) -> Status {
        let stats = self.node.stats();
        let totals = self.collector.totals();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.name.to_string(),
            peer_id: self.node.peer_id().to_string(),
            root: self.store.root().to_string(),
            sequence: self.store.state().sequence,
            addresses: self.node.addresses().await.iter().map(ToString::to_string).collect(),
            http: self.http.clone(),
            url: self.url.clone(),
            network: format!("{:?}", self.network).to_lowercase(),
            data: self.store.dir().display().to_string(),
            peers: self.node.peers().await.len(),
            clock_suspect: self.node.wall().is_suspect(),
            follows: self.follows(),
            refused_records: stats.records_invalid + stats.records_older + stats.records_not_followed,
            collections: totals.runs,
            failed_collections: totals.failed,
            collected: totals.collected,
        }
    }

    fn follows(&self) -> Vec<FollowStatus> {
        self.follower.followed().into_iter().map(describe).collect()
    }
}

fn describe(followed: Followed) -> FollowStatus {
    let Followed { name, root, sequence, heard, stale, moved, link, error } = followed;
    let state = match (&root, sequence) {
        (None, _) if moved.is_some() => "left".to_owned(),
        (_, None) if link.is_some() => "found".to_owned(),
        (Some(root), Some(sequence)) => format!("sequence {sequence}, root {root}"),
        _ => "not found yet".to_owned(),
    };
    let notes = [
        moved.map(|moved| format!("has moved to {moved}")),
        link.as_ref().map(|link| format!("leads to {link}")),
        stale.then(|| "stale: its record has expired".to_owned()),
        heard.map(|heard| format!("fetching sequence {heard}")),
        error.clone(),
    ];
    let describe = std::iter::once(state).chain(notes.into_iter().flatten()).collect::<Vec<_>>().join(", ");
    let root = root.map(|root| root.to_string());
    FollowStatus {
        name: name.to_string(),
        root,
        sequence,
        heard,
        stale,
        moved: moved.map(|moved| moved.to_string()),
        link,
        error,
        describe,
    }
}

fn resolved(record: &Verified, from: &str, heard: Option<(Via, Duration)>) -> Resolved {
    let left = record.validity().duration_since(SystemTime::now()).map_or(0, |left| left.as_secs());
    Resolved {
        name: record.name().to_string(),
        value: record.value().to_owned(),
        sequence: Some(record.sequence()),
        valid_for: Some(left),
        ttl: record.ttl().as_secs(),
        from: from.to_owned(),
        heard: heard.map(|(via, _)| via.to_string()),
        age: heard.map(|(_, ago)| ago.as_secs()),
    }
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
