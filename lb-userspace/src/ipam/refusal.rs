//! Why a balancer has no address.

use std::net::{IpAddr, SocketAddr};

use crate::desired::{BalancerName, Family, Frontend, ServiceName};

/// Why a Service of type LoadBalancer has no address, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another node gives addresses out, and has not said yet.
    #[error("waiting for node {0} to give it an address")]
    Waiting(String),
    /// The source is to say which one it has.
    #[error(
        "`naru controller` has not given it an address; its events say why: `kubectl describe service`"
    )]
    NotGiven,
    /// It may not take from any pool.
    #[error(
        "no pool gives it an address unasked; name one with the annotation metallb.io/address-pool, \
         or set autoAssign and serviceAllocation so that one does"
    )]
    NoPool,
    /// The pool that it asks for does not exist.
    #[error("pool {0} does not exist; name another one in metallb.io/address-pool, or define it")]
    UnknownPool(String),
    /// The pool is for other Services.
    #[error("pool {0} is not for it by its serviceAllocation; ask for another one, or change that")]
    NotForIt(String),
    /// All pools that it may take from are used up.
    #[error(
        "no {families} address is left in pool {pools}; add addresses, or remove Services that have \
         one"
    )]
    Exhausted {
        /// Their names.
        pools: String,
        /// What it needs.
        families: String,
    },
    /// An address that it asks for is of no pool.
    #[error("{0} is in no pool; ask for one that is, or add it to a pool")]
    NotInPool(IpAddr),
    /// The address and the pool that it asks for do not agree.
    #[error("it asks for {ip} of pool {pool}, but that is in pool {asked}; ask for one of the two")]
    OtherPool {
        /// The address.
        ip: IpAddr,
        /// The pool that it asks for.
        pool: String,
        /// The pool that has the address.
        asked: String,
    },
    /// The addresses are of several pools.
    #[error("its addresses are of the pools {0} and {1}; ask for addresses of one pool")]
    TwoPools(String, String),
    /// The pool leaves this address out.
    #[error("pool {pool} leaves out {ip} (avoidBuggyIPs); ask for another one")]
    Buggy {
        /// The address.
        ip: IpAddr,
        /// The pool.
        pool: String,
    },
    /// It asks for two of a family, or for one of a family that it is not of.
    #[error("{0}: a Service has one address of each of its families; correct its request")]
    Families(String),
    /// It needs an address of each family and asks for one.
    #[error("it needs an {0} address as well (RequireDualStack); ask for one of each family")]
    OneFamily(Family),
    /// Somebody has the address.
    #[error("{ip} is taken by {by}, and cannot be shared: {why}; ask for another one")]
    Taken {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        by: BalancerName,
        /// Why the two cannot share it.
        why: String,
    },
    /// A service has the frontend as external or cluster IP.
    #[error("{frontend} is an external or cluster IP of {by}; ask for another address")]
    Fixed {
        /// The frontend.
        frontend: Frontend,
        /// Whose it is.
        by: ServiceName,
    },
    /// Its own endpoint is there.
    #[error("{0} is its own endpoint, packets would go in a circle; ask for another address")]
    Circle(SocketAddr),
    /// Nobody wants it any more.
    #[error("no such Service of type LoadBalancer is there any more")]
    Gone,
    /// There is no pool at all.
    #[error("no pool is defined any more")]
    NoPools,
    /// It asks for others.
    #[error("it asks for other addresses")]
    OtherRequest,
}
