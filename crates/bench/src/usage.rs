//! What the generator itself costs.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time used so far by all threads of this process.
pub(crate) fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(spent.tv_sec).expect("CPU time is not negative");
    let nanos = u32::try_from(spent.tv_nsec).expect("a timespec's nanoseconds are below 10^9");
    Duration::new(seconds, nanos)
}
