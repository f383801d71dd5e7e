//! The journal: the order in which things became true. An entry is acknowledged when it is on the disk.
//!
//! Files lie in `journal/`, each named by the position of its first entry, which is the whole [`State`] at that
//! point: so a file can go when a fold covers everything before the next one. A frame is length, checksum,
//! version, payload (DAG-CBOR). A torn tail of the last file was never acknowledged; it is put aside, not read.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cid::Cid;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::error::OpenError;
use crate::fail;
use crate::files::sync_directory;

/// Version byte of every frame.
const VERSION: u8 = 1;
/// Length and checksum, four bytes each, little-endian.
const HEADER: usize = 8;
/// No entry is larger. The largest is a blob's inner nodes: 50 KiB for each GiB of the blob.
pub const MAX_ENTRY: usize = 64 * 1024 * 1024;
/// A file is closed at this size, so that replay at start stays short.
pub const ROTATE_AT: u64 = 1024 * 1024;

/// Number of an entry since the data directory began. The first is 1.
pub type Position = u64;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// First in each file.
    State(State),
    Commit(CommitEntry),
    /// My tree up to `covers` has this root.
    Fold {
        root: CidBytes,
        sequence: u64,
        covers: Position,
        /// The part of it that everyone may have, where not everyone may have everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public: Option<PublicRoot>,
    },
    /// The signed record of my name, before it is sent to anyone.
    Record {
        record: ByteBuf,
    },
    /// A followed name is at this root now.
    Adopt {
        name: String,
        root: CidBytes,
        sequence: u64,
        record: ByteBuf,
    },
    Follow {
        name: String,
    },
    Unfollow {
        name: String,
    },
}

/// One request's changes: all of them, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommitEntry {
    /// Path and what it points to from now on; `None` removes a file or a whole directory.
    pub changes: Vec<(String, Option<Target>)>,
    /// Blocks that lie nowhere else yet: link files and inner nodes of files.
    pub blocks: Vec<(CidBytes, ByteBuf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub cid: CidBytes,
    pub tsize: u64,
}

/// Everything that must outlive a closed file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Root of my tree; `None` before the first fold.
    pub root: Option<CidBytes>,
    pub sequence: u64,
    /// The fold behind `root` covers entries up to here.
    pub covers: Position,
    pub record: Option<ByteBuf>,
    /// Followed names, in the order in which they are read.
    pub follows: Vec<Follow>,
    /// Made with `root`, so that it is never of another state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicRoot>,
}

/// The root of what everyone may have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublicRoot {
    pub root: CidBytes,
    /// Never above that of my tree.
    pub sequence: u64,
    /// By which rules it was made.
    pub rules: ByteBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Follow {
    pub name: String,
    /// Asked for by `follow add`, not by configuration or a flag of one run.
    pub kept: bool,
    pub good: Option<Good>,
}

/// The last root of a followed name whose directories are all here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Good {
    pub root: CidBytes,
    pub sequence: u64,
    pub record: ByteBuf,
}

impl State {
    /// What an entry changes in the state. Commits change the tree, not the state.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::State(state) => *self = state.clone(),
            Entry::Commit(_) => {}
            Entry::Fold { root, sequence, covers, public } => {
                self.root = Some(*root);
                self.sequence = *sequence;
                self.covers = *covers;
                self.public.clone_from(public);
            }
            Entry::Record { record } => self.record = Some(record.clone()),
            Entry::Adopt { name, root, sequence, record } => {
                let good = Good { root: *root, sequence: *sequence, record: record.clone() };
                self.follow_mut(name).good = Some(good);
            }
            Entry::Follow { name } => self.follow_mut(name).kept = true,
            Entry::Unfollow { name } => self.follows.retain(|follow| follow.name != *name),
        }
    }

    pub fn follow(&self, name: &str) -> Option<&Follow> {
        self.follows.iter().find(|follow| follow.name == name)
    }

    fn follow_mut(&mut self, name: &str) -> &mut Follow {
        let at = self.follows.iter().position(|follow| follow.name == name).unwrap_or_else(|| {
            self.follows.push(Follow { name: name.to_owned(), kept: false, good: None });
            self.follows.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the position was found or pushed one line above")]
        &mut self.follows[at]
    }
}

/// A CID as its bytes in the journal's CBOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidBytes(pub Cid);

impl Serialize for CidBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.to_bytes())
    }
}

