//! What the program is told to do: one [`Config`], made of the defaults, then a file, then the environment, then
//! flags.
//!
//! The file has the shape of CNCF Distribution's, with a section `ipfs` for what a registry without a node lacks.

mod auth;
mod file;
mod following;
mod form;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod keys;
mod reader;
mod retention;
mod said;
mod source;
#[cfg(test)]
mod tests;
mod web;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use sampan_node::{Acquaintance, Multiaddr, PeerId, Relaying};
use serde_json::Value;

use crate::auth::Settings;
use crate::content::{DnsServer, Pointer};
use crate::registry::{MAX_PAGE, Retention};
use crate::sync::{Following, Whom};
use reader::Reader;

pub(crate) use form::{duration as parse_duration, is_host, size as parse_size, size_text};
pub(crate) use said::{Remark, Said};
pub(crate) use source::{Environment, Source};
pub(crate) use web::{Locations, Tls, Web};

/// Where HTTP listens when nobody says otherwise: on this machine alone.
const HTTP: &str = "127.0.0.1:5000";

/// The data directory, in Distribution's words.
const ROOT: &str = "storage.filesystem.rootdirectory";

/// The data directory, in the environment.
const SAMPAN_DATA: &str = "SAMPAN_DATA";

/// Between two collections of garbage.
const GC_INTERVAL: Duration = Duration::from_hours(24);
/// Uploads go when nobody has touched them for so long, as in Distribution.
const PURGE_AGE: Duration = Duration::from_hours(7 * 24);
/// And so often is looked for them.
const PURGE_INTERVAL: Duration = Duration::from_hours(24);

/// Bit rot is slow, and a disk that reads all the time wears out.
const SCRUB_INTERVAL: Duration = Duration::from_hours(7 * 24);
/// 2.4 TB in that time, and some percent of what a small board can hash.
const SCRUB_RATE: u64 = 4 * 1024 * 1024;

/// What is shown of a secret.
const MASK: &str = "***";

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the configuration")]
pub(crate) struct Config {
    pub(crate) data: PathBuf,
    pub(crate) http: String,
    pub(crate) web: Web,
    pub(crate) logs: Logs,
    /// Empty: the node's own default, port 4001 of every interface.
    pub(crate) p2p: Vec<Multiaddr>,
    pub(crate) network: Network,
    /// File with the swarm key of a private network; `swarm.key` in the data directory by default.
    pub(crate) swarm_key: Option<PathBuf>,
    pub(crate) follow: Vec<Following>,
    /// Peers that are kept connected.
    pub(crate) peers: Vec<Multiaddr>,
    /// Who may be connected to at all.
    pub(crate) acquaintance: Acquaintance,
    /// Peers that may fetch what anonymous clients may not pull.
    pub(crate) members: Vec<PeerId>,
    pub(crate) reach: Reach,
    /// Where nobody has to log in: anonymous clients may push from anywhere.
    pub(crate) anonymous_push: bool,
    /// How clients log in, and what they may do then.
    pub(crate) auth: Option<Settings>,
    /// Tags, manifests and blobs can be deleted.
    pub(crate) delete: bool,
    /// Nothing can be pushed or deleted.
    pub(crate) read_only: bool,
    pub(crate) upload_purge: UploadPurge,
    pub(crate) pages: Pages,
    /// A manifest may name content that is not here.
    pub(crate) sparse: bool,
    pub(crate) gateway: Gateway,
    /// Who is asked for the links of domains.
    pub(crate) dns: DnsServer,
    /// URLs of delegated routers.
    pub(crate) routers: Vec<String>,
    /// How often garbage is collected; `None`: only when a command asks.
    pub(crate) gc_interval: Option<Duration>,
    pub(crate) retention: Retention,
    /// How all blobs are hashed again by and by; `None`: only when a command asks.
    pub(crate) scrub: Option<Scrub>,
    /// All of it again, with where each comes from.
    pub(crate) settings: Vec<Setting>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// This LAN only: private, link-local and loopback addresses; nothing is published to the world
    #[default]
    Lan,
    /// The IPFS network
    Public,
    /// Whoever has the same swarm.key
    Private,
}

/// How the node and strangers come together, in the public network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) bootstrap: Vec<Multiaddr>,
    pub(crate) relaying: Relaying,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Logs {
    pub(crate) level: Level,
    pub(crate) json: bool,
    /// A line for each request.
    pub(crate) access: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

/// When unfinished uploads go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UploadPurge {
    pub(crate) enabled: bool,
    pub(crate) age: Duration,
    pub(crate) interval: Duration,
}

/// What HTTP does of IPFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) enabled: bool,
    /// Peers are asked for what is not here.
    pub(crate) fetch: bool,
}

