//! The command line: what can be said, and one file for each command that does more than ask.

mod add;
mod bundle;
mod cat;
mod config;
mod dag;
mod explain;
mod follow;
mod gc;
mod get;
mod key;
mod ls;
mod names;
mod peers;
mod pin;
mod print;
mod reclaim;
mod serve;
mod status;
mod tree;
mod verify;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use sampan_node::{KeyFile, Multiaddr};

use crate::config::{Anonymous, Logs, Network, data_dir, multiaddr, pointer, whom};
use crate::content::Pointer;
use crate::sync::Whom;
use crate::telemetry;

pub(crate) use print::{complain, refuse};

/// A container registry and an IPFS node in one small binary
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Data directory [default: the system's place for data, /var/lib/sampan as root]
    #[arg(long, env = "SAMPAN_DATA", global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the registry and its node
    Serve(Serve),
    /// Print the registry's name: whoever knows it can follow
    Name,
    /// Print the CID of the registry's tree
    Root,
    /// Show what the running registry is doing
    Status {
        #[arg(long)]
        json: bool,
    },
    /// List a directory of the registry's tree
    Ls {
        /// For example docker/registry/v2/repositories
        #[arg(default_value = "")]
        path: String,
        #[arg(long)]
        json: bool,
    },
    /// Follow other registries by name
    #[command(subcommand)]
    Follow(Follow),
    /// Take what was published elsewhere under this registry's name, or the tree of a followed name
    Adopt(reclaim::Adopt),
    /// Bring a registry that was lost back from those who follow it; its key has to be here
    Restore {
        #[arg(long)]
        json: bool,
    },
    /// List earlier roots of the registry's tree that are still here
    Roots {
        #[arg(long)]
        json: bool,
    },
    /// Make an earlier root the current one
    Rollback {
        root: String,
        #[arg(long)]
        json: bool,
    },
    /// Show which tree answers for a reference, and what the others say
    Explain(explain::Explain),
    /// Make, list, move and replace keys
    #[command(subcommand)]
    Key(key::Key),
    /// Have the name of another key point somewhere
    Publish(names::Publish),
    /// Show what a name points to
    Resolve {
        #[arg(value_parser = pointer)]
        name: Pointer,
        #[arg(long)]
        json: bool,
    },
    /// Check what lies on the disk against what it should be
    Verify(verify::Verify),
    /// Connect to peers
    #[command(subcommand)]
    Swarm(Swarm),
    /// List connected peers
    Peers {
        #[arg(long)]
        json: bool,
    },
    /// Write a file on IPFS to standard output
    Cat {
        /// A CID, /ipfs/CID or /ipns/NAME, with or without names behind it
        path: String,
    },
    /// Bring a file or a directory from IPFS
    Get(get::Get),
    /// Put files and directories on IPFS, pinned, and print their CID
    Add(add::Add),
    /// Keep content that is in no tree
    #[command(subcommand)]
    Pin(pin::Pin),
    /// DAGs as CAR files
    #[command(subcommand)]
    Dag(dag::Dag),
    /// Carry a registry by hand: for sites behind an air gap, and as a backup
    #[command(subcommand)]
    Bundle(bundle::Bundle),
    /// Remove what no tag, rule or manifest keeps
    Gc(gc::Gc),
    /// Show and check the configuration
    #[command(subcommand)]
    Config(Config),
    /// List the places where SAMPAN_FAILPOINT can end the process
    #[command(hide = true)]
    Failpoints,
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Where HTTP listens [default: 127.0.0.1:5000]
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,
    /// Where the node listens, repeatable [default: TCP and QUIC port 4001 of every interface]
    #[arg(long, value_name = "MULTIADDR", value_parser = multiaddr)]
    p2p: Vec<Multiaddr>,
    /// Who the node speaks to [default: lan]
    #[arg(long, value_enum)]
    network: Option<Network>,
    /// Follow a registry by its name, or by a domain that points to it, repeatable; auto follows every member
    #[arg(long, value_name = "NAME", value_parser = whom)]
    follow: Vec<Whom>,
    /// What clients without a password may do [default: pull, and push from this machine]
    #[arg(long, value_enum, value_name = "WHAT")]
    anonymous: Option<Anonymous>,
    /// Configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Show the values that count, and where each comes from
    Show {
        /// Configuration file (YAML)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration file
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Swarm {
    /// Connect to a peer now; `ipfs.peers` of the configuration keeps one connected
    Connect {
        /// With the peer's id at its end
        #[arg(value_parser = multiaddr)]
        address: Multiaddr,
    },
}

#[derive(Debug, Subcommand)]
enum Follow {
    /// Follow a name from now on
    Add {
        #[arg(value_parser = pointer)]
        name: Pointer,
    },
    /// Stop following a name
    Rm {
        #[arg(value_parser = pointer)]
        name: Pointer,
    },
    /// List followed names
    Ls {
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { data, command } = arguments;
    // The one that logs as the configuration says.
    let command = match command {
        Command::Serve(serve) => return serve::run(data, serve),
        other => other,
    };
    telemetry::start(Logs::default());
    // This one reads the configuration too; the others ask a data directory.
    let command = match command {
        Command::Config(config) => return config::run(data, config),
        other => other,
    };
    let dir = data_dir(data)?;
    match command {
        Command::Serve(_) | Command::Config(_) => {}
        Command::Name => {
            let key = KeyFile::load(dir.join(crate::app::KEY))?;
            print::line(&key.name().to_string());
        }
        Command::Root => tree::root(&dir)?,
        Command::Status { json } => status::run(&dir, json)?,
        Command::Ls { path, json } => ls::run(&dir, &path, json)?,
        Command::Follow(follow) => follow::run(&dir, follow)?,
        Command::Adopt(adopt) => reclaim::adopt(&dir, &adopt)?,
        Command::Restore { json } => reclaim::restore(&dir, json)?,
        Command::Roots { json } => reclaim::roots(&dir, json)?,
        Command::Rollback { root, json } => reclaim::rollback(&dir, root, json)?,
        Command::Explain(explain) => explain::run(&dir, &explain)?,
        Command::Key(key) => key::run(&dir, key)?,
        Command::Publish(publish) => names::publish(&dir, publish)?,
        Command::Resolve { name, json } => names::resolve(&dir, name, json)?,
        Command::Gc(gc) => gc::run(&dir, &gc)?,
        Command::Verify(verify) => verify::run(&dir, &verify)?,
        Command::Swarm(Swarm::Connect { address }) => peers::connect(&dir, address)?,
        Command::Peers { json } => peers::run(&dir, json)?,
        Command::Cat { path } => cat::run(&dir, &path)?,
        Command::Get(get) => get::run(&dir, &get)?,
        Command::Add(add) => add::run(&dir, &add)?,
        Command::Pin(pin) => pin::run(&dir, &pin)?,
        Command::Dag(dag) => dag::run(&dir, &dag)?,
        Command::Bundle(bundle) => bundle::run(&dir, bundle)?,
        Command::Failpoints => sampan_storage::fail::POINTS.iter().for_each(|point| print::line(point)),
    }
    Ok(())
}
