//! What a request asks of the scheduler: its priority, its own timeout, its tenant, and the sequence that it belongs to.

use std::time::Duration;

use crate::{Error, Parameter, Request};

/// A priority level; 1 goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

/// The name of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SequenceId {
    /// A number; not 0.
    Number(u64),
    /// A text; not empty.
    Text(String),
}

/// A request's place in its sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceCall {
    /// Which sequence.
    pub id: SequenceId,
    /// Whether it is the first of its sequence.
    pub start: bool,
    /// Whether it is the last of its sequence.
    pub end: bool,
}

/// What a request asks of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule<'a> {
    /// The priority that it names, if it does.
    pub priority: Option<Priority>,
    /// Time from its arrival after which it is not wanted any more.
    pub timeout: Option<Duration>,
    /// Who shares the workers with others; empty if nobody is named.
    pub tenant: &'a str,
    /// Its sequence, if it names one.
    pub sequence: Option<SequenceCall>,
}

/// Longest name of a tenant, in bytes.
pub const MAX_TENANT: usize = 128;
/// Longest name of a sequence, in bytes.
pub const MAX_SEQUENCE: usize = 128;

// === impl Priority ===

impl Priority {
    /// Goes before all others.
    pub const FIRST: Self = Self(1);
    /// What a request has when nobody says anything.
    pub const MIDDLE: Self = Self(4);
    /// Goes after all others.
    pub const LAST: Self = Self(8);
    /// Number of levels.
    pub const LEVELS: usize = 8;

    /// The level with this number; `None` unless it is from 1 to 8.
    pub fn try_new(level: u32) -> Option<Self> {
        u8::try_from(level).ok().filter(|level| (1..=8).contains(level)).map(Self)
    }

    /// Its number, from 1 to 8.
    pub fn level(self) -> u8 {
        self.0
    }

    /// Its place in a table of levels, from 0.
    pub fn index(self) -> usize {
        usize::from(self.0 - 1)
    }
}

// === impl Schedule ===

impl<'a> Schedule<'a> {
    /// Reads the parameters `priority`, `timeout`, `sequence_id`, `sequence_start` and `sequence_end`, and the headers
    /// `x-priority` and `x-tenant`. A parameter wins over its header, and of two headers with one name the first.
    ///
    /// `priority` is 0 for the default or a level from 1, first, to 8. `timeout` is in microseconds; 0 is none.
    /// `sequence_id` 0 or empty is no sequence. A request that has none of them costs a look at its names only.
    ///
    /// Source: Triton's schedule-policy and sequence extensions of the KServe v2 protocol.
    ///
    /// # Errors
    /// `INVALID_INPUT` for another type than the parameter has, a negative number, an unknown priority, or a name that is
    /// too long or has control characters. The message names the parameter, its value and what it may be.
    pub fn of(request: &'a Request) -> Result<Self, Error> {
        let given = Given::of(request);
        let priority = match (given.priority, given.priority_header) {
            (Some(parameter), _) => priority_of(parameter)?,
            (None, Some(text)) => priority_of_header(text)?,
            (None, None) => None,
        };
        let timeout = given.timeout.map_or(Ok(None), timeout_of)?;
        let tenant = given.tenant.map_or(Ok(""), tenant_of)?;
        Ok(Self { priority, timeout, tenant, sequence: given.sequence()? })
    }
}

/// What a request says of these things, not looked at yet.
#[derive(Default)]
struct Given<'a> {
    priority: Option<&'a Parameter>,
    timeout: Option<&'a Parameter>,
    sequence_id: Option<&'a Parameter>,
    sequence_start: Option<&'a Parameter>,
    sequence_end: Option<&'a Parameter>,
    priority_header: Option<&'a str>,
    tenant: Option<&'a str>,
}

// === impl Given ===

impl<'a> Given<'a> {
    fn of(request: &'a Request) -> Self {
        let mut given = Self::default();
        for (name, parameter) in &request.parameters {
            if let Some(place) = given.parameter(name) {
                *place = Some(parameter);
            }
        }
        for (name, text) in &request.headers {
            match name.as_str() {
                "x-priority" => _ = given.priority_header.get_or_insert(text),
                "x-tenant" => _ = given.tenant.get_or_insert(text),
                _ => {}
            }
        }
        given
    }

