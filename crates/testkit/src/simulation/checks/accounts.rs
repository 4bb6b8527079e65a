//! The dispatcher's counts agree with the books, and are bounded.

use crate::simulation::broken::{Checked, hold};
use crate::simulation::world::World;

pub(super) fn agree(world: &World) -> Checked {
    let (books, machine) = (&world.books, &world.machine);
    hold("live requests are counted", machine.live_requests() == books.live, || {
        format!("{} instead of {}", machine.live_requests(), books.live)
    })?;
    for (place, (group, own)) in world.groups.iter().zip(&books.groups).enumerate() {
        let load = machine.load(*group);
        let posts = || books.posts.values().filter(|post| post.group == place);
        let in_flight: usize = posts().map(|post| post.held.len()).sum();
        let workers = posts().filter(|post| !post.draining).count();
        let expected = (own.waiting.len(), in_flight, workers);
        let seen = (load.queued, load.in_flight, load.workers);
        hold("the load of a group is counted", seen == expected, || format!("{seen:?} instead of {expected:?}"))?;
        for (handler, shelf) in own.shelves.iter().enumerate() {
            let queued = machine.queued(*group, handler).0;
            hold("each handler's queue is counted", queued == shelf.waiting, || {
                format!("{queued} instead of {} at handler {handler}", shelf.waiting)
            })?;
        }
    }
    Ok(())
}

/// What comes back from a worker may stand beyond the limits; nothing that comes anew does.
pub(super) fn bounded(world: &World) -> Checked {
    let config = &world.scenario.config;
    for (place, own) in world.books.groups.iter().enumerate() {
        for (handler, shelf) in own.shelves.iter().enumerate() {
            let most = world.scenario.limits(place, handler).max_queue.max(shelf.before);
            hold("a queue is no longer than it may be", shelf.waiting <= most, || format!("{shelf:?} of {most}"))?;
        }
        let most = config.max_queued_bytes.max(own.bytes_before);
        hold("what waits has no more bytes than it may", own.bytes <= most, || format!("{} of {most}", own.bytes))?;
    }
    let slots = usize::try_from(config.slots).unwrap_or(usize::MAX);
    let most = world.books.posts.values().map(|post| post.held.len()).max().unwrap_or(0);
    hold("a worker holds no more than it has slots", most <= slots, || format!("{most} of {slots}"))
}
