//! An HTTP/1.1 answer, cut out of the bytes that arrive: no I/O, nothing kept.

use bytes::{Buf, Bytes, BytesMut};
use httparse::{EMPTY_HEADER, Header, Response, Status};

const MAX_HEADERS: usize = 64;
/// A head, or a trailer line, that has no end by then is not one.
const MAX_HEAD: usize = 64 << 10;

/// What the answer says before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) body: Body,
    /// The server closes the connection after this answer.
    pub(crate) closes: bool,
}

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes.
    Sized(usize),
    /// A chunk's size line comes next.
    ChunkSize,
    /// So many bytes of a chunk, then the line's end after it.
    Chunk(usize),
    /// The lines after the last chunk, up to an empty one.
    Trailer,
}

/// What the buffered bytes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Piece(Bytes),
    NeedMore,
    End,
}

/// The peer does not speak HTTP/1.1, or a part of it that no server here needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AnswerError {
    #[error("malformed head: {0}")]
    Head(#[from] httparse::Error),
    #[error("malformed chunk size")]
    ChunkSize,
    #[error("a head or trailer of more than {MAX_HEAD} bytes")]
    TooLong,
    #[error("a body with neither a length nor chunks")]
    Unframed,
}

// === impl Head ===

impl Head {
    /// Takes the head off the front of `buffer` once it is there as a whole.
    pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<Self>, AnswerError> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut response = Response::new(&mut headers);
        let Status::Complete(length) = response.parse(buffer)? else {
            return if buffer.len() < MAX_HEAD { Ok(None) } else { Err(AnswerError::TooLong) };
        };
        let status = response.code.unwrap_or_default();
        let old = response.version == Some(0);
        let closes = old || says(response.headers, "connection", "close");
        let body = body(status, response.headers)?;
        buffer.advance(length);
        Ok(Some(Self { status, body, closes }))
    }
}

