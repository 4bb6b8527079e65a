//! Tensors in memory that the client shares: where requests say they lie, and how answers say that they were put there.

use std::fmt;
use std::sync::Arc;

use anyserve_core::{Code, Datatype, Destination, Error, Parameter, Tensor};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_shm::Regions;
use bytes::Bytes;

use super::parameters::Decoded;
use super::raw::Named;
use super::regions::{OFF, unusable};
use crate::budget::{Budget, Charge};
use crate::route::App;

const REGION: &str = "shared_memory_region";
const OFFSET: &str = "shared_memory_offset";
const BYTE_SIZE: &str = "shared_memory_byte_size";

/// Finds the tensors of one request that are in shared memory.
#[derive(Debug)]
pub(super) struct Sharing<'a> {
    /// The registry, if clients may share memory.
    pub(super) regions: Option<&'a Arc<Regions>>,
    /// Where the memory of copies is taken from.
    pub(super) budget: &'a Budget,
    /// Longest copy in bytes.
    pub(super) max_copy: usize,
    /// What copies have taken so far.
    pub(super) charge: Option<Charge>,
}

/// An output that goes to shared memory, as the client asked for it.
#[derive(Clone, Debug)]
pub(super) struct SharedOutput {
    /// Name of the output.
    output: String,
    part: Part,
    room: Bytes,
    regions: Arc<Regions>,
}

/// A part of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    region: String,
    offset: u64,
    byte_size: u64,
}

/// Whether a tensor with these parameters is in shared memory.
pub(super) fn is_shared(parameters: &Decoded) -> bool {
    parameters.contains_key(REGION)
}

// === impl Sharing ===

impl<'a> Sharing<'a> {
    /// What a server shares.
    pub(super) fn of<S>(app: &'a App<S>) -> Self {
        Self { regions: app.regions.as_ref(), budget: &app.budget, max_copy: app.limits.max_message, charge: None }
    }

    /// The bytes of an input in shared memory. What says where they lie is taken out of the parameters.
    ///
    /// BYTES are copied, for they have to be as they were when they were checked, and the client may change its memory at
    /// any time. All others stay where they are.
    ///
    /// # Errors
    /// `UNSUPPORTED` where clients cannot share memory, `NOT_FOUND` for an unknown region, `INVALID_INPUT` for a part
    /// that is not inside of it, `OVERLOADED` where there is no memory for a copy.
    pub(super) fn input(
        &mut self,
        named: Named<'_>,
        datatype: Datatype,
        parameters: &mut Decoded,
    ) -> Result<Bytes, Error> {
        let regions = self.regions(&named)?;
        let part = Part::take(parameters, &named)?;
        let data = part.slice(regions)?;
        if datatype == Datatype::Bytes { self.copy(named, regions, &data) } else { Ok(data) }
    }

    /// Where an output goes that is wanted in shared memory.
    ///
    /// # Errors
    /// As for inputs, and `INVALID_INPUT` where there would be no room at all.
    pub(super) fn output(&self, name: &str, model: &str, parameters: &mut Decoded) -> Result<SharedOutput, Error> {
        let named = format!("output '{name}' for model '{model}'");
        let regions = self.regions(&named)?;
        let part = Part::take(parameters, &named)?;
        if part.byte_size == 0 {
            return Err(Error::invalid(format!(
                "{named} is wanted in 0 bytes of shared memory region '{}'",
                part.region
            )));
        }
        let room = part.slice(regions)?;
        Ok(SharedOutput { output: name.to_owned(), part, room, regions: Arc::clone(regions) })
    }

    fn regions(&self, named: &dyn fmt::Display) -> Result<&'a Arc<Regions>, Error> {
        self.regions.ok_or_else(|| Error::new(Code::Unsupported, format!("{named} is in shared memory: {OFF}")))
    }

    fn copy(&mut self, named: Named<'_>, regions: &Regions, data: &Bytes) -> Result<Bytes, Error> {
        let (len, max) = (data.len(), self.max_copy);
        if len > max {
            return Err(Error::invalid(format!("{named} has {len} bytes of BYTES, the limit is {max}")));
        }
        self.charge.get_or_insert_with(|| self.budget.charge()).grow(len)?;
        let copy = Bytes::copy_from_slice(data);
        regions.check(data).map_err(|error| unusable(&error))?;
        Ok(copy)
    }
}

