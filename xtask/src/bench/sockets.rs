//! What benchmarks have in common: where their numbers go, and the program of the lab.

use std::{ffi::OsString, os::unix::process::CommandExt, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    host,
    setup::{self, Need},
};

/// Where the numbers go.
#[derive(clap::Args)]
pub(super) struct Output {
    /// Write the rows to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw them as SVG into this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Write the tables of the benchmark's page in docs and the pictures beside it
    #[arg(long)]
    write: bool,
}

/// The page of most benchmarks, as seen from the workspace's root.
pub(super) const PERFORMANCE: &str = "docs/performance.md";

/// Builds, then becomes the program that measures. Of the setup it takes `needs`.
pub(super) fn lab(
    bench: &str,
    page: &str,
    needs: &[Need],
    settings: &[String],
    output: &Output,
) -> Result<ExitCode> {
    setup::quietly(needs)?.demand(needs)?;
    let mut build = host::cargo("build");
    host::status(build.args(["--release", "-p", "naru", "-p", "naru-lab"]))?;

    let release = host::target().join("release");
    let mut command = host::as_root(&release.join("naru-lab"))?;
    command
        .arg(bench)
        .arg("--naru")
        .arg(release.join("naru"))
        .args(settings)
        .args(output.words(bench, page, settings));
    if output.write && output.plot.is_none() {
        command.arg("--plot").arg(host::root().join("docs"));
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command.get_program().display()))
}

// === impl Output ===

impl Output {
    /// The same for the program that measures, which is to name the command that gives it again.
    pub(super) fn words(&self, bench: &str, page: &str, settings: &[String]) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(path) = &self.json {
            words.extend(["--json".into(), path.into()]);
        }
        if let Some(dir) = &self.plot {
            words.extend(["--plot".into(), dir.into()]);
        }
        if self.write {
            let page = host::root().join(page);
            let told = [
                &["cargo xtask bench".to_owned(), bench.to_owned()],
                settings,
            ]
            .concat();
            let command = format!("{} --write", told.join(" "));
            words.extend(["--page".into(), page.into()]);
            words.extend(["--command".into(), command.into()]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_names_the_command_that_gives_it_again() {
        let settings = ["--rounds".to_owned(), "2".to_owned()];
        let mut output = Output {
            json: None,
            plot: None,
            write: true,
        };
        let words = output.words("connect", PERFORMANCE, &settings);
        let last = words.last().map(|it| it.to_string_lossy());
        let expected = "cargo xtask bench connect --rounds 2 --write";
        assert_eq!(last.as_deref(), Some(expected));
        output.write = false;
        assert!(output.words("connect", PERFORMANCE, &settings).is_empty());
    }
}
