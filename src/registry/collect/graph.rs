//! What the manifests of one repository name, and which of them something keeps.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use sampan_storage::{Digest, RepositoryName, Store, Survey};

use crate::registry::RegistryError;
use crate::registry::manifest::{Document, MAX_MANIFEST};

/// The first bytes of a digest. Two that share them are both kept, which does no harm.
pub(super) type Short = u64;

pub(super) struct Graph {
    members: HashMap<Short, Member>,
    /// A manifest could not be read: what it names is not known, so that nothing of the repository may go.
    pub(super) unsure: bool,
}

pub(super) struct Member {
    pub(super) digest: Digest,
    /// When it was pushed last: its file is written anew each time.
    pub(super) pushed: SystemTime,
    pub(super) subject: Option<Digest>,
    names: Vec<Short>,
}

impl Graph {
    pub(super) fn read(
        store: &Store,
        survey: &Survey<'_>,
        repository: &RepositoryName,
    ) -> Result<Self, RegistryError> {
        let mut graph = Self { members: HashMap::new(), unsure: false };
        for digest in survey.revisions(repository)? {
            match read_member(store, &digest)? {
                Some(member) => drop(graph.members.insert(short(&digest), member)),
                None => graph.unsure = true,
            }
        }
        Ok(graph)
    }

    pub(super) fn pushed(&self, digest: &Digest) -> Option<SystemTime> {
        self.members.get(&short(digest)).map(|member| member.pushed)
    }

    /// Takes out the manifests that neither a tag nor another one keeps: children stay with their index, referrers
    /// with their subject.
    pub(super) fn split_untagged(&mut self, tagged: impl Iterator<Item = Digest>) -> Vec<Member> {
        let mut referrers: HashMap<Short, Vec<Short>> = HashMap::new();
        for (short, member) in &self.members {
            if let Some(subject) = &member.subject {
                referrers.entry(self::short(subject)).or_default().push(*short);
            }
        }
        let mut kept = HashSet::new();
        let mut pending: Vec<Short> = tagged.map(|digest| short(&digest)).collect();
        while let Some(short) = pending.pop() {
            let Some(member) = self.members.get(&short) else { continue };
            if kept.insert(short) {
                pending.extend(&member.names);
                pending.extend(referrers.get(&short).into_iter().flatten());
            }
        }
        let mut gone: Vec<Short> = self.members.keys().copied().collect();
        gone.retain(|short| !kept.contains(short));
        gone.sort_unstable();
        gone.iter().filter_map(|short| self.members.remove(short)).collect()
    }

    pub(super) fn put_back(&mut self, member: Member) {
        self.members.insert(short(&member.digest), member);
    }

    /// Everything that is named, and the manifests themselves.
    pub(super) fn marked(&self) -> HashSet<Short> {
        let named = self.members.values().flat_map(|member| member.names.iter().copied());
        self.members.keys().copied().chain(named).collect()
    }
}

pub(super) fn short(digest: &Digest) -> Short {
    digest.as_bytes().first_chunk().map_or(0, |bytes| Short::from_be_bytes(*bytes))
}

fn read_member(store: &Store, digest: &Digest) -> Result<Option<Member>, RegistryError> {
    let Some(file) = store.blob(digest)? else { return Ok(None) };
    if file.size > MAX_MANIFEST {
        return Ok(None);
    }
    let pushed = file.modified()?;
    let Ok(document) = Document::parse(&file.read_all(MAX_MANIFEST)?, None) else { return Ok(None) };
    let names = document.references.iter().map(|(_, descriptor)| short(&descriptor.digest)).collect();
    let subject = document.subject.map(|subject| subject.digest);
    Ok(Some(Member { digest: *digest, pushed, subject, names }))
}
