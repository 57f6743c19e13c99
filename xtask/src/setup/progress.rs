//! Runs one step and shows that it is alive.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Read, Seek, SeekFrom, Write},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::item::Step;
use crate::host;

const POLL: Duration = Duration::from_millis(100);
/// Between two signs of life where there is no terminal to redraw a line on.
const TICK: Duration = Duration::from_secs(10);
/// As much of the log as holds its last lines.
const TAIL: u64 = 4096;
const SHOWN_ON_FAILURE: usize = 12;

/// Runs a step with its output in a log file, which an error names.
pub(crate) fn run(label: &str, step: &Step) -> Result<()> {
    let dir = host::target().join("xtask");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join(format!("setup-{}.log", label.replace([' ', '/'], "-")));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;

    println!("  {label:<18} {step}");
    let errors = log
        .try_clone()
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut child = step
        .command()
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot run `{step}`"))?;

    let mut line = Line::new(label);
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("cannot wait for `{step}`"))?
        {
            break status;
        }
        line.show(&path);
        thread::sleep(POLL);
    };
    line.clear();
    if status.success() {
        return Ok(());
    }
    for line in last_lines(&path, SHOWN_ON_FAILURE) {
        eprintln!("    {line}");
    }
    bail!(
        "`{step}` failed: {status}; all of its output is in {}",
        path.display()
    )
}

/// A line that tells what a child does: redrawn on a terminal, repeated elsewhere.
struct Line<'a> {
    label: &'a str,
    started: Instant,
    shown: Instant,
    terminal: bool,
}

// === impl Line ===

impl<'a> Line<'a> {
    fn new(label: &'a str) -> Self {
        let now = Instant::now();
        Self {
            label,
            started: now,
            shown: now,
            terminal: io::stdout().is_terminal(),
        }
    }

    fn show(&mut self, log: &Path) {
        let pause = if self.terminal { POLL } else { TICK };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let last = last_lines(log, 1).pop().unwrap_or_default();
        let seconds = self.started.elapsed().as_secs();
        // Short enough for one row: a wrapped line cannot be redrawn.
        let last: String = last.trim().chars().take(44).collect();
        let text = format!("  {:<18} {seconds:>4} s  {last}", self.label);
        if self.terminal {
            print!("\r\x1b[2K{text}");
        } else {
            println!("{text}");
        }
        // A lost progress line is no reason to fail.
        let _ = io::stdout().flush();
    }

    fn clear(&self) {
        if self.terminal {
            print!("\r\x1b[2K");
            let _ = io::stdout().flush();
        }
    }
}

/// The last lines of a log; fewer where it cannot be read, for they are only shown.
fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(ToString::to_string)
        .collect()
}
