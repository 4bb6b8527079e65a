//! Outputs that a caller wants in its own memory: written there by the worker, so that no byte of them is sent.

use anyserve_core::Error;
use anyserve_wire::message;
use pyo3::prelude::*;

use super::places::{Memory, TRUNCATED, region_place};
use super::reply::Piece;
use crate::errors::to_py;

/// Writes those outputs that have a destination to it, and notes them in the metadata. Returns the others with their numbers.
///
/// # Errors
/// `InvalidInput`, the caller's mistake: an output is larger than its room, or the memory is gone.
pub(super) fn deliver(
    py: Python<'_>,
    memory: &Memory,
    destinations: &[message::Destination],
    meta: &mut message::Response,
    pieces: Vec<Piece>,
) -> PyResult<Vec<(u32, Piece)>> {
    let mut others = Vec::with_capacity(pieces.len());
    for (number, piece) in (0..).zip(pieces) {
        let name = usize::try_from(number).ok().and_then(|number| meta.outputs.get(number)).map(|output| &output.name);
        let destination = destinations.iter().find(|one| Some(&one.output) == name);
        match destination.and_then(|one| Some((one, one.region.as_ref()?))) {
            None => others.push((number, piece)),
            Some((one, region)) => {
                let written = py.detach(|| write(memory, one, region, piece.as_slice()));
                written.map_err(|error| to_py(py, &error))?;
                meta.written.push(number);
            }
        }
    }
    Ok(others)
}

fn write(
    memory: &Memory,
    destination: &message::Destination,
    region: &message::Region,
    bytes: &[u8],
) -> Result<(), Error> {
    let message::Destination { output, offset, len, .. } = destination;
    if bytes.len() as u64 > *len {
        // Triton's words: scripts of the field read them.
        let text = format!("shared memory size specified with the request for output '{output}' ({len} bytes)");
        return Err(Error::invalid(format!("{text} should be at least {} bytes to hold the results", bytes.len())));
    }
    let room = memory.regions.room(&region_place(region), *offset, *len);
    let room = room.map_err(|error| Error::invalid(format!("output '{output}': {error}")))?;
    room.write(0, bytes).map_err(|_| Error::invalid(TRUNCATED))
}
