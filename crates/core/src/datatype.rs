//! The 14 tensor datatypes of KServe v2.

use std::fmt;

/// Element type of a tensor.
///
/// Source: KServe v2 inference protocol, "Tensor Data Types", with Triton's BF16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The variants are the protocol's own names.
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bytes,
    Bf16,
}

/// Names and element sizes in the order of the enum; size 0 is "variable".
const TABLE: [(Datatype, &str, usize); 14] = [
    (Datatype::Bool, "BOOL", 1),
    (Datatype::Uint8, "UINT8", 1),
    (Datatype::Uint16, "UINT16", 2),
    (Datatype::Uint32, "UINT32", 4),
    (Datatype::Uint64, "UINT64", 8),
    (Datatype::Int8, "INT8", 1),
    (Datatype::Int16, "INT16", 2),
    (Datatype::Int32, "INT32", 4),
    (Datatype::Int64, "INT64", 8),
    (Datatype::Fp16, "FP16", 2),
    (Datatype::Fp32, "FP32", 4),
    (Datatype::Fp64, "FP64", 8),
    (Datatype::Bytes, "BYTES", 0),
    (Datatype::Bf16, "BF16", 2),
];

// === impl Datatype ===

impl Datatype {
    /// Every datatype, in the order of their wire numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The datatype with this upper-case name.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The upper-case name of the protocol.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Bytes of one element, or `None` for BYTES, whose elements differ in length.
    pub fn size(self) -> Option<usize> {
        Some(TABLE[self as usize].2).filter(|size| *size > 0)
    }

    /// The number of this datatype on the worker socket.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The datatype with this number on the worker socket.
    pub fn from_number(number: u32) -> Option<Self> {
        let place = usize::try_from(number).ok()?;
        TABLE.get(place).map(|row| row.0)
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_comes_back_by_name_and_number() {
        for (place, (datatype, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(*datatype as usize, place);
            assert_eq!(Datatype::from_name(name), Some(*datatype));
            assert_eq!(Datatype::from_number(datatype.number()), Some(*datatype));
        }
        assert_eq!(Datatype::from_name("fp32"), None, "names are upper-case");
        assert_eq!(Datatype::from_number(14), None);
    }
}