impl<'de> Deserialize<'de> for CidBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteBuf::deserialize(deserializer)?;
        Cid::try_from(bytes.as_slice()).map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug)]
struct Segment {
    first: Position,
    path: PathBuf,
}

/// The open end of the journal. One thread owns it.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    segments: VecDeque<Segment>,
    file: File,
    /// Length of the last file up to the last whole entry.
    len: u64,
    next: Position,
    /// The file may be longer than that: a write failed, and so did cutting its part off.
    torn: bool,
}

/// What lies in the journal at start.
#[derive(Debug)]
pub struct Replay {
    /// The state after the last entry.
    pub state: State,
    /// Entries that are kept, in order.
    pub entries: Vec<(Position, Entry)>,
    /// The state before the first of them.
    pub before: State,
}

impl Journal {
    /// Reads what is there and opens the end for appending.
    pub fn open(dir: &Path) -> Result<(Self, Replay), OpenError> {
        let io = |source| OpenError::Io { path: dir.to_owned(), source };
        let mut segments = list(dir).map_err(io)?;
        let mut entries = Vec::new();
        let mut next = 1;
        let mut len = 0;
        let last = segments.len().saturating_sub(1);
        for (index, segment) in segments.iter().enumerate() {
            let path = &segment.path;
            let content = fs::read(path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
            if index > 0 && segment.first != next {
                return Err(OpenError::Damaged {
                    path: path.clone(),
                    at: 0,
                    reason: "a file before it is missing",
                });
            }
            next = segment.first;
            let mut at = 0;
            while let Some(frame) = content.get(at..).filter(|rest| !rest.is_empty()) {
                let Some((entry, used)) = decode(frame) else {
                    if index != last {
                        let at = at as u64;
                        return Err(OpenError::Damaged {
                            path: path.clone(),
                            at,
                            reason: "an entry is broken",
                        });
                    }
                    set_aside(path, at, frame)
                        .map_err(|source| OpenError::Io { path: path.clone(), source })?;
                    break;
                };
                entries.push((next, entry));
                next += 1;
                at += used;
            }
            len = at as u64;
        }
        // A file whose first entry was cut by a crash says nothing; the one before it goes on.
        if len == 0
            && let Some(segment) = segments.pop_back()
        {
            fs::remove_file(&segment.path).map_err(io)?;
            sync_directory(dir).map_err(io)?;
            return Self::open(dir);
        }
        let mut before = State::default();
        if let Some((_, entry @ Entry::State(_))) = entries.first() {
            before.apply(entry);
        }
        let mut state = before.clone();
        for (_, entry) in &entries {
            state.apply(entry);
        }

        let file = if let Some(segment) = segments.back() {
            OpenOptions::new().read(true).write(true).open(&segment.path).map_err(io)?
        } else {
            // Names begin at sequence 1: kubo takes 0 for "not said".
            state = State { sequence: 1, ..State::default() };
            let (segment, file, length) = create(dir, next, &state).map_err(io)?;
            segments.push_back(segment);
            entries.push((next, Entry::State(state.clone())));
            next += 1;
            len = length;
            file
        };
        let journal = Self { dir: dir.to_owned(), segments, file, len, next, torn: false };
        Ok((journal, Replay { state, entries, before }))
    }

    /// Position that the next entry gets.
    pub fn next(&self) -> Position {
        self.next
    }

    /// Position of the oldest entry that is kept.
    pub fn first(&self) -> Position {
        self.segments.front().map_or(self.next, |segment| segment.first)
    }

    /// Appends entries with one sync. On an error nothing was added.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut frames = Vec::new();
        for entry in entries {
            encode(entry, &mut frames)?;
        }
        if self.torn {
            self.cut()?;
        }
        fail::point("journal.append.before");
        if let Err(error) = self.write(&frames) {
            // Whatever part arrived must not be read at the next start. Until it is cut off nothing is appended.
            self.torn = true;
            if let Err(error) = self.cut() {
                tracing::warn!(%error, "a part of a journal entry stays until it can be cut off");
            }
            return Err(error);
        }
        fail::point("journal.sync.after");
        self.len += frames.len() as u64;
        self.next += entries.len() as u64;
        Ok(())
    }

    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        let (head, tail) = frames.split_at(frames.len() / 2);
        self.file.write_all_at(head, self.len)?;
        fail::point("journal.append.half");
        self.file.write_all_at(tail, self.len + head.len() as u64)?;
        fail::point("journal.append.after");
        self.file.sync_data()
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync_data()?;
        self.torn = false;
        Ok(())
    }

    /// Whether the last file is long enough to be closed.
    pub fn is_long(&self) -> bool {
        self.len >= ROTATE_AT
    }

    /// Starts a new file when the last one is long enough.
    pub fn rotate(&mut self, state: &State) -> io::Result<bool> {
        if self.is_long() {
            self.begin_file(state)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Closes the last file and starts a new one.
    pub fn begin_file(&mut self, state: &State) -> io::Result<()> {
        if self.torn {
            self.cut()?;
        }
        fail::point("journal.rotate.before");
        let (segment, file, len) = create(&self.dir, self.next, state)?;
        fail::point("journal.rotate.after");
        self.segments.push_back(segment);
        self.file = file;
        self.len = len;
        self.next += 1;
        Ok(())
    }

    /// Whether files lie here of which every entry is covered.
    pub fn has_covered(&self, covers: Position) -> bool {
        self.segments.get(1).is_some_and(|second| second.first <= covers + 1)
    }

    /// Removes files of which every entry is covered.
    pub fn drop_covered(&mut self, covers: Position) -> io::Result<()> {
        while self.has_covered(covers) {
            if let Some(segment) = self.segments.pop_front() {
                fs::remove_file(&segment.path)?;
            }
        }
        sync_directory(&self.dir)
    }
}

/// First position and path of each file, in order.
pub(crate) fn files(dir: &Path) -> io::Result<Vec<(Position, PathBuf)>> {
    Ok(list(dir)?.into_iter().map(|segment| (segment.first, segment.path)).collect())
}

fn list(dir: &Path) -> io::Result<VecDeque<Segment>> {
    let mut segments = Vec::new();
    for item in fs::read_dir(dir)? {
        let path = item?.path();
        let first =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        if let Some(first) = first.and_then(|digits| digits.parse().ok()) {
            segments.push(Segment { first, path });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments.into())
}

fn create(dir: &Path, first: Position, state: &State) -> io::Result<(Segment, File, u64)> {
    let path = dir.join(format!("{first:016}.log"));
    let mut frame = Vec::new();
    encode(&Entry::State(state.clone()), &mut frame)?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    let written = file.write_all(&frame).and_then(|()| file.sync_all()).and_then(|()| sync_directory(dir));
    if let Err(error) = written {
        // The old file goes on; one with a later number beside it would be read as its successor.
        fs::remove_file(&path)?;
        sync_directory(dir)?;
        return Err(error);
    }
    Ok((Segment { first, path }, file, frame.len() as u64))
}

/// Cuts the tail off and keeps its bytes beside, for whoever wants to look.
fn set_aside(path: &Path, at: usize, tail: &[u8]) -> io::Result<()> {
    tracing::warn!(file = %path.display(), at, bytes = tail.len(), "the journal ends in an unfinished entry");
    fs::write(path.with_extension("torn"), tail)?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(at as u64)?;
    file.sync_all()
}

/// Appends the frame of an entry.
pub(crate) fn encode(entry: &Entry, out: &mut Vec<u8>) -> io::Result<()> {
    let mut body = vec![VERSION];
    serde_ipld_dagcbor::to_writer(&mut body, entry).map_err(io::Error::other)?;
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a journal entry of over 64 MiB");
    let length = u32::try_from(body.len()).map_err(|_| too_long())?;
    if body.len() > MAX_ENTRY {
        return Err(too_long());
    }
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    Ok(())
}

/// The entry at the start of `bytes` and the bytes that it takes, if it is whole.
pub fn decode(bytes: &[u8]) -> Option<(Entry, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let body = rest.get(..length)?;
    if length > MAX_ENTRY || crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (version, payload) = body.split_first()?;
    let entry = (*version == VERSION).then(|| serde_ipld_dagcbor::from_slice(payload).ok())??;
    Some((entry, HEADER + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::{RAW, cid_of};

    fn commit(path: &str) -> Entry {
        let target = Target { cid: CidBytes(cid_of(RAW, path.as_bytes())), tsize: 3 };
        let changes = vec![(path.to_owned(), Some(target)), ("gone".to_owned(), None)];
        Entry::Commit(CommitEntry { changes, blocks: vec![(target.cid, ByteBuf::from(vec![1, 2, 3]))] })
    }

    fn file(dir: &Path) -> PathBuf {
        list(dir).unwrap().back().unwrap().path.clone()
    }

    #[test]
    fn entries_read_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, replay) = Journal::open(dir.path()).unwrap();
        assert_eq!(replay.state, State { sequence: 1, ..State::default() });
        journal.append(&[commit("a"), commit("b")]).unwrap();
        journal.append(&[Entry::Follow { name: "k51".into() }]).unwrap();
        drop(journal);
        let (journal, replay) = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.next(), 5);
        assert_eq!(replay.entries[1], (2, commit("a")));
        assert_eq!(replay.entries[2], (3, commit("b")));
        assert!(replay.state.follow("k51").unwrap().kept);
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.append(&[commit("a")]).unwrap();
        let whole = journal.len;
        journal.append(&[commit("b")]).unwrap();
        let content = fs::read(file(dir.path())).unwrap();
        drop(journal);
        for len in usize::try_from(whole).unwrap()..content.len() {
            fs::write(file(dir.path()), &content[..len]).unwrap();
            let (journal, replay) = Journal::open(dir.path()).unwrap();
            assert_eq!(replay.entries.len(), 2, "cut at {len}");
            assert_eq!(journal.len, whole);
        }
    }

    #[test]
    fn a_write_that_failed_leaves_nothing_that_could_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.append(&[commit("a")]).unwrap();
        let path = file(dir.path());
        // A file that takes no writes, and not even a cut.
        let writable = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
        assert!(journal.append(&[commit("refused")]).is_err());
        assert!(journal.torn && journal.append(&[commit("refused")]).is_err());
        // What a write may have left: a whole entry that nobody was told of, where the next one ends.
        let mut entry = Vec::new();
        encode(&commit("refused"), &mut entry).unwrap();
        encode(&commit("refused"), &mut entry).unwrap();
        writable.write_all_at(&entry, journal.len).unwrap();
        journal.file = writable;
        journal.append(&[commit("allowed")]).unwrap();
        drop(journal);
        let (_, replay) = Journal::open(dir.path()).unwrap();
        let entries: Vec<_> = replay.entries.into_iter().skip(1).map(|(_, entry)| entry).collect();
        assert_eq!(entries, [commit("a"), commit("allowed")]);
    }

    #[test]
    fn a_broken_entry_before_the_last_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.append(&[commit("a")]).unwrap();
        journal.len = ROTATE_AT;
        assert!(journal.rotate(&State::default()).unwrap());
        journal.append(&[commit("b")]).unwrap();
        let first = list(dir.path()).unwrap().front().unwrap().path.clone();
        let mut content = fs::read(&first).unwrap();
        let last = content.len() - 1;
        content[last] ^= 1;
        fs::write(&first, content).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(OpenError::Damaged { .. })));
    }

    #[test]
    fn covered_files_go_and_the_state_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        let state = State { sequence: 7, ..State::default() };
        journal.append(&[commit("a")]).unwrap();
        journal.len = ROTATE_AT;
        journal.rotate(&state).unwrap();
        assert!(!journal.has_covered(1));
        assert!(journal.has_covered(2));
        journal.drop_covered(2).unwrap();
        journal.append(&[commit("b")]).unwrap();
        drop(journal);
        let (journal, replay) = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.first(), 3);
        assert_eq!(replay.state.sequence, 7);
        assert_eq!(replay.entries.last().unwrap().1, commit("b"));
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let root = CidBytes(cid_of(RAW, b"root"));
        prop_oneof![
            "[a-z]{1,9}".prop_map(|path| commit(&path)),
            (any::<u64>(), any::<u64>()).prop_map(move |(sequence, covers)| Entry::Fold {
                root,
                sequence,
                covers,
                public: (covers % 2 == 0).then(|| PublicRoot { root, sequence, rules: ByteBuf::new() }),
            }),
            prop::collection::vec(any::<u8>(), 0..40)
                .prop_map(|record| Entry::Record { record: ByteBuf::from(record) }),
            ("[a-c]", any::<u64>()).prop_map(move |(name, sequence)| {
                Entry::Adopt { name, root, sequence, record: ByteBuf::new() }
            }),
            "[a-c]".prop_map(|name| Entry::Follow { name }),
            "[a-c]".prop_map(|name| Entry::Unfollow { name }),
        ]
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Of what the last file held, whole entries are read up to where it was cut; then it goes on.
        #[test]
        fn what_a_power_cut_leaves_is_the_beginning(
            files in prop::collection::vec(prop::collection::vec(entries(), 0..6), 1..4),
            cut in any::<prop::sample::Index>(),
            tail in prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 1..20), Just(vec![0; 50])],
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (mut journal, replay) = Journal::open(dir.path()).unwrap();
            let (mut written, mut state, mut ends) = (replay.entries, replay.state, vec![journal.len]);
            for (number, entries) in files.iter().enumerate() {
                if number > 0 {
                    journal.len = ROTATE_AT;
                    journal.rotate(&state).unwrap();
                    written.push((journal.next - 1, Entry::State(state.clone())));
                    ends = vec![journal.len];
                }
                for entry in entries {
                    journal.append(std::slice::from_ref(entry)).unwrap();
                    state.apply(entry);
                    written.push((journal.next - 1, entry.clone()));
                    ends.push(journal.len);
                }
            }
            drop(journal);

            let mut content = fs::read(file(dir.path())).unwrap();
            let cut = cut.index(content.len() + 1);
            let lost = ends.iter().filter(|end| **end > cut as u64).count();
            content.truncate(cut);
            content.extend(tail);
            fs::write(file(dir.path()), content).unwrap();
            written.truncate(written.len() - lost);
            let (mut journal, replay) = Journal::open(dir.path()).unwrap();
            if written.is_empty() {
                // The very first file without its state: nothing was ever acknowledged.
                prop_assert_eq!(replay.entries.len(), 1);
                return Ok(());
            }
            prop_assert_eq!(&replay.entries, &written);
            let mut state = State::default();
            for (_, entry) in &written {
                state.apply(entry);
            }
            prop_assert_eq!(&replay.state, &state);

            journal.append(&[commit("new")]).unwrap();
            written.push((journal.next - 1, commit("new")));
            drop(journal);
            prop_assert_eq!(Journal::open(dir.path()).unwrap().1.entries, written);
        }
    }
}
