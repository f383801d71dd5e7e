//! What the program is told to do: one [`Config`], made of the defaults, then a file, then flags.
//!
//! The file has the shape of CNCF Distribution's, with a section `ipfs` for what a registry without a node lacks.

mod file;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use sampan_node::{Multiaddr, Name};

/// Where HTTP listens when nobody says otherwise: on this machine alone.
const HTTP: &str = "127.0.0.1:5000";

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
    /// A manifest may name content that is not here.
    pub(crate) sparse: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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

impl Config {
    pub(crate) fn load(flags: Flags) -> anyhow::Result<Self> {
        let file = match &flags.config {
            Some(path) => file::read(path)?,
            None => file::File::default(),
        };
        let data = flags.data.clone().or_else(|| file.data()).map_or_else(default_data, Ok)?;
        let or_file = |flag: Vec<Multiaddr>, file: Vec<Multiaddr>| if flag.is_empty() { file } else { flag };
        let mut follow = file.ipfs.follow;
        follow.extend(flags.follow);
        let mut seen = std::collections::HashSet::new();
        follow.retain(|name| seen.insert(*name));
        let http = flags.addr.or(file.http.addr).unwrap_or_else(|| HTTP.to_owned());
        Ok(Self {
            data,
            http: complete(&http),
            p2p: or_file(flags.p2p, file.ipfs.listen),
            network: flags.network.or(file.ipfs.network).unwrap_or_default(),
            swarm_key: file.ipfs.swarmkey,
            follow,
            peers: file.ipfs.peers,
            anonymous_push: flags.anonymous.or(file.anonymous) == Some(Anonymous::Push),
            sparse: file.sparse,
        })
    }

    pub(crate) fn swarm_key(&self) -> PathBuf {
        self.swarm_key.clone().unwrap_or_else(|| self.data.join("swarm.key"))
    }
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

/// The data directory: what was given, else where the system keeps such things.
pub(crate) fn data_dir(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    given.map_or_else(default_data, Ok)
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
