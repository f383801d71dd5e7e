//! Garbage collection: tags that no rule keeps, manifests that nothing keeps, links and blobs that no manifest names.
//!
//! Online, without a lock over the store. What is to go is decided on one root of my tree; each digest is then claimed
//! in the store before it goes, which fails for all that was pushed, asked for or mounted since, and makes a push that
//! wants it wait for that moment. Tags go by a commit that happens only if they still point to the same manifest.
//! Followed trees are never changed; what they name stays on the disk.

mod graph;
mod retention;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use sampan_storage::{
    Algorithm, Claim, Commit, Digest, RepositoryName, Store, StoreError, Survey, Sweep, layout,
};
use serde::{Deserialize, Serialize};

use super::delete::remove_revision;
use super::tags::{Whose, remove_tag};
use super::{Registry, RegistryError};
use graph::{Graph, Short, short};
use retention::Tagged;

pub(crate) use retention::{Retention, Rule};

/// Digests that are claimed at a time: whoever pushes one of them waits for one commit.
const BATCH: usize = 64;

/// Something that goes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Garbage {
    Tag {
        repository: String,
        tag: String,
        why: String,
    },
    Manifest {
        repository: String,
        digest: String,
        why: String,
    },
    /// A blob of a repository that none of its manifests names.
    Link {
        repository: String,
        digest: String,
    },
    /// Bytes that no repository links.
    Blob {
        digest: String,
        size: u64,
    },
}

/// What a collection has done, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Collected {
    pub(crate) repositories: u64,
    pub(crate) tags: u64,
    pub(crate) manifests: u64,
    pub(crate) links: u64,
    pub(crate) blobs: u64,
    /// Of those blobs.
    pub(crate) bytes: u64,
    /// Repositories of which nothing went, because a manifest of theirs cannot be read.
    pub(crate) unsure: u64,
}

impl Collected {
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { repositories, tags, manifests, links, blobs, bytes, unsure } = other;
        self.repositories += repositories;
        self.tags += tags;
        self.manifests += manifests;
        self.links += links;
        self.blobs += blobs;
        self.bytes += bytes;
        self.unsure += unsure;
    }
}

/// Sees what goes, with the totals so far (`None`: progress only). A collection ends early where it says `false`.
pub(crate) type Observer<'a> = &'a mut dyn FnMut(Option<Garbage>, &Collected) -> bool;

/// One run.
struct Collection<'a, 'o> {
    store: &'a Store,
    retention: &'a Retention,
    dry_run: bool,
    /// What was touched at this time or later stays.
    since: Instant,
    now: SystemTime,
    observer: Observer<'o>,
    done: Collected,
    stopped: bool,
    /// All that the repositories link, when they have been gone through.
    linked: HashSet<Short>,
}

impl Registry {
    /// Collects once. Blocks for as long as it takes to read every manifest.
    pub(crate) fn collect(
        &self,
        retention: &Retention,
        dry_run: bool,
        observer: Observer<'_>,
    ) -> Result<Collected, RegistryError> {
        let begun = Instant::now();
        let mut collection = Collection {
            store: &self.store,
            retention,
            dry_run,
            since: begun.checked_sub(retention.grace).unwrap_or(begun),
            now: SystemTime::now(),
            observer,
            done: Collected::default(),
            stopped: false,
            linked: HashSet::new(),
        };
        collection.run()?;
        Ok(collection.done)
    }
}

impl Collection<'_, '_> {
    fn run(&mut self) -> Result<(), RegistryError> {
        self.store.fold_blocking()?;
        let root = self.store.root();
        let store = self.store;
        let survey = Survey::new(store, root);
        survey.repositories(&mut |repository| {
            if self.stopped { Ok(()) } else { self.repository(&survey, &repository) }
        })?;
        for (algorithm, fan_out) in fan_outs() {
            if self.stopped {
                return Ok(());
            }
            self.blobs(&survey, algorithm, fan_out)?;
        }
        self.store.fold_blocking()?;
        self.sweep()
    }

