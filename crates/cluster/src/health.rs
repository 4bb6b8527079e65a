//! Whether a replica is fit to be sent requests, as far as this process has seen.

use std::time::{Duration, Instant};

use crate::RegistryConfig;

/// What this process has seen of a replica.
///
/// ```text
///        eject                       until                     in time, good
///  Up ──────────► Ejected(until) ──────────► Probing(until) ──────────────────► Up
///                      ▲                         │
///                      └──── bad, or too late ───┘    (twice as long as before, up to the longest)
/// ```
///
/// Only a connection that fails ejects. What a replica answers never does, whatever the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing speaks against it.
    #[default]
    Up,
    /// A connection failed; it is left alone.
    Ejected {
        /// When a probe is due.
        until: Instant,
        /// How often it was tried in vain, from 1.
        strikes: u32,
    },
    /// One probe is under way.
    Probing {
        /// When it has failed.
        until: Instant,
        /// How often it was tried in vain before.
        strikes: u32,
    },
}

// === impl Health ===

impl Health {
    /// Whether requests go to it without need.
    pub fn is_up(self) -> bool {
        self == Self::Up
    }

    /// When something is to be done about it.
    pub fn due(self) -> Option<Instant> {
        match self {
            Self::Up => None,
            Self::Ejected { until, .. } | Self::Probing { until, .. } => Some(until),
        }
    }

    /// A connection failed. One that is ejected already stays so for as long as it was to be.
    pub(crate) fn eject(self, now: Instant, config: &RegistryConfig) -> Self {
        if self.is_up() { ejected(1, now, config) } else { self }
    }

    /// A probe ended. Where none is under way it makes no difference.
    pub(crate) fn probed(self, good: bool, now: Instant, config: &RegistryConfig) -> Self {
        match self {
            Self::Probing { .. } if good => Self::Up,
            Self::Probing { strikes, .. } => ejected(strikes.saturating_add(1), now, config),
            other => other,
        }
    }

    /// The time that [`due`](Self::due) tells has come. True if a probe is to be sent.
    pub(crate) fn turn(self, now: Instant, config: &RegistryConfig) -> (Self, bool) {
        match self {
            Self::Ejected { until, strikes } if until <= now => {
                (Self::Probing { until: now + config.probe_timeout, strikes }, true)
            }
            Self::Probing { until, .. } if until <= now => (self.probed(false, now, config), false),
            other => (other, false),
        }
    }
}

fn ejected(strikes: u32, now: Instant, config: &RegistryConfig) -> Health {
    let doubled = config.first_ejection.saturating_mul(1 << (strikes - 1).min(16));
    let time: Duration = doubled.min(config.longest_ejection);
    Health::Ejected { until: now + time, strikes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: RegistryConfig = RegistryConfig {
        heartbeat: Duration::from_secs(1),
        lease: Duration::from_secs(5),
        first_ejection: Duration::from_millis(500),
        longest_ejection: Duration::from_secs(3),
        probe_timeout: Duration::from_secs(1),
        remember: Duration::from_mins(1),
        limits: crate::RegistryLimits {
            max_replicas: 1,
            max_capabilities: 1,
            max_keys: 1,
            max_text: 1,
            max_upgrades: 1,
            max_upgrade: 1,
        },
    };

    fn just_before(instant: Instant) -> Instant {
        instant.checked_sub(Duration::from_nanos(1)).unwrap()
    }

    #[test]
    fn ejections_double_up_to_the_longest_and_one_good_probe_ends_them() {
        let mut now = Instant::now();
        let mut health = Health::Up.eject(now, &CONFIG);
        for expected in [500, 1_000, 2_000, 3_000, 3_000] {
            let until = health.due().unwrap();
            assert_eq!(until - now, Duration::from_millis(expected));
            assert_eq!(health.turn(just_before(until), &CONFIG), (health, false), "too early");
            now = until;
            let (probing, probe) = health.turn(now, &CONFIG);
            assert!(probe);
            assert_eq!(probing.probed(true, now, &CONFIG), Health::Up);
            health = probing.probed(false, now, &CONFIG);
        }
    }

    #[test]
    fn a_probe_without_an_answer_has_failed_and_one_at_a_time_is_under_way() {
        let now = Instant::now();
        let (probing, _) = Health::Up.eject(now, &CONFIG).turn(now + Duration::from_millis(500), &CONFIG);
        let until = probing.due().unwrap();
        assert_eq!(probing.turn(just_before(until), &CONFIG), (probing, false));
        let (late, probe) = probing.turn(until, &CONFIG);
        assert!(!probe && matches!(late, Health::Ejected { strikes: 2, .. }));
        assert_eq!(late.probed(true, until, &CONFIG), late, "its answer comes too late");
    }

    #[test]
    fn ejecting_again_makes_nothing_longer() {
        let now = Instant::now();
        let health = Health::Up.eject(now, &CONFIG);
        assert_eq!(health.eject(now + Duration::from_millis(100), &CONFIG), health);
        assert_eq!(Health::Up.probed(false, now, &CONFIG), Health::Up);
    }
}
