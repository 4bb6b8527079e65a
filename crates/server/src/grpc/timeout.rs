//! The `grpc-timeout` header, and what happens when it is over.

use std::future::Future;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error};

/// How much later than the deadline the ingress gives up by itself. The dispatcher ends a request at its deadline and
/// knows where it was by then; this is for when it does not.
const LEEWAY: Duration = Duration::from_millis(100);

/// The largest number of eight digits.
const MAX_COUNT: u128 = 99_999_999;

/// Reads a `grpc-timeout`: at most eight digits and a unit.
///
/// Source: gRPC over HTTP/2, "Timeout".
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Writes a `grpc-timeout` that [`parse`] reads as this time, or a little less: in the finest unit that eight digits are
/// enough for.
pub(super) fn write(timeout: Duration) -> String {
    const UNITS: [(&str, u128); 6] = [
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("S", 1_000_000_000),
        ("M", 60_000_000_000),
        ("H", 3_600_000_000_000),
    ];
    let nanos = timeout.as_nanos();
    let fitting = UNITS.iter().map(|(unit, size)| (nanos / size, unit)).find(|(count, _)| *count <= MAX_COUNT);
    fitting.map_or_else(|| format!("{MAX_COUNT}H"), |(count, unit)| format!("{count}{unit}"))
}

/// The instant at which the ingress itself gives up.
pub(super) fn give_up_at(deadline: Instant) -> tokio::time::Instant {
    (deadline + LEEWAY).into()
}

/// Waits for `work`, but no longer than a little after the deadline; `work` is dropped then.
pub(super) async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else { return work.await };
    let ended = tokio::time::timeout_at(give_up_at(deadline), work).await;
    ended.unwrap_or_else(|_| Err(passed()))
}

/// The deadline has passed.
pub(super) fn passed() -> Error {
    Error::new(Code::Deadline, "the deadline passed before there was an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_holds_it() {
        let times = [0, 99_999_999, 100_000_000, 99_999_999_999, 100_000_000_000].map(Duration::from_nanos);
        assert_eq!(times.map(write), ["0n", "99999999n", "100000u", "99999999u", "100000m"]);
        assert_eq!(write(Duration::from_secs(100_000)), "100000S");
        assert_eq!(write(Duration::MAX), "99999999H");
    }

    #[test]
    fn every_unit_is_read_and_everything_else_refused() {
        let read = ["1H", "2M", "3S", "4m", "5u", "99999999n"].map(|text| parse(text).unwrap().as_nanos());
        assert_eq!(read, [3_600_000_000_000, 120_000_000_000, 3_000_000_000, 4_000_000, 5_000, 99_999_999]);
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1 S", "123456789S", "é", "1é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
