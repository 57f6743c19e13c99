//! `cargo xtask mutants`: do the tests find faults?
//!
//! [`list`] is the data. A copy of the tree gets one fault at a time and is built and
//! tested; a fault that leaves its test green has survived.

mod copy;
mod list;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    host::{self, Privilege},
    setup::{self, Need},
    test::{self, Reader},
};

pub(crate) const HELP: &str = "\
Each fault is a few words of the source that are replaced by others, and the test that
must turn red. Works on a copy of the tree in target/mutants, builds there (the first time
for some minutes) and changes nothing else. Logs are in target/mutants/logs. The test
programs run as root, through sudo where this is not root.

Examples:
  cargo xtask mutants               all faults
  cargo xtask mutants checksum      those whose names contain a word
  cargo xtask mutants --list        what there is";

/// Random packets of a run of the model: enough for the faults that it is to find.
const MODEL_PACKETS: &str = "40000";
/// The seed of that run.
const MODEL_SEED: &str = "0x6e617275";
/// What the agent says where the verifier does not take a program.
const REFUSED: &str = "the kernel refused program";

/// Arguments of `mutants`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only faults whose names contain one of these
    #[arg(value_name = "WORD")]
    words: Vec<String>,
    /// List the faults and end
    #[arg(long)]
    list: bool,
}

