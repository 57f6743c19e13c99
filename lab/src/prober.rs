//! Requests at a steady pace over UDP, each with a number of its own.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::timeline::{Probe, Requests};

/// How long an answer is waited for; what comes later is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a request begins with, by which pods know to send it back.
pub const MARK: &str = "probe ";

/// Ports of clients. Each is taken in turn by all probers together: one that was used a
/// moment ago would be an old flow to the balancer.
const PORTS: std::ops::Range<u32> = 10_000..65_000;
static NEXT_PORT: AtomicU32 = AtomicU32::new(0);

/// Where requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Each from a port of its own: a new flow every time.
    Fresh,
    /// From so many ports in turn: flows that go on.
    Fixed(usize),
}

/// Requests that go on until told to stop.
#[derive(Debug)]
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    requests: Mutex<Vec<Probe>>,
}

impl Prober {
    /// Asks `to` from a namespace once every `period`; times count from `began`.
    pub fn start(
        namespace: &NetNs,
        to: SocketAddr,
        period: Duration,
        ports: Ports,
        began: Instant,
    ) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            requests: Mutex::default(),
        });
        let task = Task {
            shared: Arc::clone(&shared),
            to,
            period,
            ports,
            began,
            sockets: Vec::new(),
        };
        let thread = namespace.spawn(move || {
            let failed = Error::io(format!("asking udp {to}"));
            task.run().map_err(failed)
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// What is known so far; the newest may still be answered.
    pub fn requests(&self) -> Requests {
        Requests(self.shared.requests().clone())
    }

    /// Stops asking, waits for the last answers, and gives all.
    pub fn stop(mut self) -> Result<Requests> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))??;
        }
        Ok(self.requests())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

// === impl Shared ===

impl Shared {
    fn requests(&self) -> std::sync::MutexGuard<'_, Vec<Probe>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task {
    shared: Arc<Shared>,
    to: SocketAddr,
    period: Duration,
    ports: Ports,
    began: Instant,
    /// Each with the time at which it was last used.
    sockets: Vec<(UdpSocket, Instant)>,
}

// === impl Task ===

impl Task {
    fn run(mut self) -> io::Result<()> {
        let mut next = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.send()?;
            // Whoever was held up does not catch up in a burst.
            next = (next + self.period).max(Instant::now());
            self.receive_until(next)?;
        }
        let last = Instant::now() + PATIENCE;
        while Instant::now() < last && self.is_waiting() {
            self.receive_until(Instant::now() + self.period)?;
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        let number = self.shared.requests().len();
        let index = match self.ports {
            Ports::Fixed(count) if self.sockets.len() >= count => number % count,
            _ => {
                let socket = bind()?;
                socket.set_nonblocking(true)?;
                // From nowhere else may answers come.
                socket.connect(self.to)?;
                self.sockets.push((socket, Instant::now()));
                self.sockets.len() - 1
            }
        };
        let (socket, used) = &mut self.sockets[index];
        *used = Instant::now();
        let sent = self.began.elapsed();
        self.shared.requests().push(Probe { sent, answer: None });
        // What cannot be sent is lost: no route, or the error that an earlier one met.
        let _ = socket.send(format!("{MARK}{number}").as_bytes());
        Ok(())
    }

    /// Takes what comes until then.
    fn receive_until(&mut self, until: Instant) -> io::Result<()> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let ready = self.wait(left)?;
            let at = self.began.elapsed();
            for index in ready.into_iter().rev() {
                let done = self.take(index, at);
                if done && self.ports == Ports::Fresh {
                    self.sockets.swap_remove(index);
                }
            }
            if self.ports == Ports::Fresh {
                self.sockets.retain(|(_, used)| used.elapsed() < PATIENCE);
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// The sockets that have something, by their index.
    fn wait(&self, left: Duration) -> io::Result<Vec<usize>> {
        let sockets = self.sockets.iter().map(|(socket, _)| socket.as_fd());
        let mut polled: Vec<PollFd<'_>> = sockets
            .map(|it| PollFd::new(it, PollFlags::POLLIN))
            .collect();
        // A part of a millisecond is a whole one: the next round sees to the rest.
        let left = left.as_micros().div_ceil(1000).min(1000) as u16;
        poll(&mut polled, PollTimeout::from(left))?;
        let ready = polled.iter().enumerate();
        Ok(ready
            .filter(|(_, it)| it.any().unwrap_or(false))
            .map(|(index, _)| index)
            .collect())
    }

    /// Reads a socket empty; says whether an answer was there.
    fn take(&self, index: usize, at: Duration) -> bool {
        let mut buffer = [0; 512];
        let mut answered = false;
        loop {
            match self.sockets[index].0.recv(&mut buffer) {
                Ok(length) => answered |= self.count(&buffer[..length], at),
                // The report of an unreachable port; who asks may still be answered.
                Err(error) if error.kind() != ErrorKind::WouldBlock => {}
                Err(_) => return answered,
            }
        }
    }

    fn count(&self, answer: &[u8], at: Duration) -> bool {
        let Some((pod, number)) = parse(answer) else {
            return false;
        };
        if let Some(probe) = self.shared.requests().get_mut(number)
            && probe.answer.is_none()
        {
            probe.answer = Some((at, pod.to_owned()));
        }
        true
    }

    fn is_waiting(&self) -> bool {
        let since = self.began.elapsed().saturating_sub(PATIENCE);
        let requests = self.shared.requests();
        let recent = requests.iter().rev().take_while(|it| it.sent >= since);
        recent.into_iter().any(|it| it.answer.is_none())
    }
}

/// A socket at the next port that is free.
fn bind() -> io::Result<UdpSocket> {
    loop {
        let turn = NEXT_PORT.fetch_add(1, Ordering::Relaxed) % PORTS.len() as u32;
        let port = (PORTS.start + turn) as u16;
        match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
}

/// The pod, and the number of the request that it answers.
fn parse(answer: &[u8]) -> Option<(&str, usize)> {
    let (pod, request) = std::str::from_utf8(answer).ok()?.split_once('\n')?;
    Some((pod, request.strip_prefix(MARK)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_the_request() {
        assert_eq!(parse(b"web-1\nprobe 17"), Some(("web-1", 17)));
        assert_eq!(parse(b"web-1"), None);
        assert_eq!(parse(b"web-1\nprobe x"), None);
    }
}