// === impl Part ===

impl Part {
    /// Takes the three parameters out; the region is among them.
    fn take(parameters: &mut Decoded, owner: &dyn fmt::Display) -> Result<Self, Error> {
        let Some(ParameterChoice::StringParam(region)) = take(parameters, REGION) else {
            return Err(Error::invalid(format!("parameter '{REGION}' of {owner} is no string")));
        };
        let offset = number(parameters, OFFSET, owner)?.unwrap_or(0);
        let missing =
            || Error::invalid(format!("{owner} is in shared memory region '{region}', but has no '{BYTE_SIZE}'"));
        let byte_size = number(parameters, BYTE_SIZE, owner)?.ok_or_else(missing)?;
        Ok(Self { region, offset, byte_size })
    }

    fn slice(&self, regions: &Regions) -> Result<Bytes, Error> {
        regions.slice(&self.region, self.offset, self.byte_size).map_err(|error| unusable(&error))
    }
}

fn take(parameters: &mut Decoded, name: &str) -> Option<ParameterChoice> {
    parameters.remove(name).and_then(|value| value.parameter_choice)
}

/// A size; `None` if the parameter is not there.
fn number(parameters: &mut Decoded, name: &str, owner: &dyn fmt::Display) -> Result<Option<u64>, Error> {
    if !parameters.contains_key(name) {
        return Ok(None);
    }
    match take(parameters, name) {
        Some(ParameterChoice::Uint64Param(value)) => Ok(Some(value)),
        Some(ParameterChoice::Int64Param(value)) => {
            let negative = |_| Error::invalid(format!("parameter '{name}' of {owner} is {value}, which is negative"));
            u64::try_from(value).map(Some).map_err(negative)
        }
        _ => Err(Error::invalid(format!("parameter '{name}' of {owner} is no whole number"))),
    }
}

// === impl SharedOutput ===

impl SharedOutput {
    /// Name of the output.
    pub(super) fn name(&self) -> &str {
        &self.output
    }

    /// What the upstream is told.
    pub(super) fn destination(&self) -> Destination {
        Destination { output: self.output.clone(), room: self.room.clone() }
    }

    /// Makes of an output that was written to its room one that says so, without data.
    ///
    /// # Errors
    /// `INVALID_INPUT` if the output is larger than the room or the client took the memory away, `INTERNAL` if it was
    /// not written there.
    pub(super) fn settle(&self, output: &mut Tensor, model: &str) -> Result<(), Error> {
        let (len, room) = (output.data.len(), self.room.len());
        if len > room {
            let message = format!(
                "shared memory size specified with the request for output '{}' for model '{model}'",
                self.output
            );
            return Err(Error::invalid(format!(
                "{message} ({room} bytes) should be at least {len} bytes to hold the results"
            )));
        }
        if len > 0 && output.data.as_ptr() != self.room.as_ptr() {
            let message = format!("output '{}' of model '{model}' was not written to shared memory", self.output);
            return Err(Error::internal(message));
        }
        self.regions.check(&self.room).map_err(|error| unusable(&error))?;
        output.data = Bytes::new();
        output.parameters.retain(|(name, _)| ![REGION, OFFSET, BYTE_SIZE].contains(&name.as_str()));
        output.parameters.extend(self.parameters(len));
        Ok(())
    }

    fn parameters(&self, len: usize) -> impl Iterator<Item = (String, Parameter)> {
        let region = Some((REGION, Parameter::Text(self.part.region.clone())));
        let offset = (self.part.offset > 0).then(|| (OFFSET, size(self.part.offset)));
        let byte_size = Some((BYTE_SIZE, size(u64::try_from(len).unwrap_or(u64::MAX))));
        [region, offset, byte_size].into_iter().flatten().map(|(name, value)| (name.to_owned(), value))
    }
}

