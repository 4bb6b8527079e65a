//! The log: lines on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts the log, unless this process has one already.
pub(crate) fn start(level: &str) {
    // The protocol libraries' own traces are of use to nobody who runs a model.
    let directives = format!("{level},h2=warn,hyper=warn,hyper_util=warn,rustls=warn,tower=warn,mio=warn");
    let filter = EnvFilter::try_from_env("ANYSERVE_LOG").unwrap_or_else(|_| EnvFilter::new(directives));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second replica in one process, as in a test, goes on with the first one's log.
    let _ = subscriber.try_init();
}
