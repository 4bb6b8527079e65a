//! Children that nobody waits for: reaped, so that they don't stay as zombies.
//!
//! A worker that a template forks is no child of the template's: the process between the two ends at once, and the
//! kernel gives the worker to the nearest *subreaper*, which this process makes itself. So the worker is ours like one
//! that we had spawned. But a subreaper gets every orphan below it: what a handler started and left behind is ours as
//! well when its worker ends, and stays a zombie until somebody asks for its status.
//!
//! ```text
//!  runtime (subreaper) ─┬─ template ── (ends at once) ── worker, then ours
//!                       ├─ worker ◄───────────────────────────┘
//!                       └─ orphan of a dead worker: reaped here
//! ```
//!
//! A status that somebody waits for must not be taken from them. Left alone is, therefore:
//! - a child that a [`Process`](crate::process::Process) holds, which has a [`Claim`] on it;
//! - everything while a [`Birth`] is under way: there is a child then whose number is not known yet;
//! - a child in this process's own group: it was started by other code in this process, as `fork` and `exec` leave it.
//!   Orphans of workers are in their workers' groups, or in groups of their own;
//! - a zombie that is new: whoever waits for it has [`COURTESY`] to take it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, WaitId, WaitIdOptions, getpgrp, getpid, set_child_subreaper, waitid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

/// Time that a zombie is left to whoever may wait for it.
const COURTESY: Duration = Duration::from_secs(1);

/// Children belong to the whole process, so what is known of them does too. A plain mutex: every hold is one operation.
static FAMILY: Mutex<Family> = Mutex::new(Family { claimed: BTreeSet::new(), births: 0 });

struct Family {
    claimed: BTreeSet<i32>,
    births: usize,
}

/// A child is about to come whose number is not known yet. Nothing is reaped meanwhile.
#[derive(Debug)]
pub(crate) struct Birth(());

/// A child that somebody waits for.
#[derive(Debug)]
pub(crate) struct Claim(i32);

/// The zombies that nobody has a claim on, and when each was first seen.
#[derive(Debug, Default)]
struct Strangers {
    seen: BTreeMap<i32, Instant>,
}

/// Makes this process the parent of what is orphaned below it, and reaps those until the handle is dropped.
///
/// # Errors
/// The kernel refuses, or signals cannot be handled.
pub(crate) fn adopt_orphans() -> io::Result<AbortOnDropHandle<()>> {
    let ended = signal(SignalKind::child())?;
    set_child_subreaper(Some(getpid()))?;
    Ok(AbortOnDropHandle::new(tokio::spawn(reap_forever(ended))))
}

async fn reap_forever(mut ended: Signal) {
    let mut strangers = Strangers::default();
    loop {
        let again = strangers.sweep(&zombies(), Instant::now());
        tokio::select! {
            _ = ended.recv() => {}
            () = tokio::time::sleep(COURTESY), if again => {}
        }
    }
}

// === impl Birth ===

impl Birth {
    /// Announces a child.
    pub(crate) fn announce() -> Self {
        FAMILY.lock().births += 1;
        Self(())
    }

    /// The child is there. `None` if somebody has a claim on this number already.
    pub(crate) fn claim(self, pid: Pid) -> Option<Claim> {
        let number = pid.as_raw_nonzero().get();
        let is_new = FAMILY.lock().claimed.insert(number);
        drop(self);
        is_new.then(|| Claim(number))
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        FAMILY.lock().births -= 1;
    }
}

// === impl Claim ===

impl Drop for Claim {
    fn drop(&mut self) {
        FAMILY.lock().claimed.remove(&self.0);
    }
}

// === impl Strangers ===

impl Strangers {
    /// Reaps those that have waited long enough. True if some are left to look at again.
    fn sweep(&mut self, zombies: &[i32], now: Instant) -> bool {
        for pid in self.due(zombies, now) {
            if reap(pid) {
                self.seen.remove(&pid);
            }
        }
        !self.seen.is_empty()
    }

    /// Takes note of those that are new, forgets those that are gone, and says which nobody has come for.
    fn due(&mut self, zombies: &[i32], now: Instant) -> Vec<i32> {
        self.seen.retain(|pid, _| zombies.contains(pid));
        let since = zombies.iter().map(|pid| (*pid, *self.seen.entry(*pid).or_insert(now)));
        since.filter(|(_, since)| now.duration_since(*since) >= COURTESY).map(|(pid, _)| pid).collect()
    }
}