/// A size, signed as clients read it.
fn size(bytes: u64) -> Parameter {
    i64::try_from(bytes).map_or(Parameter::Uint(bytes), Parameter::Int)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::Rooms;
    use anyserve_proto::inference::InferParameter;
    use proptest::prelude::*;
    use std::path::PathBuf;

    const NAMED: Named<'_> = Named { input: "x", model: "m" };

    /// A region "r" of 16 bytes, 0 to 15, at byte 8 of an object; the object is gone when it is dropped.
    struct Shared {
        path: PathBuf,
        regions: Arc<Regions>,
        budget: Budget,
    }

    impl Shared {
        fn new() -> Self {
            let file = tempfile::Builder::new().prefix("test-server-").tempfile_in("/dev/shm").unwrap();
            let (_, path) = file.keep().unwrap();
            std::fs::write(&path, [vec![255; 8], (0..16).collect()].concat()).unwrap();
            let regions = Arc::new(Regions::default());
            regions.register("r", path.file_name().unwrap().to_str().unwrap(), 8, 16).unwrap();
            Self { path, regions, budget: Budget::new(100, Rooms::new(None)) }
        }

        fn sharing(&self) -> Sharing<'_> {
            Sharing { regions: Some(&self.regions), budget: &self.budget, max_copy: 12, charge: None }
        }

        fn input(&self, datatype: Datatype, mut given: Decoded) -> Result<Bytes, Error> {
            self.sharing().input(NAMED, datatype, &mut given)
        }

        fn output(&self, mut given: Decoded) -> Result<SharedOutput, Error> {
            self.sharing().output("y", "m", &mut given)
        }
    }

    impl Drop for Shared {
        fn drop(&mut self) {
            std::fs::remove_file(&self.path).unwrap();
        }
    }

    fn parameters(given: impl IntoIterator<Item = (&'static str, ParameterChoice)>) -> Decoded {
        let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
        given.into_iter().map(|(name, choice)| (name.to_owned(), parameter(choice))).collect()
    }

    fn part(offset: i64, byte_size: i64) -> Decoded {
        let region = ParameterChoice::StringParam("r".into());
        let (offset, byte_size) = (ParameterChoice::Int64Param(offset), ParameterChoice::Int64Param(byte_size));
        parameters([(REGION, region), (OFFSET, offset), (BYTE_SIZE, byte_size)])
    }

    fn output(name: &str, data: Bytes) -> Tensor {
        Tensor { name: name.into(), datatype: Datatype::Uint8, shape: vec![4], data, parameters: Vec::new() }
    }

    #[test]
    fn an_input_stays_where_it_is_and_its_place_reaches_no_handler() {
        let shared = Shared::new();
        let mut given = part(4, 4);
        given.extend(parameters([("other", ParameterChoice::BoolParam(true))]));
        let data = shared.sharing().input(NAMED, Datatype::Uint8, &mut given).unwrap();
        assert_eq!(*data, [4, 5, 6, 7]);
        assert_eq!(shared.regions.locate(&data).unwrap().offset, 4);
        assert_eq!(given.keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn bytes_are_copied_within_limit_and_budget() {
        let shared = Shared::new();
        let read = |offset, len| shared.input(Datatype::Bytes, part(offset, len));
        let copy = read(1, 11).unwrap();
        assert_eq!((copy[0], shared.regions.locate(&copy)), (1, None));
        assert!(read(0, 12).is_ok());
        let error = "input 'x' for model 'm' has 13 bytes of BYTES, the limit is 12";
        assert_eq!(read(0, 13).unwrap_err().message, error);
        let poor = Budget::new(3, Rooms::new(None));
        let mut sharing = Sharing { budget: &poor, ..shared.sharing() };
        assert_eq!(sharing.input(NAMED, Datatype::Bytes, &mut part(0, 4)).unwrap_err().code, Code::Overloaded);
        assert!(sharing.input(NAMED, Datatype::Bytes, &mut part(0, 3)).is_ok() && sharing.charge.is_some());
    }

    #[test]
    fn parts_outside_and_unknown_regions_are_refused_in_tritons_words() {
        let shared = Shared::new();
        let refused = |given| shared.input(Datatype::Uint8, given).unwrap_err();
        for (offset, len) in [(16, 1), (17, 0), (0, 17), (1, i64::MAX), (i64::MAX, i64::MAX)] {
            let error = refused(part(offset, len));
            assert_eq!(error.code, Code::InvalidInput);
            assert!(error.message.starts_with("Invalid offset + byte size for shared memory region: 'r'"), "{error}");
        }
        let mut unknown = part(0, 1);
        unknown.extend(parameters([(REGION, ParameterChoice::StringParam("s".into()))]));
        let error = refused(unknown);
        assert_eq!((error.code, &*error.message), (Code::NotFound, "Unable to find shared memory region: 's'"));
    }

    #[test]
    fn parameters_of_other_types_and_signs_are_named() {
        let shared = Shared::new();
        let with = |name, choice| {
            let mut given = part(0, 4);
            given.extend(parameters([(name, choice)]));
            shared.input(Datatype::Uint8, given).map_err(|error| error.message)
        };
        let of = "of input 'x' for model 'm' is";
        let refused = |text: &str| Err(text.replace("{of}", of));
        assert_eq!(
            with(REGION, ParameterChoice::Int64Param(1)),
            refused("parameter 'shared_memory_region' {of} no string")
        );
        assert_eq!(
            with(OFFSET, ParameterChoice::StringParam("1".into())),
            refused("parameter 'shared_memory_offset' {of} no whole number")
        );
        assert_eq!(
            with(BYTE_SIZE, ParameterChoice::Int64Param(-1)),
            refused("parameter 'shared_memory_byte_size' {of} -1, which is negative")
        );
        assert_eq!(*with(BYTE_SIZE, ParameterChoice::Uint64Param(2)).unwrap(), [0, 1]);
        let only = parameters([(REGION, ParameterChoice::StringParam("r".into()))]);
        let error = shared.input(Datatype::Uint8, only).unwrap_err().message;
        let expected = "input 'x' for model 'm' is in shared memory region 'r', but has no 'shared_memory_byte_size'";
        assert_eq!(error, expected);
    }

    #[test]
    fn an_output_in_its_room_becomes_a_place_without_data() {
        let shared = Shared::new();
        let wanted = shared.output(part(4, 8)).unwrap();
        let mut written = output("y", wanted.room.slice(..6));
        wanted.settle(&mut written, "m").unwrap();
        let text = |text: &str| text.to_owned();
        let expected = [
            (text(REGION), Parameter::Text(text("r"))),
            (text(OFFSET), Parameter::Int(4)),
            (text(BYTE_SIZE), Parameter::Int(6)),
        ];
        assert_eq!((written.data.len(), &*written.shape, &*written.parameters), (0, &[4][..], &expected[..]));
        let first = shared.output(part(0, 1)).unwrap();
        let mut written = output("y", first.room.clone());
        first.settle(&mut written, "m").unwrap();
        assert!(written.parameters.iter().all(|(name, _)| name != OFFSET));
        first.settle(&mut output("y", Bytes::new()), "m").unwrap();
    }

    #[test]
    fn an_output_without_room_or_beside_it_or_in_lost_memory_is_an_error() {
        let shared = Shared::new();
        let none = shared.output(part(0, 0)).unwrap_err();
        assert_eq!(none.message, "output 'y' for model 'm' is wanted in 0 bytes of shared memory region 'r'");
        let wanted = shared.output(part(0, 4)).unwrap();
        let settle = |data| wanted.settle(&mut output("y", data), "m");
        let error = settle(vec![0; 5].into()).unwrap_err();
        assert_eq!(error.code, Code::InvalidInput);
        assert!(error.message.ends_with("(4 bytes) should be at least 5 bytes to hold the results"), "{error}");
        assert_eq!(settle(vec![0; 4].into()).unwrap_err().code, Code::Internal);
        assert_eq!(settle(wanted.room.slice(1..)).unwrap_err().code, Code::Internal);
        let written = wanted.room.clone();
        std::fs::File::options().write(true).open(&shared.path).unwrap().set_len(9).unwrap();
        let error = settle(written).unwrap_err();
        assert_eq!(error.code, Code::InvalidInput);
        assert!(error.message.starts_with("shared memory region 'r' was truncated"), "{error}");
    }

    proptest! {
        #[test]
        fn any_place_is_inside_or_refused(
            offset in prop_oneof![-3..20_i64, any::<i64>()],
            byte_size in prop_oneof![-3..20_i64, any::<i64>()],
        ) {
            let shared = Shared::new();
            let inside = offset >= 0 && byte_size >= 0 && offset.checked_add(byte_size).is_some_and(|end| end <= 16);
            prop_assert_eq!(shared.input(Datatype::Uint8, part(offset, byte_size)).is_ok(), inside);
            prop_assert_eq!(shared.output(part(offset, byte_size)).is_ok(), inside && byte_size > 0);
        }
    }
}
