//! What benchmarks have in common that the program of the lab runs.

use std::{ffi::OsString, os::unix::process::CommandExt, path::Path, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    host,
    setup::{self, Need},
};

/// Builds, then becomes the program that measures.
pub(super) fn lab(bench: &str, options: &[String], output: &[OsString]) -> Result<ExitCode> {
    let needs = [Need::Build, Need::Lab, Need::Bench];
    setup::quietly(&needs)?.demand(&needs)?;
    let mut build = host::cargo("build");
    host::status(build.args(["--release", "-p", "naru", "-p", "naru-lab"]))?;

    let release = host::target().join("release");
    let mut command = host::as_root(&release.join("naru-lab"))?;
    command
        .arg(bench)
        .arg("--naru")
        .arg(release.join("naru"))
        .args(options)
        .args(output);
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command.get_program().display()))
}

/// Where the numbers go; `write` is for docs/performance.md and the pictures beside it.
pub(super) fn output(
    bench: &str,
    options: &[String],
    json: Option<&Path>,
    plot: Option<&Path>,
    write: bool,
) -> Vec<OsString> {
    let docs = host::root().join("docs");
    let mut words: Vec<OsString> = Vec::new();
    if let Some(path) = json {
        words.extend(["--json".into(), path.into()]);
    }
    if let Some(dir) = plot.or(write.then_some(&docs)) {
        words.extend(["--plot".into(), dir.into()]);
    }
    if write {
        let command = format!("cargo xtask bench {bench} {} --write", options.join(" "));
        words.extend(["--page".into(), docs.join("performance.md").into()]);
        words.extend(["--command".into(), command.into()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_names_the_command_that_gives_it_again() {
        let options = ["--rounds".to_owned(), "2".to_owned()];
        let words = output("connect", &options, None, None, true);
        let last = words.last().map(|it| it.to_string_lossy());
        let expected = "cargo xtask bench connect --rounds 2 --write";
        assert_eq!(last.as_deref(), Some(expected));
        assert!(output("connect", &options, None, None, false).is_empty());
    }
}
