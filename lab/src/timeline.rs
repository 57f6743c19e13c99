//! What was seen from outside while something failed, and the arithmetic on it.
//!
//! All times are counted from the beginning of one recording.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A request of a client, and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// When it was sent.
    pub sent: Duration,
    /// When the answer came, and from which pod; none: it never did.
    pub answer: Option<(Duration, String)>,
}

/// A question of whose an address is, and who said that it is his.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// When it was sent.
    pub at: Duration,
    /// Who answered, each with the time of the answer.
    pub answers: BTreeMap<String, Duration>,
}

/// Requests of one client, in the order in which they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(pub Vec<Probe>);

/// Questions for one address, in the order in which they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership(pub Vec<Asked>);

// === impl Requests ===

impl Requests {
    /// How many were never answered.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|it| it.answer.is_none()).count()
    }

    /// The longest time between two answers that came one after the other, of those from
    /// the last one before `from` on. None: nothing came after `from`, or at the end nobody
    /// has answered for longer than that.
    pub fn longest_gap(&self, from: Duration) -> Option<Duration> {
        let mut times: Vec<Duration> = self.answered().collect();
        times.sort_unstable();
        let before = times.iter().rposition(|at| *at <= from).unwrap_or(0);
        let gaps = times[before.min(times.len())..].windows(2);
        let longest = gaps.map(|pair| pair[1] - pair[0]).max()?;
        let asked = self.0.last().map(|it| it.sent).unwrap_or_default();
        let silent = asked.saturating_sub(times.last().copied().unwrap_or_default());
        (silent <= longest).then_some(longest)
    }

    /// From `from` to when the last of those that were lost was sent; zero where none was.
    pub fn healthy_after(&self, from: Duration) -> Duration {
        let lost = self.0.iter().filter(|it| it.answer.is_none());
        let last = lost.map(|it| it.sent).max().unwrap_or_default();
        last.saturating_sub(from)
    }

    /// How many were sent at this time or later.
    pub fn since(&self, from: Duration) -> usize {
        self.0.iter().filter(|it| it.sent >= from).count()
    }

    /// Answered and lost ones, by the time at which they were sent, in slices of `width`.
    pub fn histogram(&self, width: Duration) -> Vec<(u32, u32)> {
        let mut slices = Vec::new();
        for probe in &self.0 {
            let index = (probe.sent.as_nanos() / width.as_nanos().max(1)) as usize;
            if slices.len() <= index {
                slices.resize(index + 1, (0, 0));
            }
            match probe.answer {
                Some(_) => slices[index].0 += 1,
                None => slices[index].1 += 1,
            }
        }
        slices
    }

    fn answered(&self) -> impl Iterator<Item = Duration> {
        let answers = self.0.iter().filter_map(|it| it.answer.as_ref());
        answers.map(|(at, _)| *at)
    }
}

// === impl Ownership ===

