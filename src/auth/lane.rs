//! A lane of its own for work that is slow on purpose: few threads and a short queue, so that a flood of wrong
//! passwords takes neither the processor nor the threads that serve pulls.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, available_parallelism};

use tokio::sync::oneshot;

/// Passwords that wait for their turn; the last of them waits some seconds where each takes 100 ms.
const WAITING: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// Clones share the threads, which end with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Lane(SyncSender<Job>);

/// So much waits already that no more is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Lane {
    /// With half of the cores, at least one.
    pub(crate) fn for_this_machine() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, usize::from);
        Self::start((cores / 2).max(1), WAITING)
    }

    pub(crate) fn start(threads: usize, waiting: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel::<Job>(waiting);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..threads {
            let receiver = Arc::clone(&receiver);
            thread::Builder::new().name("passwords".to_owned()).spawn(move || work(&receiver))?;
        }
        Ok(Self(sender))
    }

    /// Waits for its turn and the outcome. Who stops waiting is passed over.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (reply, outcome) = oneshot::channel();
        let job = move || {
            if !reply.is_closed() {
                // Nobody may be left to hear it.
                let _ = reply.send(work());
            }
        };
        self.0.try_send(Box::new(job)).map_err(|_| Busy)?;
        outcome.await.map_err(|_| Busy)
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_runs_than_there_are_threads_and_no_more_waits_than_there_is_room() {
        let lane = Lane::start(2, 3).unwrap();
        let (started, mut starts) = tokio::sync::mpsc::channel(9);
        let (release, gate) = sync_channel::<()>(9);
        let gate = Arc::new(Mutex::new(gate));
        let running = Arc::new(AtomicUsize::new(0));
        let submit = || {
            let (lane, started, gate, running) =
                (lane.clone(), started.clone(), Arc::clone(&gate), Arc::clone(&running));
            tokio::spawn(async move {
                let job = move || {
                    started.blocking_send(running.fetch_add(1, Ordering::SeqCst) + 1).unwrap();
                    gate.lock().unwrap().recv().unwrap();
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                lane.run(job).await
            })
        };
        let mut taken = vec![submit(), submit()];
        assert_eq!([starts.recv().await, starts.recv().await], [Some(1), Some(2)]);
        taken.extend([submit(), submit(), submit()]);
        // Each has asked for its place when it is first polled.
        tokio::task::yield_now().await;
        assert_eq!(lane.run(|| ()).await, Err(Busy));
        for _ in 0..taken.len() {
            release.send(()).unwrap();
        }
        for job in taken {
            assert_eq!(job.await.unwrap(), Ok(()));
        }
        while let Ok(running) = starts.try_recv() {
            assert!(running <= 2);
        }
        assert_eq!(lane.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn who_has_gone_is_passed_over() {
        let lane = Lane::start(1, 2).unwrap();
        let (release, gate) = sync_channel::<()>(1);
        let first = tokio::spawn({
            let lane = lane.clone();
            async move { lane.run(move || gate.recv()).await }
        });
        tokio::task::yield_now().await;
        let ran = Arc::new(AtomicUsize::new(0));
        {
            let ran = Arc::clone(&ran);
            let mut gone = Box::pin(lane.run(move || ran.fetch_add(1, Ordering::SeqCst)));
            assert!(futures::poll!(&mut gone).is_pending());
        }
        release.send(()).unwrap();
        first.await.unwrap().unwrap().unwrap();
        lane.run(|| ()).await.unwrap();
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    }
}
