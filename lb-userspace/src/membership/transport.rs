//! Datagrams that carry gossip: a tag, then the message. What has a wrong tag is counted
//! and otherwise as if it had never come.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use chitchat::{
    ChitchatMessage, Deserializable, Serializable,
    transport::{Socket, Transport},
};
use tokio::{net::UdpSocket, time::Instant};

use super::key::{Key, TAG};

/// The most that a datagram over IPv4 carries.
const LONGEST: usize = 65_507;

/// Gossip over UDP, every message authenticated.
pub(super) struct Sealed {
    key: Key,
    counters: Arc<Counters>,
    answers: Answers,
}

/// When a member last answered what this one had sent, by its address. An answer brings what the
/// member says at that moment; that it is alive, others tell as well.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<BTreeMap<SocketAddr, Instant>>>);

/// What came, and what was sent.
#[derive(Debug, Default)]
pub struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
    rejected: AtomicU64,
    oversized: AtomicU64,
}

struct SealedSocket {
    socket: UdpSocket,
    key: Key,
    counters: Arc<Counters>,
    answers: Answers,
    buffer: Box<[u8]>,
}

// === impl Counters ===

impl Counters {
    /// Messages that came.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Messages sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Datagrams with a wrong tag, or that are no message: of another key, or forged.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Messages that do not fit a datagram and were not sent.
    pub fn oversized(&self) -> u64 {
        self.oversized.load(Ordering::Relaxed)
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Answers ===

impl Answers {
    /// The last one from there.
    pub(super) fn last(&self, from: SocketAddr) -> Option<Instant> {
        self.all().get(&from).copied()
    }

    /// Forgets all that are not from these.
    pub(super) fn retain(&self, is_member: impl Fn(SocketAddr) -> bool) {
        self.all().retain(|from, _| is_member(*from));
    }

    fn note(&self, from: SocketAddr) {
        self.all().insert(from, Instant::now());
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Instant>> {
        // No entry is ever half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sealed ===

impl Sealed {
    pub(super) fn new(key: Key, counters: Arc<Counters>) -> Self {
        Self {
            key,
            counters,
            answers: Answers::default(),
        }
    }

    /// Who answers.
    pub(super) fn answers(&self) -> Answers {
        self.answers.clone()
    }
}

#[async_trait]
impl Transport for Sealed {
    async fn open(&self, listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(SealedSocket {
            socket: UdpSocket::bind(listen_addr).await?,
            key: self.key.clone(),
            counters: Arc::clone(&self.counters),
            answers: self.answers.clone(),
            buffer: vec![0; LONGEST].into(),
        }))
    }
}

// === impl SealedSocket ===

#[async_trait]
impl Socket for SealedSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let mut datagram = vec![0; TAG];
        message.serialize(&mut datagram);
        if datagram.len() > LONGEST {
            Counters::count(&self.counters.oversized);
            return Ok(());
        }
        let tag = self.key.tag(&datagram[TAG..]);
        datagram[..TAG].copy_from_slice(&tag);
        match self.socket.send_to(&datagram, to).await {
            Ok(_) => Counters::count(&self.counters.sent),
            // A cable that is out, a node that is off, a full queue: the next round sends
            // again, and silence is what others go by.
            Err(error) => tracing::debug!(%to, %error, "gossip not sent"),
        }
        Ok(())
    }

    /// Cancel safe.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (length, from) = match self.socket.recv_from(&mut self.buffer).await {
                Ok(received) => received,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let message = self.key.open(&self.buffer[..length]);
            let message = message.map(|mut bytes| ChitchatMessage::deserialize(&mut bytes));
            match message {
                Some(Ok(message)) => {
                    Counters::count(&self.counters.received);
                    if matches!(
                        message,
                        ChitchatMessage::SynAck { .. } | ChitchatMessage::Ack { .. }
                    ) {
                        self.answers.note(from);
                    }
                    return Ok((from, message));
                }
                Some(Err(_)) | None => Counters::count(&self.counters.rejected),
            }
        }
    }
}

/// Whether it says something of an earlier datagram, or of the moment, rather than of the
/// socket.
fn is_passing(error: &io::Error) -> bool {
    let no_buffers = error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32);
    no_buffers
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
                | io::ErrorKind::OutOfMemory
                | io::ErrorKind::Interrupted
        )
}
