//! What a flood meets.

use naru_lab::Algorithm;

/// Where the pods are, and how they are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Way {
    /// On the node that balances.
    Local,
    /// On another one, which answers by way of the balancer.
    Nat,
    /// On another one, which answers to the client.
    Dsr,
}

/// What else is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Condition {
    /// Nothing has changed for longer than a drain window.
    Plain,
    /// An endpoint has come just before, and the drain window stays open.
    Drain,
    /// The nodes track connections, and drop what belongs to none.
    Conntrack,
}

/// One flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) way: Way,
    pub(super) algorithm: Algorithm,
    pub(super) condition: Condition,
}

// === impl Way ===

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Local, Self::Nat, Self::Dsr];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Nat => "nat",
            Self::Dsr => "dsr",
        }
    }
}

// === impl Condition ===

impl Condition {
    const ALL: [Self; 3] = [Self::Plain, Self::Drain, Self::Conntrack];

    fn words(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Drain => ", drain window open",
            Self::Conntrack => ", conntrack loaded",
        }
    }
}

// === impl Case ===

impl Case {
    /// All that there are.
    pub(super) fn all() -> Vec<Self> {
        let algorithms = [Algorithm::Maglev, Algorithm::RoundRobin];
        let mut all = Vec::new();
        for condition in Condition::ALL {
            for algorithm in algorithms {
                all.extend(Way::ALL.map(|way| Self {
                    way,
                    algorithm,
                    condition,
                }));
            }
        }
        all
    }

    /// Who carries its packets.
    pub(super) fn candidate(self) -> String {
        format!("naru-{}-{}", self.algorithm.name(), self.way.name())
    }

    /// In words.
    pub(super) fn words(self) -> String {
        let (algorithm, way) = (self.algorithm.name(), self.way.name());
        format!("{algorithm}, {way}{}", self.condition.words())
    }

    /// Whether established connections need no records as long as nothing changes: `nat` has
    /// ports to remember, and turns are nothing to compute a backend from.
    pub(super) fn goes_without_records(self) -> bool {
        self.algorithm == Algorithm::Maglev && self.way != Way::Nat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_is_told_apart() {
        let all = Case::all();
        let mut words: Vec<String> = all.iter().map(|case| case.words()).collect();
        words.sort();
        words.dedup();
        assert_eq!((all.len(), words.len()), (18, 18));
        let without = all.iter().filter(|case| case.goes_without_records());
        assert_eq!(without.count(), 6);
    }
}
