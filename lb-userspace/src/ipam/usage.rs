//! How full the pools are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{Assignment, choose::is_buggy, holdings::Holdings};
use crate::desired::{AddressRange, BalancerName, Family, Pool};

/// Addresses by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// IPv4.
    pub v4: u64,
    /// IPv6; `u64::MAX` stands for that or more.
    pub v6: u64,
}

impl Count {
    fn add(&mut self, family: Family, count: u128) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let of = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        *of = of.saturating_add(count);
    }

    /// What is left of a size; of one that was too large to count, all.
    fn left(size: u64, less: u64) -> u64 {
        match size {
            u64::MAX => u64::MAX,
            size => size.saturating_sub(less),
        }
    }
}

/// A pool and what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUse {
    /// Its name.
    pub name: String,
    /// `first-last`, in the order in which they are given out.
    pub ranges: Vec<String>,
    /// Whether Services get one without asking for this pool.
    pub auto_assign: bool,
    /// Whether it leaves out IPv4 addresses that end in .0 or .255.
    pub avoid_buggy_ips: bool,
    /// Whether it is for some Services only.
    pub restricted: bool,
    /// The advertisements that announce it; none: it is not announced.
    pub advertisements: Vec<String>,
    /// How many addresses there are to give out.
    pub size: Count,
    /// How many are given out; one that is shared counts once.
    pub in_use: Count,
    /// How many are left: not in use, and nobody's else: nodes and external IPs have theirs.
    pub free: Count,
    /// Who has which.
    pub given: BTreeMap<IpAddr, Vec<BalancerName>>,
}

/// The pools of an assignment, by name.
pub fn usage(assignment: &Assignment) -> Vec<PoolUse> {
    let desired = &assignment.desired;
    let mut holders: BTreeMap<IpAddr, Vec<BalancerName>> = BTreeMap::new();
    for (name, addresses) in &assignment.addresses {
        for ip in addresses {
            holders.entry(*ip).or_default().push(name.clone());
        }
    }
    let avoided = Holdings::of_others(desired);
    let pools = desired.pools.iter();
    let usage = pools.map(|(name, pool)| {
        let mut size = Count::default();
        for range in &pool.ranges {
            let leaves_out = pool.avoid_buggy_ips;
            size.add(Family::of(range.first), count(range, leaves_out));
        }
        let given: BTreeMap<_, _> = within(pool, &holders)
            .map(|(ip, names)| (*ip, names.clone()))
            .collect();
        let mut in_use = Count::default();
        for ip in given.keys() {
            in_use.add(Family::of(*ip), 1);
        }
        let mut gone = in_use;
        let theirs: BTreeSet<_> = avoided
            .iter()
            .filter(|ip| !given.contains_key(ip) && is_of(pool, **ip))
            .collect();
        for ip in theirs {
            gone.add(Family::of(*ip), 1);
        }
        let advertisements = desired.advertisements.iter();
        PoolUse {
            name: name.clone(),
            ranges: pool.ranges.iter().map(ToString::to_string).collect(),
            auto_assign: pool.auto_assign,
            avoid_buggy_ips: pool.avoid_buggy_ips,
            restricted: pool.allocation.is_some(),
            advertisements: advertisements
                .filter(|(_, it)| it.pools.contains(name))
                .map(|(name, _)| name.clone())
                .collect(),
            size,
            in_use,
            free: Count {
                v4: Count::left(size.v4, gone.v4),
                v6: Count::left(size.v6, gone.v6),
            },
            given,
        }
    });
    usage.collect()
}

fn within<'a, T>(
    pool: &'a Pool,
    by_address: &'a BTreeMap<IpAddr, T>,
) -> impl Iterator<Item = (&'a IpAddr, &'a T)> {
    by_address.iter().filter(|(ip, _)| {
        let mut ranges = pool.ranges.iter();
        ranges.any(|range| range.contains(**ip))
    })
}

/// Whether the pool gives this address out.
fn is_of(pool: &Pool, ip: IpAddr) -> bool {
    let mut ranges = pool.ranges.iter();
    ranges.any(|range| range.contains(ip)) && !(pool.avoid_buggy_ips && is_buggy(ip))
}

/// How many addresses a range has, with or without those that are buggy.
fn count(range: &AddressRange, leaves_out: bool) -> u128 {
    match (range.first, range.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, end) = (u128::from(first.to_bits()), u128::from(last.to_bits()) + 1);
            // Those below a number that end in 0, and those that end in 255.
            let buggy = |below: u128| below.div_ceil(256) + below / 256;
            let buggy = if leaves_out {
                buggy(end) - buggy(first)
            } else {
                0
            };
            end - first - buggy
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            (last.to_bits() - first.to_bits()).saturating_add(1)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_counts_its_addresses_less_those_that_are_left_out() {
        let count = |first: &str, last: &str, leaves_out| {
            let range = AddressRange {
                first: first.parse().expect("address"),
                last: last.parse().expect("address"),
            };
            count(&range, leaves_out)
        };
        assert_eq!(count("10.0.0.0", "10.0.0.255", false), 256);
        assert_eq!(count("10.0.0.0", "10.0.0.255", true), 254);
        assert_eq!(count("10.0.0.0", "10.0.0.0", true), 0);
        assert_eq!(count("10.0.0.255", "10.0.0.255", true), 0);
        assert_eq!(count("10.0.0.254", "10.0.1.1", true), 2);
        assert_eq!(count("10.0.0.1", "10.0.3.254", true), 1016);
        assert_eq!(count("fd00::", "fd00::ff", true), 256);
        assert_eq!(count("fd00::", "fd00::ffff:ffff:ffff:ffff", false), 1 << 64);
    }
}
