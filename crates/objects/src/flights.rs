//! Work that many wait for and that is done once.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

/// Work that is being done, by what it is about. Nobody but those who wait for it drives it: it ends with the last.
pub(crate) struct Flights<K, T: Clone> {
    table: Arc<Mutex<Table<K, T>>>,
}

/// A place among those who wait.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, T>>;

struct Table<K, T: Clone> {
    flights: HashMap<K, Numbered<T>>,
    next: u64,
}

/// Work with a number, so that the end of one that was left is not taken for that of its successor.
struct Numbered<T: Clone> {
    number: u64,
    flight: Option<WeakShared<BoxFuture<'static, T>>>,
}

/// Takes work off the table when it is done or left.
struct Landing<K: Eq + Hash, T: Clone> {
    table: Arc<Mutex<Table<K, T>>>,
    key: K,
    number: u64,
}

// === impl Flights ===

impl<K, T> Flights<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self { table: Arc::new(Mutex::new(Table { flights: HashMap::new(), next: 0 })) }
    }

    /// Waits with those who wait for `key` already, or begins the work.
    pub(crate) fn join<F>(&self, key: K, work: F) -> Flight<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut table = self.table.lock();
        let there = table.flights.get(&key).and_then(|there| there.flight.as_ref()?.upgrade());
        if let Some(flight) = there {
            return flight;
        }
        let number = table.next;
        table.next += 1;
        let landing = Landing { table: Arc::clone(&self.table), key: key.clone(), number };
        let flight = landing.after(work).boxed().shared();
        table.flights.insert(key, Numbered { number, flight: flight.downgrade() });
        flight
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.lock().flights.len()
    }
}

impl<K, T: Clone> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("len", &self.table.lock().flights.len()).finish()
    }
}

// === impl Landing ===

impl<K: Eq + Hash, T: Clone> Landing<K, T> {
    async fn after(self, work: impl Future<Output = T>) -> T {
        let done = work.await;
        drop(self);
        done
    }
}

impl<K: Eq + Hash, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let flights = &mut self.table.lock().flights;
        if flights.get(&self.key).is_some_and(|there| there.number == self.number) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_hundred_wait_for_one_that_works() {
        let (flights, begun) = (Flights::new(), Arc::new(AtomicUsize::new(0)));
        let (done, wait) = oneshot::channel();
        let mut wait = Some(wait);
        let waiters: Vec<_> = (0..100)
            .map(|_| {
                let (begun, wait) = (Arc::clone(&begun), wait.take());
                flights.join("it", async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    wait.unwrap().await.unwrap()
                })
            })
            .collect();
        let all = tokio::spawn(futures_util::future::join_all(waiters));
        done.send(7).unwrap();
        assert_eq!(all.await.unwrap(), vec![7; 100]);
        assert_eq!((begun.load(Ordering::SeqCst), flights.len()), (1, 0));
    }

    #[tokio::test]
    async fn work_ends_with_the_last_who_waits_and_can_begin_again() {
        let flights = Flights::new();
        let witness = Arc::new(());
        let held = Arc::clone(&witness);
        let first = flights.join(1, async move {
            pending::<()>().await;
            drop(held);
            0_u8
        });
        let second = flights.join(1, pending());
        assert!(first.clone().now_or_never().is_none());
        drop(first);
        assert_eq!(Arc::strong_count(&witness), 2, "one still waits");
        drop(second);
        assert_eq!((Arc::strong_count(&witness), flights.len()), (1, 0));
        assert_eq!(flights.join(1, async { 5 }).await, 5);
    }
}
