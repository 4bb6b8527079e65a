use super::*;
use anyserve_testkit::Chance as Dice;

const SECOND: Duration = Duration::from_secs(1);

fn accepted(seq: u64) -> Event {
    Event::Registered { verdict: Verdict::Accepted, seq, heartbeat: SECOND }
}

/// An announcer that is registered, and when its first heartbeat is due.
fn known(now: Instant) -> (Announcer, Instant) {
    let (mut announcer, first) = Announcer::new(7);
    assert_eq!(first, Action::Register);
    let Action::Wait(due) = announcer.on(accepted(1), now) else { panic!("it waits for its heartbeat") };
    (announcer, due)
}

fn until(action: Action) -> Instant {
    if let Action::Wait(until) = action { until } else { panic!("{action:?}") }
}

#[test]
fn heartbeats_follow_a_registration_at_the_time_that_the_api_server_says() {
    let mut now = Instant::now();
    let (mut announcer, mut due) = known(now);
    assert!(due <= now + SECOND);
    for _ in 0..10 {
        assert_eq!(announcer.on(Event::Due, due.checked_sub(Duration::from_nanos(1)).unwrap()), Action::Wait(due));
        assert_eq!(announcer.on(Event::Due, due), Action::Heartbeat { registered: 1 });
        now = due;
        due = until(announcer.on(Event::Answered(Verdict::Accepted), now));
        assert!((SECOND * 9 / 10..=SECOND).contains(&(due - now)));
    }
}

#[test]
fn who_is_told_to_register_again_does_so_at_once() {
    let now = Instant::now();
    let (mut announcer, due) = known(now);
    announcer.on(Event::Due, due);
    assert_eq!(announcer.on(Event::Answered(Verdict::RegisterAgain), due), Action::Register);
    until(announcer.on(accepted(5), due));
    assert_eq!(announcer.on(Event::Due, due + SECOND), Action::Heartbeat { registered: 5 });
}

#[test]
fn attempts_become_rarer_up_to_the_time_between_heartbeats_and_an_answer_makes_up_for_all() {
    let mut now = Instant::now();
    let (mut announcer, _) = Announcer::new(7);
    for longest in [100, 200, 400, 800, 1_000, 1_000, 1_000] {
        let longest = Duration::from_millis(longest);
        let due = until(announcer.on(Event::Broken, now));
        assert!((longest / 2..=longest).contains(&(due - now)), "{:?}", due - now);
        assert_eq!(announcer.on(Event::Due, due), Action::Register);
        now = due;
    }
    until(announcer.on(accepted(9), now));
    announcer.on(Event::Due, now + SECOND);
    let due = until(announcer.on(Event::Broken, now));
    assert!(due - now <= Duration::from_millis(100));
}

#[test]
fn another_start_of_the_replica_ends_it_for_good() {
    let now = Instant::now();
    let (mut announcer, due) = known(now);
    announcer.on(Event::Due, due);
    let over = Action::Over(End::Replaced);
    assert_eq!(announcer.on(Event::Answered(Verdict::StaleEpoch), due), over);
    for event in [Event::Due, accepted(1), Event::Changed(Change::Offers), Event::Wants(Wish::Leave)] {
        assert_eq!(announcer.on(event, due + SECOND), over);
    }
    let (mut announcer, _) = Announcer::new(7);
    let stale = Event::Registered { verdict: Verdict::StaleEpoch, seq: 1, heartbeat: SECOND };
    assert_eq!((announcer.on(stale, now), announcer.told()), (over, Wish::Leave));
}

#[test]
fn changes_are_told_soon_together_and_as_what_they_are() {
    let now = Instant::now();
    let (mut announcer, _) = known(now);
    let soon = until(announcer.on(Event::Changed(Change::Loads), now));
    assert!(soon <= now + GAP);
    assert_eq!(announcer.clone().on(Event::Due, soon), Action::Heartbeat { registered: 1 });
    assert_eq!(until(announcer.on(Event::Changed(Change::Offers), now)), soon);
    assert_eq!(until(announcer.on(Event::Changed(Change::Loads), now)), soon, "the greater change is told");
    assert_eq!(announcer.on(Event::Due, soon), Action::Register);
}

#[test]
fn what_is_refused_is_tried_again_much_later() {
    let now = Instant::now();
    let (mut announcer, _) = Announcer::new(7);
    let due = until(announcer.on(Event::Refused, now));
    assert!((SECOND * 4..=SECOND * 5).contains(&(due - now)));
    assert_eq!(announcer.on(Event::Due, due), Action::Register);
}

