//! Fuzz targets: every parser of outside texts of this crate.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::str::from_utf8;
use std::time::Duration;

use crate::header::{from_header, to_header};
use crate::{
    BytesReader, Code, Datatype, Expects, Fingerprint, MAX_SEQUENCE, MAX_TENANT, ObjRef, Parameter, Query, Request,
    Schedule, SequenceId, Tensor, Upgrades, elements,
};

/// A text as a selector: what it is read as is written, and read again, as the same query.
pub fn selector(data: &[u8]) {
    let Ok(query) = Query::parse(&String::from_utf8_lossy(data)) else { return };
    reads_as_written(&query);
}

/// The lines of a text as upgrade rules, applied to the query of its last line.
pub fn upgrades(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines: Vec<_> = text.lines().collect();
    let query = lines.pop().map_or_else(|| Query::model("m"), |line| Query::parse(line).unwrap_or(Query::model(line)));
    let Ok(rules) = Upgrades::parse(lines) else { return };
    if let Some(other) = rules.apply(&query) {
        reads_as_written(&other);
    }
}

/// A text as what is written in one way only: references, fingerprints, names, and text that travels in a header.
pub fn texts(data: &[u8]) {
    let Ok(text) = from_utf8(data) else { return };
    assert_eq!(from_header(&to_header(text)).as_deref(), Some(text));
    if let Some(told) = from_header(text) {
        assert_eq!(from_header(&to_header(&told)), Some(told));
    }
    if let Ok(objref) = text.parse::<ObjRef>() {
        assert_eq!(objref.to_string(), text);
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string(), text.to_ascii_lowercase());
    }
    assert!(Datatype::from_name(text).is_none_or(|datatype| datatype.name() == text));
    assert!(Code::from_name(text).is_none_or(|code| code.name() == text));
}

/// Lines as headers and parameters of a request, read for what they ask of the scheduler.
///
/// `h` before a name makes a header of it, `t`, `i`, `u`, `d` and `b` a parameter of that type.
pub fn schedule(data: &[u8]) {
    let mut request = nothing();
    let text = String::from_utf8_lossy(data);
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let (kind, name) = name.split_at_checked(1).unwrap_or_default();
        let parameter = match kind {
            "t" => Parameter::Text(value.to_owned()),
            "i" => Parameter::Int(value.parse().unwrap_or_default()),
            "u" => Parameter::Uint(value.parse().unwrap_or_default()),
            "d" => Parameter::Double(value.parse().unwrap_or_default()),
            "b" => Parameter::Bool(value == "true"),
            _ => {
                request.headers.push((name.to_owned(), value.to_owned()));
                continue;
            }
        };
        request.parameters.push((name.to_owned(), parameter));
    }
    let Ok(Schedule { priority, timeout, tenant, sequence }) = Schedule::of(&request) else { return };
    assert!(priority.is_none_or(|level| (1..=8).contains(&level.level())));
    assert!(timeout != Some(Duration::ZERO) && tenant.len() <= MAX_TENANT);
    assert!(sequence.is_none_or(|call| match call.id {
        SequenceId::Number(number) => number > 0,
        SequenceId::Text(text) => (1..=MAX_SEQUENCE).contains(&text.len()),
    }));
}

/// Bytes as elements of BYTES; and as a datatype's number with a shape, whose product is compared with wider arithmetic.
pub fn tensor(data: &[u8]) {
    if let Ok(elements) = BytesReader::new(data).collect::<Result<Vec<_>, _>>() {
        let len = |element: &[u8]| u32::try_from(element.len()).expect("it has a length of 32 bits").to_le_bytes();
        let written: Vec<_> = elements.iter().flat_map(|element| [&len(element), *element].concat()).collect();
        assert_eq!(written, data);
    }
    let Some((number, dimensions)) = data.split_first() else { return };
    let shape: Vec<_> = dimensions.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    let count = shape.iter().try_fold(1_i128, |count, size| count.checked_mul(i128::from(*size)));
    if let Ok(read) = elements(&shape) {
        assert!(shape.contains(&0) || count == i128::try_from(read).ok());
    }
    let Some(datatype) = Datatype::from_number((*number).into()) else { return };
    let expected = Tensor::expected_len(datatype, &shape);
    if let (Ok(Some(len)), Ok(count), Some(size)) = (expected, elements(&shape), datatype.size()) {
        assert_eq!(count.checked_mul(size), Some(len));
    }
}

fn reads_as_written(query: &Query) {
    if let Some(written) = query.to_selector() {
        assert_eq!(Query::parse(&written).as_ref(), Ok(query), "{written}");
    }
}

fn nothing() -> Request {
    Request {
        id: String::new(),
        model: String::new(),
        version: String::new(),
        query: Query::model("m"),
        inputs: Vec::new(),
        outputs: Vec::new(),
        destinations: Vec::new(),
        parameters: Vec::new(),
        headers: Vec::new(),
        deadline: None,
        expects: Expects::One,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn a_selector_is_refused_or_read_as_it_is_written() {
        attack("selector", selector);
    }

    #[test]
    fn what_upgrades_make_of_a_query_is_a_query() {
        attack("upgrades", upgrades);
    }

    #[test]
    fn what_has_one_spelling_is_refused_in_any_other() {
        attack("texts", texts);
    }

    #[test]
    fn what_is_asked_of_the_scheduler_is_within_its_bounds_or_refused() {
        attack("schedule", schedule);
    }

    #[test]
    fn elements_and_shapes_add_up_or_are_refused() {
        attack("tensor", tensor);
    }
}