/// Takes one status, unless the child was claimed or a birth announced since the look at it.
fn reap(pid: i32) -> bool {
    let family = FAMILY.lock();
    let nobodys = family.births == 0 && !family.claimed.contains(&pid);
    if nobodys && let Some(pid) = Pid::from_raw(pid) {
        // It does not wait. Fails only if somebody else has taken the status.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
    nobodys
}

/// Children that have ended and are nobody's: neither claimed nor in our own group.
fn zombies() -> Vec<i32> {
    let own = getpgrp().as_raw_nonzero().get();
    let family = FAMILY.lock();
    let unclaimed: Vec<_> = children().into_iter().filter(|pid| !family.claimed.contains(pid)).collect();
    drop(family);
    unclaimed.into_iter().filter(|pid| zombie_group(*pid).is_some_and(|group| group != own)).collect()
}

/// Every child of this process, whichever of its threads the kernel gave it to.
fn children() -> Vec<i32> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The process group of a zombie; `None` for a process that lives, or is gone.
fn zombie_group(pid: i32) -> Option<i32> {
    group_if_zombie(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `pid (name) state parent group …`; the name may have anything in it.
fn group_if_zombie(stat: &str) -> Option<i32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? == "Z").then(|| fields.nth(1)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    fn ended_child(group: i32) -> Child {
        let child = Command::new("true").process_group(group).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while zombie_group(pid).is_none() {
            std::thread::yield_now();
        }
        child
    }

    fn pid_of(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    /// What the tests here do to the family of this process must not overlap.
    fn alone() -> parking_lot::MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock()
    }

    #[test]
    fn a_zombie_is_left_to_others_for_a_while_and_then_reaped() {
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        let almost = Duration::from_nanos(999_999_999);
        assert!(strangers.due(&[7, 8], start).is_empty());
        assert!(strangers.due(&[7, 8], start + almost).is_empty());
        assert_eq!(strangers.due(&[8, 9], start + COURTESY), [8], "7 was taken by who waited for it, 9 is new");
        assert!(strangers.due(&[7], start + COURTESY).is_empty(), "another one with the same number");
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_name_is() {
        assert_eq!(group_if_zombie("12 (a) Z 1 34 5 0"), Some(34));
        assert_eq!(group_if_zombie("12 (a) Z 9 (b c)) Z 1 -1 5"), Some(-1));
        for broken in ["", "12 (a) S 1 34 5", "12 (a) Z", "12 (a) Z 1", "12 (a) Z 1 x", "12 a Z 1 34"] {
            assert_eq!(group_if_zombie(broken), None, "{broken}");
        }
    }

    #[test]
    fn an_orphan_is_reaped_and_what_somebody_waits_for_is_not() {
        let _alone = alone();
        let (mut orphan, mut claimed, mut ours) = (ended_child(0), ended_child(0), ended_child(getpgrp().as_raw_pid()));
        let claim = Birth::announce().claim(Pid::from_raw(pid_of(&claimed)).unwrap());
        let (mut strangers, start) = (Strangers::default(), Instant::now());
        strangers.sweep(&zombies(), start);
        let again = strangers.sweep(&zombies(), start + COURTESY);
        assert!(orphan.wait().is_err(), "its status was taken");
        assert!(claimed.wait().unwrap().success());
        assert!(ours.wait().unwrap().success());
        assert!(!again);
        drop(claim);
    }

    #[test]
    fn nothing_is_reaped_while_a_child_is_about_to_come() {
        let _alone = alone();
        let (mut child, birth) = (ended_child(0), Birth::announce());
        reap(pid_of(&child));
        drop(birth);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_number_is_claimed_once() {
        let _alone = alone();
        let pid = Pid::from_raw(i32::MAX).unwrap();
        let claim = Birth::announce().claim(pid);
        assert!(claim.is_some());
        assert!(Birth::announce().claim(pid).is_none());
        drop(claim);
        assert!(Birth::announce().claim(pid).is_some());
        assert_eq!(FAMILY.lock().births, 0);
    }
}
