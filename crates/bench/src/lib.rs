//! The load generator behind `anyserve bench`.
//!
//! It shares its machine with the server it measures, so its own cost is kept small and is part
//! of every report: one thread by default, requests built once, one histogram, no allocation per
//! byte. It speaks just enough of three protocols to load a server (KServe v2 gRPC unary, the
//! same service's bidirectional stream, HTTP/1.1 POST) and is not a client library.
//!
//! ```text
//! options ─► request (bytes, once) ─► load: gate ─► exchange ─► tally ─► report
//!                                          when      grpc|http1   what
//! ```

mod answer;
mod ceiling;
mod exchange;
mod fleet;
mod forward;
mod gate;
mod grpc;
mod http1;
mod inference_only;
mod load;
mod messages;
mod options;
mod report;
mod request;
mod schedule;
mod tally;
mod usage;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::exchange::Protocol;
use crate::load::LoadError;
use crate::options::{CeilingOptions, FleetOptions, GrpcOptions, LoadOptions, Options, What};
use crate::report::Report;

pub use crate::ceiling::Ceiling;

/// What ends the program with exit code 1 and one line on stderr.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum BenchError {
    #[error(transparent)]
    Request(#[from] request::RequestError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Fleet(#[from] fleet::FleetError),
    #[error("no request out of {failed} succeeded")]
    NothingSucceeded { failed: u64 },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("the ceiling server ended: {0}")]
    Serve(#[source] tonic::transport::Error),
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
}

/// Runs `anyserve bench` with `args` (without the program's name) and returns its exit code.
///
/// 0: at least one request succeeded; 1: none did, or the server could not be reached; 2: the
/// arguments are wrong. The report goes to stdout, everything else to stderr. Blocks until the
/// run is over; an interrupt (Ctrl-C) ends it early and still reports.
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            // A closed stdout or stderr leaves nowhere to complain.
            let _ = error.print();
            return error.exit_code();
        }
    };
    match dispatch(options.what) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "anyserve bench: {error}");
            1
        }
    }
}

fn dispatch(what: What) -> Result<(), BenchError> {
    match what {
        What::Unary(options) => measure_grpc(&options, grpc::Method::Unary),
        What::Stream(options) => measure_grpc(&options, grpc::Method::Stream),
        What::Http(options) => {
            let protocol = http1::Http1::try_from_options(&options)?;
            measure(protocol, &options.load)
        }
        What::Ceiling(options) => serve_ceiling(&options),
        What::Fleet(options) => be_a_fleet(&options),
    }
}

fn measure_grpc(options: &GrpcOptions, method: grpc::Method) -> Result<(), BenchError> {
    if let Some(path) = &options.save {
        let request = request::GrpcRequest::try_from_options(options)?;
        return std::fs::write(path, request.framed).map_err(BenchError::Write);
    }
    measure(grpc::Grpc::try_from_options(options, method)?, &options.load)
}

fn measure<P: Protocol>(protocol: P, options: &LoadOptions) -> Result<(), BenchError> {
    let runtime = runtime(options.threads).map_err(BenchError::Runtime)?;
    let title = protocol.title();
    let plan = options.plan();
    let measured = runtime.block_on(load::run(protocol, plan))?;
    let report = Report::new(title, &plan, &measured);
    print_report(&report, options.json).map_err(BenchError::Write)?;
    if report.requests == 0 {
        return Err(BenchError::NothingSucceeded { failed: report.errors });
    }
    Ok(())
}

fn print_report(report: &(impl serde::Serialize + std::fmt::Display), json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        return writeln!(out);
    }
    write!(out, "{report}")
}

fn serve_ceiling(options: &CeilingOptions) -> Result<(), BenchError> {
    let runtime = runtime(options.threads).map_err(BenchError::Runtime)?;
    runtime.block_on(async {
        let address = format!("{}:{}", options.host, options.port);
        let ceiling = Ceiling::bind(&address).map_err(|source| BenchError::Listen { address, source })?;
        let ceiling = ceiling.in_front_of(options.upstream.clone());
        writeln!(io::stdout(), "listening on {}", ceiling.address()).map_err(BenchError::Write)?;
        tokio::select! {
            ended = ceiling.serve() => ended.map_err(BenchError::Serve),
            // Without a handler for the signal the process ends by its default action.
            Ok(()) = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

fn be_a_fleet(options: &FleetOptions) -> Result<(), BenchError> {
    let runtime = runtime(1).map_err(BenchError::Runtime)?;
    let report = runtime.block_on(fleet::run(options))?;
    print_report(&report, options.json).map_err(BenchError::Write)
}

/// One thread is the default everywhere: it needs no wake-up from one core to the other.
fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        many => Builder::new_multi_thread().worker_threads(many).enable_all().build(),
    }
}
