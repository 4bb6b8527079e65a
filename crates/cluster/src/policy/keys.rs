//! What policies read of a request.

use anyserve_core::{BytesReader, Datatype, Request};

use crate::hash::{mix, of_bytes};

/// Header that names a session.
pub const SESSION: &str = "x-anyserve-session";
/// Bytes of a block of a prompt.
pub const BLOCK: usize = 256;
/// Blocks of a prompt that count.
pub const BLOCKS: usize = 4;

/// What makes requests belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The session that it is of.
    pub session: Option<u64>,
    /// How its prompt begins.
    pub prefix: Option<u64>,
}

// === impl Keys ===

impl Keys {
    /// Reads the header `x-anyserve-session`, the first of that name, and the first bytes of the first input.
    ///
    /// The prompt is the first element of an input of datatype BYTES, or else its data as it is, such as token ids. Of
    /// it count the whole blocks among the first four; of one that has no whole block, all of it.
    pub fn of(request: &Request) -> Self {
        let session = request.headers.iter().find(|(name, text)| name == SESSION && !text.is_empty());
        let prompt = request.inputs.first().and_then(|input| {
            let first = |data| BytesReader::new(data).next()?.ok();
            if input.datatype == Datatype::Bytes { first(&input.data) } else { Some(&*input.data) }
        });
        Self::new(session.map(|(_, text)| text.as_str()), prompt)
    }

    /// What belongs to a session, unless its name is empty, and begins like this. Of the prompt its first [`BLOCK`] times [`BLOCKS`] bytes are
    /// enough.
    pub fn new(session: Option<&str>, prompt: Option<&[u8]>) -> Self {
        let session = session.filter(|text| !text.is_empty());
        Self { session: session.map(|text| of_bytes(text.as_bytes())), prefix: prompt.and_then(prefix) }
    }
}

fn prefix(text: &[u8]) -> Option<u64> {
    let whole = text.len().min(BLOCK * BLOCKS) / BLOCK * BLOCK;
    let counted = if whole == 0 { text } else { &text[..whole] };
    // A prefix and a session of the same text are different keys.
    (!text.is_empty()).then(|| mix(of_bytes(counted)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Expects, Query, Tensor};
    use bytes::Bytes;

    fn request(headers: &[(&str, &str)], datatype: Datatype, data: Vec<u8>) -> Request {
        let input =
            Tensor { name: "prompt".into(), datatype, shape: vec![1], data: Bytes::from(data), parameters: vec![] };
        Request {
            id: String::new(),
            model: "chat".into(),
            version: String::new(),
            query: Query::model("chat"),
            inputs: vec![input],
            outputs: vec![],
            destinations: vec![],
            parameters: vec![],
            headers: headers.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            deadline: None,
            expects: Expects::Many,
        }
    }

    fn prompt(text: &[u8]) -> Option<u64> {
        let len = u32::try_from(text.len()).unwrap().to_le_bytes();
        Keys::of(&request(&[], Datatype::Bytes, [&len[..], text].concat())).prefix
    }

    #[test]
    fn prompts_that_begin_with_the_same_blocks_have_the_same_key() {
        let system = vec![b's'; BLOCK * BLOCKS];
        let with = |more: &str| prompt(&[&system[..], more.as_bytes()].concat());
        assert_eq!(with("one"), with("another question"));
        assert_eq!(with(""), with("one"));
        assert_ne!(with(""), prompt(&system[1..]), "one whole block fewer");
        assert_eq!(prompt(&system[1..]), prompt(&system[..BLOCK * (BLOCKS - 1)]));
    }

    #[test]
    fn the_blocks_that_count_are_enough_of_a_prompt() {
        for len in [1, BLOCK - 1, BLOCK, BLOCK * BLOCKS - 1, BLOCK * BLOCKS, BLOCK * BLOCKS + 1, 5000] {
            let text = vec![b'x'; len];
            let beginning = &text[..len.min(BLOCK * BLOCKS)];
            assert_eq!(Keys::new(None, Some(beginning)).prefix, prompt(&text), "{len}");
        }
    }

    #[test]
    fn a_short_prompt_counts_as_a_whole_and_an_empty_one_not_at_all() {
        assert_ne!(prompt(b"a"), prompt(b"b"));
        assert_ne!(prompt(&[b'x'; BLOCK - 1]), prompt(&[b'x'; BLOCK]));
        assert_eq!(prompt(b""), None);
    }

    #[test]
    fn broken_bytes_have_no_prefix_and_other_datatypes_count_as_they_are() {
        for data in [vec![], vec![1], vec![9, 0, 0, 0, 1]] {
            assert_eq!(Keys::of(&request(&[], Datatype::Bytes, data)).prefix, None);
        }
        let tokens = |last: u8| Keys::of(&request(&[], Datatype::Int32, vec![1, 0, 0, last])).prefix;
        assert!(tokens(1).is_some() && tokens(1) != tokens(2));
    }

    #[test]
    fn the_first_session_header_counts_unless_it_is_empty() {
        let session = |headers: &[(&str, &str)]| Keys::of(&request(headers, Datatype::Int32, vec![])).session;
        assert_eq!(session(&[(SESSION, "")]), None);
        assert_eq!(session(&[("x-other", "a")]), None);
        assert_eq!(session(&[(SESSION, "a"), (SESSION, "b")]), session(&[(SESSION, "a")]));
        assert_ne!(session(&[(SESSION, "a")]), session(&[(SESSION, "b")]));
    }
}
