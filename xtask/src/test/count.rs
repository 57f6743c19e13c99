//! Counts of tests, and reading them off the output of test programs.

use std::ops::AddAssign;

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

/// Lines kept of what one failed test has said.
const KEPT: usize = 60;

/// How the tests of a tier ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: Count,
    /// What each failed test has said.
    pub(crate) failures: Vec<String>,
    /// What those said that failed once and passed when they were run again.
    pub(crate) once: Vec<String>,
}

/// Reads the output of libtest and what imitates it, line by line.
#[derive(Default)]
pub(crate) struct Reader {
    count: Count,
    failures: Vec<String>,
    /// A program has announced its tests and not yet its result.
    running: bool,
    /// Lines of the last failure that may still be kept, while they are what it has said.
    speaking: usize,
}

// === impl Count ===

impl Count {
    pub(crate) const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };

    /// Reads `test result: ok. 14 passed; 0 failed; 0 ignored; …`.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line
            .trim()
            .strip_prefix("test result: ")?
            .split_once(". ")?;
        let mut count = Self::default();
        for field in rest.split(';') {
            let Some((number, what)) = field.trim().split_once(' ') else {
                continue;
            };
            match what {
                "passed" => count.passed = number.parse().ok()?,
                "failed" => count.failed = number.parse().ok()?,
                "ignored" => count.skipped = number.parse().ok()?,
                _ => {}
            }
        }
        Some(count)
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl From<Count> for Tally {
    fn from(count: Count) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }
}

// === impl Reader ===

impl Reader {
    pub(crate) fn line(&mut self, line: &str) {
        self.listen(line);
        if let Some(count) = Count::parse(line) {
            self.count += count;
            self.running = false;
        } else if announces(line) {
            self.close();
            self.running = true;
        }
    }

    /// The sum, given whether cargo was content with all of its programs.
    ///
    /// A program that ended without a result has crashed, and a cargo that failed without
    /// a failed test could not compile or start one: each counts as a failure.
    pub(crate) fn finish(mut self, success: bool) -> Tally {
        self.close();
        if !success && self.count.failed == 0 {
            self.count += Count::FAILED;
        }
        Tally {
            count: self.count,
            failures: self.failures,
            once: Vec::new(),
        }
    }

    /// Keeps what comes below `---- name stdout ----`.
    fn listen(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" ----") {
            self.failures.push(String::new());
            self.speaking = KEPT;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.speaking = 0;
        }
        if let Some(said) = self.failures.last_mut().filter(|_| self.speaking > 0) {
            self.speaking -= 1;
            said.push_str(line);
            said.push('\n');
        }
    }

    fn close(&mut self) {
        if self.running {
            self.count += Count::FAILED;
            self.running = false;
        }
    }
}

/// Whether a line is `running 3 tests`.
fn announces(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("running")
        && words
            .next()
            .is_some_and(|number| number.parse::<u32>().is_ok())
        && matches!(words.next(), Some("test" | "tests"))
        && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str, success: bool) -> Tally {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.finish(success)
    }

    fn read(text: &str, success: bool) -> Count {
        tally(text, success).count
    }

    #[test]
    fn what_failed_tests_said_is_kept() {
        let text = "running 2 tests\ntest a ... FAILED\ntest b ... FAILED\n\nfailures:\n\n\
            ---- a stdout ----\nleft is not right\n\n---- b stdout ----\nno\n\n\
            failures:\n    a\n    b\n\ntest result: FAILED. 0 passed; 2 failed; 0 ignored;\n";
        let kept = [
            "---- a stdout ----\nleft is not right\n\n",
            "---- b stdout ----\nno\n\n",
        ];
        assert_eq!(tally(text, false).failures, kept);
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let text = "\nrunning 2 tests\ntest a ... ok\ntest b ... ok\n\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s\n\
            \nrunning 1 test\ntest c ... FAILED\n\n\
            test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(
            read(text, false),
            Count {
                passed: 2,
                failed: 1,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_crash_is_a_failure_beside_the_results_of_others() {
        let text = "running 3 tests\ntest a ... ok\n\
            running 1 test\ntest b ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored;\n";
        assert_eq!(
            read(text, false),
            Count {
                passed: 1,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_compile_error_is_a_failure() {
        assert_eq!(read("", false), Count::FAILED);
        assert_eq!(read("", true), Count::default());
    }
}