impl Ownership {
    /// How long nobody said that the address is his, after `from`: what is above one
    /// `period` between answers, for gaps of at least three. A shorter one is a late
    /// answer on a busy machine.
    pub fn without(&self, from: Duration, period: Duration) -> Duration {
        let mut times: Vec<Duration> = self.answers().map(|(at, _)| at).collect();
        // As far as was asked, also where nobody answers any more.
        times.extend(self.0.last().map(|asked| asked.at));
        times.sort_unstable();
        let after = times.iter().rposition(|at| *at <= from).unwrap_or(0);
        let gaps = times[after.min(times.len())..]
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]))
            .filter(|gap| *gap >= 3 * period);
        gaps.map(|gap| gap.saturating_sub(period)).sum()
    }

    /// How long more than one said so, after `from`: until the next question each time.
    pub fn with_several(&self, from: Duration) -> Duration {
        let ends = self.0.iter().skip(1).map(|next| next.at);
        let slots = self.0.iter().zip(ends);
        slots
            .filter(|(asked, _)| asked.at >= from && asked.answers.len() > 1)
            .map(|(asked, end)| end.saturating_sub(asked.at))
            .sum()
    }

    /// When a question was last answered by more than one, counted from `from`.
    pub fn single_after(&self, from: Duration) -> Duration {
        let several = self.0.iter().filter(|asked| asked.answers.len() > 1);
        let last = several.map(|asked| asked.at).max().unwrap_or_default();
        last.saturating_sub(from)
    }

    /// Who had it one after the other, with the time of the first answer of each.
    pub fn owners(&self) -> Vec<(Duration, String)> {
        let mut answers: Vec<(Duration, &String)> = self.answers().collect();
        answers.sort_unstable();
        let mut owners: Vec<(Duration, String)> = Vec::new();
        for (at, owner) in answers {
            if owners.last().is_none_or(|(_, last)| last != owner) {
                owners.push((at, owner.clone()));
            }
        }
        owners
    }

    /// Everybody who answered at this time or later.
    pub fn since(&self, from: Duration) -> BTreeSet<&str> {
        let answers = self.answers().filter(|(at, _)| *at >= from);
        answers.map(|(_, owner)| owner.as_str()).collect()
    }

    fn answers(&self) -> impl Iterator<Item = (Duration, &String)> {
        let answers = self.0.iter().flat_map(|asked| &asked.answers);
        answers.map(|(owner, at)| (*at, owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One every 10 ms for a second, answered 1 ms later unless it falls in `lost`.
    fn requests(lost: std::ops::Range<u64>) -> Requests {
        let one = |index: u64| Probe {
            sent: ms(index * 10),
            answer: (!lost.contains(&(index * 10))).then(|| (ms(index * 10 + 1), "pod".into())),
        };
        Requests((0..100).map(one).collect())
    }

    fn asked(at: u64, answers: &[&str]) -> Asked {
        Asked {
            at: ms(at),
            answers: answers
                .iter()
                .map(|it| ((*it).to_owned(), ms(at + 1)))
                .collect(),
        }
    }

    #[test]
    fn an_outage_is_measured_between_answers() {
        let requests = requests(300..500);
        assert_eq!(requests.lost(), 20);
        // From the answer at 291 to the one at 501.
        assert_eq!(requests.longest_gap(ms(295)), Some(ms(210)));
        assert_eq!(requests.healthy_after(ms(295)), ms(195));
        assert_eq!(requests.since(ms(500)), 50);
        // What was before does not count.
        assert_eq!(requests.longest_gap(ms(600)), Some(ms(10)));
    }

    #[test]
    fn an_outage_without_an_end_has_no_length() {
        let requests = requests(300..2000);
        assert_eq!(requests.longest_gap(ms(295)), None);
        assert_eq!(Requests::default().longest_gap(ms(0)), None);
        // Nor one that begins a little after the fault.
        assert_eq!(requests.longest_gap(ms(275)), None);
    }

    #[test]
    fn an_answer_that_is_late_is_no_loss_but_a_gap() {
        let mut requests = requests(300..500);
        // What waited for ARP comes all at once.
        for probe in &mut requests.0[30..50] {
            probe.answer = Some((ms(480), "pod".into()));
        }
        assert_eq!(requests.lost(), 0);
        assert_eq!(requests.healthy_after(ms(295)), ms(0));
        assert_eq!(requests.longest_gap(ms(295)), Some(ms(189)));
    }

    #[test]
    fn slices_tell_answered_from_lost() {
        let slices = requests(300..500).histogram(ms(100));
        assert_eq!(slices.len(), 10);
        assert_eq!(slices[2..6], [(10, 0), (0, 10), (0, 10), (10, 0)]);
    }

    #[test]
    fn nobody_and_two_at_a_time_are_told_apart() {
        let mut all: Vec<Asked> = (0..10).map(|i| asked(i * 10, &["nuc01"])).collect();
        all.extend((10..30).map(|i| asked(i * 10, &[])));
        all.extend((30..35).map(|i| asked(i * 10, &["nuc01", "nuc02"])));
        all.extend((35..50).map(|i| asked(i * 10, &["nuc02"])));
        let ownership = Ownership(all);
        // From the answer at 91 to that at 301, less what lies between any two.
        assert_eq!(ownership.without(ms(95), ms(10)), ms(200));
        assert_eq!(ownership.with_several(ms(95)), ms(50));
        assert_eq!(ownership.single_after(ms(95)), ms(245));
        assert_eq!(ownership.since(ms(400)), BTreeSet::from(["nuc02"]));
    }

    #[test]
    fn nobody_at_the_end_counts_up_to_the_last_question() {
        let mut all: Vec<Asked> = (0..10).map(|i| asked(i * 10, &["nuc01"])).collect();
        all.extend((10..30).map(|i| asked(i * 10, &[])));
        let ownership = Ownership(all);
        assert_eq!(ownership.without(ms(95), ms(10)), ms(290 - 91 - 10));
        assert_eq!(ownership.with_several(ms(0)), ms(0));
    }

    #[test]
    fn changes_of_the_owner_are_counted_in_order() {
        let all = [("nuc01", 0), ("nuc01", 10), ("nuc02", 20), ("nuc01", 30)];
        let all = all.map(|(owner, at)| asked(at, &[owner]));
        let owners = Ownership(all.to_vec()).owners();
        let names: Vec<_> = owners.iter().map(|(at, name)| (*at, &**name)).collect();
        assert_eq!(
            names,
            [(ms(1), "nuc01"), (ms(21), "nuc02"), (ms(31), "nuc01")]
        );
    }
}
