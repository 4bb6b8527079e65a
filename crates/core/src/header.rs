//! Headers that the parts of a fleet understand among themselves, and how any text travels in one.

use std::fmt::Write;

/// Number of delegations so far: 0 or 1. It is there if, and only if, the request came through an API server.
pub const DELEGATIONS: &str = "x-anyserve-delegations";
/// Id of the replica that refused the request before it was forwarded.
pub const REFUSED_BY: &str = "x-anyserve-refused-by";
/// The selector, as [`to_header`] writes it, that a request asks for now, whatever it asked for at first.
pub const QUERY: &str = "x-anyserve-query";
/// In the trailers of a request that was not begun: the API server is to have it served elsewhere, as this selector.
/// Empty if the query stays what it is.
pub const HAND_BACK: &str = "x-anyserve-hand-back";
/// In the trailers, and over HTTP in the headers, of an answer that came through an API server: which replica it is of.
pub const REPLICA: &str = "x-anyserve-replica";
/// Beside it: how many replicas may have begun the request.
pub const ATTEMPTS: &str = "x-anyserve-attempts";
/// How many `context.call` the request is below the caller's own.
pub const DEPTH: &str = "x-anyserve-depth";

/// Writes a text as visible ASCII: every other byte, `%` and spaces become `%` and two hexadecimal digits, as in
/// `grpc-message`.
pub fn to_header(text: &str) -> String {
    let mut header = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            header.push(char::from(byte));
        } else {
            write!(header, "%{byte:02X}").expect("a string takes everything");
        }
    }
    header
}

/// Reads what [`to_header`] wrote. `None` for what it never writes.
pub fn from_header(header: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(header.len());
    let mut rest = header.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            byte if byte.is_ascii_graphic() => byte,
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_no_writer_writes_is_refused() {
        for header in ["%", "%4", "%4g", "a b", "\u{e9}", "%FF"] {
            assert_eq!(from_header(header), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_travels_as_visible_ascii(text in ".{0,40}") {
            let header = to_header(&text);
            prop_assert!(header.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(from_header(&header), Some(text));
        }
    }
}
