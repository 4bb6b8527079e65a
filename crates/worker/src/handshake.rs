//! The start of a worker's connection: hello, welcome, ready.

use std::path::Path;

use anyserve_core::{Error, Handler, Limits};
use anyserve_sched::{GroupId, WorkerId};
use anyserve_shm::{Owner, Plane, SlotTable};
use anyserve_wire::{Frame, Kind, message};
use std::sync::Arc;
use tokio::net::UnixStream;

use crate::link::{FrameReader, Link, LinkEnds, LinkError};

/// What a connection came to.
pub(crate) enum Greeting {
    /// A worker that may be given requests.
    Worker(Greeted),
    /// Our worker, and why it cannot start.
    Failed(Error),
}

/// A worker that said hello and is ready.
pub(crate) struct Greeted {
    pub(crate) link: Arc<Link>,
    pub(crate) ends: LinkEnds,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) concurrency: u32,
}

/// What the runtime expects of a connection and tells it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) token: String,
    pub(crate) worker: WorkerId,
    pub(crate) group: GroupId,
    pub(crate) slots: std::path::PathBuf,
    pub(crate) limits: Limits,
    pub(crate) plane: Option<Plane>,
}

// === impl Host ===

impl Host {
    /// Greets whoever connected.
    ///
    /// # Errors
    /// [`LinkError`] if it is not our worker, or breaks the protocol; nothing has happened then.
    pub(crate) async fn greet(self, stream: UnixStream) -> Result<Greeting, LinkError> {
        widen(&stream);
        let mut reader = FrameReader::new(self.limits);
        let hello: message::Hello = expect(&next(&mut reader, &stream).await?, Kind::Hello)?.message()?;
        self.check(&hello)?;
        if hello.handlers.is_empty() {
            let failed: message::Failed = expect(&next(&mut reader, &stream).await?, Kind::Failed)?.message()?;
            return Ok(Greeting::Failed(failed.into()));
        }
        let handlers = hello.handlers.into_iter().map(Handler::try_from).collect::<Result<Vec<_>, _>>();
        let handlers = handlers.map_err(|error| LinkError::Protocol(format!("hello: {error}")))?;
        let slots = slot_table(&self.slots)?;
        let welcome = message::Welcome { plane: self.attach()?, ..self.welcome() };
        write(&stream, &Frame::with_meta(Kind::Welcome, 0, &welcome)).await?;
        let started = next(&mut reader, &stream).await?;
        if started.kind == Kind::Failed {
            return Ok(Greeting::Failed(started.message::<message::Failed>()?.into()));
        }
        expect(&started, Kind::Ready)?;
        let (link, ends) = Link::new((self.worker, self.group), stream, slots);
        Ok(Greeting::Worker(Greeted { link, ends, handlers, concurrency: hello.concurrency.max(1) }))
    }

    fn check(&self, hello: &message::Hello) -> Result<(), LinkError> {
        if hello.token != self.token || hello.worker != self.worker.0 {
            return Err(LinkError::Protocol("hello of somebody that was not started here".into()));
        }
        Ok(())
    }

    /// Lets the worker pin blocks of the object plane, if there is one.
    fn attach(&self) -> Result<Option<message::Plane>, LinkError> {
        let Some(plane) = &self.plane else { return Ok(None) };
        let pins = plane.add_worker(Owner(self.worker.0))?;
        let layout = plane.layout();
        Ok(Some(message::Plane {
            store: plane.store().0,
            segment: plane.segment_path().to_string_lossy().into_owned(),
            entries: layout.entries,
            capacity: layout.capacity,
            epoch_ns: layout.epoch_ns,
            pins: pins.to_string_lossy().into_owned(),
            threshold: plane.threshold() as u64,
        }))
    }

    fn welcome(&self) -> message::Welcome {
        message::Welcome {
            max_meta: self.limits.max_meta as u64,
            max_body: self.limits.max_message as u64,
            stream_window: self.limits.stream_window as u64,
            slots: self.slots.to_string_lossy().into_owned(),
            plane: None,
        }
    }
}

fn slot_table(path: &Path) -> Result<SlotTable, LinkError> {
    SlotTable::create(path).map_err(|error| LinkError::Io(std::io::Error::other(error)))
}