    fn parameter(&mut self, name: &str) -> Option<&mut Option<&'a Parameter>> {
        match name {
            "priority" => Some(&mut self.priority),
            "timeout" => Some(&mut self.timeout),
            "sequence_id" => Some(&mut self.sequence_id),
            "sequence_start" => Some(&mut self.sequence_start),
            "sequence_end" => Some(&mut self.sequence_end),
            _ => None,
        }
    }

    /// The flags are looked at even where there is no sequence, so that a wrong one is never passed over.
    fn sequence(&self) -> Result<Option<SequenceCall>, Error> {
        let start = flag("sequence_start", self.sequence_start)?;
        let end = flag("sequence_end", self.sequence_end)?;
        let id = self.sequence_id.map_or(Ok(None), sequence_id_of)?;
        Ok(id.map(|id| SequenceCall { id, start, end }))
    }
}

const PRIORITIES: &str = "0 for the default or a level from 1, first, to 8, last";
const MICROSECONDS: &str = "a whole number of microseconds from 0, which is none";

fn priority_of(parameter: &Parameter) -> Result<Option<Priority>, Error> {
    level(whole(parameter), || refused("priority", parameter, PRIORITIES))
}

fn priority_of_header(text: &str) -> Result<Option<Priority>, Error> {
    let refused = || format!("header 'x-priority' is '{}', expected {PRIORITIES}", start_of(text));
    level(digits(text), || Error::invalid(refused()))
}

/// Level 0 leaves the choice to the handler.
fn level(number: Option<u64>, refused: impl FnOnce() -> Error) -> Result<Option<Priority>, Error> {
    match number.and_then(|number| u32::try_from(number).ok()) {
        Some(0) => Ok(None),
        level => level.and_then(Priority::try_new).map(Some).ok_or_else(refused),
    }
}

/// Digits are fine too: a client without 64-bit integers has no other way to write a long time.
fn timeout_of(parameter: &Parameter) -> Result<Option<Duration>, Error> {
    let micros = match parameter {
        Parameter::Text(text) => digits(text),
        parameter => whole(parameter),
    };
    let micros = micros.ok_or_else(|| refused("timeout", parameter, MICROSECONDS))?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

fn tenant_of(name: &str) -> Result<&str, Error> {
    let wrong = |what: &str| Err(Error::invalid(format!("header 'x-tenant' has {what}")));
    if name.len() > MAX_TENANT {
        return wrong(&format!("{} bytes, expected at most {MAX_TENANT}", name.len()));
    }
    match name.char_indices().find(|(_, c)| c.is_control()) {
        Some((place, c)) => wrong(&format!("the control character {c:?} at byte {place}, expected none")),
        None => Ok(name),
    }
}

fn sequence_id_of(parameter: &Parameter) -> Result<Option<SequenceId>, Error> {
    if let Parameter::Text(text) = parameter {
        return sequence_name(text);
    }
    let number = whole(parameter);
    let number = number.ok_or_else(|| refused("sequence_id", parameter, "a whole number from 0, or a text"))?;
    Ok((number > 0).then_some(SequenceId::Number(number)))
}

fn sequence_name(text: &str) -> Result<Option<SequenceId>, Error> {
    if text.len() > MAX_SEQUENCE {
        let message = format!("parameter 'sequence_id' has {} bytes, expected at most {MAX_SEQUENCE}", text.len());
        return Err(Error::invalid(message));
    }
    Ok((!text.is_empty()).then(|| SequenceId::Text(text.to_owned())))
}

fn flag(name: &str, parameter: Option<&Parameter>) -> Result<bool, Error> {
    match parameter {
        None => Ok(false),
        Some(Parameter::Bool(flag)) => Ok(*flag),
        Some(other) => Err(refused(name, other, "true or false")),
    }
}

fn whole(parameter: &Parameter) -> Option<u64> {
    match parameter {
        Parameter::Int(number) => u64::try_from(*number).ok(),
        Parameter::Uint(number) => Some(*number),
        Parameter::Bool(_) | Parameter::Double(_) | Parameter::Text(_) => None,
    }
}

/// Stricter than `parse`, which takes a plus sign.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn refused(name: &str, parameter: &Parameter, expected: &str) -> Error {
    let got = match parameter {
        Parameter::Bool(flag) => flag.to_string(),
        Parameter::Int(number) => number.to_string(),
        Parameter::Uint(number) => number.to_string(),
        Parameter::Double(number) => format!("{number:?}"),
        Parameter::Text(text) => format!("'{}'", start_of(text)),
    };
    Error::invalid(format!("parameter '{name}' is {got}, expected {expected}"))
}

