//! How commands speak to the running registry: a Unix socket in the data directory, for its owner only. One line
//! of JSON asks, one line answers; before it, while the answer takes its time, others say how far it has come, or that
//! bytes follow. A question that brings bytes has them behind its line, in pieces with their length before them.

mod client;
mod pipe;
mod server;

use std::time::Duration;

use sampan_node::{Label, Multiaddr, Name};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::Wish;
use crate::content::{PinRoots, Pointer};
use crate::registry::Collected;
use crate::sync::{Mirrored, Usage};

pub(crate) use client::{Bytes, ask, ask_telling, must_ask, must_ask_telling, must_exchange, open_offline};
pub(crate) use pipe::{Input, Output, Pipe};
pub(crate) use server::{Answer, Control, Tell};

/// Name of the socket in the data directory.
const SOCKET: &str = "control.sock";
/// A question is a path or a name.
const MAX_ASK: u64 = 64 * 1024;
/// An answer is a list; a directory of 100,000 tags takes some 20 MiB.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Ask {
    Status,
    Root,
    Ls {
        path: String,
    },
    FollowAdd {
        name: Pointer,
    },
    FollowRm {
        name: Pointer,
    },
    FollowLs,
    /// Take what was published elsewhere under this registry's name, or the tree of another.
    Adopt {
        name: Option<Name>,
        merge: bool,
    },
    Roots,
    Rollback {
        root: String,
    },
    /// What each tree says of a reference.
    Explain {
        repository: String,
        reference: String,
    },
    Peers,
    Connect {
        address: Multiaddr,
    },
    KeyAdd {
        label: Label,
        key: Vec<u8>,
    },
    Publish {
        key: Label,
        value: String,
    },
    Resolve {
        name: Pointer,
    },
    Gc {
        dry_run: bool,
        grace: Option<Duration>,
    },
    Verify {
        repair: bool,
        rate: Option<u64>,
    },
    /// What stands at a path of content.
    Stat {
        path: String,
    },
    /// The bytes of a file.
    Cat {
        path: String,
    },
    /// A DAG as a CAR.
    Export {
        path: String,
    },
    /// A CAR, which comes behind the question.
    Import {
        pin: PinRoots,
    },
    /// A bundle: its parts, each with its length before it.
    BundleCreate(Wish),
    /// Parts of one, which come behind the question in the same way.
    BundleApply {
        /// What they are called in messages.
        files: Vec<String>,
        /// The only name of which one is taken.
        name: Option<Name>,
    },
    PinAdd {
        path: String,
    },
    PinRm {
        cid: String,
    },
    PinLs,
}

impl Ask {
    /// Whether bytes follow the question.
    fn brings_bytes(&self) -> bool {
        matches!(self, Self::Import { .. } | Self::BundleApply { .. })
    }
}

