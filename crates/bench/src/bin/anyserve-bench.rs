//! `anyserve bench` without Python, for development.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Payloads of MiB are allocated and freed all the time; the system's allocator gives their pages
/// back to the kernel and faults them in anew, which costs more than copying them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let code = anyserve_bench::run(std::env::args_os().skip(1));
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