fn body(status: u16, headers: &[Header<'_>]) -> Result<Body, AnswerError> {
    if says(headers, "transfer-encoding", "chunked") {
        return Ok(Body::ChunkSize);
    }
    if matches!(status, 204 | 304) {
        return Ok(Body::Sized(0));
    }
    let length = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    length.map(Body::Sized).ok_or(AnswerError::Unframed)
}

fn says(headers: &[Header<'_>], name: &str, value: &str) -> bool {
    let named = |header: &&Header<'_>| header.name.eq_ignore_ascii_case(name);
    headers.iter().filter(named).any(|header| header.value.eq_ignore_ascii_case(value.as_bytes()))
}

// === impl Body ===

impl Body {
    /// Takes what comes next off the front of `buffer`.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut) -> Result<Step, AnswerError> {
        loop {
            let next = match *self {
                Self::Sized(0) => return Ok(Step::End),
                Self::Sized(left) => return Ok(self.piece(left, buffer, Self::Sized)),
                Self::ChunkSize => chunk_size(buffer)?,
                Self::Chunk(0) => (buffer.len() >= 2).then(|| {
                    buffer.advance(2);
                    Self::ChunkSize
                }),
                Self::Chunk(left) => return Ok(self.piece(left, buffer, Self::Chunk)),
                Self::Trailer => match trailer_line(buffer)? {
                    Some(0) => return Ok(Step::End),
                    line => line.map(|_| Self::Trailer),
                },
            };
            match next {
                Some(next) => *self = next,
                None => return Ok(Step::NeedMore),
            }
        }
    }

    fn piece(&mut self, left: usize, buffer: &mut BytesMut, rest: fn(usize) -> Self) -> Step {
        if buffer.is_empty() {
            return Step::NeedMore;
        }
        let piece = buffer.split_to(left.min(buffer.len())).freeze();
        *self = rest(left - piece.len());
        Step::Piece(piece)
    }
}

fn chunk_size(buffer: &mut BytesMut) -> Result<Option<Body>, AnswerError> {
    match httparse::parse_chunk_size(buffer).map_err(|_| AnswerError::ChunkSize)? {
        Status::Partial => Ok(None),
        Status::Complete((line, size)) => {
            buffer.advance(line);
            let size = usize::try_from(size).map_err(|_| AnswerError::ChunkSize)?;
            Ok(Some(if size == 0 { Body::Trailer } else { Body::Chunk(size) }))
        }
    }
}

/// Takes one line off and gives its length without its end.
fn trailer_line(buffer: &mut BytesMut) -> Result<Option<usize>, AnswerError> {
    let end = buffer.windows(2).position(|pair| pair == b"\r\n");
    match end {
        Some(length) => buffer.advance(length + 2),
        None if buffer.len() >= MAX_HEAD => return Err(AnswerError::TooLong),
        None => {}
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 503 no\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n";

    /// Reads an answer that arrives in these pieces: status, body, and whether it ended.
    fn read(pieces: &[&[u8]]) -> Result<(u16, Vec<u8>, bool), AnswerError> {
        let (mut buffer, mut head) = (BytesMut::new(), None);
        let (mut status, mut body, mut ended) = (0, Vec::new(), false);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            if head.is_none() {
                head = Head::take(&mut buffer)?;
            }
            let Some(head) = &mut head else { continue };
            status = head.status;
            loop {
                match head.body.take(&mut buffer)? {
                    Step::Piece(piece) => body.extend_from_slice(&piece),
                    Step::NeedMore => break,
                    Step::End => {
                        ended = true;
                        break;
                    }
                }
            }
        }
        Ok((status, body, ended))
    }

    #[test]
    fn an_answer_is_the_same_wherever_it_is_cut() {
        for (answer, status) in [(SIZED, 200), (CHUNKED, 503)] {
            for cut in 0..=answer.len() {
                let seen = read(&[&answer[..cut], &answer[cut..]]).unwrap();
                assert_eq!(seen, (status, b"hello".to_vec(), true), "cut at {cut}");
            }
            let bytes: Vec<_> = answer.chunks(1).collect();
            assert_eq!(read(&bytes).unwrap(), (status, b"hello".to_vec(), true));
        }
    }

    #[test]
    fn an_answer_that_lacks_its_last_byte_has_not_ended() {
        for answer in [SIZED, CHUNKED] {
            assert!(!read(&[&answer[..answer.len() - 1]]).unwrap().2);
        }
    }

    #[test]
    fn what_follows_an_answer_stays_in_the_buffer() {
        let mut buffer = BytesMut::from([SIZED, b"next"].concat().as_slice());
        let mut head = Head::take(&mut buffer).unwrap().unwrap();
        assert_eq!(head.body.take(&mut buffer).unwrap(), Step::Piece(Bytes::from_static(b"hello")));
        assert_eq!(head.body.take(&mut buffer).unwrap(), Step::End);
        assert_eq!(&buffer[..], b"next");
    }

    #[test]
    fn a_server_that_closes_the_connection_says_so() {
        let head = |text: &str| Head::take(&mut BytesMut::from(text)).unwrap().unwrap();
        assert!(head("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: Close\r\n\r\n").closes);
        assert!(head("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n").closes);
        assert!(!head("HTTP/1.1 204 No Content\r\n\r\n").closes);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(matches!(read(&[b"SSH-2.0-x\r\n"]), Err(AnswerError::Head(_))));
        assert!(matches!(read(&[b"HTTP/1.1 200 OK\r\n\r\n"]), Err(AnswerError::Unframed)));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n";
        assert!(matches!(read(&[chunked]), Err(AnswerError::ChunkSize)));
    }

    #[test]
    fn a_head_without_an_end_is_given_up() {
        let endless = [b"HTTP/1.1 200 OK\r\na: ".as_slice(), &vec![b'x'; MAX_HEAD]].concat();
        assert!(matches!(read(&[&endless]), Err(AnswerError::TooLong)));
    }
}
