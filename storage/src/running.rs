//! Whether the last stop was in order: the file `RUNNING` is there while a store is open, and stays when a process or
//! a machine ends without a word. It holds the time from which on blobs were written that may have suffered.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::files::{sync_directory, write_whole};

/// A clock that was set right while the store ran.
const SLACK: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Running {
    path: PathBuf,
    began: SystemTime,
    suspects: Mutex<Option<SystemTime>>,
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
        let running = Self { path, began, suspects: Mutex::new(suspects) };
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

    /// They have been checked. Without a word from here, the next start suspects what this run has written.
    pub(crate) fn clear_suspects(&self) -> io::Result<()> {
        self.write()?;
        *self.suspects.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
