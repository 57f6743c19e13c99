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
    pub(super) json: Option<PathBuf>,
    /// Draw them as SVG into this directory
    #[arg(long, value_name = "DIR")]
    pub(super) plot: Option<PathBuf>,
    /// Write the tables of the benchmark's page in docs and the pictures beside it
    #[arg(long)]
    pub(super) write: bool,
}

/// The page of most benchmarks, as seen from the workspace's root.
pub(super) const PERFORMANCE: &str = "docs/performance.md";

/// What the program of the lab is to do.
pub(super) struct Job<'a> {
    /// The benchmark's name.
    pub(super) bench: &'a str,
    /// Its page, as seen from the workspace's root.
    pub(super) page: &'a str,
    /// What it takes of the setup.
    pub(super) needs: &'a [Need],
    /// Its arguments.
    pub(super) options: &'a [String],
    /// What of that was told: the command that gives the same again has it.
    pub(super) told: &'a [String],
    /// Whether it needs the program that makes packets, too.
    pub(super) packets: bool,
}

/// Builds, then becomes the program that measures.
pub(super) fn lab(job: &Job<'_>, output: &Output) -> Result<ExitCode> {
    setup::quietly(job.needs)?.demand(job.needs)?;
    let mut build = host::cargo("build");
    build.args(["--release", "-p", "naru", "-p", "naru-lab"]);
    if job.packets {
        build.args(["-p", "naru-bench"]);
    }
    host::status(&mut build)?;

    let release = host::target().join("release");
    let mut command = host::as_root(&release.join("naru-lab"))?;
    command
        .arg(job.bench)
        .arg("--naru")
        .arg(release.join("naru"))
        .args(job.options)
        .args(output.words(job.bench, job.page, job.told));
    if job.packets {
        command.arg("--bench").arg(release.join("naru-bench"));
    }
    if output.write && output.plot.is_none() {
        command.arg("--plot").arg(host::root().join("docs"));
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command.get_program().display()))
}

// === impl Job ===

impl<'a> Job<'a> {
    /// One whose arguments are what was told.
    pub(super) fn new(
        bench: &'a str,
        page: &'a str,
        needs: &'a [Need],
        options: &'a [String],
    ) -> Self {
        Self {
            bench,
            page,
            needs,
            options,
            told: options,
            packets: false,
        }
    }
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
