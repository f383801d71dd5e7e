//! The scrub: all blobs again and again, slowly, one directory after the other.
//!
//! Where it is stands in the file `SCRUB`, so that a machine that is switched off each night gets through as well.
//! The file is no truth: without it the scrub begins anew.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::blobs::PLACES;
use super::{Progress, Verifier, Verify};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::files::write_whole;
use crate::store::Store;

/// Its place is written down so often at most: a small store is through in a second.
const SAVE: Duration = Duration::from_mins(5);

#[derive(Debug)]
pub struct Scrub {
    store: Store,
    path: PathBuf,
    /// The directory that is next.
    place: u64,
    /// When this pass began.
    began: SystemTime,
    saved: Instant,
}

impl Scrub {
    /// Goes on where an earlier process was.
    pub fn open(store: &Store) -> Self {
        let path = store.dir().join("SCRUB");
        let read = || {
            let text = fs::read_to_string(&path).ok()?;
            let (place, began) = text.trim().split_once(' ')?;
            let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(began.parse().ok()?))?;
            Some((place.parse().ok().filter(|place| *place <= PLACES)?, began))
        };
        // A new directory has nothing that is old enough to be looked at.
        let (place, began) = read().unwrap_or((PLACES, SystemTime::now()));
        Self { store: store.clone(), path, place, began, saved: Instant::now() }
    }

    /// How long to wait until there is something to do, when a pass begins so often.
    pub fn wait(&self, interval: Duration) -> Duration {
        if self.place < PLACES {
            return Duration::ZERO;
        }
        // A clock that was set back makes the last pass seem long ago, not far away.
        self.began.elapsed().map_or(Duration::ZERO, |since| interval.saturating_sub(since))
    }

    /// Looks at the blobs of the next directory and returns those that are in quarantine now. After the last one a
    /// new pass begins with the next call.
    pub fn step(
        &mut self,
        rate: Option<u64>,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Digest>, StoreError> {
        if self.place >= PLACES {
            (self.place, self.began) = (0, SystemTime::now());
        }
        let lost = look(&self.store, self.place, None, rate, go_on)?;
        self.place += 1;
        if self.place == PLACES || self.saved.elapsed() > SAVE {
            self.save()?;
        }
        Ok(lost)
    }

    /// Looks at the blobs that were written before a stop that was not in order, if there was one.
    pub fn suspects(
        &self,
        rate: Option<u64>,
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Digest>, StoreError> {
        let running = &self.store.inner().running;
        let Some(since) = running.suspects() else { return Ok(Vec::new()) };
        let mut lost = Vec::new();
        for place in 0..PLACES {
            lost.extend(look(&self.store, place, Some(since), rate, go_on)?);
        }
        running.clear_suspects()?;
        Ok(lost)
    }

    /// Writes down where it is.
    pub fn save(&mut self) -> Result<(), StoreError> {
        self.saved = Instant::now();
        let began = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(write_whole(&self.path, format!("{} {began}\n", self.place).as_bytes(), 0o644)?)
    }
}

fn look(
    store: &Store,
    place: u64,
    since: Option<SystemTime>,
    rate: Option<u64>,
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Vec<Digest>, StoreError> {
    let mut progress = |_: Progress| go_on();
    let options = Verify { rate, ..Verify::default() };
    let mut verifier = Verifier::new(store.inner(), options, &mut progress);
    let mut lost = Vec::new();
    for blob in verifier.files(place)?.flatten() {
        let metadata = blob.file().metadata()?;
        // A file without a link has been replaced or removed since it was listed.
        let is_due = since.is_none_or(|since| metadata.modified().is_ok_and(|written| written >= since));
        if metadata.nlink() > 0
            && is_due
            && verifier.examine(&blob)?.is_none()
            && verifier.quarantine(&blob)?
        {
            lost.push(blob.digest);
        }
    }
    Ok(lost)
}
