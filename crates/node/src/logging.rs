//! The log: lines on stderr, written by a thread of their own. A terminal that stands still, or a pipe that nobody reads, keeps
//! lines from being written, and no request from being answered.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::aside::Aside;

/// The lines of this process. A second replica in one process, as in a test, goes on with the first one's log.
static LINES: OnceLock<Aside<Vec<u8>>> = OnceLock::new();
/// Lines that were lost and not told yet.
static LOST: AtomicU64 = AtomicU64::new(0);

/// One line on its way.
struct Line;

/// Starts the log, unless this process has one already.
///
/// # Errors
/// If the system starts no thread for it.
pub(crate) fn start(level: &str) -> Result<()> {
    // The protocol libraries' own traces are of use to nobody who runs a model.
    let directives = format!("{level},h2=warn,hyper=warn,hyper_util=warn,rustls=warn,tower=warn,mio=warn");
    let filter = EnvFilter::try_from_env("ANYSERVE_LOG").unwrap_or_else(|_| EnvFilter::new(directives));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Line)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let lines =
        Aside::start("anyserve-log", |line: Vec<u8>| write(&line)).context("the log's thread cannot be started")?;
    if LINES.set(lines).is_ok() {
        let _ = subscriber.try_init();
    }
    Ok(())
}

/// Waits until what was logged is written, but not for long.
pub(crate) fn settle() {
    LINES.get().into_iter().for_each(Aside::settle);
}

fn write(line: &[u8]) {
    let lost = LOST.swap(0, Ordering::AcqRel);
    if lost > 0 {
        let _ = writeln!(io::stderr(), "{lost} lines of the log are lost: nobody read stderr for a while");
    }
    // Who has closed it wants no log.
    let _ = io::stderr().write_all(line);
}

// === impl Line ===

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !LINES.get().is_some_and(|lines| lines.hand(line.to_vec())) {
            LOST.fetch_add(1, Ordering::AcqRel);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