/// A deliberate fault.
struct Fault {
    /// What is wrong.
    name: &'static str,
    /// The source file, from the workspace's root.
    file: &'static str,
    /// What stands there, exactly once.
    good: &'static str,
    /// What stands there instead.
    bad: &'static str,
    /// The test that must turn red.
    caught_by: Catch,
}

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Catch {
    /// The case of this name in `tests/packet`.
    Packet(&'static str),
    /// Any case of `tests/model`.
    Model,
    /// Any unit test of this package.
    Unit(&'static str),
}

/// What became of a fault.
enum Outcome {
    /// These tests turned red.
    Caught(Vec<String>),
    /// None did.
    Survived,
    /// It shows nothing, for this reason.
    Void(String),
}

/// Where the copy is worked on.
struct Bench {
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let chosen = |fault: &&Fault| {
        args.words.is_empty() || args.words.iter().any(|word| fault.name.contains(word))
    };
    let faults: Vec<_> = list::all().filter(chosen).collect();
    if faults.is_empty() {
        bail!("no fault's name contains that; `cargo xtask mutants --list` shows them");
    }
    if args.list {
        for fault in &faults {
            println!("{:width$}  {}", fault.name, fault.file, width = width());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let needs = [Need::Build, Need::Lab];
    setup::quietly(&needs)?.demand(&needs)?;
    if host::privilege() == Privilege::None {
        bail!("loading BPF programs needs root: run as root, or let sudo work");
    }
    let bench = Bench::new()?;
    for fault in &faults {
        fault.applied(&bench.tree())?;
    }
    bench.sound(&catches(&faults))?;
    let mut caught = 0;
    for (n, fault) in (1..).zip(&faults) {
        let started = Instant::now();
        show(&format!("[{n:>2}/{}] {}", faults.len(), fault.name));
        let outcome = bench.attempt(fault)?;
        caught += usize::from(matches!(outcome, Outcome::Caught(_)));
        tell(&outcome, started.elapsed());
    }
    println!("{caught} of {} faults caught", faults.len());
    Ok(if caught == faults.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The column that every fault's name fits in.
fn width() -> usize {
    let names = list::all().map(|fault| fault.name.len());
    names.max().unwrap_or_default()
}

/// Begins the line of something that takes its time.
fn show(what: &str) {
    print!("{what:width$}  ", width = width() + 8);
    // A lost progress line is no reason to fail.
    let _ = io::stdout().flush();
}

fn tell(outcome: &Outcome, took: Duration) {
    let what = match outcome {
        Outcome::Caught(tests) => match &tests[..] {
            [one] => format!("caught by: {one}"),
            [first, rest @ ..] => format!("caught by: {first}, and {} more", rest.len()),
            [] => "caught".into(),
        },
        Outcome::Survived => "SURVIVED".into(),
        Outcome::Void(reason) => format!("SHOWS NOTHING: {reason}"),
    };
    println!("{:>4} s  {what}", took.as_secs());
}

// === impl Fault ===

impl Fault {
    /// The file's text with the fault in it.
    fn applied(&self, tree: &Path) -> Result<String> {
        let path = tree.join(self.file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", self.file))?;
        match text.matches(self.good).count() {
            1 => Ok(text.replace(self.good, self.bad)),
            n => bail!(
                "fault \"{}\": {} has {n} places that read\n{}\nmake xtask/src/mutants/list \
                 name one",
                self.name,
                self.file,
                self.good
            ),
        }
    }
}

// === impl Catch ===

impl Catch {
    fn name(self) -> String {
        match self {
            Self::Packet(case) => case.into(),
            Self::Model => "tests/model".into(),
            Self::Unit(package) => format!("unit tests of {package}"),
        }
    }

    /// `cargo test` of the program that has the test, in the current directory.
    fn program(self) -> Result<Command> {
        match self {
            Self::Packet(_) => test::as_root(&["packet".into()]),
            Self::Model => test::as_root(&["model".into()]),
            Self::Unit(package) => {
                let mut cargo = host::cargo("test");
                cargo.args(["--release", "-p", package]);
                Ok(cargo)
            }
        }
    }
}

// === impl Bench ===

impl Bench {
    fn new() -> Result<Self> {
        let dir = host::target().join("mutants");
        let bench = Self { dir };
        copy::update(host::root(), &bench.tree())?;
        let logs = bench.dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        Ok(bench)
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// All tests must be green without a fault, or their turning red means nothing.
    fn sound(&self, catches: &[Catch]) -> Result<()> {
        for catch in catches {
            let started = Instant::now();
            show(&format!("without a fault: {}", catch.name()));
            match self.test(*catch, "without-a-fault")? {
                Outcome::Survived => println!("{:>4} s  green", started.elapsed().as_secs()),
                Outcome::Caught(tests) => bail!("red without any fault: {}", tests.join(", ")),
                Outcome::Void(reason) => bail!("cannot be tested without a fault: {reason}"),
            }
        }
        Ok(())
    }

    fn attempt(&self, fault: &Fault) -> Result<Outcome> {
        let path = self.tree().join(fault.file);
        let cannot_write = || format!("cannot write {}", path.display());
        let bad = fault.applied(&self.tree())?;
        let good = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&path, bad).with_context(cannot_write)?;
        let outcome = self.test(fault.caught_by, &fault.name.replace([' ', '\''], "-"));
        fs::write(&path, good).with_context(cannot_write)?;
        outcome
    }

    /// Builds and runs a test.
    fn test(&self, catch: Catch, log: &str) -> Result<Outcome> {
        let log = self.dir.join("logs").join(format!("{log}.log"));
        if !self.succeeds(catch.program()?.arg("--no-run"), &log)? {
            return Ok(Outcome::Void(format!(
                "it does not build, see {}",
                log.display()
            )));
        }
        let mut run = catch.program()?;
        match catch {
            Catch::Packet(case) => {
                run.args(["--", "--exact", case]);
            }
            Catch::Model => {
                run.env("NARU_MODEL_PACKETS", MODEL_PACKETS)
                    .env("NARU_MODEL_SEED", MODEL_SEED);
            }
            Catch::Unit(_) => {}
        }
        let green = self.succeeds(&mut run, &log)?;
        let bytes = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(judge(&text, green))
    }

    /// Whether a command succeeds on the copy. Its output goes to a log.
    fn succeeds(&self, command: &mut Command, log: &Path) -> Result<bool> {
        let cannot_write = || format!("cannot write {}", log.display());
        let output = File::create(log).with_context(cannot_write)?;
        let errors = output.try_clone().with_context(cannot_write)?;
        let status = command
            .current_dir(self.tree())
            .env("CARGO_TARGET_DIR", self.dir.join("build"))
            // Little changes from fault to fault.
            .env("CARGO_INCREMENTAL", "1")
            .env("INSTA_UPDATE", "no")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .context("cannot run cargo")?;
        Ok(status.success())
    }
}

/// What the output of a test program says.
fn judge(text: &str, green: bool) -> Outcome {
    let mut reader = Reader::default();
    text.lines().for_each(|line| reader.line(line));
    let count = reader.finish(green).count;
    let mut red: Vec<String> = text.lines().filter_map(failed).map(Into::into).collect();
    red.sort();
    red.dedup();
    if text.contains(REFUSED) {
        Outcome::Void("the verifier refuses the program".into())
    } else if count.passed + count.failed == 0 {
        Outcome::Void("no test was executed".into())
    } else if green {
        Outcome::Survived
    } else if red.is_empty() {
        Outcome::Void("the test program ended without a result".into())
    } else {
        Outcome::Caught(red)
    }
}

/// The test of which this line says that it failed; where that has told something, a headline does.
fn failed(line: &str) -> Option<&str> {
    if let Some(headline) = line.strip_prefix("---- ") {
        let name = headline.strip_suffix(" ----")?;
        return Some(name.strip_suffix(" stdout").unwrap_or(name));
    }
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    // Padded to the longest.
    Some(name.trim_end())
}

/// What catches the chosen faults, each once.
fn catches(faults: &[&Fault]) -> Vec<Catch> {
    let mut catches: Vec<Catch> = Vec::new();
    for fault in faults {
        if !catches.contains(&fault.caught_by) {
            catches.push(fault.caught_by);
        }
    }
    catches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_place_and_a_name_of_its_own() {
        for fault in list::all() {
            if let Err(error) = fault.applied(host::root()) {
                panic!("{error:#}");
            }
            assert_ne!(fault.good, fault.bad, "{}", fault.name);
        }
        let mut names: Vec<_> = list::all().map(|fault| fault.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), list::all().count());
    }

    #[test]
    fn only_a_red_test_catches_a_fault() {
        let green = "running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed;\n";
        assert!(matches!(judge(green, true), Outcome::Survived));
        let red = "running 1 test\ntest a ... FAILED\n\n\
            test result: FAILED. 0 passed; 1 failed;\n";
        assert!(matches!(judge(red, false), Outcome::Caught(tests) if tests == ["a"]));
        let telling = "running 1 test\ntest a ... seed 1\nFAILED\n\nfailures:\n\n---- a ----\n\n\
            test result: FAILED. 0 passed; 1 failed;\n";
        assert!(matches!(judge(telling, false), Outcome::Caught(tests) if tests == ["a"]));
        let none = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed;\n";
        assert!(matches!(judge(none, true), Outcome::Void(_)));
        let refused = format!("{red}Load: {REFUSED} naru_xdp\n");
        assert!(matches!(judge(&refused, false), Outcome::Void(_)));
        assert!(matches!(judge("running 1 test\n", false), Outcome::Void(_)));
    }
}
