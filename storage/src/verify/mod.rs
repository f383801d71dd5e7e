//! Verify: everything that lies on the disk against everything else, while the store runs.
//!
//! In this order: packs (each block against its CID, tables against packs), journal (frames), blobs (bytes against
//! digest, leaves against what the trees say, rows against leaves; see [`blobs`]), trees and lists ([`trees`]).
//! Nothing is held but one directory, one pack or the hashes of one blob at a time.
//!
//! A blob that fails goes into quarantine in any case. All else is only told, unless it is to be repaired from what
//! is here. What only peers can give is named in the report, for whoever knows some.

mod blobs;
mod packs;
mod scrub;
#[cfg(test)]
mod tests;
mod trees;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::StoreError;
use crate::inner::Inner;
use crate::store::Store;

pub use scrub::Scrub;

/// Findings that are kept; the others are counted. Who has more needs a backup, not a longer list.
const MAX_FINDINGS: usize = 1000;
/// Blocks that are named to be fetched.
const MAX_WANTED: usize = 1024;
/// Between two looks at whether to go on, while the rate is being held.
const NAP: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, Default)]
pub struct Verify {
    /// Bytes of blobs and packs read in a second; as fast as it goes where it is not said.
    pub rate: Option<u64>,
    /// Make good what can be made good from what is here.
    pub repair: bool,
    /// Trees and lists only: after blocks that were missing have been fetched.
    pub trees_only: bool,
}

/// How far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub stage: Stage,
    /// Of the stage, where that is known.
    pub percent: Option<u64>,
    /// Bytes read so far.
    pub bytes: u64,
    pub findings: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Packs,
    Journal,
    Blobs,
    Trees,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blocks in packs.
    pub blocks: u64,
    /// Files in the trees.
    pub entries: u64,
    /// Rows of the index.
    pub rows: u64,
    /// What followed trees name and is not here: that is no damage.
    pub sparse: u64,
    pub findings: Vec<Finding>,
    /// Findings beyond those that are listed.
    pub more: u64,
    /// Blocks that trees need and that are not here.
    #[serde(skip)]
    pub wanted: Vec<Cid>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub kind: Kind,
    /// The digest, CID, file or path that it is about.
    pub subject: String,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    BlobName,
    BlobContent,
    BlobDag,
    BlobMissing,
    PackBlock,
    PackCut,
    PackTable,
    Journal,
    TreeMissing,
    TreeMalformed,
    Link,
    IndexLeaf,
    IndexList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is as it was.
    Left,
    /// Out of the way, so that it is pushed or fetched again.
    Quarantined,
    Repaired,
}

impl Kind {
    pub fn describe(self) -> &'static str {
        match self {
            Self::BlobName => "a file among the blobs that is none",
            Self::BlobContent => "a blob whose bytes do not match its digest",
            Self::BlobDag => "a blob that is not what the tree says of its blocks",
            Self::BlobMissing => "a blob of the tree that is not here",
            Self::PackBlock => "a block in a pack that does not match its CID",
            Self::PackCut => "a pack whose blocks cannot be told apart from here on",
            Self::PackTable => "a pack's table that does not lead to its blocks",
            Self::Journal => "a journal file with a broken entry",
            Self::TreeMissing => "a part of a tree that is not here",
            Self::TreeMalformed => "a part of a tree that cannot be read",
            Self::Link => "a link that leads to nothing in its tree",
            Self::IndexLeaf => "a row of the index that does not lead to a leaf, or none that should",
            Self::IndexList => "a row of the lists that the tree does not have, or none that it has",
        }
    }
}

impl Outcome {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Left => "left as it is",
            Self::Quarantined => "in quarantine",
            Self::Repaired => "repaired",
        }
    }
}

impl Report {
    /// Findings that were not made good.
    pub fn bad(&self) -> u64 {
        let left = self.findings.iter().filter(|finding| finding.outcome != Outcome::Repaired).count();
        left as u64 + self.more
    }

    /// Blobs that my tree has and that are not here, or not any more.
    pub fn lost(&self) -> Vec<Digest> {
        let lost = self.findings.iter().filter(|finding| {
            matches!(finding.kind, Kind::BlobContent | Kind::BlobMissing)
                && finding.outcome != Outcome::Repaired
        });
        lost.filter_map(|finding| finding.subject.parse().ok()).collect()
    }

