//! The program: builds what it is made of, runs it, and stops it in reverse order.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use anyhow::{Context, bail};
use sampan_node::bitswap::{Serving, Stats as Exchanged};
use sampan_node::ipns::Record;
use sampan_node::{Events, KeyFile, Keypair, Keystore, Members, Multiaddr, Name, Node, PeerId, Wall};
use sampan_storage::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Auth;
use crate::bundle::Bundles;
use crate::config::{self, Config, Network, Web};
use crate::content::{self, Content, Dns, Domains, Names};
use crate::control::{Answer, Control};
use crate::http::{self, Listener};
use crate::metrics::Metrics;
use crate::registry::{Policy, Registry};
use crate::routers::Routers;
use crate::sync::{
    Fetcher, Follower, Healer, Kept, MembersName, Mirrors, Publisher, Reclaimer, Redirects, StoreCatalogue,
    StoreRecords, Whom, Writer, ask_routers, publish,
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
    registry: Registry,
    node: Node,
    keystore: Keystore,
    records: Arc<StoreRecords>,
    follower: Follower,
    mirrors: Mirrors,
    writer: Writer,
    reclaimer: Reclaimer,
    publisher: Publisher,
    members: Option<MembersName>,
    collector: Collector,
    verifier: Verifier,
    healer: Healer,
    bundles: Bundles,
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
        // Peers have no names that a rule could be about, so they get what everyone may pull.
        let rule = auth.public_rule();
        if rule.is_some() {
            tracing::info!("peers get what anonymous clients may pull, and nothing else");
        }
        let dir = config.data.clone();
        let store = tokio::task::spawn_blocking(move || Store::open_for(&dir, rule)).await??;
        let discreet = store.is_divided() || config.network == Network::Private;
        if !discreet && let Some(name) = followed_in_confidence(&store) {
            bail!(
                "{name}, which is followed here, is for members, and would be given to everyone: set up authentication, or use another data directory"
            );
        }
        let keystore = Keystore::new(config.data.join(KEYS));
        let known = match keystore.finish_rotation()? {
            Some(_) => None,
            None => known,
        };
        let brought = known.is_some();
        let key = known.map_or_else(|| KeyFile::load_or_create(&path), Ok)?;
        let kept = Kept::load(&keystore)?;
        let name = key.name();
        let members = match config.network {
            Network::Private => Members::Everybody,
            Network::Lan | Network::Public if config.members.is_empty() => Members::Nobody,
            Network::Lan | Network::Public => Members::These(config.members.iter().copied().collect()),
        };
        let divided = store.is_divided() && members != Members::Nobody;
        let for_members = divided.then(|| MembersName::open(&keystore)).transpose()?;
        let redirects = Redirects::load(&config.data)?;
        let records = Arc::new(StoreRecords::new(
            store.clone(),
            name,
            kept.clone(),
            redirects.clone(),
            for_members.clone(),
        ));
        let together = config.follow.iter().any(|following| following.whom == Whom::Members);
        let domains = Domains::new(Arc::new(Dns::new(&config.dns)?));
        let routers = (!config.routers.is_empty()).then(|| Routers::new(&config.routers)).transpose()?;
        let settings = sampan_node::Config {
            key: key.clone(),
            network,
            listen,
            peers: config.peers.clone(),
            acquaintance: config.acquaintance.clone(),
            agent: concat!("sampan/", env!("CARGO_PKG_VERSION")).to_owned(),
            bootstrap: config.reach.bootstrap.clone(),
            relaying: config.reach.relaying,
            mdns: true,
            serving: Serving::Everyone,
            members,
            finds_registries: together,
            routers: routers.clone().map(|routers| Arc::new(routers) as _),
            wall: Wall::system(),
        };
        let (public, all) = (Arc::new(store.public()), Arc::new(store.clone()));
        let catalogue = Arc::new(StoreCatalogue(store.clone()));
        let (node, events) =
            sampan_node::start_with_members(settings, public, all, Arc::clone(&records) as _, catalogue)
                .await
                .context(LISTEN)?;
        let writer = Writer::new(store.clone(), name, brought);
        let members_name = for_members.as_ref().map(MembersName::name);
        let follower = Follower::new(
            store.clone(),
            node.clone(),
            discreet,
            domains.clone(),
            redirects,
            writer.clone(),
            members_name,
        )
        .context("the thread that looks through followed trees cannot be started")?;
        let publisher = Publisher::new(keystore.clone(), node.clone(), kept);
        let fetcher = Fetcher::new(store.clone(), node.clone());
        let mirrors = Mirrors::new(store.clone(), follower.clone(), fetcher.clone());
        let reclaimer =
            Reclaimer::new(store.clone(), node.clone(), follower.clone(), mirrors.clone(), writer.clone());
        let healer = Healer::new(store.clone(), node.clone(), fetcher.clone(), name);
        let bundles = Bundles::new(
            store.clone(),
            node.clone(),
            Arc::clone(&records),
            follower.clone(),
            Arc::new(fetcher.clone()),
            writer.clone(),
            for_members.clone(),
        );
        let verifier = Verifier::new(store.clone(), healer.clone());
        let Config { delete, read_only, sparse, .. } = *config;
        let registry =
            Registry::new(store.clone(), Arc::new(fetcher), Policy { delete, read_only, sparse, together });
        let access = http::Access { auth, loopback: doors.listener.is_local() };
        let Web { locations, prefix, .. } = &config.web;
        let collector = Collector::new(registry.clone(), config.retention.clone());
        let network: Arc<dyn content::Network> = Arc::new(content::Node(node.clone()));
        // A command is its owner's, and may ask whom it likes; of strangers the configuration speaks.
        let library = Content::new(store.clone(), Some(Arc::clone(&network)));
        let names =
            Names::new(Arc::clone(&records) as _, Arc::clone(&network), domains.clone(), true).for_members();
        let gateway = config.gateway.enabled.then(|| {
            // What this node gets from others is not for everyone to have of it.
            let asks = config.gateway.fetch && !store.is_divided();
            let asked = asks.then(|| Arc::clone(&network));
            http::Gateway {
                content: Content::for_strangers(store.clone(), asked),
                names: Names::new(Arc::clone(&records) as _, Arc::clone(&network), domains.clone(), asks),
                routing: http::Routing::new(network, asks, doors.reached(&config.web)),
            }
        });
        let state = web::Data::new(http::State {
            registry: registry.clone(),
            access,
            health: http::Health::new(store.clone(), read_only),
            gateway,
            metrics: Arc::new(figures(&store, &node, &collector, &follower)),
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
            registry,
            node,
            keystore,
            records,
            follower,
            mirrors,
            writer,
            reclaimer,
            publisher,
            members: for_members,
            collector,
            verifier,
            healer,
            bundles,
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
        app.running.writer.begin(&app.running.node).await?;
        Ok(app)
    }

    pub(crate) fn name(&self) -> &Name {
        &self.running.name
    }

    /// The name under which members find all of it.
    pub(crate) fn members(&self) -> Option<Name> {
        self.running.members.as_ref().map(MembersName::name)
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
        tasks.spawn(publish(
            running.store.clone(),
            running.node.clone(),
            key,
            running.writer.clone(),
            stop.clone(),
        ));
        tasks.spawn(running.publisher.clone().run(stop.clone()));
        if let Some(members) = &running.members {
            tasks.spawn(members.clone().publish(running.store.clone(), running.node.clone(), stop.clone()));
        }
        tasks.spawn(watch_clock(running.node.wall().clone(), stop.clone()));
        tasks.spawn(running.follower.clone().listen(events, stop.clone()));
        tasks.spawn(running.mirrors.clone().run(stop.clone()));
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
fn figures(store: &Store, node: &Node, collector: &Collector, follower: &Follower) -> Metrics {
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
    let stale = follower.clone();
    metrics.gauge("follow_stale", "Followed names whose records have expired", move || stale.stale() as u64);
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
    metrics.counter("node_announced", "CIDs that a DHT was told of", move || asked.stats().announced);
    let asked = node.clone();
    metrics.counter("node_records_invalid", "Records that were broken, foreign or expired", move || {
        asked.stats().records_invalid
    });
    metrics
}

/// A followed name whose tree is for members, if any is.
fn followed_in_confidence(store: &Store) -> Option<String> {
    let private = |bytes: &[u8]| Record::decode(bytes.to_vec()).is_ok_and(|record| record.is_private());
    let mut follows = store.state().follows.into_iter();
    follows
        .find(|follow| follow.good.as_ref().is_some_and(|good| private(&good.record)))
        .map(|follow| follow.name)
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