    fn repository(&mut self, survey: &Survey<'_>, repository: &RepositoryName) -> Result<(), RegistryError> {
        let mut graph = Graph::read(self.store, survey, repository)?;
        let rule = self.retention.rule(repository);
        let mut tags = Vec::new();
        for row in self.store.tag_targets(repository) {
            let (tag, digest) = row?;
            let pushed = digest.and_then(|digest| graph.pushed(&digest));
            tags.push(Tagged { tag, digest, pushed });
        }
        if let Some(rule) = rule {
            for (tagged, why) in rule.outdated(tags.clone(), self.now) {
                if self.tag(repository, &tagged, why)? {
                    tags.retain(|other| other.tag != tagged.tag);
                }
            }
        }
        let layers = survey.layers(repository)?;
        self.done.repositories += 1;
        if graph.unsure {
            self.done.unsure += 1;
            self.keep(survey, repository, &layers)?;
            return Ok(());
        }
        let untagged = graph.split_untagged(tags.iter().filter_map(|tagged| tagged.digest));
        self.manifests(repository, &mut graph, untagged)?;
        let marked = graph.marked();
        let (named, unnamed): (Vec<_>, Vec<_>) =
            layers.into_iter().partition(|digest| marked.contains(&short(digest)));
        let left = self.links(repository, &unnamed)?;
        self.linked.extend(marked);
        self.linked.extend([named, left].concat().iter().map(short));
        Ok(())
    }

    /// Everything that the repository links stays.
    fn keep(
        &mut self,
        survey: &Survey<'_>,
        repository: &RepositoryName,
        layers: &[Digest],
    ) -> Result<(), RegistryError> {
        let revisions = survey.revisions(repository)?;
        self.linked.extend(layers.iter().chain(&revisions).map(short));
        Ok(())
    }

