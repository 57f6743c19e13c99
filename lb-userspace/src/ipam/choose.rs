//! Which addresses a balancer may have, and which one it gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use kube_core::SelectorExt;

use super::{Refusal, holdings::Holdings};
use crate::desired::{
    AddressRange, Balancer, BalancerName, Desired, Family, Pool, ServiceAllocation,
};

/// What was found: addresses and the pool that they are of.
pub(super) type Choice = (BTreeSet<IpAddr>, String);

/// Chooses addresses for balancers.
pub(super) struct Chooser<'a> {
    desired: &'a Desired,
    /// Up to where each range is known to be used up for who shares with nobody.
    used_up: BTreeMap<AddressRange, IpAddr>,
}

impl<'a> Chooser<'a> {
    pub(super) fn new(desired: &'a Desired) -> Self {
        Self {
            desired,
            used_up: BTreeMap::new(),
        }
    }

    /// Whether a balancer that has these addresses may keep them, and the pool that they
    /// are of.
    pub(super) fn fits(
        &self,
        name: &BalancerName,
        balancer: &Balancer,
        addresses: &BTreeSet<IpAddr>,
        holdings: &Holdings<'_>,
    ) -> Result<String, Refusal> {
        families(balancer, addresses)?;
        let requested: BTreeSet<IpAddr> = balancer.requested.iter().copied().collect();
        if !requested.is_empty() && &requested != addresses {
            return Err(Refusal::OtherRequest);
        }
        let mut of: Option<&str> = None;
        for &ip in addresses {
            let pools = &self.desired.pools;
            let mut pools = pools.iter().filter(|(_, pool)| holds(pool, ip));
            let (pool_name, pool) = pools.next().ok_or(Refusal::NotInPool(ip))?;
            if pool.avoid_buggy_ips && is_buggy(ip) {
                let pool = pool_name.clone();
                return Err(Refusal::Buggy { ip, pool });
            }
            if let Some(asked) = balancer.pool.as_ref().filter(|asked| *asked != pool_name) {
                return Err(Refusal::OtherPool {
                    ip,
                    pool: asked.clone(),
                    asked: pool_name.clone(),
                });
            }
            if !is_for(pool, balancer) {
                return Err(Refusal::NotForIt(pool_name.clone()));
            }
            if let Some(other) = of.filter(|other| other != pool_name) {
                return Err(Refusal::TwoPools(other.to_owned(), pool_name.clone()));
            }
            let company = holdings.company(name, balancer, ip);
            if let Some(refusal) = company.or_else(|| holdings.circle(balancer, ip)) {
                return Err(refusal);
            }
            of = Some(pool_name);
        }
        Ok(of.ok_or(Refusal::NoPool)?.to_owned())
    }

    /// Whether a balancer may have these addresses from now on. External and cluster IPs
    /// that were there before are not given away.
    pub(super) fn may_have(
        &self,
        name: &BalancerName,
        balancer: &Balancer,
        addresses: &BTreeSet<IpAddr>,
        holdings: &Holdings<'_>,
    ) -> Result<String, Refusal> {
        let pool = self.fits(name, balancer, addresses, holdings)?;
        let mut all = addresses.iter();
        let fixed = all.find_map(|ip| holdings.fixed(balancer, *ip));
        fixed.map_or(Ok(pool), Err)
    }

    /// Finds addresses for a balancer that has none.
    pub(super) fn choose(
        &mut self,
        name: &BalancerName,
        balancer: &Balancer,
        holdings: &Holdings<'_>,
    ) -> Result<Choice, Refusal> {
        if !balancer.requested.is_empty() {
            let addresses = balancer.requested.iter().copied().collect();
            let pool = self.may_have(name, balancer, &addresses, holdings)?;
            return Ok((addresses, pool));
        }
        let pools = self.candidates(balancer)?;
        let both = [Family::V4, Family::V6];
        let needed: Vec<Family> = both
            .into_iter()
            .filter(|it| balancer.families.contains(it))
            .collect();
        // All that it needs of one pool, rather than less of an earlier pool.
        for pool in &pools {
            let found = needed
                .iter()
                .map_while(|family| self.first(pool, *family, name, balancer, holdings));
            let found: BTreeSet<IpAddr> = found.collect();
            if !needed.is_empty() && found.len() == needed.len() {
                return Ok((found, (*pool).clone()));
            }
        }
        if needed.is_empty() || balancer.one_family_will_do {
            let either = if needed.is_empty() {
                &both[..]
            } else {
                &needed
            };
            for pool in &pools {
                for family in either {
                    if let Some(ip) = self.first(pool, *family, name, balancer, holdings) {
                        return Ok((BTreeSet::from([ip]), (*pool).clone()));
                    }
                }
            }
        }
        let names = |families: &[Family], joined: &str| {
            let names: Vec<_> = families.iter().map(|it| it.name()).collect();
            names.join(joined)
        };
        Err(Refusal::Exhausted {
            pools: pools
                .iter()
                .map(|it| it.as_str())
                .collect::<Vec<_>>()
                .join(" or "),
            families: match (needed.as_slice(), balancer.one_family_will_do) {
                ([], _) => names(&both, " or "),
                (needed, true) => names(needed, " or "),
                (needed, false) => names(needed, " and "),
            },
        })
    }

