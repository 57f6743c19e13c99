//! Running the programs that set a network up.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Runs a program on a script to its end.
pub(crate) fn feed(program: &str, args: &[&str], script: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program}: not there; `cargo xtask setup` installs it"))?;
    let mut input = child.stdin.take().context("no pipe to a child")?;
    // One that refuses the script ends early, and says why.
    let written = input.write_all(script.as_bytes());
    drop(input);
    let output = child
        .wait_with_output()
        .with_context(|| program.to_owned())?;
    let error = String::from_utf8_lossy(&output.stderr);
    // It may go on to quote the whole script.
    let error: Vec<&str> = error.trim().lines().take(3).collect();
    ensure!(output.status.success(), "{program}: {}", error.join("; "));
    written.with_context(|| program.to_owned())
}
