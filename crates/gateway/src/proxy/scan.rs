//! What of a message routing needs to know, without decoding the message.
//!
//! Only top-level fields are looked at, and of the tensors, where a policy wants to know how a prompt begins, the first
//! bytes of the first one. What is read means exactly what prost makes of it; what is skipped is the replica's to judge.
//!
//! Source: the Protocol Buffers encoding; field numbers of `ModelInferRequest`, of which those of the other requests about
//! a model are the first two.

use anyserve_cluster::policy::{BLOCK, BLOCKS};
use anyserve_core::Datatype;
use anyserve_proto::inference::InferParameter;
use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, message, skip_field, string};

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Name and version: a question about a model.
    Name,
    /// What says where an inference goes.
    Query,
    /// The same, and how its prompt begins.
    Prompt,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// The model.
    pub(crate) model: String,
    /// Its version.
    pub(crate) version: String,
    /// The request's id.
    pub(crate) id: String,
    /// The parameter `capability`.
    pub(crate) capability: Option<InferParameter>,
    /// How the prompt begins, as far as it counts.
    pub(crate) prompt: Option<Vec<u8>>,
}

/// An entry of the parameters.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<InferParameter>,
}

/// What is known of the first input so far.
#[derive(Debug, Default)]
struct Prompt {
    seen: bool,
    datatype: String,
    /// The beginning of its typed contents.
    contents: Option<Vec<u8>>,
    /// The beginning of its raw contents.
    raw: Option<Vec<u8>>,
}

/// Bytes of a prompt that count.
const COUNTED: usize = BLOCK * BLOCKS;

/// Bytes that may stand before them: a length of BYTES, or a key and a length of the encoding.
const AHEAD: usize = 16;

/// Looks through a message.
///
/// # Errors
/// For bytes that are no such message, as far as they are looked at.
pub(crate) fn scan(mut buf: impl Buf, wants: Wants) -> Result<Found, DecodeError> {
    let (mut found, mut prompt) = (Found::default(), Prompt::default());
    while buf.has_remaining() {
        let (tag, wire) = decode_key(&mut buf)?;
        let (ctx, buf) = (DecodeContext::default(), &mut buf);
        match (tag, wants) {
            (1, _) => string::merge(wire, &mut found.model, buf, ctx)?,
            (2, _) => string::merge(wire, &mut found.version, buf, ctx)?,
            (3, Wants::Query | Wants::Prompt) => string::merge(wire, &mut found.id, buf, ctx)?,
            (4, Wants::Query | Wants::Prompt) => found.parameter(buf)?,
            (5, Wants::Prompt) if !prompt.seen => prompt.input(wire, buf)?,
            (7, Wants::Prompt) if prompt.raw.is_none() => prompt.raw = Some(beginning(wire, buf)?),
            _ => skip_field(wire, tag, buf, ctx)?,
        }
    }
    found.prompt = prompt.text();
    Ok(found)
}

// === impl Found ===

impl Found {
    /// An entry of the parameters. Of several with one key the last counts. prost looks at no entry's wire type.
    fn parameter(&mut self, buf: &mut impl Buf) -> Result<(), DecodeError> {
        let mut entry = Entry::default();
        message::merge(WireType::LengthDelimited, &mut entry, buf, DecodeContext::default())?;
        if entry.key == "capability" {
            self.capability = Some(entry.value.unwrap_or_default());
        }
        Ok(())
    }
}

// === impl Prompt ===

impl Prompt {
    /// Field 5: of the input, datatype (2) and typed contents (5).
    fn input(&mut self, wire: WireType, buf: &mut impl Buf) -> Result<(), DecodeError> {
        self.seen = true;
        let mut input = delimited(wire, buf)?;
        while input.has_remaining() {
            let (tag, wire) = decode_key(&mut input)?;
            let ctx = DecodeContext::default();
            match tag {
                2 => string::merge(wire, &mut self.datatype, &mut input, ctx)?,
                5 => self.contents = Some(beginning(wire, &mut input)?),
                _ => skip_field(wire, tag, &mut input, ctx)?,
            }
        }
        Ok(())
    }

