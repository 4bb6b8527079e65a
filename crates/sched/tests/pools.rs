//! The planner, rule by rule.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyserve_core::{Needs, Resources};
use anyserve_sched::{GroupId, GroupLoad, PlaceEvent, PlaceId, PoolAction, PoolError, PoolGroup, PoolPolicy, Pools};

const A: GroupId = GroupId(0);
const B: GroupId = GroupId(1);
const C: GroupId = GroupId(2);
const START: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);

struct Desk {
    pools: Pools,
    now: Instant,
    loads: HashMap<GroupId, GroupLoad>,
}

fn tokens(amount: u32) -> Needs {
    Needs { tokens: BTreeMap::from([("token".to_owned(), amount)]), ..Needs::default() }
}

fn gpus(count: u32) -> Needs {
    Needs { gpus: count, ..Needs::default() }
}

fn group(needs: Needs, min: u32, max: u32) -> PoolGroup {
    PoolGroup { needs, min, max, ..PoolGroup::default() }
}

fn sleeper(needs: Needs) -> PoolGroup {
    PoolGroup { sleeps: true, idle_timeout: Some(10 * SECOND), ..group(needs, 0, 1) }
}

impl Desk {
    fn new(gpus: u32, tokens: u32, groups: &[PoolGroup]) -> Self {
        let gpus = (0..gpus).map(|gpu| format!("GPU-{gpu}")).collect();
        let resources = Resources { gpus, tokens: BTreeMap::from([("token".to_owned(), tokens)]) };
        let mut pools = Pools::new(resources, PoolPolicy::default());
        for (number, group) in groups.iter().enumerate() {
            pools.add_group(GroupId(number), group.clone()).unwrap();
        }
        Self { pools, now: Instant::now(), loads: HashMap::new() }
    }

    /// Requests of this group wait from now on.
    fn wait(&mut self, group: GroupId, queued: usize) {
        let oldest = Some(self.now);
        self.load(group, |load| (load.queued, load.open, load.oldest, load.width) = (queued, queued, oldest, 1));
    }

    /// The group has this number of requests at its workers, and none that wait.
    fn run(&mut self, group: GroupId, running: usize) {
        let used = Some(self.now);
        self.load(group, |load| {
            *load = GroupLoad { in_flight: running, needed: running, used, full: used, ..*load };
            (load.queued, load.open, load.oldest, load.soonest) = (0, 0, None, None);
        });
    }

    fn load(&mut self, group: GroupId, change: impl FnOnce(&mut GroupLoad)) {
        change(self.loads.entry(group).or_default());
    }

    fn decide(&mut self) -> Vec<String> {
        for (group, load) in &mut self.loads {
            let ready = |place: &PlaceId| self.pools.state(*place) == Some("ready");
            load.workers = self.pools.places(*group).filter(ready).count();
        }
        let mut out = Vec::new();
        self.pools.decide(|group| self.loads.get(&group).copied().unwrap_or_default(), self.now, &mut out);
        out.iter().map(shown).collect()
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.decide()
    }

    fn on(&mut self, place: u32, event: PlaceEvent) -> Vec<String> {
        self.pools.on(PlaceId(place), event, self.now);
        self.decide()
    }

    /// Every place that starts or wakes is ready after the time of a start.
    fn started(&mut self) -> Vec<String> {
        self.now += START;
        for group in [A, B, C] {
            let coming = |place: &PlaceId| matches!(self.pools.state(*place), Some("starting" | "waking"));
            let coming: Vec<_> = self.pools.places(group).filter(coming).collect();
            for place in coming {
                self.pools.on(place, PlaceEvent::Ready, self.now);
            }
        }
        self.decide()
    }

    fn used(&self, name: &str) -> u64 {
        self.pools.used().iter().find(|row| row.0 == name).unwrap().2
    }
}

