//! One run of wrk, and what it says.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use naru_lab::NetNs;
use serde::Deserialize;

/// What the line with the result begins with.
const MARK: &str = "RESULT ";

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Requests one after the other on each.
    KeepAlive,
    /// One request, then it is closed.
    Once,
}

/// How hard to ask, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) threads: usize,
    /// Of all threads together.
    pub(super) connections: usize,
    /// Seconds.
    pub(super) seconds: u32,
}

/// What one run measured.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Sample {
    /// Requests that were answered.
    pub(super) requests: f64,
    /// The same a second.
    pub(super) rate: f64,
    /// From the first byte of a request to the last one of its answer, µs; setting a
    /// connection up comes before that.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Connections that were refused or broken, answers that never came or were no success.
    pub(super) errors: u64,
}

/// Prints the result so that nobody has to read a table made for people.
const SCRIPT: &str = r#"
function done(summary, latency)
  local e = summary.errors
  print(string.format(
    'RESULT {"requests": %d, "rate": %f, "p50": %f, "p99": %f, "errors": %d}',
    summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// Asks an address for so long.
pub(super) fn run(
    client: &NetNs,
    target: SocketAddr,
    how: Use,
    load: Load,
    script: &Path,
) -> anyhow::Result<Sample> {
    std::fs::write(script, SCRIPT).with_context(|| script.display().to_string())?;
    let url = format!("http://{target}/");
    let (threads, connections) = (load.threads.to_string(), load.connections.to_string());
    let time = format!("{}s", load.seconds);
    let script = script.to_string_lossy();
    let mut args = vec![
        "-t",
        &threads,
        "-c",
        &connections,
        "-d",
        &time,
        "-s",
        &script,
    ];
    if how == Use::Once {
        args.extend(["-H", "Connection: close"]);
    }
    args.push(&url);
    let sample = parse(&client.run("wrk", &args)?)?;
    if sample.rate <= 0.0 {
        bail!("wrk got no answer from {target}");
    }
    Ok(sample)
}

fn parse(output: &str) -> anyhow::Result<Sample> {
    let mut lines = output.lines();
    let result = lines.find_map(|line| line.strip_prefix(MARK));
    let result = result.with_context(|| format!("wrk says no result: {output}"))?;
    serde_json::from_str(result).with_context(|| format!("wrk says: {result}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_result_is_read_from_among_what_else_wrk_says() {
        let output = "Running 2s test\nRESULT {\"requests\": 21, \"rate\": 10.5, \"p50\": 1.0, \"p99\": 2.0, \"errors\": 3}\n";
        let sample = parse(output).unwrap();
        assert!(sample.rate > 10.0 && sample.errors == 3, "{sample:?}");
        parse("unable to connect").unwrap_err();
    }
}
