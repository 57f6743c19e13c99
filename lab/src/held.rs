//! Connections that stay open, each with a line of its pod every 100 ms.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::client::TIMEOUT;
use crate::error::{Error, Result};
use crate::netns::NetNs;

/// How often the state of all is looked at, where nothing comes.
const ROUND: u16 = 50;
/// The field of an answer that names the pod.
const POD: &str = "x-pod: ";

/// Many connections that stay open. Dropping it closes them.
#[derive(Debug)]
pub struct HeldOpen {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

/// A connection as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client's end.
    pub from: SocketAddr,
    /// The pod that serves it; empty until it has answered.
    pub pod: String,
    /// How many bytes have come.
    pub bytes: u64,
    /// When the last ones came.
    pub last: Instant,
    /// Why it is over, where it is.
    pub ended: Option<String>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    connections: Mutex<Vec<Connection>>,
}

impl HeldOpen {
    /// Opens so many to a service over HTTP; returns when a pod has answered on each.
    pub fn open(namespace: &NetNs, to: SocketAddr, count: usize) -> Result<Self> {
        let target = || format!("{count} connections to {to}");
        let failed = |source: io::Error| Error::io(target())(source);
        let streams = namespace.enter(|| (0..count).map(|_| ask(to)).collect::<io::Result<_>>());
        let streams: Vec<TcpStream> = streams?.map_err(failed)?;
        let known = streams.iter().map(|stream| {
            Ok(Connection {
                from: stream.local_addr()?,
                pod: String::new(),
                bytes: 0,
                last: Instant::now(),
                ended: None,
            })
        });
        let known = known.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            connections: Mutex::new(known),
        });
        let task = Arc::clone(&shared);
        let what = target();
        let thread = namespace.spawn(move || follow(streams, &task).map_err(Error::io(what)));
        let held = Self {
            shared,
            thread: Some(thread),
        };
        held.wait_answered(&target())?;
        Ok(held)
    }

    /// How they stand.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.connections().clone()
    }

    /// Closes them, and gives how they stood.
    pub fn close(mut self) -> Result<Vec<Connection>> {
        let connections = self.connections();
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))??;
        }
        Ok(connections)
    }

    fn wait_answered(&self, target: &str) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let connections = self.shared.connections();
            if connections.iter().all(|it| !it.pod.is_empty()) {
                return Ok(());
            }
            let late = Instant::now() > deadline;
            let silent = connections.iter().filter(|it| it.pod.is_empty()).count();
            drop(connections);
            if late {
                return Err(Error::Request {
                    target: target.to_owned(),
                    reason: format!("{silent} of them were not answered"),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for HeldOpen {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

// === impl Connection ===

impl Connection {
    /// Whether it goes on: bytes came within so long, and nobody has ended it.
    pub fn is_alive(&self, within: Duration) -> bool {
        self.ended.is_none() && self.last.elapsed() < within
    }
}

// === impl Shared ===

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn follow(mut streams: Vec<TcpStream>, shared: &Shared) -> io::Result<()> {
    let mut heads = vec![String::new(); streams.len()];
    while !shared.stop.load(Ordering::Relaxed) {
        for index in readable(&streams, shared)? {
            let head = &mut heads[index];
            let end = take(&mut streams[index], head, index, shared);
            if let Some(reason) = end {
                shared.connections()[index].ended = Some(reason);
            }
        }
    }
    Ok(())
}

/// Those that have something to say, of those that have not ended.
fn readable(streams: &[TcpStream], shared: &Shared) -> io::Result<Vec<usize>> {
    let open: Vec<usize> = {
        let connections = shared.connections();
        let open = connections.iter().enumerate();
        open.filter(|(_, it)| it.ended.is_none())
            .map(|(index, _)| index)
            .collect()
    };
    let mut polled: Vec<PollFd<'_>> = open
        .iter()
        .map(|index| PollFd::new(streams[*index].as_fd(), PollFlags::POLLIN))
        .collect();
    poll(&mut polled, PollTimeout::from(ROUND))?;
    let ready = open.iter().zip(&polled);
    Ok(ready
        .filter(|(_, it)| it.any().unwrap_or(false))
        .map(|(index, _)| *index)
        .collect())
}

/// Reads a connection empty; gives why it is over, where it is.
fn take(
    stream: &mut TcpStream,
    head: &mut String,
    index: usize,
    shared: &Shared,
) -> Option<String> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Some("closed by the pod".to_owned()),
            Ok(length) => {
                let mut connections = shared.connections();
                let connection = &mut connections[index];
                connection.bytes += length as u64;
                connection.last = Instant::now();
                if connection.pod.is_empty() {
                    head.push_str(&String::from_utf8_lossy(&buffer[..length]));
                    connection.pod = pod_of(head).unwrap_or_default().to_owned();
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => return Some(error.to_string()),
        }
    }
}

/// The pod that names itself in the head of an answer, once that line is whole.
fn pod_of(head: &str) -> Option<&str> {
    let (_, rest) = head.split_once(POD)?;
    rest.split_once("\r\n").map(|(pod, _)| pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_read_from_a_whole_line_only() {
        let head = "HTTP/1.1 200 OK\r\nx-pod: web-1\r\n\r\n";
        assert_eq!(pod_of(head), Some("web-1"));
        assert_eq!(pod_of(&head[..27]), None);
        assert_eq!(pod_of(""), None);
    }
}
