//! gzip and deflate of messages.

use std::io::{self, Read, Write};

use anyserve_core::{Code, Error};
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;

use crate::body::Chunks;

/// Bytes that are decompressed before they are handed on.
const PIECE: usize = 16 << 10;

/// Bytes that one byte of a compressed message can become: the shortest code of deflate, of 2 bits, repeats 258 bytes.
const MAX_RATIO: usize = 1032;

/// Bytes that a compressed message of `len` bytes can become, if it becomes no more than `max`.
pub(super) fn at_most(len: usize, max: usize) -> usize {
    len.saturating_mul(MAX_RATIO).min(max)
}

/// How a message is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip.
    Gzip,
    /// zlib, which gRPC calls deflate.
    Deflate,
}

// === impl Encoding ===

impl Encoding {
    /// The encoding of a `grpc-encoding` header.
    ///
    /// # Errors
    /// `UNSUPPORTED`, with what would be taken, for any other.
    pub(super) fn read(value: &HeaderValue) -> Result<Self, Error> {
        match value.as_bytes() {
            b"identity" => Ok(Self::Identity),
            b"gzip" => Ok(Self::Gzip),
            b"deflate" => Ok(Self::Deflate),
            _ => {
                let message = format!("grpc-encoding {value:?} is none of identity, gzip, deflate");
                Err(Error::new(Code::Unsupported, message))
            }
        }
    }

    /// Whether a `grpc-accept-encoding` header lists it.
    pub(super) fn is_among(self, accepted: &HeaderValue) -> bool {
        let mut listed = accepted.as_bytes().split(|byte| *byte == b',');
        listed.any(|item| item.trim_ascii() == self.name().as_bytes())
    }

    /// Its name in headers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Decompresses a message to at most `max` bytes, which it hands on piece by piece.
    ///
    /// # Errors
    /// `INVALID_INPUT` if it is not compressed so, or longer than that; what `put` says.
    pub(super) fn decompress(
        self,
        data: &[u8],
        max: usize,
        put: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self {
            Self::Identity => Err(Error::invalid("a compressed message without grpc-encoding")),
            Self::Gzip => self.read_all(GzDecoder::new(data), max, put),
            Self::Deflate => self.read_all(ZlibDecoder::new(data), max, put),
        }
    }

    fn read_all(
        self,
        reader: impl Read,
        max: usize,
        mut put: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // One byte beyond, to tell "just fits" from "too long".
        let mut reader = reader.take(u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1));
        let (mut piece, mut left) = (vec![0; PIECE], max);
        loop {
            let read = reader.read(&mut piece);
            let len = read.map_err(|error| Error::invalid(format!("message is not {}: {error}", self.name())))?;
            if len == 0 {
                return Ok(());
            }
            left = left.checked_sub(len).ok_or_else(|| {
                Error::new(Code::InvalidInput, format!("message is longer than {max} bytes once decompressed"))
            })?;
            put(&piece[..len])?;
        }
    }

    /// Compresses a message; [`Encoding::Identity`] leaves it as it is.
    pub(super) fn compress(self, message: Chunks) -> Vec<u8> {
        let written = match self {
            Self::Identity => write_all(Vec::new(), message),
            Self::Gzip => {
                write_all(GzEncoder::new(Vec::new(), Compression::fast()), message).and_then(GzEncoder::finish)
            }
            Self::Deflate => {
                write_all(ZlibEncoder::new(Vec::new(), Compression::fast()), message).and_then(ZlibEncoder::finish)
            }
        };
        written.expect("a Vec takes all that is written")
    }
}

fn write_all<W: Write>(mut writer: W, mut message: Chunks) -> io::Result<W> {
    while let Some(piece) = message.pop() {
        writer.write_all(&piece)?;
    }
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn compressed(encoding: Encoding, data: &[u8]) -> Vec<u8> {
        let mut chunks = Chunks::default();
        chunks.push(Bytes::copy_from_slice(data));
        encoding.compress(chunks)
    }

    fn decompressed(encoding: Encoding, data: &[u8], max: usize) -> Result<Vec<u8>, Error> {
        let mut message = Vec::new();
        encoding.decompress(data, max, |piece| {
            message.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(message)
    }

    #[test]
    fn no_message_becomes_longer_than_it_can() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let data = compressed(encoding, &vec![0; 10 << 20]);
            assert!(at_most(data.len(), usize::MAX) >= 10 << 20);
        }
        assert_eq!((at_most(1, 1031), at_most(1, 1032), at_most(1, 1033)), (1031, 1032, 1032));
    }

    #[test]
    fn a_message_may_be_as_long_as_the_limit_once_decompressed_and_no_longer() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let bomb = compressed(encoding, &[0; 1000]);
            assert!(decompressed(encoding, &bomb, 1001).is_ok());
            assert!(decompressed(encoding, &bomb, 1000).is_ok());
            assert_eq!(decompressed(encoding, &bomb, 999).unwrap_err().code, Code::InvalidInput);
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(data in proptest::collection::vec(any::<u8>(), 0..500)) {
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                prop_assert_eq!(&decompressed(encoding, &compressed(encoding, &data), 500).unwrap(), &data);
            }
        }

        #[test]
        fn anything_else_is_an_error(data in proptest::collection::vec(any::<u8>(), 0..50)) {
            let _ = decompressed(Encoding::Gzip, &data, 100);
            let _ = decompressed(Encoding::Deflate, &data, 100);
            prop_assert!(decompressed(Encoding::Identity, &data, 100).is_err());
        }
    }
}
