//! Requests one after the other, to see when another pod begins to answer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::Context;
use naru_lab::{MARK, NetNs};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(20);

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
    /// Asks an address once every `period`, or as fast as answers come where that is longer.
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

// === impl Task ===

impl Task {
    fn run(self) -> io::Result<()> {
        let mut socket = self.socket()?;
        let mut last = String::new();
        let mut number = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            if self.from == From::Fresh {
                socket = self.socket()?;
            }
            number += 1;
            match ask(&socket, number) {
                Some(pod) if pod != last => {
                    let change = Change {
                        pod: pod.clone(),
                        at: Instant::now(),
                    };
                    last = pod;
                    if self.changes.send(change).is_err() {
                        return Ok(());
                    }
                }
                Some(_) => {}
                None => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
            }
            sleep(self.period.saturating_sub(began.elapsed()));
        }
        Ok(())
    }

    fn socket(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // From nowhere else may answers come.
        socket.connect(self.to)?;
        Ok(socket)
    }
}

/// Who answers this request; nobody where that takes too long, or it cannot be sent.
fn ask(socket: &UdpSocket, number: u64) -> Option<String> {
    let request = format!("{MARK}{number}");
    socket.send(request.as_bytes()).ok()?;
    let mut buffer = [0; 512];
    loop {
        let length = socket.recv(&mut buffer).ok()?;
        let answer = std::str::from_utf8(&buffer[..length]).ok()?;
        let (pod, asked) = answer.split_once('\n')?;
        // An earlier one may be answered late.
        if asked == request {
            return Some(pod.to_owned());
        }
    }
}
