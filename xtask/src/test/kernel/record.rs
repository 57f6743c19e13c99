//! The committed record of how many instructions the verifier walks for each program, by
//! series of kernels.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::host;

/// A program by its series of kernels and its name.
type Key = (String, String);

/// Instructions by program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record(BTreeMap<Key, u32>);

/// By so many hundredths a count may differ from the record.
const TOLERANCE: u32 = 20;

const HEAD: &str = "\
# Instructions that the verifier walks for each program, by series of kernels; its limit
# for one program is 1000000. `cargo xtask test kernel` fails where a count differs by
# more than 20 % from what stands here, or comes near the limit. After a change that is
# meant to cost that much, `cargo xtask verifier` writes this file anew.
";

// === impl Record ===

impl Record {
    fn path() -> PathBuf {
        host::root().join("tests/verifier.txt")
    }

    /// What is committed.
    pub(super) fn read() -> Result<Self> {
        let path = Self::path();
        let text = fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}; run `cargo xtask verifier`", path.display())
        })?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut record = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = line.split_whitespace().collect();
            let [series, program, count] = words[..] else {
                bail!("`{line}` is not SERIES PROGRAM COUNT; run `cargo xtask verifier`")
            };
            let count = count
                .parse()
                .with_context(|| format!("`{line}` has no count"))?;
            record.add(series, program, count);
        }
        Ok(record)
    }

    pub(super) fn write(&self) -> Result<()> {
        let path = Self::path();
        fs::write(&path, self.to_text()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        for ((series, program), count) in &self.0 {
            text += &format!("{series:<8}{program:<18}{count:>8}\n");
        }
        text
    }

    fn add(&mut self, series: &str, program: &str, count: u32) {
        self.0
            .insert((series.to_owned(), program.to_owned()), count);
    }

    /// Takes `verifier: NAME COUNT` out of the output of a guest of that series.
    pub(super) fn line(&mut self, series: &str, line: &str) {
        let Some(rest) = line.strip_prefix("verifier: ") else {
            return;
        };
        if let Some((program, count)) = rest.split_once(' ')
            && let Ok(count) = count.trim().parse()
        {
            self.add(series, program, count);
        }
    }

    /// Takes all that another record has of a series, in the place of what is here.
    pub(super) fn replace(&mut self, series: &str, other: Self) {
        self.0.retain(|(name, _), _| name != series);
        self.0.extend(other.0);
    }

    /// What is not as the committed record has it, a sentence each.
    pub(super) fn differences(&self, series: &str, committed: &Self) -> Vec<String> {
        let of = |record: &Self| -> BTreeMap<String, u32> {
            let own = record.0.iter().filter(|((name, _), _)| name == series);
            own.map(|((_, program), count)| (program.clone(), *count))
                .collect()
        };
        let (counted, recorded) = (of(self), of(committed));
        let mut found: Vec<_> = recorded
            .keys()
            .filter(|program| !counted.contains_key(*program))
            .map(|program| format!("{program} is in the record and was not loaded"))
            .collect();
        for (program, &count) in &counted {
            match recorded.get(program) {
                None => found.push(format!("{program} has {count} instructions and no record")),
                Some(&old) if count.abs_diff(old) * 100 > old * TOLERANCE => {
                    found.push(format!(
                        "{program} has {count} instructions, on record {old}"
                    ));
                }
                Some(_) => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(lines: &[(&str, u32)]) -> Record {
        let mut record = Record::default();
        for (program, count) in lines {
            record.line("6.1", &format!("verifier: {program} {count}"));
        }
        record
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record(&[("naru_xdp", 123_456), ("naru_tc_egress", 7)]);
        assert_eq!(Record::parse(&record.to_text()).unwrap(), record);
        assert!(Record::parse("6.1 naru_xdp").is_err());
        assert!(Record::parse("6.1 naru_xdp many").is_err());
    }

    #[test]
    fn one_series_is_replaced() {
        let mut all = record(&[("a", 1), ("gone", 2)]);
        all.line("6.12", "verifier: a 3");
        all.replace("6.1", record(&[("a", 4)]));
        let text = all.to_text();
        assert!(text.contains("6.12    a") && text.contains("6.1     a"));
        assert!(!text.contains("gone"));
    }

    #[test]
    fn a_fifth_more_or_less_is_tolerated() {
        let committed = record(&[("a", 100_000)]);
        for (count, found) in [(80_000, 0), (120_000, 0), (79_999, 1), (120_001, 1)] {
            let differences = record(&[("a", count)]).differences("6.1", &committed);
            assert_eq!(differences.len(), found, "{count}: {differences:?}");
        }
    }

    #[test]
    fn programs_without_a_record_and_records_without_a_program_are_told() {
        let (one, other) = (record(&[("a", 1)]), record(&[("b", 1)]));
        assert_eq!(one.differences("6.1", &other).len(), 2);
        assert!(one.differences("6.12", &other).is_empty());
    }
}
