//! Tensors as raw bytes with a name, a datatype and a shape, and what makes the three agree.

use bytes::Bytes;

use crate::{Datatype, Parameters};

/// A tensor: row-major, little-endian, without padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Unique among the inputs, or the outputs, of one message.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, none negative. The empty shape is a scalar.
    pub shape: Vec<i64>,
    /// `elements(shape) * datatype.size()` bytes; for BYTES each element is a 4-byte little-endian length and as
    /// many bytes.
    pub data: Bytes,
    /// Parameters of this tensor alone.
    pub parameters: Parameters,
}

/// What a handler declares of one input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions; −1 is any.
    pub shape: Vec<i64>,
}

/// A shape that no tensor can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A dimension is below zero.
    #[error("dimension {dimension} of shape {shape:?} is negative")]
    Negative {
        /// The value that was given.
        dimension: i64,
        /// The whole shape.
        shape: Vec<i64>,
    },
    /// The product of the dimensions is beyond what can be addressed.
    #[error("shape {shape:?} has more elements than can be counted")]
    Overflow {
        /// The whole shape.
        shape: Vec<i64>,
    },
}

/// BYTES data that breaks the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BytesError {
    /// Fewer than 4 bytes are left where a length should stand.
    #[error("element {element} has a truncated length prefix: {left} of 4 bytes")]
    Prefix {
        /// Index of the element.
        element: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The element is longer than what is left.
    #[error("element {element} has {len} bytes by its prefix and {left} in the data")]
    Element {
        /// Index of the element.
        element: usize,
        /// Length by the prefix.
        len: usize,
        /// Bytes that are left.
        left: usize,
    },
}

/// The number of elements of a shape; the empty shape has one.
///
/// # Errors
/// [`ShapeError`] if a dimension is negative or the product does not fit in `usize`. A zero dimension makes the
/// product zero whatever the others are.
pub fn elements(shape: &[i64]) -> Result<usize, ShapeError> {
    let mut product = Some(1_usize);
    for &dimension in shape {
        let size = usize::try_from(dimension).map_err(|_| ShapeError::Negative { dimension, shape: shape.to_vec() })?;
        product = product.and_then(|product| product.checked_mul(size));
    }
    if shape.contains(&0) {
        return Ok(0);
    }
    product.ok_or_else(|| ShapeError::Overflow { shape: shape.to_vec() })
}

// === impl Tensor ===

impl Tensor {
    /// The bytes that a fixed-size tensor of this shape has, or `None` for BYTES.
    ///
    /// # Errors
    /// [`ShapeError`] if the shape is none, or the size overflows.
    pub fn expected_len(datatype: Datatype, shape: &[i64]) -> Result<Option<usize>, ShapeError> {
        let count = elements(shape)?;
        let Some(size) = datatype.size() else { return Ok(None) };
        let overflow = || ShapeError::Overflow { shape: shape.to_vec() };
        count.checked_mul(size).ok_or_else(overflow).map(Some)
    }
}

/// Walks the elements of raw BYTES data.
#[derive(Clone, Debug)]
pub struct BytesReader<'a> {
    rest: &'a [u8],
    element: usize,
}

// === impl BytesReader ===

impl<'a> BytesReader<'a> {
    /// Reads from the start of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data, element: 0 }
    }

    fn take(&mut self) -> Result<&'a [u8], BytesError> {
        let Some((prefix, rest)) = self.rest.split_first_chunk::<4>() else {
            return Err(BytesError::Prefix { element: self.element, left: self.rest.len() });
        };
        let len = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        let Some((item, rest)) = rest.split_at_checked(len) else {
            return Err(BytesError::Element { element: self.element, len, left: rest.len() });
        };
        self.rest = rest;
        self.element += 1;
        Ok(item)
    }
}

impl<'a> Iterator for BytesReader<'a> {
    type Item = Result<&'a [u8], BytesError>;

    /// The next element; after an error, none.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.take();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_scalar_has_one_element_and_a_zero_dimension_none() {
        assert_eq!(elements(&[]), Ok(1));
        assert_eq!(elements(&[3, 4]), Ok(12));
        assert_eq!(elements(&[i64::MAX, i64::MAX, 0]), Ok(0));
    }

    #[test]
    fn a_negative_dimension_and_an_overflow_are_told_apart() {
        assert!(matches!(elements(&[2, -1]), Err(ShapeError::Negative { dimension: -1, .. })));
        assert!(matches!(elements(&[i64::MAX, 3]), Err(ShapeError::Overflow { .. })));
        assert!(matches!(Tensor::expected_len(Datatype::Fp64, &[i64::MAX]), Err(ShapeError::Overflow { .. })));
    }

    #[test]
    fn truncated_bytes_elements_are_named() {
        let mut read = BytesReader::new(&[1, 0, 0, 0, b'a', 9, 0]);
        assert_eq!(read.next(), Some(Ok(&b"a"[..])));
        assert_eq!(read.next(), Some(Err(BytesError::Prefix { element: 1, left: 2 })));
        assert_eq!(read.next(), None);
        let mut read = BytesReader::new(&[3, 0, 0, 0, b'a']);
        assert_eq!(read.next(), Some(Err(BytesError::Element { element: 0, len: 3, left: 1 })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read: Vec<_> = BytesReader::new(&data).collect();
            let whole: usize = read.iter().flatten().map(|item| item.len() + 4).sum();
            prop_assert_eq!(read.iter().all(Result::is_ok), whole == data.len());
        }
    }
}
