//! The command line: what is asked for, checked as far as text alone can be.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::load::Plan;
use crate::schedule::Rate;

/// Load a model server and report throughput, latency percentiles and errors.
#[derive(Debug, Parser)]
#[command(name = "anyserve bench", no_binary_name = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// KServe v2 gRPC, one `ModelInfer` per request.
    Unary(GrpcOptions),
    /// KServe v2 gRPC, one `ModelStreamInfer` stream per request: counts responses (tokens).
    Stream(GrpcOptions),
    /// HTTP/1.1 POST or GET on keep-alive connections, one request at a time on each.
    Http(HttpOptions),
    /// Serve an empty gRPC echo without workers, or an empty proxy: what the transport alone can do.
    Ceiling(CeilingOptions),
    /// Be many replicas of an API server: register, send heartbeats, leave.
    Fleet(FleetOptions),
}

/// How hard to load, for how long, and how to say it.
#[derive(Debug, Args)]
pub(crate) struct LoadOptions {
    /// Connections to open.
    #[arg(short, long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Requests in flight on each connection (for HTTP/1.1: that many more connections).
    #[arg(short = 'm', long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) in_flight: usize,
    /// Open loop: start this many requests per second whatever the answers do, and measure each
    /// from the moment it was due. Without it: closed loop.
    #[arg(short, long)]
    pub(crate) rate: Option<Rate>,
    /// How long to measure, as in `10s`, `500ms`, `2m`.
    #[arg(short, long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Stop after this many requests, if that comes before the duration's end.
    #[arg(short = 'n', long)]
    pub(crate) requests: Option<NonZeroU64>,
    /// Load this long before measuring.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) warmup: Duration,
    /// Give up when nothing at all has been received for this long.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) stall: Duration,
    /// Threads of the generator; one costs the server least.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) threads: usize,
    /// Before loading, send one request and require its payload to come back unchanged.
    #[arg(long)]
    pub(crate) check_echo: bool,
    /// Print the report as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl LoadOptions {
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            connections: self.connections,
            in_flight: self.in_flight,
            rate: self.rate,
            duration: self.duration,
            requests: self.requests,
            warmup: self.warmup,
            stall: self.stall,
            check_echo: self.check_echo,
        }
    }
}

/// A request in KServe's messages.
#[derive(Debug, Args)]
pub(crate) struct GrpcOptions {
    /// Server to load, `host:port`.
    pub(crate) target: String,
    /// Model (or capability) to call.
    #[arg(long, default_value = "echo")]
    pub(crate) model: String,
    /// Version of the model; empty lets the server choose.
    #[arg(long, default_value = "")]
    pub(crate) model_version: String,
    /// An input `name:DATATYPE:shape[=values]`, shape and values comma-separated: `x:FP32:1,16`,
    /// `n:INT32:1=1000`, `text:BYTES:1=hello`. Without values the data is a ramp. Repeatable.
    #[arg(short, long = "input")]
    pub(crate) inputs: Vec<String>,
    /// A request parameter `key=value` (integer, float, true/false or text). Repeatable.
    #[arg(long = "parameter")]
    pub(crate) parameters: Vec<String>,
    /// Send this file, a serialized `ModelInferRequest`, instead of building one.
    #[arg(long, conflicts_with_all = ["inputs", "parameters", "model_version"])]
    pub(crate) payload: Option<PathBuf>,
    /// Fill inputs without values with zeros rather than a ramp.
    #[arg(long)]
    pub(crate) zeros: bool,
    /// Metadata `name:value` to send along. Repeatable.
    #[arg(short = 'H', long = "header")]
    pub(crate) headers: Vec<String>,
    /// Write the request, framed as gRPC sends it, to this file (for `h2load -d`); send nothing.
    #[arg(long)]
    pub(crate) save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
}

/// A request as a body posted to a path.
#[derive(Debug, Args)]
pub(crate) struct HttpOptions {
    /// Where to POST, `http://host:port/path`.
    pub(crate) url: String,
    /// GET instead, without a body.
    #[arg(long, conflicts_with_all = ["body", "payload", "zero_bytes"])]
    pub(crate) get: bool,
    /// The body, as text.
    #[arg(long, conflicts_with_all = ["payload", "zero_bytes"])]
    pub(crate) body: Option<String>,
    /// The body, from a file.
    #[arg(long, conflicts_with = "zero_bytes")]
    pub(crate) payload: Option<PathBuf>,
    /// A body of this many zero bytes.
    #[arg(long)]
    pub(crate) zero_bytes: Option<usize>,
    /// The body's content type.
    #[arg(long, default_value = "application/octet-stream")]
    pub(crate) content_type: String,
    /// A header `name:value` to send along. Repeatable.
    #[arg(short = 'H', long = "header")]
    pub(crate) headers: Vec<String>,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
}

/// Where the empty server listens.
#[derive(Debug, Args)]
pub(crate) struct CeilingOptions {
    /// Address to bind.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to bind; 0 lets the system choose, and the line printed says which.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// Threads that serve.
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub(crate) threads: usize,
    /// Pass every call on to this server, `host:port`, instead of echoing.
    #[arg(long)]
    pub(crate) upstream: Option<String>,
}

/// Which replicas to be.
#[derive(Debug, Args)]
pub(crate) struct FleetOptions {
    /// The API server, `host:port`.
    pub(crate) target: String,
    /// How many replicas.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    pub(crate) replicas: usize,
    /// Capabilities of each, `type=t0,model=m0` and on; replicas in tens share theirs.
    #[arg(long, default_value_t = 20, value_parser = at_least_one)]
    pub(crate) capabilities: usize,
    /// Time between two heartbeats of a replica.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// How long to send heartbeats once all are registered.
    #[arg(short, long, default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Streams that share the replicas' heartbeats.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub(crate) streams: usize,
    /// Print the report as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

/// Reads `500ms`, `10s`, `2m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration such as 10s"))?;
    let seconds = match unit {
        "" | "s" => number,
        "ms" => number / 1e3,
        "m" => number * 60.0,
        other => return Err(format!("unknown unit {other:?}: use ms, s or m")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
    }

    #[test]
    fn a_duration_that_is_none_says_what_one_looks_like() {
        assert!(duration("soon").unwrap_err().contains("10s"));
        assert!(duration("1h").unwrap_err().contains("ms, s or m"));
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn the_short_and_the_long_options_mean_the_same() {
        let short = parse("unary localhost:1 -c 2 -m 8 -r 100 -d 3s -n 7 -i x:FP32:16").unwrap();
        let long = parse(
            "unary localhost:1 --connections 2 --in-flight 8 --rate 100 --duration 3s \
             --requests 7 --input x:FP32:16",
        )
        .unwrap();
        assert_eq!(format!("{short:?}"), format!("{long:?}"));
    }

    #[test]
    fn zero_connections_and_zero_in_flight_are_refused() {
        assert!(parse("unary localhost:1 -c 0").is_err());
        assert!(parse("unary localhost:1 -m 0").is_err());
        assert!(parse("unary localhost:1 -n 0").is_err());
    }

    #[test]
    fn a_payload_excludes_inputs_and_a_body_excludes_a_file() {
        assert!(parse("unary localhost:1 --payload f --input x:FP32:1").is_err());
        assert!(parse("http http://localhost:1/ --body x --payload f").is_err());
    }
}
