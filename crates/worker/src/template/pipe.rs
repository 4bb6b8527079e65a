//! The output of a worker that is yet to be forked.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;

/// A pipe whose end for writing another process opens by its path. It is closed here with this value, and the pipe ends
/// when the last process that has opened it ends.
#[derive(Debug)]
pub(super) struct Pipe {
    write: OwnedFd,
    read: Receiver,
}

// === impl Pipe ===

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { write, read: Receiver::from_owned_fd(read)? })
    }

    /// Where the other process opens it. Processes of other users cannot.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.write.as_raw_fd())
    }

    /// The end for reading; the one for writing is closed.
    pub(super) fn into_read(self) -> Receiver {
        self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn what_is_written_at_its_path_is_read_until_the_last_writer_closes_it() {
        let pipe = Pipe::new().unwrap();
        let mut writer = std::fs::OpenOptions::new().write(true).open(pipe.path()).unwrap();
        let mut read = pipe.into_read();
        writer.write_all(b"a line\n").unwrap();
        drop(writer);
        let mut text = String::new();
        read.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "a line\n");
    }
}
