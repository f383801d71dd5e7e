//! Trees that no registry would make, and a publisher that signs them: blocks are made here, go into a registry as a CAR,
//! and a key of its own has its name point to them.

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use sampan_storage::block::DAG_PB;
use sampan_storage::dag::directory;
use sampan_storage::dag::file::from_bytes;
use sampan_storage::dag::pb::{Link, Node};
use sampan_storage::dag::unixfs::{Data, Kind};
use sampan_storage::tree::{Change, apply};
use sampan_storage::{Block, Cid, Digest, MemoryBlocks, car, layout};

use crate::harness::{Options, Server};
use crate::oci::Image;

/// Blocks of a tree, and what is to stand at which path of it.
#[derive(Debug)]
pub(crate) struct Forge {
    blocks: MemoryBlocks,
    changes: BTreeMap<String, Change>,
}

impl Forge {
    pub(crate) fn new() -> Self {
        let blocks = MemoryBlocks::default();
        blocks.put(&Block::new(DAG_PB, directory::empty_block()));
        Self { blocks, changes: BTreeMap::new() }
    }

    /// With an image as it is pushed.
    pub(crate) fn with(repository: &str, tag: &str, image: &Image) -> Self {
        let mut forge = Self::new();
        forge.image(repository, tag, image);
        forge
    }

    pub(crate) fn image(&mut self, repository: &str, tag: &str, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.blob(blob);
            self.layer(repository, &digest_of(blob));
        }
        let digest = digest_of(image.manifest.as_bytes());
        self.blob(image.manifest.as_bytes());
        let (repository, tag) = (repository.parse().unwrap(), tag.parse().unwrap());
        self.file(&layout::revision(&repository, &digest), &layout::link(&digest));
        self.file(&layout::tag(&repository, &tag), &layout::link(&digest));
    }

    pub(crate) fn blob(&mut self, content: &[u8]) {
        self.file(&layout::blob(&digest_of(content)), content);
    }

    pub(crate) fn layer(&mut self, repository: &str, digest: &Digest) {
        self.file(&layout::layer(&repository.parse().unwrap(), digest), &layout::link(digest));
    }

    /// A file of these bytes, at a path that a tree may hold.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        let (root, leaves) = from_bytes(content);
        leaves.iter().chain(&root.nodes).for_each(|block| self.blocks.put(block));
        self.put(path, root.cid, root.tsize);
    }

    /// Anything at a path.
    pub(crate) fn put(&mut self, path: &str, cid: Cid, tsize: u64) {
        self.changes.insert(path.to_owned(), Change::Put { cid, tsize });
    }

    /// A block that is somewhere in the tree.
    pub(crate) fn block(&mut self, block: &Block) -> Cid {
        self.blocks.put(block);
        *block.cid()
    }

    pub(crate) fn node(&mut self, data: &Data, links: &[(&str, Cid)]) -> Cid {
        let link = |(name, cid): &(&str, Cid)| Link { cid: *cid, name: (*name).to_owned(), tsize: 1 };
        let node = Node { links: links.iter().map(link).collect(), data: Some(data.encode()) };
        self.block(&Block::new(DAG_PB, node.encode()))
    }

    /// A directory, whatever the names in it.
    pub(crate) fn directory(&mut self, links: &[(&str, Cid)]) -> Cid {
        self.node(&Data::new(Kind::Directory), links)
    }

    /// A directory in which one name is no text: `?` becomes a byte that UTF-8 does not have.
    pub(crate) fn no_text(&mut self, name: &str, cid: Cid) -> Cid {
        let link = Link { cid, name: name.to_owned(), tsize: 1 };
        let node = Node { links: vec![link], data: Some(Data::new(Kind::Directory).encode()) };
        let bytes: Vec<u8> =
            node.encode().iter().map(|byte| if *byte == b'?' { 0xff } else { *byte }).collect();
        self.block(&Block::new(DAG_PB, Bytes::from(bytes)))
    }

    /// The root of all that was put, and the blocks of the tree.
    pub(crate) fn make(&self) -> (Cid, Vec<Block>) {
        let made = apply(&self.blocks, &directory::empty(), &self.changes).unwrap();
        made.blocks.iter().for_each(|block| self.blocks.put(block));
        let blocks = self.blocks.take();
        for block in &blocks {
            self.blocks.put(block);
        }
        (made.root, blocks)
    }
}

/// A registry with a key under which it publishes what it is told to.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) server: Server,
    pub(crate) name: String,
}

impl Publisher {
    pub(crate) async fn start() -> Self {
        let server = Server::start(Options::default()).await;
        let name = server.home.prints(&["key", "gen", "forged"]).await;
        Self { server, name }
    }

    /// Takes these blocks, as they are, and has the name point to the root.
    pub(crate) async fn publish(&self, root: &Cid, blocks: &[Block]) {
        self.take(blocks).await;
        self.point(root).await;
    }

    pub(crate) async fn take(&self, blocks: &[Block]) {
        // Without a root, so that nothing of it need be whole.
        let mut bytes = car::header(&[]);
        for block in blocks {
            car::write_section(&mut bytes, block.cid(), block.data());
        }
        let path = self.server.home.data().join("forged.car");
        fs::write(&path, bytes).unwrap();
        self.server.home.prints(&["dag", "import", path.to_str().unwrap()]).await;
    }

    pub(crate) async fn point(&self, root: &Cid) {
        self.server.home.prints(&["publish", "--key", "forged", &root.to_string()]).await;
    }
}

pub(crate) fn digest_of(content: &[u8]) -> Digest {
    Digest::of(sampan_storage::Algorithm::Sha256, content)
}
