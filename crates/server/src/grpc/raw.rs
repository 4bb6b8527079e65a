//! Whether raw bytes are what shape and datatype say.

use std::fmt;

use anyserve_core::{BytesReader, Datatype, Error, Tensor, elements};

/// An input as errors name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    /// The input.
    pub(super) input: &'a str,
    /// The model it is for.
    pub(super) model: &'a str,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input '{}' for model '{}'", self.input, self.model)
    }
}

/// Checks raw bytes against shape and datatype.
///
/// # Errors
/// `INVALID_INPUT` that names the input, the model and both numbers.
pub(super) fn check(named: Named<'_>, datatype: Datatype, shape: &[i64], data: &[u8]) -> Result<(), Error> {
    let expected = Tensor::expected_len(datatype, shape).map_err(|error| bad_shape(named, &error))?;
    let Some(expected) = expected else { return check_bytes(named, shape, data) };
    if data.len() == expected {
        return Ok(());
    }
    let got = data.len();
    Err(Error::invalid(format!("{named} has {got} bytes, expected {expected} for shape {shape:?} of {datatype}")))
}

/// The number of elements of the input.
///
/// # Errors
/// `INVALID_INPUT` that names the input and the shape that cannot be.
pub(super) fn count(named: Named<'_>, shape: &[i64]) -> Result<usize, Error> {
    elements(shape).map_err(|error| bad_shape(named, &error))
}

fn check_bytes(named: Named<'_>, shape: &[i64], data: &[u8]) -> Result<(), Error> {
    let expected = count(named, shape)?;
    let mut got = 0;
    for element in BytesReader::new(data) {
        element.map_err(|error| Error::invalid(format!("{named}: {error}")))?;
        got += 1;
    }
    if got == expected {
        return Ok(());
    }
    Err(Error::invalid(format!("{named} has {got} elements, expected {expected} for shape {shape:?} of BYTES")))
}

fn bad_shape(named: Named<'_>, error: &anyserve_core::ShapeError) -> Error {
    Error::invalid(format!("{named}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMED: Named<'_> = Named { input: "x", model: "m" };

    fn message(datatype: Datatype, shape: &[i64], data: &[u8]) -> String {
        check(NAMED, datatype, shape, data).unwrap_err().message
    }

    #[test]
    fn every_fixed_datatype_takes_exactly_its_bytes() {
        for datatype in Datatype::all() {
            let Some(size) = datatype.size() else { continue };
            let data = vec![0; 6 * size + 1];
            let result = |len: usize| check(NAMED, datatype, &[2, 3], &data[..len]);
            assert!(result(6 * size - 1).is_err() && result(6 * size).is_ok() && result(6 * size + 1).is_err());
        }
    }

    #[test]
    fn a_wrong_length_names_input_model_and_both_numbers() {
        let expected = "input 'x' for model 'm' has 7 bytes, expected 8 for shape [2] of FP32";
        assert_eq!(message(Datatype::Fp32, &[2], &[0; 7]), expected);
    }

    #[test]
    fn shapes_that_cannot_be_are_errors_and_zero_sized_ones_are_not() {
        assert!(message(Datatype::Fp32, &[-1], &[]).contains("dimension -1 of shape [-1] is negative"));
        assert!(message(Datatype::Fp32, &[i64::MAX, 2], &[]).contains("more elements than can be counted"));
        assert_eq!(check(NAMED, Datatype::Fp32, &[0, 7], &[]), Ok(()));
        assert_eq!(check(NAMED, Datatype::Bytes, &[0], &[]), Ok(()));
    }

    #[test]
    fn bytes_are_counted_by_element() {
        let two = [2, 0, 0, 0, b'a', 0, 0, 0, 0, 0];
        assert_eq!(check(NAMED, Datatype::Bytes, &[2], &two), Ok(()));
        assert!(message(Datatype::Bytes, &[1], &two).contains("has 2 elements, expected 1"));
        assert!(message(Datatype::Bytes, &[3], &two).contains("has 2 elements, expected 3"));
        assert!(message(Datatype::Bytes, &[2], &two[..9]).contains("truncated length prefix: 3 of 4 bytes"));
        assert!(message(Datatype::Bytes, &[2], &two[..5]).contains("element 0 has 2 bytes by its prefix and 1"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_accepted_or_refused(
            data in proptest::collection::vec(any::<u8>(), 0..200),
            shape in proptest::collection::vec(any::<i64>(), 0..4),
        ) {
            for datatype in Datatype::all() {
                let _ = check(NAMED, datatype, &shape, &data);
            }
        }
    }
}
