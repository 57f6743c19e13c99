//! The tier `kernel`: the packet tier, and real traffic by devices that the host's kernel
//! may not have, in virtual machines with the kernels of [`series::ALL`].
//!
//! The processor is emulated, so that this runs wherever QEMU does and needs no rights:
//! root is only who is root inside.

mod guest;
mod record;

use std::{
    env, mem,
    process::{ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::record::Record;
use super::{
    count::{Count, Reader, Tally},
    debian::{
        series::{self, Series},
        store::{Kernel, Store},
    },
};
use crate::{
    host,
    setup::{self, Need},
};

pub(crate) const HELP: &str = "\
Boots each kernel of the tier `kernel`, loads the programs, and writes what the verifier
counted to tests/verifier.txt, for you to look at and commit.

NARU_KERNELS=6.1,newest chooses the kernels of `cargo xtask test kernel`.";

/// What the set-up has to provide.
pub(super) const NEEDS: &[Need] = &[Need::Build, Need::Kernel];

/// Test programs that run in the guests alone; `packet` runs on the host as well.
pub(super) const PROGRAM: &str = "kernel";

/// Guests that run side by side.
const AT_ONCE: usize = 2;

/// What a guest is to run, as a script.
type Job<'a> = dyn Fn(&Kernel) -> Result<String> + Sync + 'a;

/// How a kernel fared.
struct Outcome {
    series: Series,
    /// The series, and the release where it was found.
    name: String,
    tally: Tally,
    took: Duration,
    record: Record,
}

/// Why this machine cannot run the tier, whatever is installed.
pub(super) fn obstacle() -> Option<&'static str> {
    if env::consts::ARCH != "x86_64" {
        Some("the guests run this machine's programs on Debian's kernels for x86-64")
    } else if host::find("apt-get").is_none() || host::find("dpkg-deb").is_none() {
        Some("the kernels come as Debian packages, by apt-get and dpkg-deb")
    } else {
        None
    }
}

/// Runs the tier. `tail` goes to the test programs.
pub(super) fn run(tail: &[String]) -> Result<Tally> {
    let committed = Record::read()?;
    let programs = Programs::build()?;
    let job = |kernel: &Kernel| programs.job(kernel, &["packet", PROGRAM], tail);
    let variable = env::var("NARU_KERNELS").ok();
    let mut outcomes = each_kernel(series::chosen(variable.as_deref())?, &job)?;
    for outcome in &mut outcomes {
        // A part of the tests may be without the one that counts.
        if tail.is_empty() || outcome.record != Record::default() {
            outcome.hold_against(&committed);
        }
    }
    Ok(account(outcomes))
}

/// `cargo xtask verifier`: writes the record anew.
pub(crate) fn record() -> Result<ExitCode> {
    setup::quietly(NEEDS)?.demand(NEEDS)?;
    if let Some(reason) = obstacle() {
        bail!(reason);
    }
    let programs = Programs::build()?;
    let only = ["verifier".to_owned()];
    let job = |kernel: &Kernel| programs.job(kernel, &[PROGRAM], &only);
    let mut outcomes = each_kernel(series::ALL.to_vec(), &job)?;
    // The first time there is none.
    let mut record = Record::read().unwrap_or_default();
    for outcome in &mut outcomes {
        if outcome.tally.count.failed == 0 {
            record.replace(outcome.series.name, mem::take(&mut outcome.record));
        }
    }
    let tally = account(outcomes);
    record.write()?;
    println!("written: tests/verifier.txt");
    if tally.count.failed > 0 {
        bail!("what stands there of the kernels that failed is as old as it was");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a job on each kernel, some at once: a guest has two processors, and leaves one of
/// them idle half of the time.
fn each_kernel(all: Vec<Series>, job: &Job<'_>) -> Result<Vec<Outcome>> {
    let mut store = Store::open()?;
    // All first, so that a slow mirror is met before the waiting begins.
    let kernels: Vec<_> = all.iter().map(|series| store.kernel(*series)).collect();
    let mut outcomes: Vec<_> = all.into_iter().map(Outcome::new).collect();
    let queue = Mutex::new(outcomes.iter_mut().zip(kernels));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((outcome, kernel)) = next() {
                    if let Err(error) = kernel.and_then(|kernel| outcome.boot(&kernel, job)) {
                        outcome.failed(&format!("{error:#}"));
                    }
                }
            });
        }
    });
    drop(queue);
    Ok(outcomes)
}

