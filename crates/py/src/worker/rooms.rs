//! Room in the arena: asked for when it is needed, or ahead of that, and given back if nobody takes it.

use anyserve_core::Error;
use anyserve_shm::{BlockId, Extent};
use anyserve_wire::{Frame, Kind, message};
use pyo3::prelude::*;

use super::session::Session;

// === impl Session ===

impl Session {
    /// A block of the arena to write to, of `len` bytes or some more; the runtime's reason if there is none.
    pub(super) fn room(&self, py: Python<'_>, len: u64) -> PyResult<Result<Extent, Error>> {
        let ahead = self.ahead.lock().take(len);
        let early = ahead.map(|ask| self.finish(py, &ask)).transpose()?.and_then(|view| room_of(&view));
        let room = match early {
            Some(room) => Ok(room),
            None => self.room_now(py, len)?,
        };
        self.ask_ahead(py, len);
        Ok(room)
    }

    fn room_now(&self, py: Python<'_>, len: u64) -> PyResult<Result<Extent, Error>> {
        releases(self.asks.take_unclaimed()).for_each(|release| self.link.push_frame(py, &release));
        let view = self.ask(py, Kind::Put, &message::Put { len, ahead: false })?;
        Ok(match view.failed {
            Some(failed) => Err(failed.into()),
            None => room_of(&view).ok_or_else(|| Error::internal("the runtime granted no block")),
        })
    }

    /// Asks for the next room, if it is likely to be as this one. It leaves with whatever is sent next.
    fn ask_ahead(&self, py: Python<'_>, len: u64) {
        for frame in self.note_ahead(len) {
            self.link.push_frame(py, &frame);
        }
    }

    /// The lock is free again before anything is sent: for that the interpreter's may be let go, and who gets it may want this.
    fn note_ahead(&self, len: u64) -> Vec<Frame> {
        let mut ahead = self.ahead.lock();
        let wanted = ahead.wanted(len);
        let ask_for = |_| {
            let ask = self.asks.begin();
            let put = Frame::with_meta(Kind::Put, ask.id, &message::Put { len, ahead: true });
            ahead.asked(ask, len);
            put
        };
        (0..wanted).map(ask_for).collect()
    }
}

/// Gives back the blocks that were granted.
pub(super) fn releases(views: impl IntoIterator<Item = message::View>) -> impl Iterator<Item = Frame> {
    views.into_iter().filter_map(|view| room_of(&view)).map(
        |Extent { block: BlockId { index, generation }, .. }| {
            let release = message::Release { block: Some(message::Block { index, generation }), ..Default::default() };
            Frame::with_meta(Kind::Release, 0, &release)
        },
    )
}

/// The block that was granted, if one was.
fn room_of(view: &message::View) -> Option<Extent> {
    let message::ObjectId { index, generation, .. } = view.object?;
    let block = BlockId { index, generation };
    (view.len > 0).then_some(Extent { block, start: view.offset, len: view.len })
}