    /// Whether the tag goes.
    fn tag(
        &mut self,
        repository: &RepositoryName,
        tagged: &Tagged,
        why: String,
    ) -> Result<bool, RegistryError> {
        let Some(digest) = tagged.digest else { return Ok(false) };
        let path = layout::tag(repository, &tagged.tag);
        let Some(link) = self.store.mine().lookup(&path)? else { return Ok(false) };
        // A push of the same manifest under the same tag leaves the same link, and touches the manifest.
        let claim = self.store.claim(&[digest], self.since);
        if claim.digests().is_empty() {
            return Ok(false);
        }
        if !self.dry_run {
            let mut commit = Commit::new();
            commit.expect(path, link.cid);
            remove_tag(&self.store.trees(), &mut commit, repository, &tagged.tag, Whose::Mine)?;
            match self.store.commit_blocking(commit) {
                Ok(()) => {}
                Err(StoreError::Changed) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.done.tags += 1;
        let (repository, tag) = (repository.to_string(), tagged.tag.to_string());
        self.tell(Some(Garbage::Tag { repository, tag, why }));
        Ok(true)
    }

    /// Removes those that are old enough; the others go back to the graph, and all that they name stays.
    fn manifests(
        &mut self,
        repository: &RepositoryName,
        graph: &mut Graph,
        untagged: Vec<graph::Member>,
    ) -> Result<(), RegistryError> {
        let age = self.retention.untagged(self.retention.rule(repository));
        let is_old = |pushed: SystemTime, age| self.now.duration_since(pushed).is_ok_and(|it| it > age);
        let (old, young): (Vec<_>, Vec<_>) = untagged
            .into_iter()
            .partition(|member| age.is_some_and(|age| is_old(member.pushed, age)) && !self.stopped);
        for member in young {
            graph.put_back(member);
        }
        let mut old = old.into_iter().peekable();
        while old.peek().is_some() {
            let batch: Vec<_> = old.by_ref().take(BATCH).collect();
            let digests: Vec<Digest> = batch.iter().map(|member| member.digest).collect();
            let claim = self.store.claim(&digests, self.since);
            let mut commit = Commit::new();
            for member in batch {
                if claim.digests().contains(&member.digest) {
                    remove_revision(&mut commit, repository, &member.digest, member.subject.as_ref());
                    self.done.manifests += 1;
                    let why = "no tag, index or subject keeps it".to_owned();
                    let (repository, digest) = (repository.to_string(), member.digest.to_string());
                    self.tell(Some(Garbage::Manifest { repository, digest, why }));
                } else {
                    graph.put_back(member);
                }
            }
            self.commit(commit, claim)?;
        }
        Ok(())
    }

    /// Removes links of layers, and returns those that stay.
    fn links(
        &mut self,
        repository: &RepositoryName,
        unnamed: &[Digest],
    ) -> Result<Vec<Digest>, RegistryError> {
        let mut left = Vec::new();
        for batch in unnamed.chunks(BATCH) {
            let claim = self.store.claim(batch, self.since);
            let mut commit = Commit::new();
            for digest in batch {
                if !claim.digests().contains(digest) {
                    left.push(*digest);
                    continue;
                }
                commit.remove(parent(&layout::layer(repository, digest)));
                self.done.links += 1;
                let (repository, digest) = (repository.to_string(), digest.to_string());
                self.tell(Some(Garbage::Link { repository, digest }));
            }
            self.commit(commit, claim)?;
        }
        Ok(left)
    }

    /// Takes blobs out of my tree that no repository links. In a dry run their files count as gone.
    fn blobs(&mut self, survey: &Survey<'_>, algorithm: Algorithm, fan_out: u8) -> Result<(), RegistryError> {
        let mut unlinked = survey.blobs(algorithm, fan_out)?;
        unlinked.retain(|digest| !self.linked.contains(&short(digest)));
        for batch in unlinked.chunks(BATCH) {
            let claim = self.store.claim(batch, self.since);
            let mut commit = Commit::new();
            for digest in claim.digests() {
                commit.remove(parent(&layout::blob(digest)));
                if self.dry_run
                    && !self.is_followed(digest)?
                    && let Some(file) = self.store.blob(digest)?
                {
                    self.blob(digest, file.size);
                }
            }
            self.commit(commit, claim)?;
        }
        self.tell(None);
        Ok(())
    }

    /// Removes the files that no tree names, mine or followed.
    fn sweep(&mut self) -> Result<(), RegistryError> {
        let (store, options) = (self.store, Sweep { since: self.since, dry_run: self.dry_run });
        Ok(store.sweep(options, &mut |swept| {
            match swept {
                Some(swept) => self.blob(&swept.digest, swept.size),
                None => self.tell(None),
            }
            !self.stopped
        })?)
    }

    /// Whether a followed tree names the blob, so that its file stays.
    fn is_followed(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let path = layout::blob(digest);
        for tree in self.store.trees().iter().filter(|tree| tree.name().is_some()) {
            if tree.lookup(&path)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn blob(&mut self, digest: &Digest, size: u64) {
        self.done.blobs += 1;
        self.done.bytes += size;
        self.tell(Some(Garbage::Blob { digest: digest.to_string(), size }));
    }

    /// The claim ends when the commit is visible, so that whoever waits for it sees what is left.
    fn commit(&self, commit: Commit, claim: Claim) -> Result<(), RegistryError> {
        if !self.dry_run && !commit.is_empty() {
            self.store.commit_blocking(commit)?;
        }
        drop(claim);
        Ok(())
    }

    fn tell(&mut self, garbage: Option<Garbage>) {
        self.stopped |= !(self.observer)(garbage, &self.done);
    }
}

fn fan_outs() -> impl Iterator<Item = (Algorithm, u8)> {
    Algorithm::ALL.into_iter().flat_map(|algorithm| (0..=u8::MAX).map(move |byte| (algorithm, byte)))
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default()
}
