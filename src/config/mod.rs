//! What the program is told to do: one [`Config`], made of the defaults, then a file, then the environment, then
//! flags.
//!
//! The file has the shape of CNCF Distribution's, with a section `ipfs` for what a registry without a node lacks.

mod file;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod keys;
mod said;
mod source;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use sampan_node::{Multiaddr, Name};
use serde_json::Value;

pub(crate) use said::{Remark, Said};
pub(crate) use source::{Environment, Source};

/// Where HTTP listens when nobody says otherwise: on this machine alone.
const HTTP: &str = "127.0.0.1:5000";

/// The data directory, in Distribution's words.
const ROOT: &str = "storage.filesystem.rootdirectory";

/// The data directory, in the environment.
const SAMPAN_DATA: &str = "SAMPAN_DATA";

/// What is shown of a secret.
const MASK: &str = "***";

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data: PathBuf,
    pub(crate) http: String,
    /// Empty: the node's own default, port 4001 of every interface.
    pub(crate) p2p: Vec<Multiaddr>,
    pub(crate) network: Network,
    /// File with the swarm key of a private network; `swarm.key` in the data directory by default.
    pub(crate) swarm_key: Option<PathBuf>,
    pub(crate) follow: Vec<Name>,
    /// Peers that are kept connected.
    pub(crate) peers: Vec<Multiaddr>,
    pub(crate) anonymous_push: bool,
    /// Tags, manifests and blobs can be deleted.
    pub(crate) delete: bool,
    /// A manifest may name content that is not here.
    pub(crate) sparse: bool,
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

/// What clients without a password may do.
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
    pub(crate) follow: Vec<Name>,
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
    /// With the environment of this process. What is ignored is told in the log.
    pub(crate) fn load(flags: Flags) -> anyhow::Result<Self> {
        let (config, warnings) = Self::read(flags, &source::environment())?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
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

        let flag = (!flags.follow.is_empty()).then_some((flags.follow, Source::Flag("--follow")));
        let lists = [said.names("ipfs.follow"), said.names("storage.ipfs.readonlyipnskeys"), flag];
        let (follow, source) = all(lists.into_iter().flatten());
        note("ipfs.follow", texts(&follow), source);

        let swarm_key = path(said.text("ipfs.swarmkey"));
        let default = || (data.join("swarm.key"), Source::Default);
        let (effective, source) = swarm_key.clone().unwrap_or_else(default);
        note("ipfs.swarmkey", shown(&effective), source);

        let anonymous = above(flags.anonymous, "--anonymous", choice(said.text("anonymous")));
        let (anonymous, source) = anonymous.unwrap_or((Anonymous::Pull, Source::Default));
        note("anonymous", choice_name(&anonymous).into(), source);

        let (sparse, source) = said.switch("sparse").unwrap_or_default();
        note("sparse", sparse.into(), source);

        settings.extend(said.ignored.iter().map(|(key, value, source)| {
            let value = if key.secret { Value::from(MASK) } else { value.clone() };
            Setting { key: key.path, value, source: source.clone(), ignored: true }
        }));
        Ok(Self {
            data,
            http,
            p2p,
            network,
            swarm_key: swarm_key.map(|(path, _)| path),
            follow,
            peers,
            anonymous_push: anonymous == Anonymous::Push,
            delete,
            sparse,
            settings,
        })
    }

    pub(crate) fn swarm_key(&self) -> PathBuf {
        self.swarm_key.clone().unwrap_or_else(|| self.data.join("swarm.key"))
    }
}

/// Everything that can be told about a file: its problems, then what it says in vain.
pub(crate) fn check(path: &Path) -> anyhow::Result<Said> {
    let tree = file::read(path)?;
    Ok(Said::gather(Some((&tree, Source::File(path.to_owned()))), &Environment::new()))
}

/// A flag stands above what else was said.
fn above<T>(flag: Option<T>, name: &'static str, said: Option<(T, Source)>) -> Option<(T, Source)> {
    flag.map(|value| (value, Source::Flag(name))).or(said)
}

/// Names of several lists in their order, each once.
fn all(lists: impl Iterator<Item = (Vec<Name>, Source)>) -> (Vec<Name>, Source) {
    let (lists, mut sources): (Vec<Vec<Name>>, Vec<Source>) = lists.unzip();
    let mut seen = HashSet::new();
    let names = lists.into_iter().flatten().filter(|name| seen.insert(*name)).collect();
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

/// Opens the HTTP port.
pub(crate) fn bind(addr: &str) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(addr).with_context(|| {
        format!("HTTP cannot listen on {addr}; give another address with --addr HOST:PORT")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether an address can be reached from this machine alone.
pub(crate) fn is_loopback(addr: &SocketAddr) -> bool {
    addr.ip().is_loopback()
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
pub(crate) fn name(text: &str) -> Result<Name, String> {
    Name::from_str(text).map_err(|error| error.to_string())
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
