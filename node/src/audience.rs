//! Who may have what: strangers get what is public, members get everything.

use std::collections::HashSet;

use libp2p::PeerId;

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Strangers,
    Members,
}

/// Peers that may have everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Members {
    #[default]
    Nobody,
    These(HashSet<PeerId>),
    /// Whoever is connected: in a private network they have proved that they have its key.
    Everybody,
}

impl Members {
    pub fn contains(&self, peer: &PeerId) -> bool {
        match self {
            Self::Nobody => false,
            Self::These(peers) => peers.contains(peer),
            Self::Everybody => true,
        }
    }

    pub fn audience(&self, peer: &PeerId) -> Audience {
        if self.contains(peer) { Audience::Members } else { Audience::Strangers }
    }
}