    /// The first element of BYTES; of another datatype, the data as it is.
    fn text(self) -> Option<Vec<u8>> {
        let bytes = self.datatype == Datatype::Bytes.name();
        let mut text = match (self.contents, self.raw) {
            (Some(contents), _) => first_field(&contents)?.to_vec(),
            (None, Some(raw)) if bytes => {
                let (len, text) = raw.split_first_chunk::<4>()?;
                let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
                text[..len.min(text.len())].to_vec()
            }
            (None, raw) => raw?,
        };
        text.truncate(COUNTED);
        Some(text)
    }
}

/// What the first field of typed contents holds, as far as it is there: an element, or elements packed together.
fn first_field(mut contents: &[u8]) -> Option<&[u8]> {
    let (_, wire) = decode_key(&mut contents).ok()?;
    let len = decode_varint(&mut contents).ok().filter(|_| wire == WireType::LengthDelimited)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    Some(&contents[..len.min(contents.len())])
}

/// The beginning of a field; the rest of it is skipped.
fn beginning(wire: WireType, buf: &mut impl Buf) -> Result<Vec<u8>, DecodeError> {
    let mut field = delimited(wire, buf)?;
    let mut beginning = Vec::new();
    beginning.put((&mut field).take(COUNTED + AHEAD));
    field.advance(field.remaining());
    Ok(beginning)
}

/// The bytes of a field.
fn delimited<B: Buf>(wire: WireType, buf: &mut B) -> Result<bytes::buf::Take<&mut B>, DecodeError> {
    // What prost says of a field that is not one, or that is longer than the message.
    prost::encoding::check_wire_type(WireType::LengthDelimited, wire)?;
    let len = decode_varint(buf)?;
    match usize::try_from(len) {
        Ok(len) if len <= buf.remaining() => Ok(buf.take(len)),
        _ => Err(truncated()),
    }
}

