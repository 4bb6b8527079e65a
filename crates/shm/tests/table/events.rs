//! Each state of a block, made afresh, and each event applied to it.

use std::time::{Duration, Instant};

use anyserve_shm::{BlockId, Lease, Owner, Table, TableError, Writer};

use crate::Nobody;

pub(crate) const STATES: [&str; 8] =
    ["nothing", "granted", "object", "cacheable", "tensor", "withdrawn", "held", "stale"];
pub(crate) const EVENTS: [&str; 12] = [
    "seal",
    "adopt",
    "discard",
    "hold",
    "unhold",
    "lease",
    "delete",
    "expire",
    "evict",
    "sweep",
    "writer_gone",
    "containing",
];

const OWNER: Owner = Owner(7);
const WRITER: Writer = Writer::Worker(OWNER);
const LEN: u64 = 100;

/// A line for a state: what each event comes to, and the state after it if it is another.
pub(crate) fn after_every_event(state: &str) -> String {
    let one = |event: &&str| {
        let (mut table, block, now) = make(state);
        let before = name(&table);
        let result = apply(&mut table, block, event, now);
        let after = name(&table);
        if after == before { format!("{event} {result}") } else { format!("{event} {result}>{after}") }
    };
    format!("{state}: {}", EVENTS.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// A table with one block in that state; `stale` is a granted one, asked for by the name of its predecessor.
fn make(state: &str) -> (Table, BlockId, Instant) {
    let now = Instant::now();
    let mut table = Table::new(1 << 16, 4, now);
    let block = table.grant(LEN, WRITER, 1).unwrap().block;
    let cacheable = state == "cacheable";
    if matches!(state, "object" | "cacheable" | "withdrawn" | "held") {
        table.seal(block, WRITER, LEN, Lease { cacheable, ..Lease::default() }, now).unwrap();
    }
    match state {
        "nothing" => table.discard(block, WRITER),
        "tensor" => _ = table.adopt(block, WRITER, LEN).unwrap(),
        "withdrawn" => assert!(table.delete(block)),
        "held" => {
            table.hold(block, now).unwrap();
            table.hold(block, now).unwrap();
            assert!(table.delete(block));
        }
        "stale" => {
            table.discard(block, WRITER);
            assert_eq!(table.grant(LEN, WRITER, 2).unwrap().block.index, block.index);
        }
        _ => {}
    }
    (table, block, now)
}

fn apply(table: &mut Table, block: BlockId, event: &str, now: Instant) -> &'static str {
    match event {
        "seal" => said(&table.seal(block, WRITER, LEN, Lease::default(), now)),
        "adopt" => said(&table.adopt(block, WRITER, LEN)),
        "hold" => said(&table.hold(block, now)),
        "lease" => yes(table.lease(block, now).is_some()),
        "delete" => yes(table.delete(block)),
        "evict" => yes(table.evict(&Nobody)),
        "containing" => yes(table.containing(LEN - 1).is_some_and(|extent| extent.block == block)),
        _ => {
            match event {
                "discard" => table.discard(block, WRITER),
                "unhold" => table.unhold(block),
                "expire" => assert!(table.expire(now + Duration::from_hours(1)).is_none()),
                "sweep" => _ = table.sweep(&Nobody, usize::MAX),
                "writer_gone" => table.writer_gone(OWNER),
                other => panic!("no event {other}"),
            }
            "-"
        }
    }
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn said<T>(result: &Result<T, TableError>) -> &'static str {
    match result {
        Ok(_) => "yes",
        Err(TableError::Gone) => "gone",
        Err(TableError::NotYours { .. }) => "not yours",
        Err(_) => "full",
    }
}

/// The state of the one block, by the table's own numbers.
fn name(table: &Table) -> &'static str {
    let usage = table.usage();
    match (usage.used, usage.objects, usage.tensors, usage.withdrawn) {
        (0, 0, 0, 0) => "nothing",
        (128, 0, 0, 0) => "granted",
        (128, 1, 0, 0) => "object",
        (128, 0, 1, 0) => "tensor",
        (128, 0, 0, 1) => "withdrawn",
        other => panic!("one block counts as {other:?}"),
    }
}
