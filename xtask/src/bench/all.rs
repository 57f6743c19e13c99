//! All benchmarks of performance, one after the other.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use super::sockets::Output;
use anyhow::{Context, Result};

pub(super) const HELP: &str = "\
Runs forward, connect, update and scale in turn, as each is run without options, and ends well
where all of them have: where one fails or misses a bound the others are run all the same. With
--json their rows are one list. Needs root, or sudo; more than two hours.

Examples:
  cargo xtask bench all --quick                      to see that all work, about 15 minutes
  cargo xtask bench all --json all.json --plot pictures
  cargo xtask bench all --write                      writes docs/performance.md anew";

/// The benchmarks, each with what it is told for a first look.
const BENCHES: [(&str, &str); 4] = [
    (
        "forward",
        "--rounds 2 --flows 1,1024 --packets 65536 --family 4 --size 64",
    ),
    ("connect", "--rounds 2 --seconds 1"),
    (
        "update",
        "--flips 20 --sizes 10x10,1000x10 --updates 5 --changes 200",
    ),
    ("scale", "--quick"),
];

/// Arguments of `bench all`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A first look at each
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
}

/// Runs each to its end; fails where one has.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let program = env::current_exe().context("where this program is")?;
    let mut outcomes = Vec::new();
    let mut lists = Vec::new();
    for (bench, short) in BENCHES {
        println!("---- {bench}");
        let part = args.output.json.as_deref().map(|file| part(file, bench));
        let mut command = Command::new(&program);
        command.args(["bench", bench]);
        if args.quick {
            command.args(short.split(' '));
        }
        command.args(words(&args.output, part.as_deref()));
        let status = command.status();
        let status = status.with_context(|| program.display().to_string())?;
        outcomes.push((bench, status.success()));
        if let Some(part) = part {
            lists.extend(take(&part)?);
        }
        // Whoever interrupts a later one keeps what was measured before.
        if let Some(file) = &args.output.json {
            fs::write(file, joined(&lists)).with_context(|| file.display().to_string())?;
        }
    }
    println!();
    for (bench, well) in &outcomes {
        println!("{bench}: {}", if *well { "well" } else { "FAILED" });
    }
    let well = outcomes.iter().all(|(_, well)| *well);
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The same output for one of them, with its rows in a file of their own.
fn words(output: &Output, json: Option<&Path>) -> Vec<PathBuf> {
    let mut words: Vec<PathBuf> = Vec::new();
    if let Some(file) = json {
        words.extend(["--json".into(), file.to_owned()]);
    }
    if let Some(dir) = &output.plot {
        words.extend(["--plot".into(), dir.clone()]);
    }
    if output.write {
        words.push("--write".into());
    }
    words
}

/// Where the rows of one of them are until all are done.
fn part(file: &Path, bench: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{bench}"));
    name.into()
}

/// The list of rows of one of them, which is there unless it has failed before it could tell.
fn take(part: &Path) -> Result<Option<String>> {
    let Ok(list) = fs::read_to_string(part) else {
        return Ok(None);
    };
    fs::remove_file(part).with_context(|| part.display().to_string())?;
    Ok(Some(list))
}

/// Lists as one, all as JSON.
fn joined(lists: &[String]) -> String {
    let rows = lists.iter().filter_map(|list| {
        let rows = list.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
        (!rows.is_empty()).then_some(rows)
    });
    format!("[\n  {}\n]\n", rows.collect::<Vec<_>>().join(",\n  "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_are_joined_row_by_row() {
        let lists = ["[\n  {\n    \"a\": [1]\n  }\n]\n", "[]\n", "[\n  2\n]\n"];
        let lists = lists.map(str::to_owned);
        assert_eq!(joined(&lists), "[\n  {\n    \"a\": [1]\n  },\n  2\n]\n");
    }

    #[test]
    fn rows_of_a_part_are_taken_once() {
        let file = env::temp_dir().join(format!("naru-bench-all-{}.json", std::process::id()));
        let part = part(&file, "forward");
        assert!(part.to_string_lossy().ends_with(".json.forward"));
        fs::write(&part, "[]").unwrap();
        assert_eq!(take(&part).unwrap().as_deref(), Some("[]"));
        assert_eq!(take(&part).unwrap(), None);
    }

    #[test]
    fn each_writes_to_where_all_do() {
        let output = Output {
            json: Some("all.json".into()),
            plot: Some("pictures".into()),
            write: true,
        };
        let words = words(&output, Some(Path::new("all.json.scale")));
        let expected = ["--json", "all.json.scale", "--plot", "pictures", "--write"];
        assert_eq!(words, expected.map(PathBuf::from));
    }
}
