//! The rules by which workers start, stop, sleep and wake. All of them are here; `plan.rs` only carries them out.
//!
//! | rule | why |
//! | --- | --- |
//! | **Keep the fewest.** A group has its `min` workers, whatever waits. | That is what the author asked for; a first request then never meets a cold start. |
//! | **Wanted.** Somebody waits for a number of workers (a model is loaded, a worker ordered, the app loaded again): they are started as if they were the fewest, but are nobody's to keep. | An order is no promise for ever. |
//! | **First worker.** Something waits and there is no worker: one is started (woken where one sleeps with its GPUs free). | Scale from zero. Waking is a fraction of a start. |
//! | **One more.** The work that waits, divided by the calls that run together, takes longer than a start, or the oldest has waited longer than that. Not more than can be filled, and none while another fails. | A start that takes longer than the queue helps nobody. A deadline that a start can save is later than the start, and one that is missed without it is sooner than the end of the queue: so these are among them. |
//! | **One less.** One fewer would have sufficed for the whole `idle_timeout`, nothing waits, and no sequence lives. It sleeps where the class sleeps. | Workers take turns, so idleness shows in how many were filled at once and not in any one of them. |
//! | **Who is served first.** First workers and the fewest go before further workers; among them who has waited longest. What a group still needs is given to nobody behind it. | A group that needs two would otherwise starve behind groups that need one. |
//! | **Room.** Free first; then what is coming free by itself; then victims, only if they are enough, and only those that are needed. | Nothing is drained in vain, and nothing is drained twice for the same need. |
//! | **Victims,** in this order: failing ones; of retired groups without a queue; of idle groups, the longest unused first; of busy groups with more than one; the only one of a busy group, the longest resident first. Never below `min`. | The least is lost: what fails serves nobody; what was used last is likely used next. |
//! | **Busy groups** lose a worker only to a group without one (or below its fewest) that has waited for `starvation`, or whose soonest deadline is closer than a start and a half. | Requests under way and their caches are worth more than a short wait. A group's second worker is never worth another's first. |
//! | **Residency.** A worker stays `max(min_residency, 2 × start)` (× waking where it sleeps) before it is a victim, idle or not. | Two groups that both want the last token then spend at most a third of the time on switching. |
//! | **A lull** is no idleness: a group is idle once nothing ran for `lull`. | Between two requests of one client nothing runs, either. |
//! | **In-flight work first.** Stop and Sleep mean drain; what a place has is free when it says so. | Unload before load, and nothing is lost by a switch. |
//! | **Failing places** above `min` give way to whoever waits, and their group starts nothing for 1 s, 2 s, … 30 s. | A crash loop must not take what others could use. |
//! | **A retired group** starts a worker only if something waits and none is there, and ends its workers when nothing waits or runs. While something waits it gives way to nobody, and it may take even one of another's fewest. | Nothing is lost by a reload. Nothing new joins its queue, so this ends. |
//!
//! With a start of `L`, a residency of `R`, a drain of `D`, and a look every `look`:
//!
//! - **Switches.** What one worker has changes hands at most once in the shortest `L + R`. Where there is enough for `T` workers
//!   at a time, at most `T × (60 s / (L + R) + 1)` start or wake in a minute: 80 with two tokens and starts of 500 ms.
//!   Operators, failures and idle timeouts shorter than `R` come on top.
//! - **Starvation.** A group before which `n` others wait has a worker after at most
//!   `starvation + (n + 1) × (L + R + D + 2 × look) + L`, with the longest of each, failures not counted.
//!
//! Source: a residency against thrashing as in Denning, "Thrashing: its causes and prevention", 1968.

use std::time::{Duration, Instant};

use super::PoolPolicy;
use super::member::Member;
use super::place::{Place, Stage};

/// A group wants one more worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) kind: Kind,
    pub(super) since: Instant,
}

/// What a worker is wanted for; the earlier goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Something waits and nobody is there, or fewer than the fewest are.
    Need,
    /// A worker beside others, or one to see whether it starts by now.
    Wish,
}

/// What is lost by taking a worker away; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    Failing,
    Retired,
    Idle,
    /// One of several that are busy.
    Surplus,
    /// The only one of a busy group.
    Only,
}

