//! `sampan peers` and `swarm connect`: who the node is connected to.

use std::path::Path;

use sampan_node::Multiaddr;

use super::print;
use crate::control::{self, Ask, PeerStatus};

pub(super) fn run(dir: &Path, json: bool) -> anyhow::Result<()> {
    let peers: Vec<PeerStatus> = control::must_ask(dir, &Ask::Peers)?;
    if json {
        return print::json(&peers);
    }
    let row = |peer: &PeerStatus| vec![peer.id.clone(), peer.agent.clone(), peer.addresses.join(" ")];
    print::table(&peers.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

pub(super) fn connect(dir: &Path, address: Multiaddr) -> anyhow::Result<()> {
    let peer: String = control::must_ask(dir, &Ask::Connect { address })?;
    print::line(&format!("connected to {peer}"));
    Ok(())
}
