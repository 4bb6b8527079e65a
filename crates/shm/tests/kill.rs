//! Processes that are killed with SIGKILL at any moment, thousands of times: whoever is left reads nothing torn and nothing
//! stale, and gets all of the memory back.
//!
//! The processes are this very test binary, which is started anew with a part to play. `ANYSERVE_KILLS` says how many.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

#[path = "kill/draw.rs"]
mod draw;
#[path = "kill/part.rs"]
mod part;
#[path = "kill/stock.rs"]
mod stock;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyserve_shm::{OWN_PREFIX, Owner, Plane, PlaneConfig, Writer};
use draw::Draw;
use part::{Played, WORKER, attach, object_number, say, worker_part};
use stock::Stock;

const CAPACITY: u64 = 8 << 20;
const KILLS: u32 = 2000;
/// How many workers are started and killed side by side.
const DRIVERS: u32 = 2;

fn kills() -> u32 {
    std::env::var("ANYSERVE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap())
}

/// Files of a process of ours that have a name in /dev/shm.
fn named(pid: u32) -> Vec<PathBuf> {
    let own = format!("{OWN_PREFIX}{pid}-");
    let names = std::fs::read_dir("/dev/shm").unwrap().map(|name| name.unwrap());
    names.filter(|name| name.file_name().to_string_lossy().starts_with(&own)).map(|name| name.path()).collect()
}

/// Starts a worker that reads the whole stock and writes to a block, and kills it. Returns whether it died with a pin on a
/// block that it alone kept.
fn kill_one(plane: &Plane, stock: &Stock, owner: Owner, draw: &mut Draw) -> bool {
    let pins = plane.add_worker(owner).unwrap();
    let granted = plane.grant(16 << 10, Writer::Worker(owner), false).unwrap();
    let mut worker = Played::start(WORKER, &worker_part(plane, &pins, &granted, &stock.all()));
    if draw.below(8) > 0 {
        assert_eq!(worker.line(), "ready");
    }
    for _ in 0..draw.below(16) {
        stock.turn_over(plane, draw);
    }
    let keeps = plane.kept().iter().any(|(kept_by, blocks)| *kept_by == owner && *blocks > 0);
    worker.kill();
    plane.worker_gone(owner);
    assert!(plane.kept().iter().all(|(left, _)| *left != owner));
    keeps
}

#[test]
fn a_killed_worker_leaves_nothing_behind() {
    let plane = Plane::open(PlaneConfig { capacity: CAPACITY, threshold: 1 }).unwrap();
    let stock = Stock::of(&plane, 24);
    let (owners, kept, began) = (AtomicU32::new(0), AtomicU32::new(0), Instant::now());
    let drive = |seed: u32| {
        let mut draw = Draw::new(seed.into());
        loop {
            let owner = owners.fetch_add(1, Ordering::Relaxed);
            if owner >= kills() {
                return;
            }
            kept.fetch_add(kill_one(&plane, &stock, Owner(owner), &mut draw).into(), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..DRIVERS).for_each(|seed| _ = scope.spawn(move || drive(seed))));
    let kept = kept.into_inner();
    println!("{} kills in {:?}, {kept} of them under a pin on a deleted object", kills(), began.elapsed());
    assert!(kept > kills() / 100, "workers were killed while they read");
    assert!(stock.is_whole(&plane));
    stock.clear(&plane);
    plane.tick();
    let usage = plane.usage();
    assert_eq!((usage.used, usage.longest_free, usage.objects, usage.withdrawn), (0, CAPACITY, 0, 0));
    assert_eq!((plane.kept(), named(std::process::id())), (vec![], vec![]));
}

#[test]
fn a_killed_runtime_leaves_nothing_behind_and_its_workers_read_on() {
    let mut draw = Draw::new(7);
    for _ in 0..kills() / 40 {
        let mut runtime = Played::start(part::RUNTIME, "");
        let (worker, blocks) = attach(&runtime.line());
        let mut views: Vec<_> = Vec::new();
        for _ in 0..=draw.below(20) {
            let found = blocks.iter().filter_map(|(block, number)| Some((worker.view(*block)?, *number)));
            views = found.collect();
            assert!(views.iter().all(|(view, number)| object_number(view) == Some(*number)));
        }
        runtime.kill();
        assert!(
            views.iter().all(|(view, number)| object_number(view) == Some(*number)),
            "the memory outlives its maker"
        );
        assert_eq!(named(runtime.pid()), Vec::<PathBuf>::new());
        views.clear();
        assert_eq!(worker.pinned(), 0);
    }
}

/// A name that is left is that of an empty file: one killed within the microseconds in which it has a name. The next
/// runtime removes it.
#[test]
fn a_runtime_that_is_killed_while_it_starts_holds_no_memory() {
    let mut draw = Draw::new(8);
    let mut left = 0;
    for _ in 0..kills() / 10 {
        let mut runtime = Played::start(part::RUNTIME, "");
        (0..draw.below(200_000)).for_each(|_| std::hint::spin_loop());
        runtime.kill();
        for path in named(runtime.pid()) {
            assert_eq!(std::fs::metadata(&path).unwrap().blocks(), 0, "{} holds memory", path.display());
            std::fs::remove_file(path).unwrap();
            left += 1;
        }
    }
    println!("{left} of {} runtimes left a name", kills() / 10);
}

/// What a started process does; by itself this is no test.
#[test]
#[ignore = "a part in the other tests of this file"]
fn a_part() {
    if let Some((role, text)) = part::own() {
        say(&match role.as_str() {
            WORKER => part::work(&text),
            _ => part::run(),
        });
        std::process::exit(1);
    }
}
