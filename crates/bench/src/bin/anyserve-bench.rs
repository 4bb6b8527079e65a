//! `anyserve bench` without Python, for development.

use std::process::ExitCode;

fn main() -> ExitCode {
    let code = anyserve_bench::run(std::env::args_os().skip(1));
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
