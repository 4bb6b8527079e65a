//! The Python extension module `anyserve._core`.
//!
//! Newtypes and conversions; what decides is in the other crates. The one part that does work of its own is
//! [`worker`]: the process in which handlers run.

mod api_server;
mod bench;
mod client;
mod errors;
mod kserve;
mod objref;
mod serve;
mod worker;

use pyo3::prelude::*;

/// Handlers hold a request's bytes on one thread and free them on another; this allocator is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::register(module)?;
    client::register(module)?;
    kserve::register(module)?;
    objref::register(module)?;
    serve::register(module)?;
    api_server::register(module)?;
    worker::register(module)?;
    bench::register(module)?;
    // What is public is for `anyserve` to say; PyO3 would list everything.
    module.delattr("__all__")
}