/// A line of the answer. The last one is `Ok` or `Err`.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Reply {
    Progress(String),
    /// So many bytes follow, as they are.
    Data(usize),
    Ok(Value),
    Err(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) name: String,
    pub(crate) peer_id: String,
    pub(crate) root: String,
    pub(crate) sequence: u64,
    /// What strangers find under the name: the same root, or that of what anonymous clients may pull; nothing while it
    /// is being made.
    #[serde(default)]
    pub(crate) public_root: Option<String>,
    /// The name under which members find all of it.
    #[serde(default)]
    pub(crate) members: Option<String>,
    /// Full multiaddrs, with the peer id.
    pub(crate) addresses: Vec<String>,
    pub(crate) http: String,
    /// The same with its scheme.
    pub(crate) url: String,
    pub(crate) network: String,
    /// How strangers reach the node, in the public network, for people.
    pub(crate) reached: Option<String>,
    pub(crate) data: String,
    pub(crate) peers: usize,
    /// Who of those that are connected has sent most; the first few.
    #[serde(default)]
    pub(crate) received: Vec<PeerBytes>,
    /// What all peers have sent since the start.
    #[serde(default)]
    pub(crate) received_bytes: u64,
    /// The machine's clock tells a time that has passed.
    #[serde(default)]
    pub(crate) clock_suspect: bool,
    pub(crate) follows: Vec<FollowStatus>,
    #[serde(default)]
    pub(crate) cache: CacheStatus,
    /// Why nothing is published under this registry's name, where that is so.
    #[serde(default)]
    pub(crate) unpublished: Option<String>,
    /// Records that were not taken: a bad signature, a lower sequence, another key's.
    pub(crate) refused_records: u64,
    /// Of these, those that were broken, foreign or expired.
    #[serde(default)]
    pub(crate) invalid_records: u64,
    /// Collections of garbage since the start, those that failed, and what all of them took away.
    pub(crate) collections: u64,
    pub(crate) failed_collections: u64,
    pub(crate) collected: Collected,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FollowStatus {
    pub(crate) name: String,
    pub(crate) root: Option<String>,
    pub(crate) sequence: Option<u64>,
    /// Newest sequence heard of; above `sequence` while its directories are being fetched.
    pub(crate) heard: Option<u64>,
    /// Seconds since its record was heard of last, and by which way and from whom that came; nothing after a start
    /// until it was.
    #[serde(default)]
    pub(crate) age: Option<u64>,
    #[serde(default)]
    pub(crate) source: Option<String>,
    /// Connected peers that follow it too.
    #[serde(default)]
    pub(crate) peers: usize,
    #[serde(default)]
    pub(crate) policy: String,
    pub(crate) stale: bool,
    /// Seconds since its record ended, where it has.
    #[serde(default)]
    pub(crate) expired_for: Option<u64>,
    /// It is not shown, because it is older than `max_stale` allows.
    #[serde(default)]
    pub(crate) refused: bool,
    /// The name that is followed in its place.
    pub(crate) moved: Option<String>,
    /// Where a domain points to.
    pub(crate) link: Option<String>,
    /// Bytes that may lie here of it, and that do, where that is counted.
    #[serde(default)]
    pub(crate) quota: Option<u64>,
    #[serde(default)]
    pub(crate) usage: Option<Usage>,
    /// Why the last record that was not taken was not.
    #[serde(default)]
    pub(crate) refused_record: Option<String>,
    /// Why its newest root is not here yet.
    pub(crate) error: Option<String>,
    /// Where all of it is to come here: how far that is.
    #[serde(default)]
    pub(crate) mirror: Option<Mirrored>,
    /// The same for people, in one line and one by one.
    pub(crate) describe: String,
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

/// What a peer has sent while it is connected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerBytes {
    pub(crate) peer: String,
    pub(crate) bytes: u64,
}

/// Blobs of followed names that were pulled and may go again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CacheStatus {
    /// As they were counted last; nothing where nothing limits them.
    pub(crate) bytes: Option<u64>,
    /// The limits: bytes, and seconds.
    pub(crate) size: Option<u64>,
    pub(crate) age: Option<u64>,
    pub(crate) evicted_blobs: u64,
    pub(crate) evicted_bytes: u64,
}

/// A root of the registry's own tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RootStatus {
    pub(crate) root: String,
    /// Seconds since another took its place; nothing for the current one.
    pub(crate) age: Option<u64>,
}

/// What a name points to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Resolved {
    pub(crate) name: String,
    pub(crate) value: String,
    /// `None` where the DNS says it.
    pub(crate) sequence: Option<u64>,
    /// Seconds until the record ends; 0 when it has.
    pub(crate) valid_for: Option<u64>,
    /// Seconds for which it may be answered from memory.
    pub(crate) ttl: u64,
    /// Who has it, in words.
    pub(crate) from: String,
    /// By which way it came here last, in words, and how many seconds ago.
    pub(crate) heard: Option<String>,
    pub(crate) age: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    pub(crate) id: String,
    pub(crate) agent: String,
    pub(crate) addresses: Vec<String>,
}

/// One entry of a directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) cid: String,
    /// Bytes of the DAG below.
    pub(crate) size: u64,
}