/// The error of prost for a message that ends early, which nobody else can make.
fn truncated() -> DecodeError {
    decode_varint(&mut &[][..]).expect_err("there is no number in no bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_cluster::policy::Keys;
    use anyserve_proto::inference::infer_parameter::ParameterChoice;
    use anyserve_proto::inference::model_infer_request::InferInputTensor;
    use anyserve_proto::inference::{InferTensorContents, ModelInferRequest};
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message;

    fn input(datatype: &str, contents: Option<InferTensorContents>) -> InferInputTensor {
        InferInputTensor { name: "x".into(), datatype: datatype.into(), shape: vec![1], contents, ..Default::default() }
    }

    fn prompt(message: &ModelInferRequest) -> Option<Vec<u8>> {
        scan(&*message.encode_to_vec(), Wants::Prompt).unwrap().prompt
    }

    fn raw(datatype: &str, data: &[u8]) -> ModelInferRequest {
        ModelInferRequest {
            inputs: vec![input(datatype, None), input("BYTES", None)],
            raw_input_contents: vec![Bytes::copy_from_slice(data), Bytes::from_static(b"no")],
            ..Default::default()
        }
    }

    fn typed(contents: InferTensorContents, datatype: &str) -> ModelInferRequest {
        ModelInferRequest { inputs: vec![input(datatype, Some(contents))], ..Default::default() }
    }

    #[test]
    fn an_entry_of_the_parameters_is_one_whatever_its_wire_type_says_as_for_prost() {
        let entry = [&b"\x0a\x0acapability\x12\x05\x1a\x03a=b"[..]].concat();
        for wire in [0, 2, 5] {
            let message = [&[4 << 3 | wire, u8::try_from(entry.len()).unwrap()], &entry[..]].concat();
            let decoded = ModelInferRequest::decode(&message[..]).unwrap();
            let found = scan(&message[..], Wants::Query).unwrap();
            assert_eq!(found.capability.as_ref(), decoded.parameters.get("capability"), "{wire}");
            assert!(found.capability.is_some());
        }
    }

    #[test]
    fn a_prompt_is_the_first_text_raw_or_typed_and_no_more_than_counts() {
        for len in [0, 1, COUNTED - 1, COUNTED, COUNTED + 1, 1 << 20] {
            let text = vec![b'x'; len];
            let counted = Some(text[..len.min(COUNTED)].to_vec());
            let prefixed = [&u32::try_from(len).unwrap().to_le_bytes()[..], &text, &[1, 0, 0, 0, b'z']].concat();
            assert_eq!(prompt(&raw("BYTES", &prefixed)), counted, "{len}");
            let contents = vec![Bytes::from(text), Bytes::from_static(b"z")];
            let contents = InferTensorContents { bytes_contents: contents, ..Default::default() };
            assert_eq!(prompt(&typed(contents, "BYTES")), counted, "{len}");
        }
    }

    #[test]
    fn a_prompt_of_numbers_is_its_data_and_one_that_is_looked_for_in_vain_is_none() {
        assert_eq!(prompt(&raw("INT32", &[1, 0, 0, 0])), Some(vec![1, 0, 0, 0]));
        let contents = InferTensorContents { int_contents: vec![1, 2, 300], ..Default::default() };
        assert_eq!(prompt(&typed(contents, "INT32")), Some(vec![1, 2, 0xac, 2]));
        assert_eq!(prompt(&raw("BYTES", &[1, 0])), None);
        assert_eq!(prompt(&ModelInferRequest::default()), None);
        let keys = Keys::new(None, prompt(&raw("INT32", &[1, 0, 0, 0])).as_deref());
        assert!(keys.prefix.is_some());
        assert_eq!(scan(&*raw("INT32", &[1]).encode_to_vec(), Wants::Query).unwrap().prompt, None);
    }

    #[test]
    fn a_question_has_a_name_and_a_version_whatever_its_other_fields_are() {
        let message = [&[10, 1, b'm', 18, 1, b'2'][..], &[24, 1, 32, 1, 40, 1]].concat();
        let found = scan(&*message, Wants::Name).unwrap();
        assert_eq!((&*found.model, &*found.version), ("m", "2"));
        assert!(scan(&*message, Wants::Query).is_err(), "an id is no number");
    }

    fn same(bytes: &[u8], wants: Wants) -> Result<(), TestCaseError> {
        let found = scan(bytes, wants);
        let Ok(message) = ModelInferRequest::decode(bytes) else { return Ok(()) };
        let found = found.expect("prost reads it");
        prop_assert_eq!(
            (&found.model, &found.version, &found.id),
            (&message.model_name, &message.model_version, &message.id)
        );
        prop_assert_eq!(found.capability.as_ref(), message.parameters.get("capability"));
        Ok(())
    }

    fn choice() -> impl Strategy<Value = Option<ParameterChoice>> {
        prop_oneof![
            Just(None),
            any::<bool>().prop_map(|value| Some(ParameterChoice::BoolParam(value))),
            "[a-z=]{0,9}".prop_map(|text| Some(ParameterChoice::StringParam(text))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_prost_decodes_of_messages_one_after_the_other(
            texts in proptest::collection::vec("[a-c]{0,3}", 6),
            choices in proptest::collection::vec(choice(), 2),
            keys in proptest::collection::vec("capability|other", 2),
            data in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            // Two messages in a row are one message: later fields win, maps are merged.
            let message = |at: usize| ModelInferRequest {
                model_name: texts[at].clone(),
                model_version: texts[at + 2].clone(),
                id: texts[at + 4].clone(),
                parameters: [(keys[at].clone(), InferParameter { parameter_choice: choices[at].clone() })].into(),
                ..raw("BYTES", &data)
            };
            let bytes = [message(0).encode_to_vec(), message(1).encode_to_vec()].concat();
            same(&bytes, Wants::Query)?;
            same(&bytes, Wants::Prompt)?;
        }

        #[test]
        fn any_bytes_are_scanned_to_an_end_and_as_prost_decodes_them(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0..64_u8], 0..80),
        ) {
            let _ = scan(&*bytes, Wants::Name);
            same(&bytes, Wants::Query)?;
            same(&bytes, Wants::Prompt)?;
        }
    }
}
