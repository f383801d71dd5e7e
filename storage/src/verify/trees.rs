//! Trees and lists: every directory is here and can be read, links lead somewhere, and the lists say what the trees
//! say.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use cid::Cid;

use super::{Kind, Outcome, Stage, Verifier};
use crate::block::{Block, BlockError, Blocks, RAW, verify};
use crate::dag::directory::{self, Entry, Form};
use crate::dag::file::read_all;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::index::{Row, TreeKey};
use crate::keeper;
use crate::layout::{self, Item};
use crate::lens::Lens;
use crate::tree::{self, MAX_DEPTH};
use crate::view::Tree;

/// Content up to this size may lie in a pack instead of a file of its own.
const SMALL: u64 = 1024 * 1024;
/// Entries between two looks at whether to go on.
const STRIDE: u64 = 256;

/// The tree that is being walked.
#[derive(Clone)]
struct Walk<'a> {
    /// The followed name; `None` for mine.
    name: Option<&'a str>,
    key: TreeKey,
    root: Cid,
}

impl Verifier<'_> {
    pub(super) fn trees(&mut self) -> Result<(), StoreError> {
        self.begin(Stage::Trees)?;
        let (mine, follows) = {
            let view = self.inner.view.read().unwrap_or_else(PoisonError::into_inner);
            (view.base, view.state.follows.clone())
        };
        self.tree(&Walk { name: None, key: TreeKey::MINE, root: mine })?;
        for follow in &follows {
            let Some(good) = &follow.good else { continue };
            let name = follow.name.as_str();
            self.tree(&Walk { name: Some(name), key: TreeKey::followed(name), root: good.root.0 })?;
        }
        if self.options.repair {
            self.inner.packs.sync()?;
        }
        Ok(())
    }

    fn tree(&mut self, walk: &Walk<'_>) -> Result<(), StoreError> {
        if !self.inner.is_current(walk) {
            return Ok(());
        }
        self.directory(walk, &walk.root, "", 0)?;
        self.lists(walk)
    }

    fn directory(&mut self, walk: &Walk<'_>, dir: &Cid, path: &str, depth: usize) -> Result<(), StoreError> {
        let inner = self.inner;
        let mut failed = Ok(());
        let walked = directory::for_each(inner.as_ref(), dir, &mut |entry| {
            failed = self.entry(walk, &entry, path, depth);
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        failed?;
        match walked {
            Err(error) => self.unreadable(walk, path, error),
            Ok(()) => Ok(()),
        }
    }

    /// A block that is not here or not what it should be. Whatever else is wrong ends the whole.
    fn unreadable(&mut self, walk: &Walk<'_>, path: &str, error: BlockError) -> Result<(), StoreError> {
        // What is being walked may have been replaced, and its blocks with it.
        if !self.inner.is_current(walk) {
            return Ok(());
        }
        match error {
            BlockError::Missing(cid) => {
                self.want(&cid);
                self.find(Kind::TreeMissing, subject(walk, path), Outcome::Left);
            }
            BlockError::Malformed { .. } | BlockError::Mismatch(_) | BlockError::UnsupportedHash(_) => {
                tracing::warn!(path, %error, "a part of a tree cannot be read");
                self.find(Kind::TreeMalformed, subject(walk, path), Outcome::Left);
            }
            error => return Err(error.into()),
        }
        Ok(())
    }

    fn entry(&mut self, walk: &Walk<'_>, entry: &Entry, above: &str, depth: usize) -> Result<(), StoreError> {
        if entry.name.contains('/') || !tree::is_path(&entry.name) || depth >= MAX_DEPTH {
            return Ok(());
        }
        let path = if above.is_empty() { entry.name.clone() } else { format!("{above}/{}", entry.name) };
        let form = match self.form(&entry.cid) {
            Ok(form) => form,
            Err(error) => return self.unreadable(walk, &path, error),
        };
        if form != Form::Other {
            return self.directory(walk, &entry.cid, &path, depth + 1);
        }
        self.report.entries += 1;
        if self.report.entries.is_multiple_of(STRIDE) {
            self.tell()?;
        }
        self.file(walk, &path, entry)
    }

    fn form(&self, cid: &Cid) -> Result<Form, BlockError> {
        if cid.codec() == RAW {
            return Ok(Form::Other);
        }
        directory::form(cid, &self.inner.need(cid)?)
    }

    fn file(&mut self, walk: &Walk<'_>, path: &str, entry: &Entry) -> Result<(), StoreError> {
        let item = layout::parse(path);
        if let Some(Item::Blob(digest)) = item {
            return self.blob_entry(walk, &digest, entry);
        }
        let content = match read_all(self.inner.as_ref(), &entry.cid, layout::MAX_LINK) {
            Ok(content) => content,
            Err(BlockError::Missing(_)) => match self.guess(walk, path, item.as_ref(), &entry.cid)? {
                Some(content) => content,
                // What a registry does not know need not be here.
                None if item.is_none() && walk.name.is_some() => return Ok(()),
                None => return self.unreadable(walk, path, BlockError::Missing(entry.cid)),
            },
            // Here, and no link.
            Err(BlockError::Malformed { .. }) => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        let said = layout::parse_link(&content);
        let Some(item) = item else { return Ok(()) };
        let (leads, row) = match &item {
            Item::Blob(_) => return Ok(()),
            Item::Layer(_, digest) => (said == Some(*digest) && self.has(walk, &layout::blob(digest))?, None),
            Item::Revision(repository, digest) => {
                let leads = said == Some(*digest) && self.has(walk, &layout::blob(digest))?;
                (leads, Some((Row::Revision(repository.as_str(), digest), Bytes::new())))
            }
            Item::Tag(repository, tag) => {
                let leads = match &said {
                    Some(digest) => self.has(walk, &layout::revision(repository, digest))?,
                    None => false,
                };
                let value = said.map(|digest| digest.to_string()).unwrap_or_default();
                (leads, Some((Row::Tag(repository.as_str(), tag.as_str()), value.into())))
            }
            Item::Referrer { repository, subject, referrer } => {
                let row = Row::Referrer(repository.as_str(), subject, referrer);
                (said == Some(*referrer), Some((row, Bytes::new())))
            }
        };
        if let Some((row, value)) = row {
            self.listed(walk, path, row, &value)?;
        }
        match (leads, walk.name) {
            // A tag or manifest that was deleted since leads nowhere any more.
            (false, None) if self.has_now(walk, path)? => {
                self.find(Kind::Link, subject(walk, path), Outcome::Left);
            }
            (false, Some(_)) => self.report.sparse += 1,
            _ => {}
        }
        Ok(())
    }

    /// A blob that a tree has must be here if the tree is mine.
    fn blob_entry(&mut self, walk: &Walk<'_>, digest: &Digest, entry: &Entry) -> Result<(), StoreError> {
        if self.inner.blobs.path(digest).exists() {
            return Ok(());
        }
        // Small content of a followed tree came as a block.
        if entry.tsize <= 2 * SMALL
            && let Ok(content) = read_all(self.inner.as_ref(), &entry.cid, SMALL)
            && Digest::of(digest.algorithm(), &content) == *digest
        {
            return Ok(());
        }
        if walk.name.is_some() {
            self.report.sparse += 1;
            return Ok(());
        }
        let subject = digest.to_string();
        let told = self.report.findings.iter().any(|finding| finding.subject == subject);
        if !told && self.has_now(walk, &layout::blob(digest))? {
            self.find(Kind::BlobMissing, subject, Outcome::Left);
        }
        Ok(())
    }

    /// What a link file must say can be known from its path: then it is written again.
    fn guess(
        &mut self,
        walk: &Walk<'_>,
        path: &str,
        item: Option<&Item>,
        cid: &Cid,
    ) -> Result<Option<Bytes>, StoreError> {
        let digest = match item {
            Some(Item::Layer(_, digest) | Item::Revision(_, digest)) => Some(*digest),
            Some(Item::Referrer { referrer, .. }) => Some(*referrer),
            Some(Item::Tag(repository, tag)) if self.inner.index.is_up() => {
                let row = self.inner.index.row(walk.key, Row::Tag(repository.as_str(), tag.as_str()))?;
                row.and_then(|value| layout::parse_link(&value))
            }
            // One of the manifests that a tag has pointed to.
            None => path.strip_suffix("/link").and_then(|path| {
                let (rest, hex) = path.rsplit_once('/')?;
                format!("{}:{hex}", rest.rsplit('/').next()?).parse().ok()
            }),
            Some(Item::Tag(..) | Item::Blob(_)) => None,
        };
        let Some(content) = digest.map(|digest| layout::link(&digest)) else { return Ok(None) };
        if verify(cid, &content).is_err() {
            return Ok(None);
        }
        let outcome = if self.options.repair {
            self.inner.packs.append(&[Block::trusted(*cid, content.clone())])?;
            Outcome::Repaired
        } else {
            self.want(cid);
            Outcome::Left
        };
        self.find(Kind::TreeMissing, subject(walk, path), outcome);
        Ok(Some(content))
    }

    fn has(&mut self, walk: &Walk<'_>, path: &str) -> Result<bool, StoreError> {
        match tree::lookup(self.inner.as_ref(), &walk.root, path) {
            Ok(entry) => Ok(entry.is_some()),
            // That part of the tree is found for itself.
            Err(BlockError::Missing(_) | BlockError::Malformed { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the tree has the path now, not when the walk began.
    fn has_now(&self, walk: &Walk<'_>, path: &str) -> Result<bool, StoreError> {
        let Some(tree) = self.inner.current(walk.name) else { return Ok(false) };
        match tree.lookup(path) {
            Ok(entry) => Ok(entry.is_some()),
            Err(StoreError::Block(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The row of a path that the tree has.
    fn listed(&mut self, walk: &Walk<'_>, path: &str, row: Row<'_>, value: &[u8]) -> Result<(), StoreError> {
        let index = &self.inner.index;
        if !index.is_up() {
            return Ok(());
        }
        self.report.rows += 1;
        let mut fits = index.row(walk.key, row)?.as_deref() == Some(value);
        if let Row::Revision(repository, _) = row {
            fits &= index.row(walk.key, Row::Repository(repository))?.is_some();
        }
        if fits { Ok(()) } else { self.doubt(walk, path) }
    }

    /// Rows of paths that the tree does not have.
    fn lists(&mut self, walk: &Walk<'_>) -> Result<(), StoreError> {
        if !self.inner.index.is_up() {
            return Ok(());
        }
        for row in self.inner.index.rows(walk.key) {
            let (kind, fields) = row?;
            let path = match (kind, fields.as_slice()) {
                (b't', [repository, tag]) => {
                    parsed(repository, tag).map(|(repository, tag)| layout::tag(&repository, &tag))
                }
                (b'm', [repository, digest]) => parsed(repository, digest)
                    .map(|(repository, digest): (_, Digest)| layout::revision(&repository, &digest)),
                (b'f', [repository, subject, referrer]) => parsed(repository, subject)
                    .zip(referrer.parse().ok())
                    .map(|((repository, subject), referrer)| {
                        layout::referrer(&repository, &subject, &referrer)
                    }),
                (b'r', [repository]) => {
                    self.repository(walk, repository)?;
                    continue;
                }
                _ => None,
            };
            match path {
                Some(path) if self.has_now(walk, &path)? => {}
                Some(path) => self.doubt(walk, &path)?,
                None => self.find(Kind::IndexList, fields.join(" "), Outcome::Left),
            }
        }
        Ok(())
    }

    /// A repository is listed as long as it holds a manifest.
    fn repository(&mut self, walk: &Walk<'_>, repository: &str) -> Result<(), StoreError> {
        let index = &self.inner.index;
        let none = Digest::of(crate::digest::Algorithm::Sha256, b"");
        let is_wrong = || -> Result<bool, StoreError> {
            let _rows = self.inner.rows.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(index.row(walk.key, Row::Repository(repository))?.is_some()
                && !index.has_siblings(walk.key, Row::Revision(repository, &none))?)
        };
        if !is_wrong()? {
            return Ok(());
        }
        let mut outcome = Outcome::Left;
        if self.options.repair {
            index.remove_row(walk.key, Row::Repository(repository))?;
            outcome = Outcome::Repaired;
        }
        self.find(Kind::IndexList, subject(walk, repository), outcome);
        Ok(())
    }

    /// Compares a row with the tree while neither changes.
    fn doubt(&mut self, walk: &Walk<'_>, path: &str) -> Result<(), StoreError> {
        if self.is_listed_right(walk, path)? {
            return Ok(());
        }
        let mut outcome = Outcome::Left;
        if self.options.repair {
            keeper::relist(self.inner, walk.name, path)?;
            outcome = Outcome::Repaired;
        }
        self.find(Kind::IndexList, subject(walk, path), outcome);
        Ok(())
    }

    fn is_listed_right(&self, walk: &Walk<'_>, path: &str) -> Result<bool, StoreError> {
        let _rows = self.inner.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let index = &self.inner.index;
        if !index.is_up() {
            return Ok(true);
        }
        let Some(tree) = self.inner.current(walk.name) else { return Ok(true) };
        let entry = match tree.lookup(path) {
            Ok(entry) => entry,
            Err(StoreError::Block(_)) => return Ok(true),
            Err(error) => return Err(error),
        };
        let Some(item) = layout::parse(path) else { return Ok(true) };
        let (row, repository) = match &item {
            Item::Tag(repository, tag) => (Row::Tag(repository.as_str(), tag.as_str()), None),
            Item::Revision(repository, digest) => {
                (Row::Revision(repository.as_str(), digest), Some(repository.as_str()))
            }
            Item::Referrer { repository, subject, referrer } => {
                (Row::Referrer(repository.as_str(), subject, referrer), None)
            }
            Item::Blob(_) | Item::Layer(..) => return Ok(true),
        };
        let found = index.row(walk.key, row)?;
        let Some(entry) = entry else { return Ok(found.is_none()) };
        let due = match &item {
            Item::Tag(..) => {
                let link =
                    self.inner.link_content(&entry.cid)?.and_then(|content| layout::parse_link(&content));
                link.map(|digest| digest.to_string()).unwrap_or_default().into_bytes()
            }
            _ => Vec::new(),
        };
        let listed = match repository {
            Some(repository) => index.row(walk.key, Row::Repository(repository))?.is_some(),
            None => true,
        };
        Ok(listed && found == Some(due))
    }
}

impl crate::inner::Inner {
    /// Mine, or a followed name's tree as it is now.
    fn current(self: &Arc<Self>, name: Option<&str>) -> Option<Tree> {
        let Some(name) = name else { return Some(Tree::mine(Arc::clone(self))) };
        let good = self.state().follow(name).and_then(|follow| follow.good.clone())?;
        Some(Tree::followed(Arc::clone(self), name, good.root.0, Lens::default()))
    }

    /// Whether the root that is being walked is still the one that is read. Mine stays whole for a while after.
    fn is_current(&self, walk: &Walk<'_>) -> bool {
        let Some(name) = walk.name else { return true };
        let state = self.state();
        let good = state.follow(name).and_then(|follow| follow.good.as_ref());
        good.is_some_and(|good| good.root.0 == walk.root)
    }
}

/// A repository and what stands in it.
fn parsed<T: std::str::FromStr>(repository: &str, what: &str) -> Option<(crate::name::RepositoryName, T)> {
    Some((repository.parse().ok()?, what.parse().ok()?))
}

/// A path, and whose it is.
fn subject(walk: &Walk<'_>, path: &str) -> String {
    let path = if path.is_empty() { "the root" } else { path };
    walk.name.map_or_else(|| path.to_owned(), |name| format!("{name}: {path}"))
}