/// How often a pass over all blobs begins, and how many bytes it reads in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scrub {
    pub(crate) interval: Duration,
    pub(crate) rate: u64,
}

/// The longest pages of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) catalog: usize,
    pub(crate) tags: usize,
}

impl Default for Pages {
    fn default() -> Self {
        Self { catalog: MAX_PAGE, tags: MAX_PAGE }
    }
}

/// What clients may do that do not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Anonymous {
    /// What is allowed anyway
    Pull,
    /// Pull and push, from anywhere
    Push,
}

/// What was said on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) data: Option<PathBuf>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) addr: Option<String>,
    pub(crate) p2p: Vec<Multiaddr>,
    pub(crate) network: Option<Network>,
    pub(crate) follow: Vec<Whom>,
    pub(crate) anonymous: Option<Anonymous>,
}

/// One value as it counts, for `config show`.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) value: Value,
    pub(crate) source: Source,
    pub(crate) ignored: bool,
}

impl Config {
    /// With the environment of this process. The remarks are about what is ignored; they belong into the log.
    pub(crate) fn load(flags: Flags) -> anyhow::Result<(Self, Vec<Remark>)> {
        Self::read(flags, &source::environment())
    }

    fn read(flags: Flags, environment: &Environment) -> anyhow::Result<(Self, Vec<Remark>)> {
        let tree = flags.config.as_deref().map(file::read).transpose()?;
        let file = flags.config.clone().map(Source::File);
        let said = Said::gather(tree.as_ref().zip(file), environment);
        if !said.problems.is_empty() {
            let problems: Vec<String> = said.problems.iter().map(Remark::to_string).collect();
            bail!("the configuration is not valid: {}", problems.join("; "));
        }
        let config = Self::assemble(flags, &said, environment)?;
        Ok((config, said.warnings))
    }