fn shown(action: &PoolAction) -> String {
    match action {
        PoolAction::Start { place, group, grant } => {
            let gpus = if grant.gpus.is_empty() { String::new() } else { format!(" on {}", grant.gpus.join("+")) };
            format!("start {} of {}{gpus}", place.0, ["A", "B", "C", "D"][group.0])
        }
        PoolAction::Wake(place) => format!("wake {}", place.0),
        PoolAction::Sleep(place) => format!("sleep {}", place.0),
        PoolAction::Stop(place) => format!("stop {}", place.0),
    }
}

fn less(than: Duration) -> Duration {
    than.saturating_sub(TICK)
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_fewest_workers_are_started_at_once_and_a_static_pool_is_content() {
    let mut desk = Desk::new(0, 0, &[group(Needs::default(), 2, 2), group(Needs::default(), 0, 4)]);
    assert_eq!(desk.decide(), ["start 0 of A", "start 1 of A"]);
    assert_eq!(desk.started(), NOTHING);
    assert_eq!(desk.pools.next_look(), None);
    desk.pools.stopping(PlaceId(0));
    assert_eq!(desk.decide(), ["start 2 of A"], "one that is going is no worker any more");
}

#[test]
fn a_waiting_request_starts_the_first_worker_and_only_the_first() {
    let mut desk = Desk::new(0, 1, &[group(tokens(1), 0, 4)]);
    assert_eq!(desk.decide(), NOTHING);
    desk.wait(A, 100);
    assert_eq!(desk.decide(), ["start 0 of A"]);
    assert_eq!(desk.pass(10 * SECOND), NOTHING, "nobody knows how long a start takes, and there is no more room");
    assert!(desk.pools.next_look().is_some());
}

#[test]
fn one_more_worker_is_started_when_the_work_that_waits_takes_longer_than_a_start() {
    for (backlog, more) in [(START, false), (START + TICK, true)] {
        let mut desk = Desk::new(0, 0, &[group(Needs::default(), 1, 3)]);
        desk.decide();
        desk.started();
        desk.wait(A, 5);
        desk.load(A, |load| load.backlog = backlog);
        assert_eq!(!desk.decide().is_empty(), more, "{backlog:?}");
        assert_eq!(desk.pass(TICK), NOTHING, "the one that starts counts");
        desk.load(A, |load| load.backlog = 2 * START + TICK);
        assert_eq!(desk.decide().len(), 1 + usize::from(!more), "so much work is worth three");
        assert_eq!(desk.pass(SECOND), NOTHING, "three is the most");
    }
}

#[test]
fn one_more_worker_is_started_when_the_oldest_waits_longer_than_a_start_but_not_for_what_it_could_not_take() {
    let mut desk = Desk::new(0, 0, &[group(Needs::default(), 1, 2)]);
    desk.decide();
    desk.started();
    desk.wait(A, 1);
    assert_eq!(desk.pass(START), NOTHING);
    desk.load(A, |load| load.open = 0);
    assert_eq!(desk.pass(TICK), NOTHING, "it waits for its sequence's own worker");
    desk.load(A, |load| load.open = 1);
    assert_eq!(desk.decide(), ["start 1 of A"]);
}

#[test]
fn a_worker_goes_when_one_less_would_have_done_for_the_whole_timeout() {
    let own = PoolGroup { idle_timeout: Some(10 * SECOND), ..group(Needs::default(), 1, 2) };
    let mut desk = Desk::new(0, 0, &[own]);
    desk.pools.set_bounds(A, 2, 2).unwrap();
    desk.decide();
    desk.started();
    desk.pools.set_bounds(A, 1, 2).unwrap();
    desk.pass(SECOND);
    desk.run(A, 2);
    let full = Some(desk.now);
    desk.run(A, 1);
    assert_eq!(desk.pass(less(10 * SECOND)), NOTHING);
    assert_eq!(desk.pools.next_look(), Some(desk.now + PoolPolicy::default().look), "soon, or when it is due");
    desk.wait(A, 1);
    assert_eq!(desk.pass(TICK), NOTHING, "nothing goes while something waits");
    desk.run(A, 1);
    desk.load(A, |load| load.full = full);
    assert_eq!(desk.decide(), ["stop 1"]);
    assert_eq!(desk.on(1, PlaceEvent::Gone), NOTHING);
    assert_eq!(desk.pass(1000 * SECOND), NOTHING, "never below the fewest");
    assert_eq!(desk.pools.next_look(), None);
}

#[test]
fn a_long_request_and_a_sequence_keep_their_worker() {
    let mut desk = Desk::new(1, 0, &[sleeper(gpus(1))]);
    desk.wait(A, 1);
    desk.decide();
    desk.started();
    desk.run(A, 1);
    assert_eq!(desk.pass(60 * SECOND), NOTHING, "it runs for a minute");
    desk.load(A, |load| (load.in_flight, load.needed, load.sequences) = (0, 0, 1));
    assert_eq!(desk.pass(60 * SECOND), NOTHING);
    desk.load(A, |load| load.sequences = 0);
    assert_eq!(desk.decide(), ["sleep 0"]);
}

#[test]
fn a_class_that_sleeps_gives_its_resources_back_and_is_woken_with_the_same() {
    let mut desk = Desk::new(1, 0, &[sleeper(gpus(1))]);
    desk.wait(A, 1);
    assert_eq!(desk.decide(), ["start 0 of A on GPU-0"]);
    desk.started();
    desk.run(A, 0);
    assert_eq!(desk.pass(10 * SECOND), ["sleep 0"]);
    assert_eq!(desk.used("gpu"), 1, "it may still be at work");
    desk.wait(A, 1);
    assert_eq!(desk.pass(TICK), NOTHING, "it cannot be two places at once");
    assert_eq!(desk.on(0, PlaceEvent::Asleep), ["wake 0"]);
    assert_eq!(desk.pools.grant(PlaceId(0)).unwrap().gpus, ["GPU-0"]);
    desk.now += 10 * TICK;
    desk.on(0, PlaceEvent::Ready);
    assert_eq!((desk.pools.start_time(A), desk.pools.wake_time(A)), (Some(START), Some(10 * TICK)));
}

#[test]
fn a_sleeper_whose_gpu_is_taken_makes_way_for_a_worker_elsewhere() {
    let mut desk = Desk::new(2, 0, &[sleeper(gpus(1)), group(gpus(1), 0, 2)]);
    desk.wait(A, 1);
    desk.decide();
    desk.started();
    desk.run(A, 0);
    desk.pass(10 * SECOND);
    desk.on(0, PlaceEvent::Asleep);
    desk.wait(B, 1);
    assert_eq!(desk.decide(), ["start 1 of B on GPU-1"], "not the one that the sleeper would want back");
    desk.started();
    desk.wait(B, 9);
    desk.load(B, |load| load.backlog = 9 * SECOND);
    assert_eq!(desk.decide(), ["start 2 of B on GPU-0"]);
    desk.started();
    desk.run(B, 1);
    desk.on(1, PlaceEvent::Gone);
    desk.wait(A, 1);
    assert_eq!(desk.decide(), ["stop 0", "start 3 of A on GPU-1"]);
}

#[test]
fn an_idle_groups_worker_makes_room_once_it_has_been_there_for_its_time() {
    let mut desk = Desk::new(0, 1, &[group(tokens(1), 0, 1), group(tokens(1), 0, 1)]);
    desk.wait(A, 1);
    desk.decide();
    desk.started();
    desk.run(A, 0);
    desk.wait(B, 1);
    assert_eq!(desk.pass(less(SECOND)), NOTHING, "twice its start of 500 ms");
    assert_eq!(desk.pass(TICK), ["stop 0"]);
    assert_eq!(desk.pass(SECOND), NOTHING, "unload before load");
    assert_eq!(desk.used("token"), 1);
    assert_eq!(desk.on(0, PlaceEvent::Gone), ["start 1 of B"]);
}

#[test]
fn a_busy_group_gives_way_only_to_one_that_has_starved() {
    let mut desk = Desk::new(0, 1, &[group(tokens(1), 0, 1), group(tokens(1), 0, 1)]);
    desk.wait(A, 1);
    desk.decide();
    desk.started();
    desk.run(A, 1);
    desk.pass(10 * SECOND);
    desk.wait(B, 1);
    assert_eq!(desk.pass(less(5 * SECOND)), NOTHING);
    assert_eq!(desk.pass(TICK), ["stop 0"]);
    desk.wait(A, 3);
    assert_eq!(desk.on(0, PlaceEvent::Gone), ["start 1 of B"], "who waited longer goes first");
    desk.started();
    desk.run(B, 1);
    assert_eq!(desk.pass(4 * SECOND), NOTHING, "and keeps its place until the other has starved, too");
    assert_eq!(desk.pass(SECOND), ["stop 1"]);
}

#[test]
fn a_deadline_that_is_close_counts_as_starved_but_not_before_the_residency() {
    let mut desk = Desk::new(0, 1, &[group(tokens(1), 0, 1), group(tokens(1), 0, 1)]);
    desk.wait(A, 1);
    desk.decide();
    desk.started();
    desk.run(A, 0);
    desk.wait(B, 1);
    assert_eq!(desk.pass(SECOND), ["stop 0"]);
    assert_eq!(desk.on(0, PlaceEvent::Gone), ["start 1 of B"]);
    desk.started();
    desk.run(B, 1);
    desk.wait(A, 1);
    let soonest = Some(desk.now + 2 * SECOND);
    desk.load(A, |load| load.soonest = soonest);
    assert_eq!(desk.pass(SECOND), NOTHING, "there is time");
    assert_eq!(desk.pass(less(SECOND / 4)), NOTHING);
    assert_eq!(desk.pass(TICK), ["stop 1"], "a start and a half before the deadline");
    assert_eq!(desk.on(1, PlaceEvent::Gone), ["start 2 of A"]);
    desk.started();
    desk.run(A, 1);
    desk.wait(B, 1);
    let soonest = Some(desk.now + SECOND / 2);
    desk.load(B, |load| load.soonest = soonest);
    assert_eq!(desk.pass(less(SECOND)), NOTHING, "a worker stays for a second, whoever is in a hurry");
    assert_eq!(desk.pass(TICK), ["stop 2"]);
}

#[test]
fn who_needs_two_is_not_starved_by_those_that_need_one() {
    let one = || group(tokens(1), 0, 1);
    let mut desk = Desk::new(0, 2, &[one(), one(), group(tokens(2), 0, 1)]);
    desk.wait(A, 1);
    desk.decide();
    desk.started();
    desk.run(A, 1);
    desk.wait(C, 1);
    assert_eq!(desk.decide(), NOTHING);
    desk.pass(TICK);
    desk.wait(B, 1);
    assert_eq!(desk.pass(TICK), NOTHING, "a token is free, but it is promised");
    assert_eq!(desk.pass(5 * SECOND), ["stop 0"]);
    assert_eq!(desk.on(0, PlaceEvent::Gone), ["start 1 of C"]);
}

#[test]
fn no_more_is_drained_than_is_needed_and_nothing_in_vain() {
    let one = || group(tokens(1), 0, 3);
    let mut desk = Desk::new(0, 3, &[one(), group(tokens(2), 0, 1), group(tokens(3), 0, 1)]);
    desk.pools.set_bounds(A, 3, 3).unwrap_err();
    desk.wait(A, 9);
    desk.load(A, |load| load.backlog = 9 * SECOND);
    desk.decide();
    desk.started();
    desk.decide();
    desk.started();
    assert_eq!(desk.used("token"), 3);
    desk.run(A, 0);
    desk.pass(2 * SECOND);
    desk.wait(B, 1);
    assert_eq!(desk.decide().len(), 2, "two of the three that are idle");
    assert_eq!(desk.pass(TICK), NOTHING, "what is coming free counts");
    desk.wait(C, 1);
    assert_eq!(desk.pass(TICK), NOTHING, "the third would not be enough for it, as two are promised");
}

#[test]
fn while_one_worker_goes_for_a_group_no_second_one_does() {
    let mut desk = Desk::new(0, 3, &[group(tokens(1), 0, 3), group(tokens(1), 0, 1)]);
    desk.wait(A, 9);
    desk.load(A, |load| load.backlog = 9 * SECOND);
    desk.decide();
    desk.started();
    desk.started();
    desk.run(A, 0);
    desk.pass(2 * SECOND);
    desk.wait(B, 1);
    assert_eq!(desk.decide(), ["stop 0"]);
    assert_eq!(desk.pass(60 * SECOND), NOTHING, "however long that takes");
    assert_eq!(desk.on(0, PlaceEvent::Gone), ["start 3 of B"]);
}

#[test]
fn a_place_that_is_over_before_it_was_ready_is_tried_again_later_and_the_planner_says_when() {
    let mut desk = Desk::new(0, 0, &[group(Needs::default(), 1, 1)]);
    desk.decide();
    assert_eq!(desk.on(0, PlaceEvent::Gone), NOTHING);
    assert_eq!(desk.pools.next_look(), Some(desk.now + SECOND));
    assert_eq!(desk.pass(SECOND), ["start 1 of A"]);
}

#[test]
fn the_first_waiting_request_is_looked_at_at_once_and_the_others_soon() {
    let mut desk = Desk::new(0, 0, &[group(Needs::default(), 0, 1)]);
    desk.decide();
    assert_eq!(desk.pools.next_look(), None);
    assert!(desk.pools.waits(A, desk.now));
    desk.wait(A, 1);
    desk.decide();
    assert!(!desk.pools.waits(A, desk.now), "it starts");
    assert_eq!(desk.pools.next_look(), Some(desk.now + PoolPolicy::default().look));
    desk.started();
    desk.run(A, 1);
    desk.decide();
    assert_eq!(desk.pools.next_look(), None);
    assert!(!desk.pools.waits(A, desk.now) && desk.pools.next_look().is_some());
}

#[test]
fn a_group_never_falls_below_its_fewest_for_others() {
    let mut desk = Desk::new(0, 2, &[group(tokens(1), 1, 2), group(tokens(1), 0, 1)]);
    desk.wait(A, 9);
    desk.load(A, |load| load.backlog = 9 * SECOND);
    desk.decide();
    desk.started();
    desk.decide();
    desk.started();
    desk.run(A, 2);
    desk.wait(B, 1);
    assert_eq!(desk.pass(6 * SECOND).len(), 1, "one of two, as the second is above the fewest");
    desk.wait(A, 9);
    assert_eq!(desk.pass(60 * SECOND), NOTHING, "not the last one");
}

#[test]
fn the_longest_unused_goes_first_and_a_second_worker_takes_nothing_from_the_busy() {
    let mut desk = Desk::new(0, 2, &[group(tokens(1), 0, 1), group(tokens(1), 0, 2), group(tokens(1), 0, 2)]);
    for turn in [B, A] {
        desk.wait(turn, 1);
        desk.decide();
        desk.started();
        desk.run(turn, 0);
        desk.pass(2 * SECOND);
    }
    desk.wait(C, 1);
    assert_eq!(desk.decide(), ["stop 0"], "B was used before A");
    assert_eq!(desk.on(0, PlaceEvent::Gone), ["start 2 of C"]);
    desk.started();
    desk.run(A, 1);
    desk.wait(C, 9);
    desk.load(C, |load| load.backlog = 9 * SECOND);
    assert_eq!(desk.pass(60 * SECOND), NOTHING);
    desk.run(A, 0);
    assert_eq!(desk.pass(SECOND), ["stop 1"], "but from the idle");
}

#[test]
fn a_crash_loop_gives_its_resources_up_when_somebody_waits_and_comes_back_later() {
    let mut desk = Desk::new(0, 1, &[group(tokens(1), 0, 1), group(tokens(1), 0, 1)]);
    desk.wait(A, 1);
    desk.decide();
    desk.on(0, PlaceEvent::Failing);
    assert_eq!(desk.pass(60 * SECOND), NOTHING, "its supervisor tries again");
    desk.wait(B, 1);
    assert_eq!(desk.decide(), ["stop 0"]);
    assert_eq!(desk.on(0, PlaceEvent::Gone), ["start 1 of B"]);
    desk.started();
    desk.run(B, 0);
    assert_eq!(desk.pass(SECOND), ["stop 1"], "A has waited for long, and its time to wait is over");
    desk.on(1, PlaceEvent::Gone);
    desk.on(2, PlaceEvent::Failing);
    desk.wait(B, 1);
    desk.decide();
    assert_eq!(desk.on(2, PlaceEvent::Gone), ["start 3 of B"]);
    desk.started();
    desk.run(B, 0);
    assert_eq!(desk.pass(SECOND), NOTHING, "the second failure in a row costs two seconds");
    assert_eq!(desk.pass(SECOND), ["stop 3"]);
}

#[test]
fn a_failing_worker_among_the_fewest_keeps_what_it_has() {
    let mut desk = Desk::new(0, 2, &[group(tokens(1), 1, 1), group(tokens(1), 0, 2)]);
    desk.decide();
    desk.on(0, PlaceEvent::Failing);
    desk.wait(B, 9);
    assert_eq!(desk.decide(), ["start 1 of B"]);
    desk.started();
    desk.load(B, |load| load.backlog = 99 * SECOND);
    assert_eq!(desk.pass(60 * SECOND), NOTHING);
}

#[test]
fn an_unloaded_group_loses_its_workers_and_gets_none_until_it_is_loaded() {
    let mut desk = Desk::new(0, 1, &[group(tokens(1), 1, 1)]);
    desk.decide();
    desk.started();
    desk.pools.set_loaded(A, false);
    assert_eq!(desk.decide(), ["stop 0"]);
    desk.on(0, PlaceEvent::Gone);
    desk.wait(A, 1);
    assert_eq!(desk.pass(SECOND), NOTHING);
    assert_eq!(desk.pools.expected_start(A, desk.now), None);
    desk.pools.set_loaded(A, true);
    assert_eq!(desk.decide(), ["start 1 of A"]);
}

#[test]
fn a_retired_group_finishes_what_waits_and_is_over() {
    let mut desk = Desk::new(0, 1, &[group(tokens(1), 1, 1)]);
    desk.decide();
    desk.started();
    desk.run(A, 1);
    desk.pools.retire(A);
    desk.pools.add_group(B, group(tokens(1), 1, 1)).unwrap();
    desk.wait(A, 1);
    assert_eq!(desk.pass(60 * SECOND), NOTHING, "what waits is served first");
    desk.run(A, 1);
    assert_eq!(desk.decide(), ["stop 0"], "it finishes its request, and the new one needs its room");
    desk.pass(TICK);
    desk.wait(A, 1);
    assert_eq!(desk.on(0, PlaceEvent::Gone), ["start 1 of B"], "the worker died, and B was first in line");
    desk.started();
    assert_eq!(desk.pass(SECOND), ["stop 1"], "B is idle and gives even its last one");
    assert_eq!(desk.on(1, PlaceEvent::Gone), ["start 2 of A"]);
    desk.started();
    assert!(!desk.pools.is_over(A), "something waits");
    desk.run(A, 0);
    assert_eq!(desk.decide(), ["stop 2"]);
    assert_eq!(desk.on(2, PlaceEvent::Gone), ["start 3 of B"]);
    assert!(desk.pools.is_over(A) && !desk.pools.is_over(B));
}

#[test]
fn lower_bounds_stop_what_is_too_many_and_higher_ones_start_what_is_lacking() {
    let mut desk = Desk::new(0, 0, &[group(Needs::default(), 3, 3)]);
    desk.decide();
    desk.started();
    desk.run(A, 3);
    desk.pools.set_bounds(A, 1, 1).unwrap();
    assert_eq!(desk.decide().len(), 2);
    desk.pools.set_bounds(A, 2, 4).unwrap();
    assert_eq!(desk.decide(), ["start 3 of A"]);
    assert_eq!(desk.pools.set_bounds(A, 2, 1), Err(PoolError::Bounds { min: 2, max: 1 }));
    assert_eq!(desk.pools.set_bounds(A, 0, 0), Err(PoolError::Bounds { min: 0, max: 0 }));
    assert_eq!(desk.pools.set_bounds(B, 0, 1), Err(PoolError::Unknown { group: B }));
}

#[test]
fn what_can_never_fit_is_refused_with_the_numbers_and_the_way_out() {
    let mut desk = Desk::new(1, 2, &[group(tokens(1), 1, 1)]);
    let error = desk.pools.add_group(B, group(gpus(2), 0, 1)).unwrap_err();
    assert_eq!(error, PoolError::TooMuch { name: "gpu".into(), needed: 2, total: 1 });
    let error = desk.pools.add_group(B, group(tokens(2), 0, 1)).unwrap_err();
    assert_eq!(error, PoolError::Crowded { name: "token".into(), needed: 3, total: 2 });
    assert!(error.to_string().contains("min_workers=0"));
    assert!(desk.pools.is_over(B), "nothing was added");
    desk.pools.add_group(B, group(tokens(1), 0, 9)).unwrap();
    assert_eq!(desk.pools.add_group(B, group(tokens(1), 0, 9)), Err(PoolError::Taken { group: B }));
    assert!(desk.pools.set_bounds(B, 1, 9).is_ok());
    let crowded = Err(PoolError::Crowded { name: "token".into(), needed: 3, total: 2 });
    assert_eq!((desk.pools.set_bounds(B, 2, 9), desk.pools.bounds(B)), (crowded, Some((1, 9))));
    desk.pools.retire(A);
    assert!(desk.pools.set_bounds(B, 2, 9).is_ok(), "the retired do not count");
}

#[test]
fn the_next_worker_is_expected_as_far_as_starts_were_measured() {
    let mut desk = Desk::new(0, 1, &[group(tokens(1), 0, 1)]);
    let expected = |desk: &Desk| desk.pools.expected_start(A, desk.now);
    assert_eq!(expected(&desk), None);
    desk.wait(A, 1);
    desk.decide();
    assert_eq!(expected(&desk), None, "it was never measured");
    desk.started();
    assert_eq!(expected(&desk), Some(Duration::ZERO));
    desk.pools.set_bounds(A, 0, 1).unwrap();
    desk.pools.stopping(PlaceId(0));
    desk.on(0, PlaceEvent::Gone);
    desk.pass(START / 5);
    assert_eq!(expected(&desk), Some(START * 4 / 5));
    desk.pass(START);
    assert_eq!(expected(&desk), Some(Duration::ZERO), "it is late, and may come at any time");
    desk.on(1, PlaceEvent::Failing);
    assert_eq!(expected(&desk), None);
}

#[test]
fn events_of_places_that_are_over_or_do_not_fit_change_nothing() {
    let mut desk = Desk::new(1, 0, &[sleeper(gpus(1))]);
    desk.on(7, PlaceEvent::Ready);
    desk.wait(A, 1);
    desk.decide();
    desk.on(0, PlaceEvent::Asleep);
    assert_eq!((desk.pools.state(PlaceId(0)), desk.used("gpu")), (Some("starting"), 1));
    desk.started();
    desk.run(A, 0);
    desk.pass(10 * SECOND);
    desk.on(0, PlaceEvent::Asleep);
    assert_eq!((desk.pools.state(PlaceId(0)), desk.used("gpu")), (Some("asleep"), 0));
    assert_eq!(desk.on(0, PlaceEvent::Failing), ["stop 0"], "it must not start again without its resources");
    desk.on(0, PlaceEvent::Gone);
    desk.on(0, PlaceEvent::Gone);
    assert_eq!((desk.pools.state(PlaceId(0)), desk.pools.places(A).count()), (None, 0));
}
