//! The calls about memory that clients share with the server: Triton's system shared memory.

use anyserve_core::{Code, Error};
use anyserve_proto::inference::{
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusResponse,
    system_shared_memory_status_response::RegionStatus,
};
use anyserve_shm::{RegionError, Regions, RegisterError};
use tonic::Status;

use super::status::{already_exists, status};

/// What is said where there is no registry.
pub(super) const OFF: &str =
    "this server does not take tensors in shared memory: start the replica with --client-shm, on the clients' machine";

/// The registry, if clients may share memory.
///
/// # Errors
/// `UNSUPPORTED` if they may not.
pub(super) fn on(regions: Option<&Regions>) -> Result<&Regions, Status> {
    regions.ok_or_else(|| status(&Error::new(Code::Unsupported, OFF)))
}

/// Registers a region.
///
/// # Errors
/// `ALREADY_EXISTS` if the name is taken, `OVERLOADED` if there are too many, `INVALID_INPUT` for the rest.
pub(super) fn register(regions: &Regions, request: &SystemSharedMemoryRegisterRequest) -> Result<(), Status> {
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    regions.register(name, key, *offset, *byte_size).map_err(|error| refusal(&error))
}

/// What there is: the region of this name, or all if it is empty.
///
/// # Errors
/// `NOT_FOUND` if there is none of this name.
pub(super) fn list(regions: &Regions, name: &str) -> Result<SystemSharedMemoryStatusResponse, Status> {
    let found = regions.status(Some(name).filter(|name| !name.is_empty()));
    let found = found.map_err(|error| status(&unusable(&error)))?;
    let told = found.into_iter().map(|one| {
        let anyserve_shm::RegionStatus { name, key, offset, byte_size } = one;
        (name.clone(), RegionStatus { name, key, offset, byte_size })
    });
    Ok(SystemSharedMemoryStatusResponse { regions: told.collect() })
}

/// Takes out the region of this name, or all if it is empty. One that there is not is out already.
pub(super) fn unregister(regions: &Regions, name: &str) {
    if name.is_empty() {
        regions.unregister_all();
    } else {
        regions.unregister(name);
    }
}

/// Why a part of a region cannot be used, for the one who wants it.
pub(super) fn unusable(error: &RegionError) -> Error {
    let code = if matches!(error, RegionError::Unknown { .. }) { Code::NotFound } else { Code::InvalidInput };
    Error::new(code, error.to_string())
}

fn refusal(error: &RegisterError) -> Status {
    let message = error.to_string();
    match error {
        RegisterError::Already { .. } => already_exists(message),
        RegisterError::Full { .. } => status(&Error::new(Code::Overloaded, message)),
        _ => status(&Error::invalid(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register_as(name: &str, key: &str) -> Status {
        let request = SystemSharedMemoryRegisterRequest { name: name.into(), key: key.into(), offset: 0, byte_size: 8 };
        register(&Regions::default(), &request).unwrap_err()
    }

    #[test]
    fn refusals_have_the_codes_that_clients_know() {
        let none = register_as("r", "/no-such-object-here");
        assert_eq!(none.code(), tonic::Code::InvalidArgument);
        assert!(none.message().starts_with("Unable to open shared memory region: '/no-such-object-here'"));
        assert_eq!(register_as("", "/a").code(), tonic::Code::InvalidArgument);
        assert_eq!(register_as("r", "../a").code(), tonic::Code::InvalidArgument);
        let taken = refusal(&RegisterError::Already { name: "r".into() });
        assert_eq!(
            (taken.code(), taken.message()),
            (tonic::Code::AlreadyExists, "shared memory region 'r' already in manager")
        );
        assert_eq!(refusal(&RegisterError::Full { name: "r".into() }).code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn without_a_registry_the_option_is_named() {
        let error = on(None).unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unimplemented);
        assert!(error.message().contains("--client-shm"));
        assert!(on(Some(&Regions::default())).is_ok());
    }
}