    /// Flags, then what was said, then the defaults.
    fn assemble(flags: Flags, said: &Said, environment: &Environment) -> anyhow::Result<Self> {
        let shown = |path: &Path| Value::from(path.display().to_string());
        let mut settings = Vec::new();
        let mut note = |key, value, source| settings.push(Setting { key, value, source, ignored: false });

        let data = flags.data.map(|path| {
            let variable = environment.get(SAMPAN_DATA).is_some_and(|value| Path::new(value) == path);
            let variable = variable.then(|| Source::Environment(SAMPAN_DATA.to_owned()));
            (path, variable.unwrap_or(Source::Flag("--data")))
        });
        let data = data.or_else(|| path(said.text(ROOT)));
        let (data, source) = data.map_or_else(|| default_data().map(|path| (path, Source::Default)), Ok)?;
        note(ROOT, shown(&data), source);

        let (delete, source) = said.switch("storage.delete.enabled").unwrap_or((true, Source::Default));
        note("storage.delete.enabled", delete.into(), source);

        let http = above(flags.addr, "--addr", said.text("http.addr"));
        let (http, source) = http.unwrap_or_else(|| (HTTP.to_owned(), Source::Default));
        let http = complete(&http);
        note("http.addr", http.as_str().into(), source);

        let network = above(flags.network, "--network", choice(said.text("ipfs.network")));
        let (network, source) = network.unwrap_or((Network::default(), Source::Default));
        note("ipfs.network", choice_name(&network).into(), source);

        let p2p = (!flags.p2p.is_empty()).then_some(flags.p2p);
        let (p2p, source) = above(p2p, "--p2p", said.multiaddrs("ipfs.listen")).unwrap_or_default();
        let listen = if p2p.is_empty() { sampan_node::default_listen() } else { p2p.clone() };
        note("ipfs.listen", texts(&listen), source);

        let (peers, source) = said.multiaddrs("ipfs.peers").unwrap_or_default();
        note("ipfs.peers", texts(&peers), source);

        let (allow, source) = said.peers("ipfs.allow").unwrap_or_default();
        note("ipfs.allow", texts(&allow), source);
        let (deny, source) = said.peers("ipfs.deny").unwrap_or_default();
        note("ipfs.deny", texts(&deny), source);
        let (members, source) = said.peers("ipfs.members").unwrap_or_default();
        note("ipfs.members", texts(&members), source);
        let acquaintance =
            Acquaintance { allow: allow.into_iter().collect(), deny: deny.into_iter().collect() };

        let bootstrap = said.multiaddrs("ipfs.bootstrap");
        let (bootstrap, source) =
            bootstrap.unwrap_or_else(|| (sampan_node::default_bootstrap(), Source::Default));
        note("ipfs.bootstrap", texts(&bootstrap), source);

        let plain: Vec<Following> = flags.follow.into_iter().map(Following::plain).collect();
        let flag = (!plain.is_empty()).then_some((plain, Source::Flag("--follow")));
        let lists = [said.names("ipfs.follow"), said.names("storage.ipfs.readonlyipnskeys"), flag];
        let (follow, source) = all(lists.into_iter().flatten());
        note("ipfs.follow", following::write(&follow), source);
        let finds = follow.iter().any(|following| following.whom == Whom::Members);
        if finds && network != Network::Private && members.is_empty() {
            bail!(
                "to follow auto means to let members write tags here: say who they are in ipfs.members, or use --network private with a swarm key"
            );
        }

        let swarm_key = path(said.text("ipfs.swarmkey"));
        let default = || (data.join("swarm.key"), Source::Default);
        let (effective, source) = swarm_key.clone().unwrap_or_else(default);
        note("ipfs.swarmkey", shown(&effective), source);

        let mut auth = auth::settings(said).map_err(|problem| anyhow!("{} {}", problem.key, problem.text))?;
        match (&mut auth, flags.anonymous) {
            (Some(Settings::Htpasswd { .. }), Some(_)) if said.rules("auth.rules").is_some() => {
                bail!("--anonymous {}", auth::BESIDE_RULES)
            }
            (Some(Settings::Token(_)), Some(_)) => bail!("--anonymous {}", auth::BESIDE_TOKEN),
            (Some(Settings::Htpasswd { rules, .. }), anonymous @ Some(_)) => {
                *rules = auth::plain_rules(anonymous);
            }
            _ => {}
        }

        let anonymous = above(flags.anonymous, "--anonymous", choice(said.text("anonymous")));
        // With authentication, what nobody has said of anonymous clients they may not.
        if let Some((anonymous, source)) =
            anonymous.clone().or_else(|| auth.is_none().then_some((Anonymous::Pull, Source::Default)))
        {
            note("anonymous", choice_name(&anonymous).into(), source);
        }
        let anonymous_push = anonymous.is_some_and(|(anonymous, _)| anonymous == Anonymous::Push);

        let (sparse, source) = said.switch("sparse").unwrap_or_default();
        note("sparse", sparse.into(), source);

        let mut reader = Reader::new(said, &mut settings);
        auth::show(&mut reader);
        let gateway = Gateway::read(&mut reader);
        let dns = reader.given("ipfs.dns").and_then(|text| form::dns(&text)).unwrap_or_default();
        let routers = reader.texts("ipfs.routers");
        let gc = reader.switch("gc.enabled", true);
        let interval = reader.duration("gc.interval", GC_INTERVAL);
        let retention = Retention {
            grace: reader.duration("gc.grace", Retention::default().grace),
            untagged: reader.given_duration("gc.untagged"),
            rules: reader.retention("gc.rules"),
        };
        let scrub = Scrub::read(&mut reader);
        let reach = Reach::read(&mut reader, bootstrap);
        let web = Web::read(&mut reader)?;
        let logs = Logs::read(&mut reader);
        let read_only = reader.switch("storage.maintenance.readonly.enabled", false);
        let upload_purge = UploadPurge::read(&mut reader);
        let pages = Pages::read(&mut reader);

        settings.extend(said.ignored.iter().map(|(key, value, source)| {
            let value = if key.secret { Value::from(MASK) } else { value.clone() };
            Setting { key: key.path, value, source: source.clone(), ignored: true }
        }));
        Ok(Self {
            data,
            http,
            web,
            logs,
            p2p,
            network,
            swarm_key: swarm_key.map(|(path, _)| path),
            follow,
            peers,
            acquaintance,
            members,
            reach,
            anonymous_push,
            auth,
            delete,
            read_only,
            upload_purge,
            pages,
            sparse,
            gateway,
            dns,
            routers,
            gc_interval: gc.then_some(interval),
            retention,
            scrub,
            settings,
        })
    }

    pub(crate) fn swarm_key(&self) -> PathBuf {
        self.swarm_key.clone().unwrap_or_else(|| self.data.join("swarm.key"))
    }
}

impl Logs {
    fn read(reader: &mut Reader<'_>) -> Self {
        let old = reader.given("loglevel");
        let level = match reader.text("log.level", old.as_deref().unwrap_or("info")).as_str() {
            "error" => Level::Error,
            "warn" => Level::Warn,
            "debug" => Level::Debug,
            _ => Level::Info,
        };
        let json = reader.text("log.formatter", "text") != "text";
        let access = !reader.switch("log.accesslog.disabled", true);
        Self { level, json, access }
    }
}

impl UploadPurge {
    fn read(reader: &mut Reader<'_>) -> Self {
        let enabled = reader.switch("storage.maintenance.uploadpurging.enabled", true);
        let age = reader.duration("storage.maintenance.uploadpurging.age", PURGE_AGE);
        let interval = reader.duration("storage.maintenance.uploadpurging.interval", PURGE_INTERVAL);
        Self { enabled, age, interval }
    }
}

