//! `anyserve-node`: a replica without Python in its main process.

use std::process::ExitCode;

use anyserve_node::{Ended, Event, Options};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serve Python handlers by capability over KServe v2.
#[derive(Parser)]
#[command(name = "anyserve-node", version)]
struct Command {
    #[command(flatten)]
    options: Options,
}

/// Exit code of a command line or a target that must be changed.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match anyserve_node::run(Command::parse().options, |event| show(&event)) {
        Ok(Ended::Clean) => ExitCode::SUCCESS,
        Ok(Ended::Aborted(_)) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("anyserve-node: {error:#}"));
            ExitCode::from(USAGE)
        }
    }
}

fn show(event: &Event) {
    match event {
        Event::Worker(worker) if worker.detail.is_empty() => say(&format!("{} {}", worker.worker, worker.state)),
        Event::Worker(worker) => say(&format!("{} {}: {}", worker.worker, worker.state, worker.detail)),
        Event::Serving { endpoint, models, workers, .. } => {
            say(&format!("serving {} on {endpoint} with {workers} workers", models.join(", ")));
        }
        Event::Reloading { path } => say(&format!("{} has changed, loading the app again", path.display())),
        Event::Reloaded { error: None } => say("the app was loaded again"),
        Event::Reloaded { error: Some(error) } => say(&format!("the app was not loaded again: {error}")),
        Event::Draining { in_flight, grace } => say(&format!("stopping: {in_flight} in flight have {grace:?}")),
        Event::Stopped { aborted } => say(&format!("stopped, {aborted} aborted")),
    }
}

/// A terminal that is gone is no reason to stop.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
