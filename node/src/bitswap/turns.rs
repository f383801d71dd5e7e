//! Who of those that fetch the same asks for which block first. Each has another part, and comes to what is the others'
//! part when its own is done; so a publisher sends each block about once, however many fetch, and they give it to each
//! other. All of them reckon alike, and no word is needed about it. Who is wrong about the others asks for something
//! that another asks for too.

use cid::Cid;
use libp2p::PeerId;

/// Companions that are reckoned with. With more of them some blocks are asked for twice.
const MAX_COMPANIONS: usize = 64;

#[derive(Clone, Debug, Default)]
pub struct Turns {
    me: u64,
    others: Vec<(PeerId, u64)>,
}

impl Turns {
    pub fn new(me: PeerId, companions: Vec<PeerId>) -> Self {
        let others = companions.into_iter().filter(|peer| *peer != me).take(MAX_COMPANIONS);
        Self { me: number(&me), others: others.map(|peer| (peer, number(&peer))).collect() }
    }

    /// How many have their turn before me, and a place among all blocks of that turn. Of others' parts that comes first
    /// which they come to last.
    pub fn of(&self, block: &Cid) -> (usize, u64) {
        let block = block.hash().digest().last_chunk().map_or(0, |end| u64::from_be_bytes(*end));
        let mine = mix(self.me ^ block);
        let before = self.others.iter().map(|(_, other)| mix(other ^ block)).filter(|other| *other < mine);
        let (turn, first) = before.fold((0, mine), |(turn, first), other| (turn + 1, first.min(other)));
        (turn, if turn == 0 { first } else { !first })
    }

    /// Whether this peer fetches the same.
    pub fn is_with(&self, peer: &PeerId) -> bool {
        self.others.iter().any(|(other, _)| other == peer)
    }

    pub fn are_none(&self) -> bool {
        self.others.is_empty()
    }
}

/// The end of a peer id is that of its key.
fn number(peer: &PeerId) -> u64 {
    peer.to_bytes().last_chunk().map_or(0, |end| u64::from_be_bytes(*end))
}

/// Every bit of the result depends on every bit of the number (the finalizer of splitmix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use sampan_storage::block::{RAW, cid_of};

    use super::*;

    #[test]
    fn each_block_is_the_turn_of_exactly_one_and_parts_are_alike() {
        let peers: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
        let turns: Vec<Turns> = peers.iter().map(|peer| Turns::new(*peer, peers.clone())).collect();
        let mut parts = vec![0; peers.len()];
        for number in 0_u32..4000 {
            let block = cid_of(RAW, &number.to_be_bytes());
            let mut order: Vec<usize> = turns.iter().map(|turns| turns.of(&block).0).collect();
            parts[order.iter().position(|turn| *turn == 0).unwrap()] += 1;
            order.sort_unstable();
            assert_eq!(order, (0..8).collect::<Vec<_>>());
        }
        assert!(parts.iter().all(|part| (350..650).contains(part)), "{parts:?}");
    }

    #[test]
    fn who_is_alone_has_every_turn() {
        let me = PeerId::random();
        let turns = Turns::new(me, vec![me]);
        assert!(turns.are_none());
        assert_eq!(turns.of(&cid_of(RAW, b"x")).0, 0);
    }
}