    /// Marks what is about this as made good.
    pub fn repaired(&mut self, subject: &str) {
        for finding in self.findings.iter_mut().filter(|finding| finding.subject == subject) {
            finding.outcome = Outcome::Repaired;
        }
    }

    /// Takes the trees and lists of a later look in place of its own.
    pub fn look_again(&mut self, later: Self) {
        self.findings.retain(|finding| !finding.kind.is_of_trees());
        self.findings.extend(later.findings);
        (self.entries, self.rows, self.sparse) = (later.entries, later.rows, later.sparse);
        (self.more, self.wanted) = (self.more.max(later.more), later.wanted);
    }
}

impl Kind {
    fn is_of_trees(self) -> bool {
        matches!(
            self,
            Self::BlobMissing | Self::TreeMissing | Self::TreeMalformed | Self::Link | Self::IndexList
        )
    }
}

impl Store {
    /// Looks at everything. `progress` is told after each piece of work and can end it: [`StoreError::Cancelled`].
    /// Blocks for as long as it takes to read the disk.
    pub fn verify(
        &self,
        options: Verify,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Report, StoreError> {
        // What is not folded yet is in the journal, which is read for itself.
        let mut verifier = Verifier::new(self.inner(), options, progress);
        if !options.trees_only {
            verifier.packs()?;
            verifier.journal(self)?;
            verifier.blobs()?;
        }
        self.fold_blocking()?;
        verifier.trees()?;
        verifier.settle_pack_blocks();
        Ok(verifier.report)
    }

    /// Hashes a blob again; one that fails goes into quarantine. `false` where that was so.
    pub fn examine(&self, blob: &crate::BlobFile) -> Result<bool, StoreError> {
        let mut go_on = |_| ControlFlow::Continue(());
        let mut verifier = Verifier::new(self.inner(), Verify::default(), &mut go_on);
        if verifier.examine(blob)?.is_some() {
            return Ok(true);
        }
        // Another file may stand in its place since: that one is not this one.
        self.inner().blobs.quarantine(blob)?;
        Ok(false)
    }
}

struct Verifier<'a> {
    inner: &'a Arc<Inner>,
    options: Verify,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    report: Report,
    stage: Stage,
    percent: Option<u64>,
    /// When the next byte may be read.
    due: Instant,
}

impl<'a> Verifier<'a> {
    fn new(
        inner: &'a Arc<Inner>,
        options: Verify,
        progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Self {
        let (stage, due) = (Stage::Packs, Instant::now());
        Self { inner, options, progress, report: Report::default(), stage, percent: None, due }
    }

    fn begin(&mut self, stage: Stage) -> Result<(), StoreError> {
        (self.stage, self.percent) = (stage, None);
        self.tell()
    }

    /// So many bytes were read: waits until they fit the rate.
    fn spend(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.report.bytes += bytes;
        self.tell()?;
        let Some(rate) = self.options.rate else { return Ok(()) };
        let now = Instant::now();
        self.due = self.due.max(now) + Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
        while let Some(left) = self.due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            sleep(left.min(NAP));
            self.tell()?;
        }
        Ok(())
    }

    fn tell(&mut self) -> Result<(), StoreError> {
        let findings = self.report.findings.len() as u64 + self.report.more;
        let Self { stage, percent, .. } = *self;
        match (self.progress)(Progress { stage, percent, bytes: self.report.bytes, findings }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(StoreError::Cancelled),
        }
    }

    fn find(&mut self, kind: Kind, subject: impl Into<String>, outcome: Outcome) {
        let finding = Finding { kind, subject: subject.into(), outcome };
        tracing::warn!(subject = finding.subject, outcome = outcome.describe(), "{}", kind.describe());
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(finding);
        } else {
            self.report.more += 1;
        }
    }

    fn want(&mut self, cid: &Cid) {
        if self.report.wanted.len() < MAX_WANTED && !self.report.wanted.contains(cid) {
            self.report.wanted.push(*cid);
        }
    }
}
