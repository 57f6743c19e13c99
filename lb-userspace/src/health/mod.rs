//! Active health checks: asks endpoints whether they live, and counts.
//!
//! [`Checker`] runs a task for each endpoint of a service that wants it; what they find
//! comes out of one channel. [`Ledger`] counts it, and is the one place that knows who
//! is healthy. Neither touches the kernel: the agent compiles anew where the ledger
//! says that somebody's state has changed.
//!
//! An unhealthy endpoint takes no new flows; those that it has go on. Where all are
//! unhealthy clients are refused at once, as HAProxy and keepalived have it: a service
//! that is down should look so, and a client that can go elsewhere should know.

mod checker;
mod ledger;
mod probe;

use std::net::SocketAddr;

pub use self::{
    checker::{Checker, Observation},
    ledger::{Ledger, Vitals},
};
use crate::desired::{Condition, Desired, HealthCheck, ServiceName};

/// An endpoint of a service.
pub type Key = (ServiceName, SocketAddr);

/// Every endpoint that is to be checked.
pub fn wanted(desired: &Desired) -> impl Iterator<Item = (Key, &HealthCheck)> {
    desired.services.iter().flat_map(|(name, service)| {
        let endpoints = service.endpoints.keys();
        let check = service.health_check.as_ref();
        check.into_iter().flat_map(move |check| {
            endpoints
                .clone()
                .map(move |&addr| ((name.clone(), addr), check))
        })
    })
}

/// Takes new flows from the endpoints that are unhealthy.
pub fn apply(desired: &mut Desired, ledger: &Ledger) {
    for (name, addr) in ledger.unhealthy() {
        if let Some(service) = desired.services.get_mut(name)
            && let Some(endpoint) = service.endpoints.get_mut(addr)
        {
            endpoint.condition = Condition::Unhealthy;
        }
    }
}
