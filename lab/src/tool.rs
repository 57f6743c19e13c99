//! The commands that a lab is built with: `ip`, `ethtool`, `nft`, `nsenter`.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};
use crate::interrupt;

/// A command found also where root's tools are, which `su` and cron leave out of PATH.
pub(crate) fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env(
        "PATH",
        format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"),
    );
    command
}

/// Runs a command to its end and gives back what it wrote to stdout. The gate is held
/// for its start only: once it runs in a namespace, the clean-up finds and ends it.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let gate = interrupt::gate();
    let child = start(command, Stdio::null())?;
    drop(gate);
    finish(command, child, None)
}

/// Runs a command that makes something, fed through stdin; the gate is held to its end,
/// so that nothing is made behind the clean-up's back.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<String> {
    let _gate = interrupt::gate();
    feed_now(command, input)
}

/// [`feed`] without the gate: for the clean-up, which holds it already.
pub(crate) fn feed_now(command: &mut Command, input: &str) -> Result<String> {
    let child = start(command, Stdio::piped())?;
    finish(command, child, Some(input))
}

fn start(command: &mut Command, stdin: Stdio) -> Result<Child> {
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Ctrl-C is for the lab, which ends what it has started in order.
    command.process_group(0);
    command
        .spawn()
        .map_err(|source| not_started(command, source))
}

fn finish(command: &Command, mut child: Child, input: Option<&str>) -> Result<String> {
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A tool that stops reading says why on stderr: that is the error to show.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::io(line(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let mut command = line(command);
    if let Some(failing) = input.and_then(|input| failing_line(input, &stderr)) {
        command = format!("{command} <<< {failing}");
    }
    Err(Error::Command {
        command,
        status: output.status.to_string(),
        stderr,
    })
}

/// The error for a command that did not start, with the package to install.
pub(crate) fn not_started(command: &Command, source: std::io::Error) -> Error {
    let package = match command.get_program().to_str() {
        Some("ip" | "bridge") => Some("iproute2"),
        Some("ethtool") => Some("ethtool"),
        Some("nsenter" | "unshare") => Some("util-linux"),
        _ => None,
    };
    let remedy = package.map_or(String::new(), |name| format!("; `apt-get install {name}`"));
    Error::Start {
        command: line(command),
        source,
        remedy,
    }
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// `ip -batch` says `Command failed -:3`: the third line of what it was fed.
fn failing_line<'a>(input: &'a str, stderr: &str) -> Option<&'a str> {
    let number = stderr.rsplit_once("-:")?.1;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    input
        .lines()
        .nth(digits.parse::<usize>().ok()?.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failing_batch_names_its_line() {
        let stderr = "Cannot find device \"x\"\nCommand failed -:2";
        assert_eq!(
            failing_line("link set a up\nlink set x up\n", stderr),
            Some("link set x up")
        );
        assert_eq!(failing_line("one", "no number"), None);
    }

    #[test]
    fn failures_carry_command_and_stderr() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh -c") && text.contains("broken") && text.contains('3'),
            "{text}"
        );
    }
}
