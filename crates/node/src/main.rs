//! `anyserve-node`: a replica without Python in its main process, and with `api-server` an API server.

use std::process::ExitCode;

use anyserve_node::{ApiServerEvent, ApiServerOptions, Ended, Event, Options};
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serve Python handlers by capability over KServe v2.
#[derive(Parser)]
#[command(name = "anyserve-node", version, args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    options: Options,
}

/// What else it can be than a replica.
#[derive(Subcommand)]
enum Other {
    /// Find a replica for every request: the one address of many of them
    ApiServer(ApiServerOptions),
}

/// Exit code of a command line or a target that must be changed.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = Command::parse();
    let ended = match command.other {
        Some(Other::ApiServer(options)) => anyserve_node::api_server(options, |event| show_api_server(&event)),
        None => anyserve_node::run(command.options, |event| show(&event)),
    };
    match ended {
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

fn show_api_server(event: &ApiServerEvent) {
    match event {
        ApiServerEvent::Listening { endpoint, store, policy } => {
            say(&format!("API server on {endpoint}, store {store}, policy {policy}"));
        }
        ApiServerEvent::Draining { in_flight, grace } => {
            say(&format!("stopping: {in_flight} in flight have {grace:?}"));
        }
        ApiServerEvent::Stopped { aborted } => say(&format!("stopped, {aborted} aborted")),
    }
}

/// A terminal that is gone is no reason to stop.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
