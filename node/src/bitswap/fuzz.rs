//! Fuzz target for the server's ledger: whatever peers say, in whatever order it is read, sent and lost.

use bytes::Bytes;
use cid::Cid;
use libp2p::PeerId;
use sampan_storage::block::{MAX_BLOCK, RAW, cid_of};

use super::message::{Entry, WantKind};
use super::server::{BUDGET, Read, Server, Serving};

const PEERS: usize = 3;
/// Steps of one input.
const STEPS: usize = 512;
/// What one message may have beyond the budget: it is asked before a message of blocks is put together.
const OVERSHOOT: usize = 4 * 1024 * 1024;

/// Two bytes are one step: what happens, and to whom or to which block.
pub(crate) fn ledger(data: &[u8]) {
    let mut server = Server::new(Serving::Everyone);
    let peers: Vec<PeerId> = (0..PEERS).map(|_| PeerId::random()).collect();
    let mut looked_up: Vec<(PeerId, Vec<Cid>)> = Vec::new();
    let mut reads: Vec<Read> = Vec::new();
    for step in data.chunks_exact(2).take(STEPS) {
        let &[action, value] = step else { return };
        let Some(peer) = peers.get(usize::from(value) % PEERS).copied() else { return };
        match action % 9 {
            0 | 1 => {
                let entries: Vec<Entry> = (0..=action / 9).map(|number| entry(value, number)).collect();
                server.wanted(peer, value & 64 != 0, &entries);
            }
            2 => looked_up.extend(server.next_lookup()),
            3 => {
                if let Some((peer, cids)) = looked_up.pop() {
                    let sizes = cids.into_iter().map(|cid| (cid, size(&cid))).collect();
                    server.looked_up(peer, sizes);
                }
            }
            4 => reads.extend(server.next_read()),
            5 => {
                if let Some(read) = reads.pop() {
                    let bytes = |cid: &Cid| size(cid).map(|size| Bytes::from(vec![0; size]));
                    let blocks = read.cids.iter().map(|cid| (*cid, bytes(cid))).collect();
                    server.read(&read, blocks);
                }
            }
            6 => {
                if let Some((_, message)) = server.next_message() {
                    let bytes: usize = message.blocks.iter().map(|(_, data)| data.len()).sum();
                    assert!(bytes <= OVERSHOOT, "{bytes} bytes in one message");
                }
            }
            7 => {
                server.sent(peer);
            }
            _ if value & 128 == 0 => server.lost(peer),
            _ => server.gone(peer),
        }
        assert!(server.outstanding() <= BUDGET + OVERSHOOT);
    }
    for peer in peers {
        server.gone(peer);
    }
    for read in reads {
        server.read(&read, Vec::new());
    }
    assert_eq!(server.outstanding(), 0, "what was held for peers is given back when they are gone");
}

fn entry(value: u8, number: u8) -> Entry {
    let kind = if value & 16 == 0 { WantKind::Block } else { WantKind::Have };
    Entry {
        cid: cid_of(RAW, &[value & 15, number]),
        priority: i32::from(value),
        kind,
        cancel: value & 32 != 0,
        send_dont_have: number.is_multiple_of(2),
    }
}

/// Some are not here, and some are as large as a block may be.
fn size(cid: &Cid) -> Option<usize> {
    let seed = cid.hash().digest().first().copied().unwrap_or_default();
    match seed % 4 {
        0 => None,
        1 => Some(usize::from(seed)),
        2 => Some(64 * 1024),
        _ => Some(MAX_BLOCK),
    }
}