/// Whether a group wants one more worker now.
pub(super) fn claim(member: &Member, policy: &PoolPolicy, now: Instant) -> Option<Claim> {
    let (census, load) = (member.census(), &member.load);
    if !member.loaded || member.trouble.is_some_and(|trouble| trouble.until > now) {
        return None;
    }
    let since = member.hunger.map_or(now, |hunger| hunger.since);
    if census.up() < member.due() || census.up() == 0 && load.queued > 0 {
        return Some(Claim { kind: Kind::Need, since });
    }
    let probe = census.up() == 0 && load.down && !member.retired;
    (probe || wants_more(member, policy, now)).then_some(Claim { kind: Kind::Wish, since: load.oldest.unwrap_or(now) })
}

/// Whether one worker more is worth its start.
fn wants_more(member: &Member, policy: &PoolPolicy, now: Instant) -> bool {
    let (census, load) = (member.census(), &member.load);
    let width = load.width.max(1);
    let filled = load.open <= usize::try_from(census.coming.saturating_mul(width)).unwrap_or(usize::MAX);
    if member.retired || census.failing > 0 || census.up() == 0 || census.up() >= member.group.max || filled {
        return false;
    }
    let start = member.cost().unwrap_or(policy.min_residency).max(policy.lull);
    let wait = load.backlog / width.saturating_mul(census.ready + census.coming).max(1);
    let old = load.oldest.is_some_and(|oldest| now.saturating_duration_since(oldest) > start);
    wait > start || census.coming == 0 && old
}

/// Since when one worker less would have done, and that it may go at this instant; `None` where it never may.
pub(super) fn too_many_at(member: &Member) -> Option<Instant> {
    let (census, load) = (member.census(), &member.load);
    let spare = member.loaded && !member.retired && census.up() > member.due() && census.coming == 0;
    // The dispatcher may not have heard of the last one that was stopped.
    let current = u32::try_from(load.workers).is_ok_and(|workers| workers <= census.ready);
    let timeout = member.group.idle_timeout.filter(|_| spare && current)?;
    let newest = member.places.values().filter(|place| place.is_up()).map(|place| place.since).max()?;
    newest.max(load.full.unwrap_or(newest)).checked_add(timeout)
}

/// Whether a group that has had too many workers for long enough can do without one now.
pub(super) fn may_spare(member: &Member) -> bool {
    let load = &member.load;
    let filled = load.needed > 0 && load.needed >= load.workers;
    load.queued == 0 && load.sequences == 0 && !filled
}

/// Whether a group has nothing to do, and not only between two requests.
fn is_idle(member: &Member, policy: &PoolPolicy, now: Instant) -> bool {
    let load = &member.load;
    let quiet = load.used.is_none_or(|used| used + policy.lull <= now);
    !member.is_busy() && load.sequences == 0 && quiet
}

/// Time that a worker stays before it is taken away for others.
pub(super) fn residency(member: &Member, policy: &PoolPolicy) -> Duration {
    let wake = if member.group.sleeps { member.wake.average() } else { None };
    let cost = wake.or_else(|| member.start.average()).unwrap_or_default();
    policy.min_residency.max(2 * cost)
}

/// What is lost with this worker, and its place among its equals: the sooner, the less. `None` if it cannot be taken.
pub(super) fn worth(member: &Member, place: &Place, policy: &PoolPolicy, now: Instant) -> Option<(Worth, Instant)> {
    let resident = match place.stage {
        Stage::Failing => return Some((Worth::Failing, place.since)),
        Stage::Ready => place.resident.unwrap_or(place.since),
        _ => return None,
    };
    if member.retired {
        return (member.load.queued == 0).then_some((Worth::Retired, resident));
    }
    if now.saturating_duration_since(resident) < residency(member, policy) {
        return None;
    }
    if is_idle(member, policy, now) {
        return Some((Worth::Idle, member.load.used.unwrap_or(resident)));
    }
    let worth = if member.census().up() > 1 { Worth::Surplus } else { Worth::Only };
    Some((worth, resident))
}

/// Workers that a group keeps whoever else wants theirs. What waits in a retired group is served before anybody's fewest.
pub(super) fn kept_from(claimant: &Member, member: &Member) -> u32 {
    if claimant.retired { 0 } else { member.fewest() }
}

/// The most that a claim may cost others.
pub(super) fn reach(claim: Claim, member: &Member, policy: &PoolPolicy, now: Instant) -> Worth {
    let starved = now.saturating_duration_since(claim.since) >= policy.starvation;
    let margin = member.cost().map(|cost| cost + policy.lull.max(cost / 2));
    let left = member.load.soonest.map(|soonest| soonest.saturating_duration_since(now));
    let hurried = left.zip(margin).is_some_and(|(left, margin)| left <= margin);
    if claim.kind == Kind::Need && (starved || hurried) { Worth::Only } else { Worth::Idle }
}
