//! Whether the last stop was in order: the file `RUNNING` is there while a store is open, and stays when a process or
//! a machine ends without a word. It holds the time from which on blobs were written that may have suffered.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::files::{sync_directory, write_whole};

/// A clock that was set right while the store ran.
const SLACK: Duration = Duration::from_mins(1);
/// Blobs that are known to have been read right since the start, until all have been: some 300 KiB. Beyond that they are
/// forgotten, and read again.
const MAX_PROVEN: usize = 4096;

#[derive(Debug)]
pub(crate) struct Running {
    path: PathBuf,
    began: SystemTime,
    suspects: Mutex<Option<SystemTime>>,
    /// Suspects that were found to be right one by one.
    proven: Mutex<HashSet<Digest>>,
    /// Held while one is looked at: who asks for it meanwhile waits, and reads it no second time.
    proving: Mutex<()>,
}

impl Running {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("RUNNING");
        let began = SystemTime::now();
        let suspects = match fs::read_to_string(&path) {
            // What cannot be read puts everything under suspicion.
            Ok(text) => Some(after_epoch(text.trim().parse().unwrap_or(0))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let suspects_now = Mutex::new(suspects);
        let running =
            Self { path, began, suspects: suspects_now, proven: Mutex::default(), proving: Mutex::default() };
        match suspects {
            Some(_) => {
                tracing::info!("the last stop was not in order; what was written before it is checked");
            }
            None => running.write()?,
        }
        Ok(running)
    }

    /// Blobs whose files were written at this time or later have not been checked since a stop that was not in
    /// order.
    pub(crate) fn suspects(&self) -> Option<SystemTime> {
        let suspects = *self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.map(|since| since.checked_sub(SLACK).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// Whether a blob that was written then may have suffered from a stop that was not in order. What this run has
    /// written has not; where the clock was set back since, nobody can tell.
    fn is_suspect(&self, written: SystemTime) -> bool {
        let Some(since) = self.suspects() else { return false };
        written >= since && (written < self.began || self.began < since)
    }

    /// Looks at a blob before it is read for the first time, where a stop that was not in order may have damaged it.
    /// `false` where `look` says that it is not what it was.
    pub(crate) fn prove<E>(
        &self,
        digest: &Digest,
        written: SystemTime,
        look: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        if !self.is_suspect(written) || self.proven().contains(digest) {
            return Ok(true);
        }
        let _one = self.proving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.proven().contains(digest) {
            return Ok(true);
        }
        let right = look()?;
        if right {
            let mut proven = self.proven();
            if proven.len() >= MAX_PROVEN {
                proven.clear();
            }
            proven.insert(*digest);
        }
        Ok(right)
    }

    fn proven(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They have been checked. Without a word from here, the next start suspects what this run has written.
    pub(crate) fn clear_suspects(&self) -> io::Result<()> {
        self.write()?;
        *self.suspects.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.proven() = HashSet::new();
        Ok(())
    }

    /// The stop is in order. What is still under suspicion is so at the next start.
    pub(crate) fn end(&self) -> io::Result<()> {
        if self.suspects().is_some() {
            return Ok(());
        }
        fs::remove_file(&self.path)?;
        self.path.parent().map_or(Ok(()), sync_directory)
    }

    fn write(&self) -> io::Result<()> {
        let seconds = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        write_whole(&self.path, format!("{seconds}\n").as_bytes(), 0o644)
    }
}

fn after_epoch(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn what_may_have_suffered_is_looked_at_once_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        drop(Running::open(dir.path()).unwrap());
        let running = Running::open(dir.path()).unwrap();
        let digest = |number: usize| Digest::of(Algorithm::Sha256, &number.to_le_bytes());
        let never = || -> Result<bool, ()> { panic!("looked at without need") };
        let before = running.began - Duration::from_secs(1);
        assert_eq!(running.prove(&digest(0), before, || Ok::<_, ()>(false)), Ok(false));
        assert_eq!(running.prove(&digest(0), before, || Err(())), Err(()));
        for number in 0..=MAX_PROVEN {
            assert_eq!(running.prove(&digest(number), before, || Ok::<_, ()>(true)), Ok(true));
            assert_eq!(running.prove(&digest(number), before, never), Ok(true));
        }
        assert_eq!(running.proven().len(), 1, "there is a bound");
        for written in [running.began, before - Duration::from_hours(1)] {
            assert_eq!(running.prove(&digest(9999), written, never), Ok(true));
        }
        running.clear_suspects().unwrap();
        assert_eq!(running.prove(&digest(9999), before, never), Ok(true));
    }

    #[test]
    fn a_stop_without_a_word_is_noticed_until_what_it_left_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let first = Running::open(dir.path()).unwrap();
        assert_eq!(first.suspects(), None);
        let began = first.began;
        drop(first);
        // Still unchecked when the second run stops in order: the third goes on with it.
        Running::open(dir.path()).unwrap().end().unwrap();
        let third = Running::open(dir.path()).unwrap();
        let since = third.suspects().unwrap();
        assert!(since < began && began.duration_since(since).unwrap() <= SLACK + Duration::from_secs(1));
        third.clear_suspects().unwrap();
        assert_eq!(third.suspects(), None);
        third.end().unwrap();
        assert_eq!(Running::open(dir.path()).unwrap().suspects(), None);
    }
}
