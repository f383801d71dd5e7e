//! A file that is read again when it changes. A file that has gone bad leaves what was read before in force.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest file that is read: thousands of users or keys.
const MAX_FILE: u64 = 1024 * 1024;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is longer than 1 MiB")]
    Long,
    #[error("{0}")]
    Content(String),
}

/// Clones share the file.
#[derive(Debug)]
pub(super) struct Watched<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    path: PathBuf,
    parse: fn(&[u8]) -> Result<T, String>,
    every: Duration,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: Arc<T>,
    mark: Option<Mark>,
    looked: Instant,
}

/// A file with the same mark has the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    modified: (i64, i64),
    length: u64,
    inode: u64,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads the file, which must be good, and looks at it again after `every` at the earliest.
    pub(super) fn open(
        path: &Path,
        parse: fn(&[u8]) -> Result<T, String>,
        every: Duration,
    ) -> Result<Self, FileError> {
        let mark = Mark::of(path)?;
        let value = Arc::new(parse(&read(path)?).map_err(FileError::Content)?);
        let state = Mutex::new(State { value, mark: Some(mark), looked: Instant::now() });
        Ok(Self(Arc::new(Inner { path: path.to_owned(), parse, every, state })))
    }

    /// What counts now.
    pub(super) async fn current(&self) -> Arc<T> {
        {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.looked.elapsed() < self.0.every {
                return Arc::clone(&state.value);
            }
            // Others go on with what is known while one looks.
            state.looked = Instant::now();
        }
        let inner = Arc::clone(&self.0);
        // Where the runtime ends, nothing is read any more.
        let _ = tokio::task::spawn_blocking(move || inner.look()).await;
        Arc::clone(&self.0.state.lock().unwrap_or_else(PoisonError::into_inner).value)
    }
}

impl<T> Inner<T> {
    fn look(&self) {
        let mark = Mark::of(&self.path);
        let known = self.state.lock().unwrap_or_else(PoisonError::into_inner).mark;
        if mark.as_ref().ok() == known.as_ref() {
            return;
        }
        let seen = mark.as_ref().ok().copied();
        let content = mark.and_then(|_| read(&self.path));
        let value = content.and_then(|bytes| (self.parse)(&bytes).map_err(FileError::Content));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The same bad file is told once.
        state.mark = seen;
        match value {
            Ok(value) => {
                state.value = Arc::new(value);
                tracing::info!("{} has changed and is in force", self.path.display());
            }
            Err(error) => {
                tracing::warn!("{} {error}; what it said before stays in force", self.path.display());
            }
        }
    }
}

impl Mark {
    fn of(path: &Path) -> Result<Self, FileError> {
        let data = fs::metadata(path)?;
        Ok(Self { modified: (data.mtime(), data.mtime_nsec()), length: data.len(), inode: data.ino() })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    if File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE {
        return Err(FileError::Long);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<String, String> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if text.contains("bad") { Err("is bad".to_owned()) } else { Ok(text) }
    }

    #[tokio::test]
    async fn a_change_counts_and_a_bad_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "one").unwrap();
        let file = Watched::open(&path, parse, Duration::ZERO).unwrap();
        assert_eq!(*file.current().await, "one");
        for (content, counts) in [("two!", "two!"), ("bad", "two!"), ("three", "three")] {
            fs::write(&path, content).unwrap();
            assert_eq!(*file.current().await, counts);
        }
        // A file that takes the other's place, as a mounted secret does.
        fs::write(dir.path().join("new"), "other").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(*file.current().await, "other");
        fs::remove_file(&path).unwrap();
        assert_eq!(*file.current().await, "other");
        fs::write(&path, "back").unwrap();
        assert_eq!(*file.current().await, "back");
    }

    #[tokio::test]
    async fn it_is_not_looked_at_before_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "one").unwrap();
        let file = Watched::open(&path, parse, Duration::from_hours(1)).unwrap();
        fs::write(&path, "two!").unwrap();
        assert_eq!(*file.current().await, "one");
    }

    #[test]
    fn what_cannot_be_read_at_first_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let open = || Watched::open(&path, parse, Duration::ZERO).map(|_| ()).unwrap_err();
        assert!(matches!(open(), FileError::Io(error) if error.kind() == io::ErrorKind::NotFound));
        fs::write(&path, "bad").unwrap();
        assert_eq!(open().to_string(), "is bad");
        fs::write(&path, vec![b'a'; 1024 * 1024 + 1]).unwrap();
        assert!(matches!(open(), FileError::Long));
    }
}
