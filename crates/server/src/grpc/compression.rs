//! gzip and deflate of messages.

use std::io::{self, Read, Write};

use anyserve_core::{Code, Error};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;

use crate::body::Chunks;

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

    /// Decompresses a message to at most `max` bytes.
    ///
    /// # Errors
    /// `INVALID_INPUT` if it is not compressed so, or longer than that.
    pub(super) fn decompress(self, data: &[u8], max: usize) -> Result<Bytes, Error> {
        let message = match self {
            Self::Identity => return Err(Error::invalid("a compressed message without grpc-encoding")),
            Self::Gzip => read_all(GzDecoder::new(data), max),
            Self::Deflate => read_all(ZlibDecoder::new(data), max),
        };
        let message = message.map_err(|error| Error::invalid(format!("message is not {}: {error}", self.name())))?;
        if message.len() > max {
            let message = format!("message is longer than {max} bytes once decompressed");
            return Err(Error::new(Code::InvalidInput, message));
        }
        Ok(message.into())
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

/// Reads one byte beyond `max`, so that the caller can tell "just fits" from "too long".
fn read_all(reader: impl Read, max: usize) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let bound = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(bound).read_to_end(&mut message)?;
    Ok(message)
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
    use proptest::prelude::*;

    fn compressed(encoding: Encoding, data: &[u8]) -> Vec<u8> {
        let mut chunks = Chunks::default();
        chunks.push(Bytes::copy_from_slice(data));
        encoding.compress(chunks)
    }

    #[test]
    fn a_message_may_be_as_long_as_the_limit_once_decompressed_and_no_longer() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let bomb = compressed(encoding, &[0; 1000]);
            assert!(encoding.decompress(&bomb, 1001).is_ok());
            assert!(encoding.decompress(&bomb, 1000).is_ok());
            assert_eq!(encoding.decompress(&bomb, 999).unwrap_err().code, Code::InvalidInput);
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(data in proptest::collection::vec(any::<u8>(), 0..500)) {
            for encoding in [Encoding::Gzip, Encoding::Deflate] {
                prop_assert_eq!(&encoding.decompress(&compressed(encoding, &data), 500).unwrap(), &data);
            }
        }

        #[test]
        fn anything_else_is_an_error(data in proptest::collection::vec(any::<u8>(), 0..50)) {
            let _ = Encoding::Gzip.decompress(&data, 100);
            let _ = Encoding::Deflate.decompress(&data, 100);
            prop_assert!(Encoding::Identity.decompress(&data, 100).is_err());
        }
    }
}
