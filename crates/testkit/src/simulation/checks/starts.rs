//! What may start, and when it must have stopped.

use anyserve_sched::WorkerId;

use crate::simulation::books::Standing;
use crate::simulation::broken::{Checked, hold};
use crate::simulation::process::Member;
use crate::simulation::world::World;

/// A worker has claimed a request: its handler is about to run.
pub(in crate::simulation) fn starting(world: &World, worker: WorkerId, member: &Member) -> Checked {
    let (number, now) = (member.number, world.time.now());
    let entry = &world.books.entries[number];
    // Late timers take it back late.
    let passed = entry.ask.deadline.is_some_and(|deadline| deadline + world.scenario.lateness < now);
    hold("nothing starts after its deadline", !passed, || format!("request {number} on worker {}", worker.0))?;
    hold("nothing starts whose caller does not wait", entry.standing == Standing::With(worker), || {
        format!("request {number} on worker {}: {:?}", worker.0, entry.standing)
    })?;
    let again = world.scenario.limits(entry.ask.group, entry.ask.handler).idempotent && !entry.emitted;
    hold("what may not run twice starts once", entry.runs == 0 || again, || {
        format!("request {number} ran {} times before", entry.runs)
    })
}

/// The grace of everybody in this call is over: either its handler has stopped, or its process.
pub(in crate::simulation) fn overrun(world: &World, worker: WorkerId, call: u64) -> Checked {
    let process = world.books.posts.get(&worker).map(|post| &post.process).filter(|process| process.alive);
    let Some(running) = process.and_then(|process| process.calls.get(&call)) else { return Ok(()) };
    // What its worker has answered for, and the answer on its way, is no concern any more.
    let held = |member: &Member| world.books.is_current(worker, member.number, member.slot);
    hold("no handler outlives its deadline and its grace", !running.frame.members.iter().any(held), || {
        format!("call {call} still runs on worker {}", worker.0)
    })
}
