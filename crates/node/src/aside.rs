//! What may take as long as somebody is slow to read: done in order by a thread of its own, so that it holds up nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;
use std::{io, thread};

/// Things that may wait; what comes beyond them is lost.
const PLACES: usize = 4096;
/// How long somebody who wants all of it done waits at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// Things that are done aside.
pub(crate) struct Aside<T> {
    jobs: Sender<Job<T>>,
    waiting: Arc<AtomicUsize>,
}

enum Job<T> {
    Do(T),
    /// Everything before it is done.
    Mark(SyncSender<()>),
}

// === impl Aside ===

impl<T: Send + 'static> Aside<T> {
    /// Starts a thread of this name that does so with all that is handed in.
    ///
    /// # Errors
    /// What the system says if it starts no thread.
    pub(crate) fn start(name: &str, act: impl FnMut(T) + Send + 'static) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let waiting = Arc::<AtomicUsize>::default();
        let left = Arc::clone(&waiting);
        thread::Builder::new().name(name.to_owned()).spawn(move || work(&queue, &left, act))?;
        Ok(Self { jobs, waiting })
    }

    /// Hands one thing in, and never waits. False if it is lost, because too many wait.
    pub(crate) fn hand(&self, thing: T) -> bool {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= PLACES {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        self.jobs.send(Job::Do(thing)).is_ok()
    }

    /// Waits until everything that was handed in is done, but not longer than a second: somebody may never read again.
    pub(crate) fn settle(&self) {
        let (done, settled) = sync_channel(1);
        if self.jobs.send(Job::Mark(done)).is_ok() {
            // Either way it is over.
            let _ = settled.recv_timeout(PATIENCE);
        }
    }
}

fn work<T>(queue: &Receiver<Job<T>>, waiting: &AtomicUsize, mut act: impl FnMut(T)) {
    for job in queue {
        match job {
            Job::Do(thing) => {
                act(thing);
                waiting.fetch_sub(1, Ordering::AcqRel);
            }
            // Whoever waited for it may have gone.
            Job::Mark(done) => drop(done.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn all_is_done_in_order_and_settling_waits_for_it() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let aside = Aside::start("aside", move |number| into.lock().unwrap().push(number)).unwrap();
        assert!((0..1000).all(|number| aside.hand(number)));
        aside.settle();
        assert_eq!(*seen.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_too_much_for_a_reader_who_does_not_read_is_lost_and_nobody_waits() {
        let (read, unread) = sync_channel::<()>(0);
        let aside = Aside::start("aside", move |()| _ = unread.recv()).unwrap();
        let handed = (0..2 * PLACES).filter(|_| aside.hand(())).count();
        // It takes none off before one is done.
        assert_eq!(handed, PLACES);
        aside.settle();
        assert!(!aside.hand(()));
        drop(read);
        aside.settle();
        assert!(aside.hand(()));
    }
}
