//! What `stat` says of a file, and how far that tells whether its text is still the same.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime},
};

/// For so long after a file was written another text may get the same times: the kernel
/// takes them from a clock that goes in steps of up to 10 ms.
const STEP: Duration = Duration::from_millis(100);
/// The same on file systems that keep whole seconds, of which some keep every other one.
const COARSE_STEP: Duration = Duration::from_secs(3);

/// A file as `stat` tells it from others. Its target, where it is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    file: [u64; 2],
    len: u64,
    /// Seconds and nanoseconds; a writer may set it at will.
    modified: [i64; 2],
    /// The same, of every change that there was; nobody can set it.
    changed: [i64; 2],
}

impl Stamp {
    pub(crate) fn of(facts: &Metadata) -> Self {
        Self {
            file: [facts.dev(), facts.ino()],
            len: facts.len(),
            modified: [facts.mtime(), facts.mtime_nsec()],
            changed: [facts.ctime(), facts.ctime_nsec()],
        }
    }

    /// Whether, at `now`, the file may be written once more without getting another stamp, or
    /// was a moment ago. One from the future is young: that clock says nothing.
    pub(crate) fn is_young(&self, now: SystemTime) -> bool {
        let [seconds, nanoseconds] = self.changed;
        let step = if nanoseconds == 0 { COARSE_STEP } else { STEP };
        let since_epoch = Duration::new(
            u64::try_from(seconds).unwrap_or_default(),
            u32::try_from(nanoseconds).unwrap_or_default(),
        );
        let age = SystemTime::UNIX_EPOCH
            .checked_add(since_epoch)
            .and_then(|changed| now.duration_since(changed).ok());
        age.is_none_or(|age| age < step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_young_until_its_clock_has_moved_on() {
        let stamp = |seconds, nanoseconds| Stamp {
            file: [1, 2],
            len: 3,
            modified: [0, 0],
            changed: [seconds, nanoseconds],
        };
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let fine = stamp(10, 500_000_000);
        let young = [9_000, 10_499, 10_500, 10_599].map(|ms| fine.is_young(at(ms)));
        assert_eq!(young, [true; 4]);
        assert!(!fine.is_young(at(10_600)));
        assert!(stamp(10, 0).is_young(at(12_999)), "in whole seconds");
        assert!(!stamp(10, 0).is_young(at(13_000)));
        assert!(stamp(i64::MAX, 0).is_young(at(0)), "no time at all");
    }
}
