//! Requests one after the other, to see when another pod begins to answer.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::Context;
use naru_lab::{MARK, NetNs};

/// How long an answer is waited for; what comes later is lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Each from a port of its own: a new flow every time.
    Fresh,
    /// All from one: a flow that goes on.
    One,
}

/// The first answer of somebody who did not give the one before.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The pod's name, or the address that it was asked at.
    pub(super) pod: String,
    /// When the answer came.
    pub(super) at: Instant,
}

/// Requests that go on until this is dropped.
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    changes: Receiver<Change>,
    thread: Option<JoinHandle<naru_lab::Result<io::Result<()>>>>,
}

// === impl Prober ===

impl Prober {
    /// Asks an address once every `period`.
    pub(super) fn start(namespace: &NetNs, to: SocketAddr, from: From, period: Duration) -> Self {
        let (sender, changes) = channel();
        let (stop, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let task = Task {
            stop: Arc::clone(&stop),
            lost: Arc::clone(&lost),
            to,
            from,
            period,
            changes: sender,
        };
        let thread = namespace.spawn(move || task.run());
        Self {
            stop,
            lost,
            changes,
            thread: Some(thread),
        }
    }

    /// The next one who answers, within so long.
    pub(super) fn next(&self, within: Duration) -> anyhow::Result<Change> {
        let change = self.changes.recv_timeout(within);
        change.with_context(|| format!("nobody else answers after {} s", within.as_secs()))
    }

    /// When this pod first answers after `since`, within so long of now.
    ///
    /// Others may come before it: a long table is stored slot by slot, and flows that begin
    /// meanwhile go to one and the other.
    pub(super) fn first(
        &self,
        pod: &str,
        since: Instant,
        within: Duration,
    ) -> anyhow::Result<Instant> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let change = self.changes.recv_timeout(left);
            let change = change
                .with_context(|| format!("{pod} does not answer in {} s", within.as_secs()))?;
            if change.pod == pod && change.at >= since {
                return Ok(change.at);
            }
        }
    }

    /// The last one who has begun to answer, where somebody has since this was asked.
    pub(super) fn newest(&self) -> Option<Change> {
        self.changes.try_iter().last()
    }

    /// How many requests were never answered.
    pub(super) fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))??;
        }
        Ok(self.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Task {
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    to: SocketAddr,
    from: From,
    period: Duration,
    changes: Sender<Change>,
}

/// Requests that are not answered yet.
struct Waiting {
    /// The flow that goes on, where there is one.
    one: Option<UdpSocket>,
    /// The requests by number, with when they were sent, and their own sockets.
    requests: VecDeque<(u64, Instant, Option<UdpSocket>)>,
}

// === impl Task ===

impl Task {
    /// Sends at its pace whether answers come or not: a lost one holds nobody up.
    fn run(self) -> io::Result<()> {
        let mut waiting = Waiting {
            one: match self.from {
                From::One => Some(self.socket()?),
                From::Fresh => None,
            },
            requests: VecDeque::new(),
        };
        let mut last = (0, String::new());
        let mut number = 0;
        let mut ending = None;
        while ending.is_none_or(|since: Instant| since.elapsed() < PATIENCE) {
            let began = Instant::now();
            if self.stop.load(Ordering::Relaxed) {
                ending.get_or_insert(began);
            } else {
                number += 1;
                self.send(&mut waiting, number)?;
            }
            sleep(self.period.saturating_sub(began.elapsed()));
            let (answers, lost) = waiting.take();
            self.lost.fetch_add(lost, Ordering::Relaxed);
            for (number, pod) in answers {
                // One that comes late tells of the past.
                if number > last.0 && pod != last.1 {
                    let at = Instant::now();
                    let change = Change {
                        pod: pod.clone(),
                        at,
                    };
                    if self.changes.send(change).is_err() {
                        return Ok(());
                    }
                }
                if number > last.0 {
                    last = (number, pod);
                }
            }
        }
        Ok(())
    }

    fn send(&self, waiting: &mut Waiting, number: u64) -> io::Result<()> {
        let own = match self.from {
            From::Fresh => Some(self.socket()?),
            From::One => None,
        };
        if let Some(socket) = own.as_ref().or(waiting.one.as_ref()) {
            // What cannot be sent is lost: no route, or the error that an earlier one met.
            let _ = socket.send(format!("{MARK}{number}").as_bytes());
        }
        waiting.requests.push_back((number, Instant::now(), own));
        Ok(())
    }

    fn socket(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        // From nowhere else may answers come.
        socket.connect(self.to)?;
        Ok(socket)
    }
}

// === impl Waiting ===

impl Waiting {
    /// The answers that are there, in the order of their requests, and how many requests are
    /// given up.
    fn take(&mut self) -> (Vec<(u64, String)>, u64) {
        let mut answers: Vec<(u64, String)> = Vec::new();
        answers.extend(self.one.as_ref().into_iter().flat_map(receive));
        let own = self.requests.iter().filter_map(|it| it.2.as_ref());
        answers.extend(own.flat_map(receive));
        answers.sort_unstable();
        self.requests
            .retain(|(number, ..)| answers.binary_search_by_key(number, |it| it.0).is_err());
        let waiting = self.requests.len();
        self.requests
            .retain(|(_, sent, _)| sent.elapsed() < PATIENCE);
        (answers, (waiting - self.requests.len()) as u64)
    }
}

/// All that has come to a socket.
fn receive(socket: &UdpSocket) -> Vec<(u64, String)> {
    let mut answers = Vec::new();
    let mut buffer = [0; 512];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => answers.extend(parse(&buffer[..length])),
            // The report of an unreachable port; who asks may still be answered.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) => return answers,
        }
    }
}

/// The number of the request, and the pod that answers it.
fn parse(answer: &[u8]) -> Option<(u64, String)> {
    let (pod, request) = std::str::from_utf8(answer).ok()?.split_once('\n')?;
    Some((request.strip_prefix(MARK)?.parse().ok()?, pod.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::*;

    #[test]
    fn what_was_answered_before_a_change_does_not_count_for_it() {
        let (sender, changes) = channel();
        let prober = Prober {
            stop: Arc::default(),
            lost: Arc::default(),
            changes,
            thread: None,
        };
        let since = Instant::now();
        let later = |ms| since + Duration::from_millis(ms);
        let before = since
            .checked_sub(Duration::from_millis(1))
            .expect("a clock that runs");
        for (pod, at) in [
            ("a", before),
            ("b", later(1)),
            ("a", later(2)),
            ("a", later(3)),
        ] {
            let pod = pod.to_owned();
            sender.send(Change { pod, at }).expect("somebody listens");
        }
        let first = prober.first("a", since, Duration::from_secs(1));
        assert_eq!(first.ok(), Some(later(2)));
        assert!(prober.first("b", since, Duration::ZERO).is_err());
    }

    #[test]
    fn an_answer_names_its_request() {
        assert_eq!(
            parse(b"10.0.0.1\nprobe 7"),
            Some((7, "10.0.0.1".to_owned()))
        );
        assert_eq!(parse(b"10.0.0.1"), None);
    }
}