    /// The other address of a balancer that takes one of each family and has one.
    pub(super) fn second(
        &mut self,
        name: &BalancerName,
        balancer: &Balancer,
        (addresses, pool): (&BTreeSet<IpAddr>, &String),
        holdings: &Holdings<'_>,
    ) -> Option<IpAddr> {
        let missing = missing(balancer, addresses).next()?;
        if !balancer.requested.is_empty() {
            return None;
        }
        self.first(pool, missing, name, balancer, holdings)
    }

    /// The pools that a balancer may take from, in the order in which it does: the one
    /// that it asks for; else those for it in particular by priority, then the others.
    fn candidates(&self, balancer: &Balancer) -> Result<Vec<&'a String>, Refusal> {
        let pools = &self.desired.pools;
        if let Some(asked) = &balancer.pool {
            let found = pools.get_key_value(asked);
            let (name, pool) = found.ok_or_else(|| Refusal::UnknownPool(asked.clone()))?;
            if !is_for(pool, balancer) {
                return Err(Refusal::NotForIt(asked.clone()));
            }
            return Ok(vec![name]);
        }
        let open = pools
            .iter()
            .filter(|(_, pool)| pool.auto_assign && is_for(pool, balancer));
        let mut open: Vec<_> = open
            .map(|(name, pool)| (rank(pool.allocation.as_ref()), name))
            .collect();
        open.sort();
        if open.is_empty() {
            return Err(Refusal::NoPool);
        }
        Ok(open.into_iter().map(|(_, name)| name).collect())
    }

    /// The first address of a family in a pool that a balancer may have.
    fn first(
        &mut self,
        pool: &String,
        family: Family,
        name: &BalancerName,
        balancer: &Balancer,
        holdings: &Holdings<'_>,
    ) -> Option<IpAddr> {
        let pool = self.desired.pools.get(pool)?;
        let shares = balancer.sharing_key.is_some();
        let ranges = pool.ranges.iter();
        for range in ranges.filter(|range| Family::of(range.first) == family) {
            let begin = match self.used_up.get(range) {
                Some(last) if !shares => match next(*last, range.last) {
                    Some(ip) => ip,
                    None => continue,
                },
                _ => range.first,
            };
            // Only a run of used addresses from the start on need not be looked at again.
            let mut run = true;
            let mut at = Some(begin);
            while let Some(ip) = at {
                at = next(ip, range.last);
                if pool.avoid_buggy_ips && is_buggy(ip) || holdings.is_avoided(ip) {
                    continue;
                }
                if !shares && holdings.is_held(ip) {
                    if run {
                        self.used_up.insert(*range, ip);
                    }
                    continue;
                }
                run = false;
                let company = holdings.company(name, balancer, ip);
                if company.is_none() && holdings.circle(balancer, ip).is_none() {
                    return Some(ip);
                }
            }
        }
        None
    }
}

/// Whether a balancer of these families may have these addresses and no others.
fn families(balancer: &Balancer, addresses: &BTreeSet<IpAddr>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for &ip in addresses {
        let family = Family::of(ip);
        if !seen.insert(family) {
            return Err(Refusal::Families(format!("{ip} is a second {family} one")));
        }
        if !balancer.families.is_empty() && !balancer.families.contains(&family) {
            return Err(Refusal::Families(format!(
                "{ip} is of a family that it is not"
            )));
        }
    }
    match missing(balancer, addresses).next() {
        Some(family) if !balancer.one_family_will_do => Err(Refusal::OneFamily(family)),
        _ => Ok(()),
    }
}

/// The families that a balancer wants addresses of and has none of.
fn missing(balancer: &Balancer, addresses: &BTreeSet<IpAddr>) -> impl Iterator<Item = Family> {
    let has: BTreeSet<_> = addresses.iter().map(|ip| Family::of(*ip)).collect();
    let wanted = balancer.families.iter().copied();
    wanted.filter(move |family| !has.contains(family))
}

/// Whether it is one of a pool's addresses.
pub(super) fn holds(pool: &Pool, ip: IpAddr) -> bool {
    pool.ranges.iter().any(|range| range.contains(ip))
}

/// Whether a pool is for this balancer: of its namespaces (any of both lists), and of any
/// of its labels.
fn is_for(pool: &Pool, balancer: &Balancer) -> bool {
    let Some(ServiceAllocation {
        priority: _,
        namespaces,
        namespace_selectors,
        service_selectors,
    }) = &pool.allocation
    else {
        return true;
    };
    let labels = &balancer.namespace_labels;
    let everywhere = namespaces.is_empty() && namespace_selectors.is_empty();
    let here = everywhere
        || namespaces.contains(&balancer.namespace)
        || namespace_selectors.iter().any(|it| it.matches(labels));
    let mut selectors = service_selectors.iter();
    here && (service_selectors.is_empty() || selectors.any(|it| it.matches(&balancer.labels)))
}

/// Where a pool comes among those that a balancer takes from: pools for somebody in
/// particular first, the lowest priority first of those and 0 last.
fn rank(allocation: Option<&ServiceAllocation>) -> (bool, bool, u32) {
    match allocation {
        Some(it) => (false, it.priority == 0, it.priority),
        None => (true, false, 0),
    }
}

/// Whether careless routers take it for the address of a network or for its broadcast.
pub(super) fn is_buggy(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(ip.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

/// The address after one, up to `last`.
fn next(ip: IpAddr, last: IpAddr) -> Option<IpAddr> {
    if ip >= last {
        return None;
    }
    match ip {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|it| IpAddr::V4(it.into())),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|it| IpAddr::V6(it.into())),
    }
}
