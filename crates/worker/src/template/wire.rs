//! The runtime's end of a template's socket: one frame after the other, without bodies.

use std::io;

use anyserve_core::Limits;
use anyserve_wire::{Decoder, Frame, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::ProtocolError;

/// A connection to a template.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    decoder: Decoder,
}

// === impl Wire ===

impl Wire {
    pub(super) fn new(stream: UnixStream, max_meta: usize) -> Self {
        let limits = Limits { max_meta, max_message: 0, ..Limits::default() };
        Self { stream, decoder: Decoder::new(limits) }
    }

    /// The process at the other end.
    pub(super) fn peer(&self) -> Option<u32> {
        let pid = self.stream.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok()
    }

    /// Waits for the next frame, which must be of this kind.
    ///
    /// # Cancel safety
    /// Safe: what was read is kept.
    pub(super) async fn expect(&mut self, kind: Kind, name: &'static str) -> Result<Frame, ProtocolError> {
        let frame = self.next().await?;
        if frame.kind == kind { Ok(frame) } else { Err(ProtocolError::Frame { got: frame.kind, expected: name }) }
    }

    /// Waits for the next frame.
    ///
    /// # Cancel safety
    /// Safe: what was read is kept.
    pub(super) async fn next(&mut self) -> Result<Frame, ProtocolError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
            match self.stream.read_buf(&mut self.decoder.buffer()).await {
                Ok(0) => return Err(ProtocolError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(ProtocolError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a frame.
    ///
    /// # Cancel safety
    /// None: half a frame may have left, and the connection is of no use.
    pub(super) async fn send(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        match self.stream.write_all(&frame.to_bytes()).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ProtocolError::Closed),
            sent => Ok(sent?),
        }
    }
}