impl Reach {
    fn read(reader: &mut Reader<'_>, bootstrap: Vec<Multiaddr>) -> Self {
        let relaying = match reader.text("ipfs.relay", "auto").as_str() {
            "always" => Relaying::Always,
            "never" => Relaying::Never,
            _ => Relaying::Auto,
        };
        Self { bootstrap, relaying }
    }
}

impl Gateway {
    fn read(reader: &mut Reader<'_>) -> Self {
        let enabled = reader.switch("ipfs.gateway.enabled", true);
        let fetch = reader.switch("ipfs.gateway.fetch", false);
        Self { enabled, fetch }
    }
}

impl Scrub {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let enabled = reader.switch("verify.enabled", true);
        let interval = reader.duration("verify.interval", SCRUB_INTERVAL);
        let rate = reader.size("verify.rate", SCRUB_RATE);
        enabled.then_some(Self { interval, rate: rate.max(1) })
    }
}

impl Pages {
    fn read(reader: &mut Reader<'_>) -> Self {
        let mut page = |key| {
            let said = reader.number(key, MAX_PAGE as u64);
            usize::try_from(said).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE)
        };
        Self { catalog: page("catalog.maxentries"), tags: page("tags.maxtags") }
    }
}

/// Everything that can be told about a file: its problems, then what it says in vain.
pub(crate) fn check(path: &Path) -> anyhow::Result<Said> {
    let tree = file::read(path)?;
    let said = Said::gather(Some((&tree, Source::File(path.to_owned()))), &Environment::new());
    if said.problems.is_empty() {
        // What is wrong only where several keys meet.
        Config::assemble(Flags::default(), &said, &Environment::new())?;
    }
    Ok(said)
}

/// A flag stands above what else was said.
fn above<T>(flag: Option<T>, name: &'static str, said: Option<(T, Source)>) -> Option<(T, Source)> {
    flag.map(|value| (value, Source::Flag(name))).or(said)
}

/// Names of several lists in their order, each once.
fn all(lists: impl Iterator<Item = (Vec<Following>, Source)>) -> (Vec<Following>, Source) {
    let (lists, mut sources): (Vec<Vec<Following>>, Vec<Source>) = lists.unzip();
    let mut seen = HashSet::new();
    let names = lists.into_iter().flatten().filter(|following| seen.insert(following.whom.clone())).collect();
    sources.dedup();
    let several = sources.len() > 1;
    let source = if several { Source::Several(sources) } else { sources.pop().unwrap_or_default() };
    (names, source)
}

fn path(said: Option<(String, Source)>) -> Option<(PathBuf, Source)> {
    said.map(|(text, source)| (PathBuf::from(text), source))
}

/// The table has let no other text through than the names of the variants.
fn choice<T: ValueEnum>(said: Option<(String, Source)>) -> Option<(T, Source)> {
    said.and_then(|(text, source)| Some((T::from_str(&text, false).ok()?, source)))
}

fn choice_name(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn texts(list: &[impl ToString]) -> Value {
    list.iter().map(ToString::to_string).collect()
}

/// `:5000` means every interface, as in Distribution.
fn complete(addr: &str) -> String {
    if addr.starts_with(':') { format!("0.0.0.0{addr}") } else { addr.to_owned() }
}

/// The data directory: what was given, else what the environment says, else where the system keeps such things.
pub(crate) fn data_dir(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let said = || path(Said::gather(None, &source::environment()).text(ROOT)).map(|(path, _)| path);
    given.or_else(said).map_or_else(default_data, Ok)
}

fn default_data() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/sampan"));
    }
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let dir = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    Ok(dir.ok_or_else(|| anyhow!("no HOME is set; say where the data is with --data DIR"))?.join("sampan"))
}

/// A name as a flag: where it is none, the message says what one looks like.
pub(crate) fn pointer(text: &str) -> Result<Pointer, String> {
    Pointer::from_str(text).map_err(|error| error.to_string())
}

/// What `--follow` takes.
pub(crate) fn whom(text: &str) -> Result<Whom, String> {
    Whom::from_str(text).map_err(|error| error.to_string())
}

/// A multiaddr as a flag.
pub(crate) fn multiaddr(text: &str) -> Result<Multiaddr, String> {
    let example = "it looks like /ip4/0.0.0.0/tcp/4001";
    Multiaddr::from_str(text).map_err(|error| format!("{error}; {example}"))
}

/// The swarm key of a private network.
pub(crate) fn read_swarm_key(path: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "--network private needs the swarm key that its members share; copy it to {}",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}
