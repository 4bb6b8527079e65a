//! The processes: how they are started and what they do until they are killed.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;

use anyserve_core::StoreId;
use anyserve_shm::object::Object;
use anyserve_shm::{Attached, BlockId, Extent, Layout, Owner, Plane, PlaneAt, PlaneConfig};
use bytes::Bytes;

use crate::draw::Draw;
use crate::stock::Stock;

/// The worker's part, and the runtime's.
pub(crate) const WORKER: &str = "worker";
pub(crate) const RUNTIME: &str = "runtime";

const PART: &str = "ANYSERVE_TEST_PART";
const TEXT: &str = "ANYSERVE_TEST_TEXT";

/// A process that plays a part. It is killed at the latest when it is dropped.
pub(crate) struct Played {
    child: Child,
    says: BufReader<ChildStderr>,
}

/// The part of this process, if it has one, and what was said to it.
pub(crate) fn own() -> Option<(String, String)> {
    Some((std::env::var(PART).ok()?, std::env::var(TEXT).ok()?))
}

/// Says a line to who started this process.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// What a worker is told, as words: where the plane is, the block that it writes to, and what it reads.
pub(crate) fn worker_part(plane: &Plane, pins: &Path, granted: &Extent, blocks: &[(BlockId, u64)]) -> String {
    let Layout { entries, capacity, epoch_ns } = plane.layout();
    let (segment, store) = (plane.segment_path(), plane.store().0);
    let Extent { block: BlockId { index, generation }, start, len } = granted;
    let plane = format!("{} {} {store} {entries} {capacity} {epoch_ns}", segment.display(), pins.display());
    let blocks = blocks.iter().map(|(BlockId { index, generation }, number)| format!("{index} {generation} {number}"));
    let granted = format!("{index} {generation} {start} {len}");
    [plane, granted].into_iter().chain(blocks).collect::<Vec<_>>().join(" ")
}

fn next<T: FromStr>(words: &mut dyn Iterator<Item = &str>) -> Option<T> {
    words.next()?.parse().ok()
}

fn next_block(words: &mut dyn Iterator<Item = &str>) -> Option<BlockId> {
    Some(BlockId { index: next(words)?, generation: next(words)? })
}

fn parse(text: &str) -> (Arc<Attached>, Extent, Vec<(BlockId, u64)>) {
    let words = &mut text.split(' ');
    let (segment, pins) = (words.next().unwrap(), words.next().unwrap());
    let mut word = || next::<u64>(words).unwrap();
    let (store, entries, capacity, epoch_ns) = (StoreId(word()), word(), word(), word());
    let layout = Layout { entries: u32::try_from(entries).unwrap(), capacity, epoch_ns };
    let at = PlaneAt { store, segment: Path::new(segment), pins: Path::new(pins), layout, threshold: 1 };
    let block = next_block(words).unwrap();
    let granted = Extent { block, start: next(words).unwrap(), len: next(words).unwrap() };
    let blocks = std::iter::from_fn(|| next_block(words).and_then(|block| Some((block, next(words)?)))).collect();
    (Attached::open(&at).unwrap(), granted, blocks)
}

/// As a worker is, in this process.
pub(crate) fn attach(text: &str) -> (Arc<Attached>, Vec<(BlockId, u64)>) {
    let (worker, _, blocks) = parse(text);
    (worker, blocks)
}

/// The number that all elements of an object are; `None` if it is torn.
pub(crate) fn object_number(bytes: &Bytes) -> Option<u64> {
    let object = Object::read(bytes).ok()?;
    object.verify().ok()?;
    let data = &object.parts.first()?.tensor.data;
    let number = u64::from_le_bytes(*data.first_chunk()?);
    (*data == number.to_le_bytes().repeat(data.len() / 8)).then_some(number)
}

/// Reads, keeps, hands over and writes until it is killed, or alone. Returns what is wrong.
pub(crate) fn work(text: &str) -> String {
    let (worker, granted, blocks) = parse(text);
    let (parent, mut kept) = (std::os::unix::process::parent_id(), Vec::new());
    say("ready");
    for round in 0_u64.. {
        if std::os::unix::process::parent_id() != parent {
            break;
        }
        for (block, number) in &blocks {
            let Some(view) = worker.view(*block) else { continue };
            let found = object_number(&view);
            if found != Some(*number) {
                return format!("{block:?} is {found:?} and not {number}");
            }
            kept.push((view, *number));
        }
        if !worker.write(&granted, 0, &round.to_le_bytes().repeat(2048)) {
            return "its block cannot be written to".to_owned();
        }
        if let Some((_, number)) = kept.iter().find(|(view, number)| object_number(view) != Some(*number)) {
            return format!("{number} changed while it was pinned");
        }
        let kept = std::mem::take(&mut kept);
        kept.iter().filter(|(_, number)| number % 7 == 0).for_each(|(view, _)| {
            worker.hand_over(worker.locate(view).unwrap().0);
        });
    }
    "alone".to_owned()
}

/// A runtime whose objects come and go until it is killed, or alone.
pub(crate) fn run() -> String {
    let plane = Plane::open(PlaneConfig { capacity: 1 << 20, threshold: 1 }).unwrap();
    let stock = Stock::of(&plane, 8);
    let parent = std::os::unix::process::parent_id();
    let pins = plane.add_worker(Owner(0)).unwrap();
    let granted = plane.grant(64, anyserve_shm::Writer::Worker(Owner(0)), false).unwrap();
    say(&worker_part(&plane, &pins, &granted, &stock.all()));
    let mut draw = Draw::new(1);
    while std::os::unix::process::parent_id() == parent {
        stock.turn_over(&plane, &mut draw);
    }
    "alone".to_owned()
}

// === impl Played ===

impl Played {
    pub(crate) fn start(part: &str, text: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_part", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(PART, part).env(TEXT, text);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let says = BufReader::new(child.stderr.take().unwrap());
        Self { child, says }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Kills it. It must have been alive: who ends by itself has something to say.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        if status.signal() != Some(9) {
            let mut rest = String::new();
            self.says.read_to_string(&mut rest).unwrap();
            panic!("it ended by itself, {status}: {rest}");
        }
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        // After a kill that was waited for, both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
