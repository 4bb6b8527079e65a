//! `_core.bench`: the load generator behind `anyserve bench`.

use std::ffi::OsString;

use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(run_bench, module)?)
}

/// Runs `anyserve bench` with these arguments and returns its exit code.
#[pyfunction]
#[pyo3(name = "bench")]
fn run_bench(py: Python<'_>, args: Vec<OsString>) -> i32 {
    py.detach(|| anyserve_bench::run(args))
}
