//! A second chance for tests of real time: what fails while the machine is busy with
//! something else is run once more alone, and told of either way.

use super::count::{Count, Tally};

/// With more failures than these, it is not the machine.
const MOST: usize = 3;

// === impl Tally ===

impl Tally {
    /// The names of the tests to run again: all that failed, or none.
    ///
    /// A program that crashed, or was not built, names no test, and has no second chance.
    pub(super) fn unsteady(&self) -> Vec<&str> {
        let names: Vec<_> = self.failures.iter().filter_map(|said| name(said)).collect();
        if names.len() == self.count.failed as usize && names.len() <= MOST {
            names
        } else {
            Vec::new()
        }
    }

    /// The account of both runs, of which the second was of the failed tests alone.
    pub(super) fn again(self, second: Self) -> Self {
        let failed = self.count.failed;
        let steady = second.count.passed == failed && second.count.failed == 0;
        if !steady {
            return self;
        }
        Self {
            count: Count {
                passed: self.count.passed + failed,
                failed: 0,
                ..self.count
            },
            failures: Vec::new(),
            once: self.failures,
        }
    }
}

/// The test that said this, out of `---- name stdout ----`.
fn name(said: &str) -> Option<&str> {
    let line = said.lines().next()?.strip_prefix("---- ")?;
    line.strip_suffix(" stdout ----")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u32, failed: &[&str]) -> Tally {
        let said = |name: &&str| format!("---- {name} stdout ----\nno answer\n");
        Tally {
            count: Count {
                passed,
                failed: failed.len() as u32,
                skipped: 1,
            },
            failures: failed.iter().map(said).collect(),
            once: Vec::new(),
        }
    }

    #[test]
    fn a_test_that_passes_alone_has_passed_and_is_told_of() {
        let first = tally(7, &["a::b", "c"]);
        assert_eq!(first.unsteady(), ["a::b", "c"]);
        let both = first.again(tally(2, &[]));
        assert_eq!((both.count.passed, both.count.failed), (9, 0));
        assert_eq!(both.count.skipped, 1);
        assert!(both.failures.is_empty());
        assert!(both.once[0].contains("a::b"), "{:?}", both.once);
    }

    #[test]
    fn a_test_that_fails_twice_or_is_not_found_again_has_failed() {
        let first = || tally(7, &["a::b", "c"]);
        assert_eq!(first().again(tally(1, &["c"])), first());
        assert_eq!(first().again(tally(1, &[])), first());
    }

    #[test]
    fn crashes_and_many_failures_have_no_second_chance() {
        let mut crashed = tally(7, &["a"]);
        crashed.count.failed += 1;
        assert!(crashed.unsteady().is_empty());
        assert!(tally(1, &["a", "b", "c", "d"]).unsteady().is_empty());
        assert!(tally(1, &[]).unsteady().is_empty());
    }
}
