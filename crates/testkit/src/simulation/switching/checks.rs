//! What must hold, whatever the seed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyserve_core::{Code, Error, Resources};

use super::Traffic;
use super::post::Life;
use super::world::World;
use crate::simulation::broken::{Checked, hold};

pub(super) fn after_step(world: &mut World) -> Checked {
    granted(world)?;
    states(world)?;
    bounds(world)?;
    hunger(world)
}

/// Nothing is given to two, and the planner's account is the world's.
pub(super) fn granted(world: &World) -> Checked {
    let grants: Vec<&Resources> = world.posts.values().filter_map(|post| post.grant.as_ref()).collect();
    let gpus: Vec<_> = grants.iter().flat_map(|grant| &grant.gpus).collect();
    let single = gpus.iter().collect::<BTreeSet<_>>().len() == gpus.len();
    hold("a GPU is given to one worker at a time", single, || format!("{gpus:?}"))?;
    let known = gpus.iter().all(|gpu| world.plan.resources.gpus.contains(gpu));
    hold("only GPUs that there are are given", known, || format!("{gpus:?}"))?;
    for (name, total) in &world.plan.resources.tokens {
        let given: u32 = grants.iter().filter_map(|grant| grant.tokens.get(name)).sum();
        hold("no more tokens are given than there are", given <= *total, || format!("{given} of {total} {name}"))?;
    }
    Ok(())
}

fn states(world: &World) -> Checked {
    let used: u64 = world.pools.used().iter().map(|(_, _, used)| used).sum();
    let given =
        |grant: &Resources| grant.gpus.len() as u64 + grant.tokens.values().map(|own| u64::from(*own)).sum::<u64>();
    let own: u64 = world.posts.values().filter_map(|post| post.grant.as_ref()).map(given).sum();
    hold("the planner knows what is given", used == own, || format!("{used} instead of {own}"))?;
    for (place, post) in &world.posts {
        let state = world.pools.state(*place);
        hold("a place is in one state", state == Some(post.state()), || format!("{place:?} {state:?} {post:?}"))?;
        let same = world.pools.grant(*place) == post.grant.as_ref();
        hold("a place has what it was given", same, || format!("{place:?} {post:?}"))?;
    }
    let places: usize = world.apps.keys().map(|group| world.pools.places(*group).count()).sum();
    hold("no place is forgotten", places == world.posts.len(), || format!("{places}"))
}

/// Where nobody moves the bounds, they are kept.
fn bounds(world: &World) -> Checked {
    if !world.plan.traffic.is_calm() {
        return Ok(());
    }
    for group in &world.routes {
        let own = world.posts.values().filter(|post| post.group == *group);
        let there = own.filter(|post| post.is_up() || matches!(post.life, Life::Asleep | Life::ToSleep)).count();
        let most = world.plan.apps[world.apps[group]].group.max;
        let within = u32::try_from(there).is_ok_and(|there| there <= most);
        hold("a group has no more workers than its most", within, || format!("{there} of {most} in {group:?}"))?;
    }
    Ok(())
}

/// Who waits for a worker gets one within the bound.
fn hunger(world: &mut World) -> Checked {
    let now = world.time.now();
    let groups: Vec<_> = world.apps.keys().copied().collect();
    for group in groups {
        let load = world.machine.load(group);
        if load.queued == 0 || load.workers > 0 {
            world.hungry.remove(&group);
            continue;
        }
        let since = *world.hungry.entry(group).or_insert(now);
        let (waited, bound) = (now.saturating_duration_since(since), world.plan.starvation_bound());
        let fair = !world.plan.traffic.is_calm() || waited <= bound;
        hold("who waits for a worker has one within the bound", fair, || format!("{group:?} {waited:?} of {bound:?}"))?;
    }
    Ok(())
}

/// A request is not accepted, for a reason.
pub(super) fn refused(world: &World, number: usize, error: &Error) -> Checked {
    let entry = &world.entries[number];
    let left = entry.deadline.map(|deadline| deadline.saturating_duration_since(world.time.now()));
    let app = &world.plan.apps[entry.app];
    let fits = match error.code {
        Code::Starting => left.is_some_and(|left| left < app.start.max(app.wake)) && error.retry_after.is_some(),
        Code::Overloaded => left.is_some_and(|left| world.plan.traffic == Traffic::Random || left < long(world)),
        Code::Unavailable => is_away(world, number),
        _ => false,
    };
    hold("a refusal has its reason", fits, || format!("request {number} with {left:?}: {error}"))
}

/// A request that was accepted has an error, for a reason.
pub(super) fn ended(world: &World, number: usize, error: &Error) -> Checked {
    let entry = &world.entries[number];
    let patience = entry.deadline.map(|deadline| deadline.saturating_duration_since(entry.arrived));
    let past = entry.deadline.is_some_and(|deadline| deadline <= world.time.now());
    let random = world.plan.traffic == Traffic::Random;
    let fits = match error.code {
        Code::Deadline => past && (random || patience.is_some_and(|patience| patience < long(world))),
        Code::Unavailable => is_away(world, number),
        Code::WorkerLost | Code::Poison => random && world.plan.kills > 0,
        _ => false,
    };
    hold("an end has its reason", fits, || format!("request {number} with {patience:?}: {error}"))
}

/// Time within which every request is served: its group waits twice at the most, as what waits for it is done soon.
fn long(world: &World) -> Duration {
    world.plan.starvation_bound() * 2
}

fn is_away(world: &World, number: usize) -> bool {
    let app = world.entries[number].app;
    let own = world.apps.iter().filter(|(_, other)| **other == app).map(|(group, _)| group);
    let away = |group| world.unloaded.contains(group) || world.machine.load(*group).down;
    world.plan.traffic == Traffic::Random && own.into_iter().any(away)
}

/// Everything has ended, and not more was switched than the policy says.
pub(super) fn at_rest(world: &World) -> Checked {
    let open = world.entries.iter().filter(|entry| !entry.ended).count();
    hold("every request ends", open == 0, || format!("{open} do not"))?;
    let live = world.machine.live_requests();
    hold("nothing is left in the dispatcher", live == 0, || format!("{live} requests"))?;
    let going = world.posts.values().filter(|post| matches!(post.life, Life::ToEnd | Life::ToSleep)).count();
    hold("who is told to go goes", going == 0, || format!("{going} do not"))?;
    let old = world.apps.keys().filter(|group| !world.routes.contains(group));
    let left = old.filter(|group| !world.pools.is_over(**group)).count();
    hold("what was loaded before is over", left == 0, || format!("{left} groups are not"))?;
    if !world.plan.traffic.is_calm() {
        return Ok(());
    }
    let most = most_grants(world);
    hold("the cap on switches is kept", u128::from(world.grants) <= most, || format!("{} of {most}", world.grants))
}

/// `T × (time / (L + R) + 1)`, with the shortest of both.
fn most_grants(world: &World) -> u128 {
    let shares: u32 = world.plan.resources.tokens.values().sum();
    let start = world.plan.apps.iter().map(|app| if app.group.sleeps { app.wake } else { app.start }).min();
    let turn = start.unwrap_or_default() * 4 / 5 + world.plan.policy.min_residency;
    u128::from(shares) * (world.age().as_millis() / turn.as_millis() + 1)
}
