//! Frames off a worker's socket, to the last one that it sent before it died.

use std::io;
use std::time::Duration;

use anyserve_core::Limits;
use anyserve_wire::{Decoder, Frame};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::UnixStream;

use super::{Link, LinkError};

/// How long the task that reads a dead worker's socket is waited for.
const HEAR_OUT: Duration = Duration::from_secs(1);
/// What [`FrameReader::read_rest`] takes at once, and at all: a dead worker's child may hold the socket and go on writing.
const CHUNK: usize = 64 << 10;
const MAX_REST: usize = 64 << 20;

/// Frames off a socket.
#[derive(Debug)]
pub(crate) struct FrameReader {
    decoder: Decoder,
    pub(crate) frames: Vec<Frame>,
}

// === impl Link ===

impl Link {
    /// Reads for the life of the link and hands every batch of frames on. Ends when the worker does, and not before what it
    /// had sent until then has been read.
    pub(crate) async fn read(
        &self,
        limits: Limits,
        mut take: impl FnMut(&mut Vec<Frame>) -> Result<(), LinkError>,
    ) -> LinkError {
        let _guard = self.heard_out.clone().drop_guard();
        let mut reader = FrameReader::new(limits);
        loop {
            let read = tokio::select! {
                read = reader.read(&self.stream) => read,
                () = self.dead.cancelled() => return reader.read_rest(&self.stream, &mut take),
            };
            if let Err(error) = read.and_then(|()| take(&mut reader.frames)) {
                return error;
            }
        }
    }

    /// Waits until everything has been read that a worker had sent before its process ended.
    pub(crate) async fn hear_out(&self) {
        self.dead.cancel();
        // What is in the socket is there already: this only waits for the task that reads it.
        let _ = tokio::time::timeout(HEAR_OUT, self.heard_out.cancelled()).await;
    }
}

// === impl FrameReader ===

impl FrameReader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { decoder: Decoder::new(limits), frames: Vec::new() }
    }

    /// Waits for bytes and appends the frames that they complete; there may be none.
    pub(crate) async fn read(&mut self, stream: &UnixStream) -> Result<(), LinkError> {
        stream.readable().await?;
        match stream.try_read_buf(&mut self.decoder.buffer()) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while let Some(frame) = self.decoder.next_frame()? {
            self.frames.push(frame);
        }
        Ok(())
    }

    /// Reads what is in the socket of a worker that is dead, and says why there is no more.
    fn read_rest(
        &mut self,
        stream: &UnixStream,
        take: &mut impl FnMut(&mut Vec<Frame>) -> Result<(), LinkError>,
    ) -> LinkError {
        let (mut chunk, mut read) = (vec![0; CHUNK], 0);
        while read < MAX_REST {
            // Asked of the system itself: the runtime may not have been told yet that there is something.
            let len = match recv(stream, &mut chunk, RecvFlags::DONTWAIT) {
                Ok((len, _)) if len > 0 => len,
                Err(Errno::INTR) => continue,
                Ok(_) | Err(_) => break,
            };
            read += len;
            let mut frames = match self.decoder.feed(&chunk[..len]) {
                Ok(frames) => frames,
                Err(error) => return error.into(),
            };
            if let Err(error) = take(&mut frames) {
                return error;
            }
        }
        LinkError::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_sched::{GroupId, WorkerId};
    use anyserve_shm::SlotTable;
    use anyserve_wire::Kind;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A link, and the worker's end of its socket.
    fn link(directory: &tempfile::TempDir) -> (Arc<Link>, std::os::unix::net::UnixStream) {
        let (own, worker) = UnixStream::pair().unwrap();
        let slots = SlotTable::create(&directory.path().join("slots")).unwrap();
        let (link, _) = Link::new((WorkerId(1), GroupId(0)), own, slots);
        let worker = worker.into_std().unwrap();
        worker.set_nonblocking(false).unwrap();
        (link, worker)
    }

    #[tokio::test]
    async fn what_a_worker_sent_before_its_death_has_been_read_when_it_is_heard_out() {
        let directory = tempfile::tempdir().unwrap();
        let (link, mut worker) = link(&directory);
        let taken = Arc::new(AtomicU32::new(0));
        let (own, count) = (Arc::clone(&link), Arc::clone(&taken));
        let reading = tokio::spawn(async move {
            own.read(Limits::default(), |frames| {
                count.fetch_add(u32::try_from(frames.drain(..).count()).unwrap(), Ordering::Relaxed);
                Ok(())
            })
            .await
        });
        tokio::task::yield_now().await;
        let frames: Vec<_> = (0..1000).flat_map(|id| Frame::bare(Kind::Pong, id).to_bytes()).collect();
        worker.write_all(&frames).unwrap();
        // A child of the dead worker holds its socket: there is no end of it.
        link.hear_out().await;
        assert_eq!(taken.load(Ordering::Relaxed), 1000);
        assert!(matches!(reading.await.unwrap(), LinkError::Closed));
    }

    #[tokio::test]
    async fn nobody_is_waited_for_whose_socket_is_not_read_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let (link, worker) = link(&directory);
        drop(worker);
        let error = link.read(Limits::default(), |_| Ok(())).await;
        assert!(matches!(error, LinkError::Closed), "{error}");
        link.hear_out().await;
    }
}
