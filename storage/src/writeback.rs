//! Writes what an upload has brought to the disk while the rest of it comes, so that the sync at its end is short and
//! memory does not fill with pages that wait for a slow disk.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Bytes between two syncs: some tenths of a second of a good SD card.
const EVERY: u64 = 32 * 1024 * 1024;
/// A thread that only waits for the kernel.
const STACK: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Writeback {
    file: Arc<File>,
    /// How long the file was when the last sync began.
    begun: u64,
    running: Option<JoinHandle<io::Result<()>>>,
    /// The kernel says only once that pages could not be written; what it said counts for ever.
    failed: bool,
}

impl Writeback {
    pub(crate) fn new(file: &Arc<File>, len: u64) -> Self {
        Self { file: Arc::clone(file), begun: len, running: None, failed: false }
    }

    /// Call it when the file has grown to `len` bytes.
    pub(crate) fn grown(&mut self, len: u64) -> io::Result<()> {
        if len.saturating_sub(self.begun) < EVERY || self.running.as_ref().is_some_and(|it| !it.is_finished())
        {
            return Ok(());
        }
        self.join()?;
        let file = Arc::clone(&self.file);
        let sync = move || file.sync_data();
        // Where there is no thread to be had, the sync at the end does it all.
        self.running = thread::Builder::new().stack_size(STACK).spawn(sync).ok();
        self.begun = len;
        Ok(())
    }

    /// Everything that was written is durable when this returns.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.join()?;
        let synced = self.file.sync_data();
        self.failed |= synced.is_err();
        synced
    }

    fn join(&mut self) -> io::Result<()> {
        let synced = self.running.take().map_or(Ok(()), |running| match running.join() {
            Ok(synced) => synced,
            Err(_) => Err(io::Error::other("the thread that syncs an upload ended early")),
        });
        if self.failed {
            return Err(io::Error::other(
                "an earlier part of the upload could not be written; begin it anew",
            ));
        }
        self.failed = synced.is_err();
        synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_counts_for_ever() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut writeback = Writeback::new(&file, 0);
        writeback.running = Some(thread::spawn(|| Err(io::ErrorKind::StorageFull.into())));
        assert_eq!(writeback.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(writeback.finish().is_err() && writeback.grown(EVERY).is_err());
    }

    #[test]
    fn a_sync_begins_when_enough_has_come() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut writeback = Writeback::new(&file, 0);
        writeback.grown(EVERY - 1).unwrap();
        assert!(writeback.running.is_none());
        writeback.grown(EVERY).unwrap();
        assert!(writeback.running.is_some());
        writeback.finish().unwrap();
        assert!(writeback.running.is_none());
    }
}
