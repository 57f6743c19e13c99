//! What the program answers for on the LAN, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use aya::maps::MapData;
use imbl::OrdMap;
use lb_common::{Addr, Claim, ClaimCount};
use nix::time::{ClockId, clock_gettime};

use super::{
    Datapath, DatapathError,
    difference::absent,
    load::{Maps, maps_dir},
    read::removed,
    words::Words,
};
use crate::announce::{ClaimCounts, Claims};

/// Until when the program answers for what is claimed. It may be moved to a thread of its
/// own, and several may exist: the last one that is told something has its way.
pub struct Lease {
    words: Words,
}

/// The claims in map `CLAIMS`.
pub(super) fn read(maps: &Maps) -> Result<BTreeSet<Claim>, DatapathError> {
    let keys = maps.claims.keys();
    keys.map(|key| key.map_err(DatapathError::map("CLAIMS")))
        .collect()
}

// === impl Datapath ===

impl Datapath {
    /// Has the program answer for these addresses on these interfaces, and for no others,
    /// while a [`Lease`] holds. What is released is not answered any more when this returns;
    /// what stays keeps its counts.
    ///
    /// # Errors
    /// Where the map takes no more; what it holds then, [`Self::claims`] tells.
    pub fn set_claims(&mut self, claims: &Claims) -> Result<(), DatapathError> {
        let wanted: BTreeSet<Claim> = claims
            .iter()
            .flat_map(|(&ip, interfaces)| {
                let addr = ip.into();
                interfaces
                    .iter()
                    .map(move |&ifindex| Claim { addr, ifindex })
            })
            .collect();
        let released: Vec<Claim> = self.live.claims.difference(&wanted).copied().collect();
        for claim in released {
            removed("CLAIMS", self.maps.claims.remove(&claim))?;
            self.live.claims.remove(&claim);
        }
        for claim in wanted {
            if !self.live.claims.contains(&claim) {
                self.maps
                    .claims
                    .insert(claim, ClaimCount::default(), 0)
                    .map_err(DatapathError::map("CLAIMS"))?;
                self.live.claims.insert(claim);
            }
        }
        Ok(())
    }

    /// What the program answers for while a [`Lease`] holds.
    pub fn claims(&self) -> Claims {
        let mut claims = Claims::new();
        for claim in &self.live.claims {
            let interfaces = claims.entry(claim.addr.to_ip()).or_default();
            interfaces.insert(claim.ifindex);
        }
        claims
    }

    /// Questions and answers for every claim since it was made.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn claim_counts(&self) -> Result<ClaimCounts, DatapathError> {
        let mut counts = BTreeMap::new();
        for claim in &self.live.claims {
            let count = self.maps.claims.get(claim, 0);
            let count = count.map_err(DatapathError::map("CLAIMS"))?;
            counts.insert((claim.addr.to_ip(), claim.ifindex), count);
        }
        Ok(counts)
    }

    /// Has the program give connections that it does not know back to the node that had the
    /// VIP before: VIP → that node's own address on a LAN of this one. `gained` are those that
    /// come here now: until the drain window has passed, connections without a record began at
    /// that node, if it is known.
    ///
    /// # Errors
    /// Where the map takes no more; what it holds then, [`Self::formers`] tells.
    pub fn set_formers(
        &mut self,
        formers: &BTreeMap<IpAddr, IpAddr>,
        gained: &BTreeSet<IpAddr>,
    ) -> Result<(), DatapathError> {
        let (known, unknown): (BTreeSet<_>, BTreeSet<_>) =
            gained.iter().partition(|ip| formers.contains_key(ip));
        let addrs = |ips: BTreeSet<IpAddr>| ips.into_iter().map(Addr::from).collect();
        self.take_over(&addrs(known));
        self.look_up(&addrs(unknown));
        let entries = formers
            .iter()
            .map(|(&vip, &node)| (Addr::from(vip), Addr::from(node)));
        let wanted: OrdMap<Addr, Addr> = entries.collect();
        for vip in absent(&self.live.formers, &wanted) {
            removed("FORMERS", self.maps.formers.remove(&vip))?;
            self.live.formers.remove(&vip);
        }
        for (vip, node) in wanted {
            if self.live.formers.get(&vip) != Some(&node) {
                let inserted = self.maps.formers.insert(vip, node, 0);
                inserted.map_err(DatapathError::map("FORMERS"))?;
                self.live.formers.insert(vip, node);
            }
        }
        Ok(())
    }

    /// Where connections that the program does not know are given back.
    pub fn formers(&self) -> BTreeMap<IpAddr, IpAddr> {
        let formers = self.live.formers.iter();
        formers
            .map(|(vip, node)| (vip.to_ip(), node.to_ip()))
            .collect()
    }

    /// The lease on all that is claimed.
    ///
    /// # Errors
    /// Where the pinned map cannot be opened or mapped into memory.
    pub fn lease(&self) -> Result<Lease, DatapathError> {
        let path = maps_dir(&self.options.pin_dir).join("LEASE");
        let data = MapData::from_pin(path).map_err(DatapathError::map("LEASE"))?;
        Ok(Lease {
            words: Words::new("LEASE", data, 1)?,
        })
    }
}

// === impl Lease ===

impl Lease {
    /// Answering goes on for this long from now, whatever was said before, and over the
    /// process's end: time that the machine sleeps counts.
    ///
    /// # Errors
    /// Where the kernel does not tell the time.
    pub fn renew(&self, time: Duration) -> Result<(), DatapathError> {
        let until = Duration::from(now()?).saturating_add(time);
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.words.set(0, until);
        Ok(())
    }

    /// Answering ends at once.
    pub fn end(&self) {
        self.words.set(0, 0);
    }

    /// For how long answering goes on unless it is renewed; zero where it has ended.
    ///
    /// # Errors
    /// Where the kernel does not tell the time.
    pub fn remaining(&self) -> Result<Duration, DatapathError> {
        let until = Duration::from_nanos(self.words.get(0));
        Ok(until.saturating_sub(Duration::from(now()?)))
    }
}

/// The clock of the lease: since the machine started, sleep included.
fn now() -> Result<nix::sys::time::TimeSpec, DatapathError> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|error| DatapathError::Map {
        map: "LEASE",
        reason: format!("clock_gettime: {error}"),
    })
}
