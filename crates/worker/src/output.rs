//! What workers print: every line into the log, with the worker's name.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line that is logged as one; a longer one is cut into pieces.
const MAX_LINE: usize = 16 << 10;

/// Logs lines until the stream ends.
///
/// # Cancel safety
/// Safe; a line that had begun is lost.
pub(crate) async fn log_lines(mut stream: impl AsyncRead + Unpin, worker: String, name: &'static str) {
    let (mut line, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(len @ 1..) = stream.read(&mut buffer).await {
        for piece in buffer[..len].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || line.len() >= MAX_LINE {
                log(&worker, name, &line);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        log(&worker, name, &line);
    }
}

fn log(worker: &str, stream: &str, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    tracing::info!(target: "anyserve::worker", worker, stream, "{}", line.trim_end());
}
