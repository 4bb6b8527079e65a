//! When the next request may start: at once in a closed loop, when it is due in an open one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use crate::schedule::{Rate, Schedule};

/// Lets requests start until the time is up, the count is used up or it is closed.
#[derive(Debug)]
pub(crate) struct Gate {
    window: Window,
    /// Requests that may still start inside the window.
    left: Option<AtomicU64>,
    closed: AtomicBool,
    /// Open loop only. One lane at a time waits for its due time, the others queue behind it,
    /// first come first served: due times are handed out in order.
    ticker: Option<Mutex<Ticker>>,
}

/// The time that is measured; what starts before it warms up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

/// Due times, and a timer fine enough for them (the runtime's own ticks in milliseconds).
#[derive(Debug)]
struct Ticker {
    schedule: Schedule,
    timer: AsyncFd<OwnedFd>,
}

// === impl Gate ===

impl Gate {
    /// # Errors
    /// The system refused a timer.
    pub(crate) fn try_new(window: Window, requests: Option<u64>, rate: Option<(Instant, Rate)>) -> io::Result<Self> {
        let ticker = rate.map(|(start, rate)| Ticker::try_new(Schedule::new(start, rate)));
        Ok(Self {
            window,
            left: requests.map(AtomicU64::new),
            closed: AtomicBool::new(false),
            ticker: ticker.transpose()?.map(Mutex::new),
        })
    }

    /// Waits until a request may start and returns the moment its latency counts from, or `None`
    /// when no further one may.
    pub(crate) async fn next(&self) -> Option<Instant> {
        let start = match &self.ticker {
            None => Instant::now(),
            Some(ticker) => ticker.lock().await.next(self.window.until).await?,
        };
        let may_start = start < self.window.until && !self.closed.load(Relaxed);
        (may_start && self.take(start)).then_some(start)
    }

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Whether there is any sense in having a connection.
    pub(crate) fn may_start(&self) -> bool {
        self.is_open() && Instant::now() < self.window.until
    }

    fn is_open(&self) -> bool {
        let used_up = self.left.as_ref().is_some_and(|left| left.load(Relaxed) == 0);
        !self.closed.load(Relaxed) && !used_up
    }

    fn take(&self, start: Instant) -> bool {
        match &self.left {
            Some(left) if start >= self.window.from => {
                left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
            }
            _ => true,
        }
    }
}

// === impl Ticker ===

impl Ticker {
    #[expect(deprecated, reason = "its unsafe successor asks for what an OwnedFd already is")]
    fn try_new(schedule: Schedule) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        Ok(Self { schedule, timer })
    }

    async fn next(&mut self, until: Instant) -> Option<Instant> {
        let due = self.schedule.advance();
        if due >= until {
            return None;
        }
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            self.sleep(left).await.expect("a timer of ours can be set and read");
        }
        Some(due)
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let timer = self.timer.get_ref();
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &once_after(time))?;
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?));
            if let Ok(expired) = read {
                return expired.map(|_| ());
            }
        }
    }
}

fn once_after(time: Duration) -> Itimerspec {
    Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: Duration, length: Duration) -> Window {
        let from = Instant::now() + from;
        Window { from, until: from + length }
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn a_count_is_given_out_exactly() {
        let gate = Gate::try_new(window(Duration::ZERO, HOUR), Some(3), None).unwrap();
        for _ in 0..3 {
            assert!(gate.next().await.is_some());
        }
        assert!(gate.next().await.is_none());
        assert!(!gate.is_open());
    }

    #[tokio::test]
    async fn requests_of_the_warm_up_do_not_use_up_the_count() {
        let gate = Gate::try_new(window(HOUR, HOUR), Some(1), None).unwrap();
        for _ in 0..10 {
            assert!(gate.next().await.is_some());
        }
    }

    #[tokio::test]
    async fn nothing_starts_once_closed_or_after_the_window() {
        let gate = Gate::try_new(window(Duration::ZERO, HOUR), None, None).unwrap();
        gate.close();
        assert!(gate.next().await.is_none());
        let over = window(Duration::ZERO, Duration::ZERO);
        assert!(Gate::try_new(over, None, None).unwrap().next().await.is_none());
    }

    #[tokio::test]
    async fn an_open_loop_starts_requests_when_due_and_not_before() {
        let window = window(Duration::ZERO, Duration::from_millis(10));
        let rate = "1000".parse().unwrap();
        let gate = Gate::try_new(window, None, Some((window.from, rate))).unwrap();
        for index in 0..10 {
            let due = gate.next().await.unwrap();
            assert_eq!(due, window.from + Duration::from_millis(index));
            assert!(due <= Instant::now());
        }
        assert!(gate.next().await.is_none());
    }
}
