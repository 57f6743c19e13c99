//! Who takes part, and over which way.

use naru_lab::Algorithm;

/// The way of a connection's packets. Candidates are compared over one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The pods are on the balancer's node.
    Local,
    /// They are on another one, and answer by way of the balancer.
    Nat,
    /// They are on another one, and answer to the client.
    Dsr,
}

/// What is between the client and the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Balancer {
    /// A router.
    None,
    /// A router whose uplink has an XDP program that passes everything: what virtual cables
    /// charge for XDP alone.
    Passing,
    /// kube-proxy's rules.
    Nftables,
    /// A proxy in userspace.
    Haproxy,
    /// Naru, by this algorithm.
    Naru(Algorithm),
}

/// One of those that take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) way: Way,
    pub(super) balancer: Balancer,
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

    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Local => "pods on the balancer's node",
            Self::Nat => "pods of another node, answers through the balancer",
            Self::Dsr => "pods of another node, answers straight to the client",
        }
    }

    /// Whether the pods are the balancer's own.
    pub(super) fn is_local(self) -> bool {
        self == Self::Local
    }
}

// === impl Balancer ===

impl Balancer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Passing => "none, empty XDP program",
            Self::Nftables => "nftables",
            Self::Haproxy => "HAProxy",
            Self::Naru(Algorithm::RoundRobin) => "Naru, round-robin",
            Self::Naru(Algorithm::Maglev) => "Naru, Maglev",
        }
    }

    /// The node that does it.
    pub(super) fn node(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Passing => "passing",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::Naru(_) => "naru",
        }
    }
}

/// All candidates over these ways, those that are compared with first.
pub(super) fn all(ways: &[Way]) -> Vec<Candidate> {
    let naru = [
        Balancer::Naru(Algorithm::RoundRobin),
        Balancer::Naru(Algorithm::Maglev),
    ];
    let over = |way: &Way| {
        let mut balancers = vec![Balancer::None, Balancer::Passing];
        if *way != Way::Dsr {
            // Nobody else answers past the balancer.
            balancers.extend([Balancer::Nftables, Balancer::Haproxy]);
        }
        balancers.extend(naru);
        let way = *way;
        balancers
            .into_iter()
            .map(move |balancer| Candidate { way, balancer })
    };
    ways.iter().flat_map(over).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_something_to_compare_with_and_both_algorithms() {
        let all = all(&Way::ALL);
        for way in Way::ALL {
            let over = || all.iter().filter(|it| it.way == way);
            assert_eq!(over().filter(|it| it.balancer == Balancer::None).count(), 1);
            let naru = over().filter(|it| matches!(it.balancer, Balancer::Naru(_)));
            assert_eq!(naru.count(), 2);
        }
        assert_eq!(all.len(), 16);
    }
}
