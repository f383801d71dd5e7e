//! The two messages of multicast DNS that are needed here: a question for peers, read, and its answer, written (RFC 6762
//! and 6763, libp2p's discovery over mDNS).

use std::net::Ipv4Addr;

/// What peers are asked for under.
const SERVICE: [&str; 3] = ["_p2p", "_udp", "local"];
/// What is asked beyond is not for us.
const MAX_QUESTIONS: u16 = 16;
/// An answer stays below the MTU of a LAN, headers included.
const MAX_ANSWER: usize = 1400;
/// As long as rust-libp2p says; one that is gone is forgotten after it.
const TTL: u32 = 6 * 60;

const HEADER: usize = 12;
/// Of the second word: an answer, from whoever knows best.
const ANSWER: u16 = 0x8400;
const IS_ANSWER: u16 = 0x8000;

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const SRV: u16 = 33;
const ANY: u16 = 255;
const IN: u16 = 1;
/// Of the class of a record that nobody else has.
const ONLY: u16 = 0x8000;

/// What is answered on one interface.
#[derive(Clone, Debug)]
pub(super) struct Answer<'a> {
    /// A label that no other has.
    pub(super) name: &'a str,
    pub(super) ip: Ipv4Addr,
    pub(super) port: u16,
    /// Full multiaddrs.
    pub(super) addresses: &'a [String],
}

/// Whether a packet asks for peers.
pub(crate) fn asks_for_peers(packet: &[u8]) -> bool {
    find_question(packet).is_some()
}

fn find_question(packet: &[u8]) -> Option<()> {
    let (flags, questions) = (word(packet, 2)?, word(packet, 4)?);
    if flags & IS_ANSWER != 0 {
        return None;
    }
    let mut rest = packet.get(HEADER..)?;
    for _ in 0..questions.min(MAX_QUESTIONS) {
        let (ours, after) = read_name(rest)?;
        let (kind, class) = (word(after, 0)?, word(after, 2)?);
        // The bit asks for an answer to the asker alone.
        if ours && (kind == PTR || kind == ANY) && class & !ONLY == IN {
            return Some(());
        }
        rest = after.get(4..)?;
    }
    None
}

