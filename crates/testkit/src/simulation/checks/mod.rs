//! What must hold, whatever the seed: each promise is a sentence, looked at as soon as it could be broken.

mod accounts;
mod ends;
mod order;
mod sends;
mod shares;
mod starts;

use anyserve_sched::{Sending, WorkerId};

use super::broken::{Checked, hold};
use super::process::Frame;
use super::world::World;

pub(super) use ends::{answered, explained, over, perished, refused, survived};
pub(super) use shares::Shares;
pub(super) use starts::{overrun, starting};

/// After every step. `expired` says that the dispatcher has just looked at its timers.
pub(super) fn after_step(world: &World, expired: bool) -> Checked {
    accounts::agree(world)?;
    accounts::bounded(world)?;
    order::nobody_waits_beside_a_free_worker(world)?;
    order::nobody_waits_for_a_start_that_never_ran(world)?;
    if expired { order::nothing_waits_in_a_stuck_socket(world) } else { Ok(()) }
}

/// A frame is about to go to a worker.
pub(super) fn sending(world: &World, worker: WorkerId, sendings: &[Sending], frame: &Frame) -> Checked {
    sends::in_time(world, frame)?;
    sends::counted(world, sendings, frame)?;
    sends::within_limits(world, worker, frame)?;
    sends::of_one_kind(world, frame)?;
    sends::alone(world, worker, frame)?;
    sends::not_quarantined(world, frame)?;
    sends::in_sequence(world, worker, frame)?;
    order::earliest_deadline_first(world, frame)?;
    order::no_inversion(world, worker, frame)
}

/// When nothing is left to happen.
pub(super) fn at_rest(world: &World) -> Checked {
    for (number, entry) in world.books.entries.iter().enumerate().filter(|(_, entry)| entry.ticket.is_some()) {
        hold("every accepted request ends", entry.endings == 1, || format!("request {number} {:?}", entry.standing))?;
    }
    let live = (world.machine.live_requests(), world.machine.live_sequences());
    hold("nothing is left when everything is over", live == (0, 0), || {
        format!("{} requests and {} sequences are left", live.0, live.1)
    })?;
    world.shares.as_ref().map_or(Ok(()), Shares::check)
}
