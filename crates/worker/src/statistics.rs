//! Counters of one capability: a few atomic additions a request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use anyserve_core::{Code, Durations, Statistics};

/// What is counted of one handler. Readers may see one number newer than another.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    success: Timer,
    fail: Timer,
    cancel: Timer,
    queue: Timer,
    compute: Timer,
    last_request_ms: AtomicU64,
    codes: [AtomicU64; 32],
}

#[derive(Debug, Default)]
struct Timer {
    count: AtomicU64,
    total_ns: AtomicU64,
}

// === impl Counters ===

impl Counters {
    pub(crate) fn arrived(&self) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_request_ms.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn succeeded(&self, arrived: Instant, sent: Option<Instant>, compute: Duration) {
        self.success.add(arrived.elapsed());
        self.queue.add(sent.map_or(Duration::ZERO, |sent| sent - arrived));
        self.compute.add(compute);
    }

    pub(crate) fn failed(&self, code: Code, arrived: Instant) {
        let timer = if code == Code::Cancelled { &self.cancel } else { &self.fail };
        timer.add(arrived.elapsed());
        self.codes[code as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Statistics {
        let failures = Code::all().map(|code| (code, self.codes[code as usize].load(Relaxed)));
        Statistics {
            success: self.success.read(),
            fail: self.fail.read(),
            cancel: self.cancel.read(),
            queue: self.queue.read(),
            compute: self.compute.read(),
            last_request_ms: self.last_request_ms.load(Relaxed),
            failures: failures.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

// === impl Timer ===

impl Timer {
    fn add(&self, took: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.total_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn read(&self) -> Durations {
        Durations { count: self.count.load(Relaxed), total: Duration::from_nanos(self.total_ns.load(Relaxed)) }
    }
}