/// Enough of a text to recognise it by: a message must not grow with what it refuses.
fn start_of(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Code, Expects, Query};
    use Parameter::{Bool, Double, Int, Text, Uint};

    fn request(parameters: &[(&str, Parameter)], headers: &[(&str, &str)]) -> Request {
        Request {
            id: String::new(),
            model: String::new(),
            version: String::new(),
            query: Query::model("echo"),
            inputs: vec![],
            outputs: vec![],
            destinations: vec![],
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            headers: headers.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            deadline: None,
            expects: Expects::One,
        }
    }

    fn text(text: &str) -> Parameter {
        Text(text.to_owned())
    }

    /// What the one parameter, or the one header, comes to, as `read` takes it from the schedule.
    fn parameter<T>(name: &str, value: Parameter, read: impl Fn(&Schedule<'_>) -> T) -> Result<T, String> {
        let request = request(&[(name, value)], &[]);
        Schedule::of(&request).map(|schedule| read(&schedule)).map_err(message)
    }

    fn header<T>(name: &str, text: &str, read: impl Fn(&Schedule<'_>) -> T) -> Result<T, String> {
        let request = request(&[], &[(name, text)]);
        Schedule::of(&request).map(|schedule| read(&schedule)).map_err(message)
    }

    fn message(error: Error) -> String {
        assert_eq!(error.code, Code::InvalidInput);
        error.message
    }

    fn asked(schedule: &Schedule<'_>) -> Option<u8> {
        schedule.priority.map(Priority::level)
    }

    fn sequence(schedule: &Schedule<'_>) -> Option<SequenceId> {
        schedule.sequence.as_ref().map(|call| call.id.clone())
    }

    fn is_refused<T: std::fmt::Debug>(read: Result<T, String>, got: &str, expected: &str) {
        assert_eq!(read.unwrap_err(), format!("{got}, expected {expected}"));
    }

    #[test]
    fn a_request_that_says_nothing_gets_nothing() {
        let none = Schedule { priority: None, timeout: None, tenant: "", sequence: None };
        let other = request(&[("temperature", Double(0.5))], &[("user-agent", "test")]);
        assert_eq!(Schedule::of(&other), Ok(none.clone()));
        let zeros = [("priority", Int(0)), ("timeout", Uint(0)), ("sequence_id", Int(0))];
        assert_eq!(Schedule::of(&request(&zeros, &[("x-priority", "0"), ("x-tenant", "")])), Ok(none));
    }

    #[test]
    fn everything_is_read_at_once() {
        let parameters = [
            ("priority", Uint(1)),
            ("timeout", Int(1_500)),
            ("sequence_id", Int(7)),
            ("sequence_start", Bool(true)),
            ("sequence_end", Bool(false)),
        ];
        let sequence = Some(SequenceCall { id: SequenceId::Number(7), start: true, end: false });
        let (priority, timeout) = (Some(Priority::FIRST), Some(Duration::from_micros(1_500)));
        let all = Schedule { priority, timeout, tenant: "blue", sequence };
        assert_eq!(Schedule::of(&request(&parameters, &[("x-tenant", "blue")])), Ok(all));
    }

    #[test]
    fn a_priority_is_a_level_from_1_to_8_or_0_for_the_default() {
        for (value, expected) in [(Int(0), None), (Int(1), Some(1)), (Uint(4), Some(4)), (Int(8), Some(8))] {
            assert_eq!(parameter("priority", value, asked), Ok(expected));
        }
        let wrong = [
            (Int(-1), "-1"),
            (Int(9), "9"),
            (Uint(u64::MAX), "18446744073709551615"),
            (Uint(1 << 32), "4294967296"),
            (Double(1.0), "1.0"),
            (Bool(true), "true"),
            (text("1"), "'1'"),
            (text("high"), "'high'"),
        ];
        for (value, got) in wrong {
            is_refused(parameter("priority", value, asked), &format!("parameter 'priority' is {got}"), PRIORITIES);
        }
    }

    #[test]
    fn a_priority_by_header_is_the_same_in_digits() {
        for (text, expected) in [("0", None), ("1", Some(1)), ("8", Some(8)), ("08", Some(8))] {
            assert_eq!(header("x-priority", text, asked), Ok(expected));
        }
        for text in ["", "9", "-1", "+1", "1.0", "high", "1 2", "18446744073709551617"] {
            is_refused(header("x-priority", text, asked), &format!("header 'x-priority' is '{text}'"), PRIORITIES);
        }
    }

    #[test]
    fn a_parameter_wins_over_its_header_and_the_first_header_over_the_second() {
        let both = request(&[("priority", Int(2))], &[("x-priority", "7")]);
        assert_eq!(asked(&Schedule::of(&both).unwrap()), Some(2));
        let zero = request(&[("priority", Int(0))], &[("x-priority", "what")]);
        assert_eq!(asked(&Schedule::of(&zero).unwrap()), None, "0 is said, so that the header does not count");
        let twice = request(&[], &[("x-tenant", "a"), ("x-priority", "3"), ("x-tenant", "b"), ("x-priority", "5")]);
        let read = Schedule::of(&twice).unwrap();
        assert_eq!((read.tenant, asked(&read)), ("a", Some(3)));
    }

    #[test]
    fn a_timeout_is_in_microseconds_and_never_negative() {
        let micros = |schedule: &Schedule<'_>| schedule.timeout.map(|timeout| timeout.as_micros());
        let good = [
            (Int(0), None),
            (Uint(0), None),
            (text("0"), None),
            (Int(1), Some(1)),
            (Uint(u64::MAX), Some(u128::from(u64::MAX))),
            (text("2500000"), Some(2_500_000)),
        ];
        for (value, expected) in good {
            assert_eq!(parameter("timeout", value, micros), Ok(expected));
        }
        let wrong = [
            (Int(-1), "-1"),
            (Int(i64::MIN), "-9223372036854775808"),
            (Double(1.5), "1.5"),
            (Bool(false), "false"),
            (text(""), "''"),
            (text("-1"), "'-1'"),
            (text("1s"), "'1s'"),
            (text("18446744073709551616"), "'18446744073709551616'"),
        ];
        for (value, got) in wrong {
            is_refused(parameter("timeout", value, micros), &format!("parameter 'timeout' is {got}"), MICROSECONDS);
        }
    }

    #[test]
    fn a_tenant_is_a_short_name_without_control_characters() {
        let tenant = |name: &str| header("x-tenant", name, |schedule| schedule.tenant.to_owned());
        for name in ["", "blue", "blau und gr\u{fc}n", &"t".repeat(MAX_TENANT)] {
            assert_eq!(tenant(name), Ok(name.to_owned()));
        }
        let long = "\u{fc}".repeat(MAX_TENANT / 2 + 1);
        is_refused(tenant(&long), "header 'x-tenant' has 130 bytes", "at most 128");
        for (name, place, c) in [("a\nb", 1, "'\\n'"), ("\0", 0, "'\\0'"), ("\u{fc}\u{7f}", 2, "'\\u{7f}'")] {
            let got = format!("header 'x-tenant' has the control character {c} at byte {place}");
            is_refused(tenant(name), &got, "none");
        }
    }

    #[test]
    fn a_sequence_is_named_by_a_number_or_a_text() {
        let named = |name: &str| Some(SequenceId::Text(name.to_owned()));
        let longest = "s".repeat(MAX_SEQUENCE);
        let good = [
            (Int(0), None),
            (Uint(0), None),
            (text(""), None),
            (Int(i64::MAX), Some(SequenceId::Number(i64::MAX.unsigned_abs()))),
            (Uint(u64::MAX), Some(SequenceId::Number(u64::MAX))),
            (text("0"), named("0")),
            (text("chat 7"), named("chat 7")),
            (text(&longest), named(&longest)),
        ];
        for (value, expected) in good {
            assert_eq!(parameter("sequence_id", value, sequence), Ok(expected));
        }
        for (value, got) in [(Int(-7), "-7"), (Double(7.0), "7.0"), (Bool(true), "true")] {
            let got = format!("parameter 'sequence_id' is {got}");
            is_refused(parameter("sequence_id", value, sequence), &got, "a whole number from 0, or a text");
        }
        let long = text(&"s".repeat(MAX_SEQUENCE + 1));
        is_refused(parameter("sequence_id", long, sequence), "parameter 'sequence_id' has 129 bytes", "at most 128");
    }

    #[test]
    fn a_sequences_start_and_end_are_true_or_false_even_without_a_sequence() {
        for name in ["sequence_start", "sequence_end"] {
            assert_eq!(parameter(name, Bool(true), sequence), Ok(None));
            for (value, got) in [(Int(1), "1"), (Uint(1), "1"), (Double(0.0), "0.0"), (text("true"), "'true'")] {
                is_refused(parameter(name, value, sequence), &format!("parameter '{name}' is {got}"), "true or false");
            }
        }
        let last = request(&[("sequence_id", text("a")), ("sequence_end", Bool(true))], &[]);
        let call = Schedule::of(&last).unwrap().sequence.unwrap();
        assert_eq!((call.start, call.end), (false, true));
    }

    #[test]
    fn a_message_does_not_grow_with_the_text_that_it_refuses() {
        let error = header("x-priority", &"9".repeat(100_000), asked).unwrap_err();
        assert!(error.len() < 200, "{} bytes", error.len());
    }
}