/// Whether a name is that of the service, and what follows it. One that points back to another is not.
fn read_name(mut bytes: &[u8]) -> Option<(bool, &[u8])> {
    let mut expected = SERVICE.iter();
    let mut ours = true;
    loop {
        let (&length, rest) = bytes.split_first()?;
        match length {
            0 => return Some((ours && expected.next().is_none(), rest)),
            1..=63 => {
                let (label, rest) = rest.split_at_checked(length.into())?;
                ours &= expected.next().is_some_and(|other| label.eq_ignore_ascii_case(other.as_bytes()));
                bytes = rest;
            }
            192.. => return Some((false, rest.get(1..)?)),
            64..192 => return None,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Answer<'_> {
    /// The packet. Addresses that do not fit are left out.
    pub(super) fn encode(&self) -> Vec<u8> {
        let instance: Vec<&str> = std::iter::once(self.name).chain(SERVICE).collect();
        let host = [self.name, "local"];
        let mut packet = Vec::with_capacity(MAX_ANSWER);
        // Id, flags, no question, one answer, no authority, three more records.
        for word in [0, ANSWER, 0, 1, 0, 3] {
            packet.extend_from_slice(&u16::to_be_bytes(word));
        }
        record(&mut packet, &SERVICE, PTR, IN, &name(&instance));
        // What go-libp2p takes nobody for a peer without.
        let mut service = [0, 0, self.port].map(u16::to_be_bytes).concat();
        service.extend(name(&host));
        record(&mut packet, &instance, SRV, IN | ONLY, &service);
        record(&mut packet, &host, A, IN | ONLY, &self.ip.octets());
        let mut text = Vec::new();
        for address in self.addresses {
            let entry = format!("dnsaddr={address}");
            let room = MAX_ANSWER.saturating_sub(packet.len() + name(&instance).len() + 10 + text.len() + 1);
            let Some(length) = u8::try_from(entry.len()).ok().filter(|length| usize::from(*length) <= room)
            else {
                continue;
            };
            text.push(length);
            text.extend(entry.into_bytes());
        }
        record(&mut packet, &instance, TXT, IN | ONLY, &text);
        packet
    }
}

fn record(packet: &mut Vec<u8>, owner: &[&str], kind: u16, class: u16, data: &[u8]) {
    packet.extend(name(owner));
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&class.to_be_bytes());
    packet.extend_from_slice(&TTL.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
    packet.extend_from_slice(data);
}

/// Labels are ours, and short.
fn name(labels: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As go-libp2p's zeroconf asks.
    const QUESTION: &[u8] = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x04_p2p\x04_udp\x05local\0\0\x0c\0\x01";

    fn with(at: usize, byte: u8) -> Vec<u8> {
        let mut packet = QUESTION.to_vec();
        packet[at] = byte;
        packet
    }

    #[test]
    fn a_question_for_peers_is_known_from_others() {
        assert!(asks_for_peers(QUESTION));
        assert!(asks_for_peers(&with(14, b'P')), "names have no case");
        assert!(asks_for_peers(&with(QUESTION.len() - 2, 0x80)), "an answer to the asker alone");
        assert!(!asks_for_peers(&with(2, 0x84)), "an answer");
        assert!(!asks_for_peers(&with(14, b'x')), "another service");
        assert!(!asks_for_peers(&with(QUESTION.len() - 3, 1)), "an address");
        assert!(!asks_for_peers(&with(5, 0)), "no question");
        for length in 0..QUESTION.len() {
            assert!(!asks_for_peers(&QUESTION[..length]));
        }
    }

    #[test]
    fn a_question_behind_others_is_found() {
        let other = b"\x03foo\x05local\0\0\x0c\0\x01";
        let mut packet = with(5, 3);
        packet.splice(HEADER..HEADER, [other.as_slice(), b"\xc0\x0c\0\x0c\0\x01"].concat());
        assert!(asks_for_peers(&packet));
    }

    #[test]
    fn an_answer_has_what_go_looks_for() {
        let addresses =
            ["/ip4/10.0.0.2/tcp/4001/p2p/12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS".to_owned()];
        let answer =
            Answer { name: "abc", ip: Ipv4Addr::new(10, 0, 0, 2), port: 4001, addresses: &addresses };
        let text = format!("dnsaddr={}", addresses[0]);
        let instance = b"\x03abc\x04_p2p\x04_udp\x05local\0";
        let ttl = TTL.to_be_bytes();
        let expected = [
            b"\0\0\x84\0\0\0\0\x01\0\0\0\x03".as_slice(),
            b"\x04_p2p\x04_udp\x05local\0\0\x0c\0\x01",
            &ttl,
            b"\0\x15",
            instance,
            instance,
            b"\0\x21\x80\x01",
            &ttl,
            b"\0\x11\0\0\0\0\x0f\xa1\x03abc\x05local\0",
            b"\x03abc\x05local\0\0\x01\x80\x01",
            &ttl,
            b"\0\x04\x0a\0\0\x02",
            instance,
            b"\0\x10\x80\x01",
            &ttl,
            &[0, u8::try_from(text.len()).unwrap() + 1],
            &[u8::try_from(text.len()).unwrap()],
            text.as_bytes(),
        ];
        assert_eq!(answer.encode(), expected.concat());
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let addresses = vec!["a".repeat(200); 20];
        let answer = Answer { name: "abc", ip: Ipv4Addr::LOCALHOST, port: 1, addresses: &addresses };
        let length = answer.encode().len();
        assert!(length <= MAX_ANSWER && length > MAX_ANSWER - 210, "{length}");
        let long = [String::from_utf8(vec![b'a'; 300]).unwrap()];
        assert!(Answer { addresses: &long, ..answer }.encode().len() < 200);
    }

    proptest! {
        #[test]
        fn no_packet_is_too_strange(packet in prop::collection::vec(any::<u8>(), 0..200)) {
            asks_for_peers(&packet);
        }
    }
}
