//! The protocol of `src/protocol.rs`, in every order in which processes can meet (model-checked with loom).
//!
//! In every order with at most [`PREEMPTIONS`] switches away from a process that could have gone on: each defect that was
//! tried (a fence left out, an ordering made relaxed, the pin after the look) shows with one. All orders take ten
//! seconds: `ANYSERVE_ALL_ORDERS=1`.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../src/protocol.rs"]
mod protocol;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use protocol::{Cell, Found, Pin};

/// One block of memory with its cell and the pins of two workers.
struct Block {
    cell: Cell,
    pins: [Pin; 2],
    bytes: UnsafeCell<u64>,
}

const PREEMPTIONS: usize = 3;
const FOUND: Found = Found { start: 64, len: 8, expires: 0 };

fn check(orders: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = std::env::var_os("ANYSERVE_ALL_ORDERS").is_none().then_some(PREEMPTIONS);
    model.check(orders);
}

fn block() -> Arc<Block> {
    let block = Block { cell: Cell::new(), pins: [Pin::new(), Pin::new()], bytes: UnsafeCell::new(0) };
    write(&block, 1);
    block.cell.publish(1, FOUND);
    Arc::new(block)
}

/// Loom fails where a write and a read of the bytes are not ordered.
#[allow(unsafe_code)]
fn write(block: &Block, value: u64) {
    // SAFETY: the model runs one thread at a time; it checks what real threads would need.
    block.bytes.with_mut(|bytes| unsafe { *bytes = value });
}

#[allow(unsafe_code)]
fn read(block: &Block) -> u64 {
    // SAFETY: as above.
    block.bytes.with(|bytes| unsafe { *bytes })
}

fn read_generation(block: &Block, pin: &Pin, generation: u64) {
    if let Some(found) = pin.pin(&block.cell, generation) {
        assert_eq!(found, FOUND);
        assert_eq!(read(block), generation, "bytes of another generation");
        pin.unpin();
    }
}

fn reuse(block: &Block) {
    block.cell.withdraw();
    if !block.pins.iter().any(Pin::is_pinned) {
        write(block, 2);
        block.cell.publish(2, FOUND);
    }
}

#[test]
fn a_block_is_never_written_again_while_somebody_reads_it() {
    check(|| {
        let block = block();
        let reader = |worker: usize| {
            let block = Arc::clone(&block);
            thread::spawn(move || read_generation(&block, &block.pins[worker], 1))
        };
        let readers = [reader(0), reader(1)];
        reuse(&block);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn who_finds_the_next_generation_reads_its_bytes() {
    check(|| {
        let block = block();
        let reader = {
            let block = Arc::clone(&block);
            thread::spawn(move || {
                read_generation(&block, &block.pins[0], 2);
                read_generation(&block, &block.pins[0], 1);
            })
        };
        reuse(&block);
        reader.join().unwrap();
        assert!(!block.pins[0].is_pinned(), "every pin was given back");
    });
}
