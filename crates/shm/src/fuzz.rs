//! Fuzz targets: objects that workers wrote, and the names of memory that clients give.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use bytes::Bytes;

use crate::object::{Object, Part, Plan, ReadPart};
use crate::region_key::Key;

/// Bytes as an object. What is read lies inside of them, and is written as an object that reads the same.
pub fn object(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(object) = Object::read(&bytes) else { return };
    let inside = bytes.as_ptr_range();
    let lies_inside = |part: &[u8]| part.is_empty() || inside.contains(&part.as_ptr());
    assert!(object.parts.iter().all(|part| lies_inside(&part.tensor.data)));
    let again = Object::read(&written(&object)).expect("what was written is read");
    assert_eq!((&again.parts, again.kind), (&object.parts, object.kind));
    assert!(again.checksum.is_some() == object.checksum.is_some() && again.verify().is_ok());
}

/// A text as the name of a client's memory: it leads nowhere else, and to nothing of our own.
pub fn region_key(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if Key::parse(&text).is_ok() {
        let name = text.strip_prefix('/').unwrap_or(&text);
        assert!((1..=200).contains(&name.len()) && !name.contains(['/', '\0']));
        assert!(!name.starts_with("anyserve-") && name != ".." && name != ".");
    }
}

fn written(object: &Object) -> Bytes {
    let parts: Vec<_> = object.parts.iter().map(part).collect();
    let plan = Plan::of(object.kind, &parts, object.checksum.is_some()).expect("what was read can be written");
    let mut bytes = vec![0; usize::try_from(plan.len).expect("it is as long as what was read, and some padding")];
    bytes[..plan.header.len()].copy_from_slice(&plan.header);
    for (part, offset) in parts.iter().zip(&plan.offsets) {
        let start = usize::try_from(*offset).expect("it is inside");
        bytes[start..][..part.data.len()].copy_from_slice(part.data);
        if let Some(prefix) = part.prefix() {
            bytes[start - prefix.len()..start].copy_from_slice(&prefix);
        }
    }
    bytes.into()
}

fn part(ReadPart { tensor, framed }: &ReadPart) -> Part<'_> {
    Part {
        name: &tensor.name,
        datatype: tensor.datatype,
        shape: &tensor.shape,
        data: &tensor.data,
        plain: framed.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn an_object_lies_in_its_bytes_and_reads_as_it_is_written_or_is_refused() {
        attack("object", object);
    }

    #[test]
    fn a_name_of_memory_leads_nowhere_else_or_is_refused() {
        attack("region_key", region_key);
    }
}
