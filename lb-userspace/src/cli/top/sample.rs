//! Asking the agent, once and again and again.

use std::{
    mem,
    net::IpAddr,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use crate::control::{
    Backend, Owner, Reply, Request, Service, Status, VerdictCount,
    client::{self, ClientError},
};

/// How much longer than its answers took an agent is left alone, so that a terminal takes
/// no more than a tenth of one that has tens of thousands of services.
const REST: u32 = 9;

/// An answer, and when it came.
pub(super) struct Timed<T> {
    /// When.
    pub(super) at: Instant,
    /// The answer.
    pub(super) is: T,
}

/// What the agent said of everything, one answer right after the other.
pub(super) struct Sample {
    /// How it is, but for the verdicts.
    pub(super) status: Timed<Box<Status>>,
    /// Packets by hook and verdict.
    pub(super) verdicts: Timed<Vec<VerdictCount>>,
    /// The services.
    pub(super) services: Timed<Vec<Service>>,
    /// The backends.
    pub(super) backends: Timed<Vec<Backend>>,
}

/// What becomes of asking.
pub(super) enum News {
    /// The agent answered.
    Sample(Box<Sample>),
    /// What it says of the address that was asked for.
    Owner(Owner),
    /// It did not answer, and why.
    Silence(String),
}

impl Sample {
    /// Asks for everything.
    ///
    /// # Errors
    /// Where no agent answers, or says something else.
    pub(super) fn take(run_dir: &Path) -> Result<Self, ClientError> {
        let mut status = ask(run_dir, &Request::Status, |reply| match reply {
            Reply::Status(it) => Some(it),
            _ => None,
        })?;
        Ok(Self {
            verdicts: Timed {
                at: status.at,
                is: mem::take(&mut status.is.verdicts),
            },
            status,
            services: ask(run_dir, &Request::Services, |reply| match reply {
                Reply::Services(it) => Some(it),
                _ => None,
            })?,
            backends: ask(run_dir, &Request::Backends, |reply| match reply {
                Reply::Backends(it) => Some(it),
                _ => None,
            })?,
        })
    }
}

fn ask<T>(
    run_dir: &Path,
    request: &Request,
    wanted: impl Fn(Reply) -> Option<T>,
) -> Result<Timed<T>, ClientError> {
    let reply = client::call(run_dir, request)?;
    let at = Instant::now();
    let is = wanted(reply).ok_or_else(|| {
        let what = "the agent answers something else than was asked; is it of this version?";
        ClientError::Failed(what.to_owned())
    })?;
    Ok(Timed { at, is })
}

/// Asks in every interval, and right away of an address that is `wanted`, until nobody
/// wants anything any more.
pub(super) fn watch(
    run_dir: &Path,
    interval: Duration,
    wanted: &Receiver<Option<IpAddr>>,
    news: &Sender<News>,
) {
    let mut next = Instant::now() + interval;
    let mut vip = None;
    loop {
        let sample = match wanted.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(ip) => {
                vip = ip;
                None
            }
            Err(RecvTimeoutError::Timeout) => {
                let begun = Instant::now();
                let sample = Sample::take(run_dir).map(|it| News::Sample(Box::new(it)));
                next = begun + interval.max(begun.elapsed() * (REST + 1));
                Some(sample)
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let owner = vip.into_iter().map(|ip| owner(run_dir, ip));
        for told in sample.into_iter().chain(owner) {
            let told = told.unwrap_or_else(|error| News::Silence(error.to_string()));
            if news.send(told).is_err() {
                return;
            }
        }
    }
}

fn owner(run_dir: &Path, ip: IpAddr) -> Result<News, ClientError> {
    let request = Request::Owner { ip, nodes: None };
    let owner = ask(run_dir, &request, |reply| match reply {
        Reply::Owner(it) => Some(it),
        _ => None,
    })?;
    Ok(News::Owner(owner.is))
}
