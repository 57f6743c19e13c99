//! The tier `cluster`: a control plane, the image, and a line for each walkthrough.

use std::{collections::BTreeMap, fmt::Write as _, fs, io::ErrorKind};

use anyhow::{Context, Result};

use super::{
    count::Tally,
    tier::{as_root, cargo_test},
};
use crate::{controlplane, host, image, setup::Need};

/// The test program.
pub(super) const PROGRAM: &str = "cluster";
pub(super) const NEEDS: &[Need] = &[Need::Build, Need::Lab, Need::ControlPlane, Need::Image];

pub(super) fn run(tail: &[String]) -> Result<Tally> {
    let plane = controlplane::programs()?;
    let mut build = host::cargo("build");
    host::status(build.args(["--release", "-p", "naru", "-p", "naru-lab"]))?;
    let release = host::target().join("release");
    let image = image::build_as_deployed()?;
    let mut test = as_root(&[PROGRAM.to_owned()])?;
    test.env("NARU_BIN", release.join("naru"))
        .env("NARU_LAB_BIN", release.join("naru-lab"))
        .env("NARU_CONTROLPLANE", plane)
        .env("NARU_IMAGE", image);
    let told = host::target().join("walkthroughs");
    match fs::remove_file(&told) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", told.display()));
        }
        _ => test.env("NARU_WALKTHROUGHS", &told),
    };
    // Each test has a control plane of its own, and the machine a few cores.
    let mut args = vec!["--test-threads=1".to_owned()];
    args.extend_from_slice(tail);
    let tally = cargo_test(&mut test, &args)?;
    // Where all tests were left out, none has told anything.
    print!(
        "{}",
        summary(&fs::read_to_string(&told).unwrap_or_default())
    );
    Ok(tally)
}

/// A line for each walkthrough with the requests that were sent, and the figures: of lines
/// `WALKTHROUGH SENT FAILED` and `figure TEXT`, as the tests write them.
fn summary(told: &str) -> String {
    let mut requests: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut figures = String::new();
    for line in told.lines() {
        if let Some(figure) = line.strip_prefix("figure ") {
            let _ = writeln!(figures, "{figure}");
            continue;
        }
        let mut words = line.rsplitn(3, ' ');
        let mut number = || words.next().and_then(|it| it.parse::<u64>().ok());
        let (failed, sent) = (number(), number());
        if let (Some(name), Some(sent), Some(failed)) = (words.next(), sent, failed) {
            let sum = requests.entry(name).or_default();
            *sum = (sum.0 + sent, sum.1 + failed);
        }
    }
    let mut text = String::new();
    for (name, (sent, failed)) in requests {
        let name = match name.len() {
            1 => format!("walkthrough {name}"),
            _ => name.to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<20} {sent:>8} requests, {failed} failed");
    }
    text + &figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_summed_up_by_walkthrough() {
        let told = "C 10 0\nAPI server away 7 1\nfigure so many ms\nC 5 2\n";
        assert_eq!(
            summary(told),
            "API server away             7 requests, 1 failed\n\
             walkthrough C              15 requests, 2 failed\n\
             so many ms\n"
        );
    }
}