/// Prints a line for each kernel, and sums up what all of them have said.
fn account(outcomes: Vec<Outcome>) -> Tally {
    let mut total = Tally::default();
    let kernels = outcomes.len();
    println!();
    for Outcome {
        name, tally, took, ..
    } in outcomes
    {
        println!(
            "kernel {name:<32}{:>5} passed{:>5} failed{:>8.1} s",
            tally.count.passed,
            tally.count.failed,
            took.as_secs_f32()
        );
        total.count += tally.count;
        let said = tally.failures.into_iter();
        let said = said.map(|said| format!("kernel {name}\n{said}"));
        total.failures.extend(said);
    }
    println!(
        "{} cases on {kernels} kernels",
        total.count.passed + total.count.failed
    );
    total
}

// === impl Outcome ===

impl Outcome {
    fn new(series: Series) -> Self {
        Self {
            series,
            name: series.name.to_owned(),
            tally: Count::FAILED.into(),
            took: Duration::ZERO,
            record: Record::default(),
        }
    }

    fn boot(&mut self, kernel: &Kernel, job: &Job<'_>) -> Result<()> {
        let series = kernel.series.name;
        self.name = format!("{series}: {}", kernel.release);
        println!("---- kernel {}", self.name);
        let mut reader = Reader::default();
        let record = &mut self.record;
        let end = guest::run(kernel, &job(kernel)?, &mut |line| {
            println!("{series:<7}| {line}");
            reader.line(line);
            record.line(series, line);
        });
        let success = end.as_ref().is_ok_and(|it| it.success);
        self.tally = reader.finish(success);
        self.took = end?.took;
        if !success {
            bail!("the guest has not come to its end with all programs successful");
        }
        Ok(())
    }

    /// Counts a test more: whether the record is what is committed of it.
    fn hold_against(&mut self, committed: &Record) {
        let differences = self.record.differences(self.series.name, committed);
        if differences.is_empty() {
            self.tally.count.passed += 1;
            return;
        }
        self.tally.count.failed += 1;
        let remedy = "if that is meant: `cargo xtask verifier` records what there is now";
        self.failed(&format!("{}\n{remedy}", differences.join("\n")));
    }

    /// Tells at once, and at the end, what has failed beside tests.
    fn failed(&mut self, why: &str) {
        eprintln!("!!!! kernel {}: {why}", self.series.name);
        self.tally.failures.push(why.to_owned());
    }
}

/// The test programs, built.
struct Programs(Vec<String>);

// === impl Programs ===

impl Programs {
    fn build() -> Result<Self> {
        let mut build = host::cargo("build");
        host::status(build.args(["--release", "-p", "naru", "-p", "naru-lab"]))?;
        let output = host::cargo("test")
            .args(["--release", "-p", "naru-tests", "--no-run"])
            .args(["--test", "packet", "--test", PROGRAM])
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run `cargo test --no-run`")?;
        if !output.status.success() {
            bail!("the test programs do not build");
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(Self(text.lines().filter_map(executable).collect()))
    }

    /// What the guest's script is to do.
    fn job(&self, kernel: &Kernel, names: &[&str], tail: &[String]) -> Result<String> {
        let release = host::target().join("release");
        let mut job = format!(
            "modules {}\n",
            quoted(&kernel.modules().display().to_string())
        );
        for (variable, program) in [("NARU_BIN", "naru"), ("NARU_LAB_BIN", "naru-lab")] {
            let path = quoted(&release.join(program).display().to_string());
            job += &format!("export {variable}={path}\n");
        }
        job += "export NARU_KERNEL_GUEST=1\n";
        for name in names {
            let path = self.0.iter().find(|path| is_program(path, name));
            let path = path.with_context(|| format!("cargo has built no test program {name}"))?;
            let mut words: Vec<_> = [path]
                .into_iter()
                .chain(tail)
                .map(|it| quoted(it))
                .collect();
            if !tail.iter().any(|word| word.starts_with("--test-threads")) {
                // With one thread fewer sets of programs are loaded, and guests run side by
                // side as it is.
                words.push("--test-threads=1".into());
            }
            job += &format!("run {}\n", words.join(" "));
        }
        Ok(job)
    }
}

/// The program that a line of cargo's messages tells of.
fn executable(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(path.to_owned())
}

/// Whether a path is that of a test program: cargo adds a hash to the name.
fn is_program(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.rsplit_once('-').is_some_and(|(stem, _)| stem == name)
}

/// A word as the shell takes it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let message =
            r#"{"target":{"name":"packet"},"executable":"/t/deps/packet-0af3","fresh":true}"#;
        let path = executable(message).unwrap();
        assert!(is_program(&path, "packet") && !is_program(&path, "kernel"));
        assert_eq!(executable(r#"{"executable":null}"#), None);
    }

    #[test]
    fn words_reach_the_guest_as_they_are() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
