//! `sampan add`: files and directories become a DAG in the profile `unixfs-v1-2025`, whose CIDs are those of
//! `ipfs add` with that profile. It is made here and sent as a CAR with its root at the end; the registry checks and
//! pins it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::bail;
use sampan_storage::block::{DAG_PB, RAW};
use sampan_storage::dag::file::{CHUNK, FileBuilder};
use sampan_storage::dag::{directory, pb, unixfs};
use sampan_storage::{Block, Cid, MemoryBlocks, car, tree};

use super::print;
use crate::content::{Imported, PinRoots};
use crate::control::{self, Ask, Bytes};

/// Blocks between the file and the socket.
const AHEAD: usize = 4;

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Files or directories; - is standard input
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Take directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// Take files whose names begin with a dot as well
    #[arg(short = 'H', long)]
    hidden: bool,
}

/// Makes the blocks and hands them on.
struct Maker {
    sections: SyncSender<io::Result<Vec<u8>>>,
    hidden: bool,
}

/// The CAR as it is made.
struct Feed {
    sections: Receiver<io::Result<Vec<u8>>>,
    section: io::Cursor<Vec<u8>>,
}

pub(super) fn run(dir: &Path, add: &Add) -> anyhow::Result<()> {
    for path in &add.paths {
        if path.is_dir() && !add.recursive {
            bail!("{} is a directory; take it with --recursive", path.display());
        }
        let (sections, received) = sync_channel(AHEAD);
        let (maker, path) = (Maker { sections, hidden: add.hidden }, path.clone());
        let named = (add.paths.len() > 1).then(|| path.display().to_string());
        std::thread::spawn(move || maker.run(&path));
        let feed = Feed { sections: received, section: io::Cursor::default() };
        let mut meter = print::Meter::start();
        let bytes = Bytes { input: Some(Box::new(feed)), output: &mut io::sink() };
        let question = Ask::Import { pin: PinRoots::Last };
        let imported: Imported = control::must_exchange(dir, &question, bytes, &mut |text| meter.show(text))?;
        drop(meter);
        for root in imported.roots {
            match &named {
                Some(name) => print::line(&format!("{root}  {name}")),
                None => print::line(&root),
            }
        }
    }
    Ok(())
}

impl Maker {
    fn run(&self, path: &Path) {
        let header = self.send(car::header(&[]));
        let made = header.and_then(|()| {
            if path.as_os_str() == "-" { self.file(io::stdin().lock()) } else { self.take(path, 0) }
        });
        if let Err(error) = made {
            let error = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            // Whoever sends it has gone, and has said why.
            let _ = self.sections.send(Err(error));
        }
    }

    /// Returns the CID and the bytes of all blocks below.
    fn take(&self, path: &Path, depth: usize) -> io::Result<(Cid, u64)> {
        let kind = fs::symlink_metadata(path)?.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(path)?.as_os_str().as_bytes().to_vec();
            let data = unixfs::Data { data: Some(target.into()), ..unixfs::Data::new(unixfs::Kind::Symlink) };
            let node = pb::Node { links: Vec::new(), data: Some(data.encode()) };
            let block = Block::new(DAG_PB, node.encode());
            return self.put(&block).map(|()| (*block.cid(), block.data().len() as u64));
        }
        if kind.is_file() {
            return self.file(File::open(path)?);
        }
        if !kind.is_dir() || depth >= tree::MAX_DEPTH {
            let text =
                format!("{} is no file, no directory and no symbolic link, or lies too deep", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut entries = BTreeMap::new();
        for item in fs::read_dir(path)? {
            let item = item?;
            let name = item.file_name().into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("the name {} is no UTF-8", name.display()),
                )
            })?;
            if self.hidden || !name.starts_with('.') {
                entries.insert(name, Some(self.take(&item.path(), depth + 1)?));
            }
        }
        let mut blocks = Vec::new();
        let made = directory::update(&MemoryBlocks::default(), None, &entries, &mut blocks);
        let made = made.map_err(io::Error::other)?;
        blocks.iter().try_for_each(|block| self.put(block))?;
        Ok(made)
    }

    fn file(&self, mut input: impl Read) -> io::Result<(Cid, u64)> {
        let (mut builder, mut empty) = (FileBuilder::new(), true);
        loop {
            let mut chunk = Vec::new();
            input.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
            if chunk.is_empty() && !empty {
                break;
            }
            let leaf = Block::new(RAW, chunk.into());
            self.put(&leaf)?;
            if leaf.data().is_empty() {
                break;
            }
            empty = false;
            builder.push_leaf(*leaf.cid(), leaf.data().len() as u64);
        }
        let root = builder.finish();
        root.nodes.iter().try_for_each(|node| self.put(node))?;
        Ok((root.cid, root.tsize))
    }

    fn put(&self, block: &Block) -> io::Result<()> {
        self.send(car::section(block.cid(), block.data()))
    }

    fn send(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.sections.send(Ok(bytes)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.section.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.sections.recv() {
                Ok(section) => self.section = io::Cursor::new(section?),
                Err(_) => return Ok(0),
            }
        }
    }
}