#[test]
fn a_wish_is_told_at_once_and_known_to_be_told_when_there_is_an_answer() {
    let now = Instant::now();
    let (mut announcer, _) = known(now);
    assert_eq!(announcer.on(Event::Wants(Wish::Drain), now), Action::Heartbeat { registered: 1 });
    assert_eq!((announcer.wish(), announcer.told()), (Wish::Drain, Wish::Serve));
    assert_eq!(announcer.on(Event::Answered(Verdict::RegisterAgain), now), Action::Register);
    assert_eq!(announcer.told(), Wish::Serve, "it does not know yet");
    until(announcer.on(accepted(2), now));
    assert_eq!(announcer.told(), Wish::Drain);
    assert_eq!(announcer.on(Event::Wants(Wish::Leave), now), Action::Leave);
    assert_eq!(announcer.told(), Wish::Drain);
    assert_eq!((announcer.on(Event::Left, now), announcer.told()), (Action::Over(End::Left), Wish::Leave));
}

#[test]
fn an_api_server_that_is_away_is_tried_once_more_for_a_wish() {
    let now = Instant::now();
    let (mut announcer, _) = Announcer::new(7);
    until(announcer.on(Event::Broken, now));
    assert_eq!(announcer.on(Event::Wants(Wish::Drain), now), Action::Register);
    until(announcer.on(Event::Broken, now));
    assert_eq!(announcer.told(), Wish::Drain, "it cannot be told");
    assert_eq!(announcer.on(Event::Wants(Wish::Leave), now), Action::Over(End::Left), "it never knew");
    let (mut announcer, due) = known(now);
    announcer.on(Event::Due, due);
    until(announcer.on(Event::Broken, now));
    assert_eq!(announcer.on(Event::Wants(Wish::Leave), now), Action::Leave);
    assert_eq!(announcer.on(Event::Broken, now), Action::Over(End::Left));
}

#[test]
fn heartbeats_come_neither_all_the_time_nor_never_whatever_the_api_server_says() {
    for (told, longest) in [(0, 1_000), (1, 50), (49, 50), (50, 50), (51, 51), (60_000, 60_000), (60_001, 60_000)] {
        let (now, (mut announcer, _)) = (Instant::now(), Announcer::new(7));
        let heartbeat = Duration::from_millis(told);
        until(announcer.on(Event::Registered { verdict: Verdict::Accepted, seq: 1, heartbeat }, now));
        announcer.on(Event::Due, now + LONGEST_HEARTBEAT);
        let due = until(announcer.on(Event::Answered(Verdict::Accepted), now));
        let longest = Duration::from_millis(longest);
        assert!((longest * 9 / 10..=longest).contains(&(due - now)), "{told}");
    }
}

/// An API server that dies, comes back empty, hangs and refuses, and a replica that changes.
#[test]
fn whatever_happened_the_replica_is_registered_within_two_heartbeats_of_the_next_attempt() {
    for seed in 0..300 {
        let (mut dice, mut now) = (Dice::new(seed), Instant::now());
        let (mut announcer, mut action) = Announcer::new(seed);
        for _ in 0..200 {
            let event = any_event(&mut dice, action, &mut now);
            action = announcer.on(event, now);
            assert!(!matches!(action, Action::Wait(until) if until > now + LONGEST_PAUSE), "seed {seed}");
        }
        let next = if let Action::Wait(until) = action { until.max(now) } else { now };
        let mut seq = 1_000;
        while !matches!(announcer.state, State::Known { change: None, .. }) {
            seq += 1;
            let event = answer(action, seq, &mut now);
            action = announcer.on(event, now);
            assert!(now <= next + 2 * SECOND, "seed {seed}: {action:?}");
        }
    }
}

/// What an API server without faults says, and the time that passes.
fn answer(action: Action, seq: u64, now: &mut Instant) -> Event {
    match action {
        Action::Register => accepted(seq),
        Action::Heartbeat { .. } => Event::Answered(Verdict::Accepted),
        Action::Leave | Action::Over(_) => Event::Left,
        Action::Wait(until) => {
            *now = until.max(*now);
            Event::Due
        }
    }
}

fn any_event(dice: &mut Dice, action: Action, now: &mut Instant) -> Event {
    *now += Duration::from_millis(dice.below(20));
    match (action, dice.below(10)) {
        (Action::Register | Action::Heartbeat { .. }, 0..=2) => Event::Broken,
        (Action::Register | Action::Heartbeat { .. }, 3) => Event::Refused,
        (Action::Register, 4) => Event::Registered { verdict: Verdict::Outdated, seq: 0, heartbeat: SECOND },
        (Action::Heartbeat { .. }, 4 | 5) => Event::Answered(Verdict::RegisterAgain),
        (Action::Wait(_), 0) => Event::Changed(Change::Loads),
        (Action::Wait(_), 1) => Event::Changed(Change::Offers),
        (Action::Wait(_), 2) => Event::Due,
        (action, seq) => answer(action, seq, now),
    }
}