/// Large tensors cross the socket in fewer turns when it holds more. The kernel's own bound may be lower; that is fine.
fn widen(stream: &UnixStream) {
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_send_buffer_size(4 << 20);
    let _ = socket.set_recv_buffer_size(4 << 20);
}

/// The secret of a process that is yet to be started: 128 random bits, as hexadecimal digits.
pub(crate) fn random_token() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

async fn next(reader: &mut FrameReader, stream: &UnixStream) -> Result<Frame, LinkError> {
    while reader.frames.is_empty() {
        reader.read(stream).await?;
    }
    Ok(reader.frames.remove(0))
}

fn expect(frame: &Frame, kind: Kind) -> Result<&Frame, LinkError> {
    if frame.kind == kind {
        return Ok(frame);
    }
    Err(LinkError::Protocol(format!("a {:?} frame instead of {kind:?}", frame.kind)))
}

async fn write(stream: &UnixStream, frame: &Frame) -> Result<(), LinkError> {
    let bytes = frame.to_bytes();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Capability, Code, Value};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn host(dir: &tempfile::TempDir) -> Host {
        let slots = dir.path().join("slots");
        Host {
            token: "secret".into(),
            worker: WorkerId(7),
            group: GroupId(0),
            slots,
            limits: Limits::default(),
            plane: None,
        }
    }

    fn hello(token: &str, worker: u32, handlers: &[Handler]) -> Frame {
        let handlers = handlers.iter().map(message::Handler::from).collect();
        let hello = message::Hello { pid: 1, worker, token: token.into(), handlers, concurrency: 0 };
        Frame::with_meta(Kind::Hello, 0, &hello)
    }

    fn handler() -> Handler {
        Handler::new(Capability::try_new([("type".to_owned(), Value::Text("echo".into()))]).unwrap())
    }

    async fn greeted(bytes: &[u8]) -> Result<Greeting, LinkError> {
        let dir = tempfile::tempdir().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).await.unwrap();
        // What it says is all that it ever says; the welcome goes nowhere.
        let (mut read, write) = theirs.into_split();
        drop(write);
        let drain = async { while matches!(read.read(&mut [0; 256]).await, Ok(1..)) {} };
        let greeting = host(&dir).greet(ours);
        tokio::select! { greeting = greeting => greeting, () = async { drain.await; std::future::pending().await } => unreachable!() }
    }

    #[tokio::test]
    async fn a_worker_that_says_hello_and_ready_is_welcome() {
        let bytes = [hello("secret", 7, &[handler()]).to_bytes(), Frame::bare(Kind::Ready, 0).to_bytes()].concat();
        let Ok(Greeting::Worker(greeted)) = greeted(&bytes).await else { panic!("welcome") };
        assert_eq!((greeted.handlers, greeted.concurrency), (vec![handler()], 1), "concurrency is at least 1");
    }

    #[tokio::test]
    async fn a_worker_that_cannot_start_says_why() {
        let failed = message::Failed::from(&Error::invalid("no such module").with_traceback("line 1"));
        let why = Frame::with_meta(Kind::Failed, 0, &failed).to_bytes();
        let Ok(Greeting::Failed(error)) = greeted(&[hello("secret", 7, &[]).to_bytes(), why].concat()).await else {
            panic!("it said why")
        };
        assert_eq!((error.code, error.traceback.as_deref()), (Code::InvalidInput, Some("line 1")));
    }

    #[tokio::test]
    async fn strangers_and_garbage_are_turned_away() {
        let ready = Frame::bare(Kind::Ready, 0).to_bytes();
        for (bytes, part) in [
            (hello("guess", 7, &[handler()]).to_bytes(), "not started here"),
            (hello("secret", 8, &[handler()]).to_bytes(), "not started here"),
            (ready.clone(), "a Ready frame instead of Hello"),
            (hello("secret", 7, &[]).to_bytes(), "closed its socket"),
            (
                [hello("secret", 7, &[handler()]).to_bytes(), hello("", 0, &[]).to_bytes()].concat().into(),
                "instead of Ready",
            ),
            (vec![0xff; 64].into(), "broke the protocol"),
            (ready.slice(..5), "closed its socket"),
        ] {
            let Err(error) = greeted(&bytes).await else { panic!("{part}") };
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
