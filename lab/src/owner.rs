//! Who says that an address is his: asked for by ARP at a steady pace, from outside.
//!
//! Asked is as by a station that has just been plugged in (an ARP probe, RFC 5227 section
//! 1.1), with a link address of its own: what is answered to it changes nothing in what the
//! machine itself, or anybody else, knows of its neighbours.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::netns::NetNs;
use crate::timeline::{Asked, Ownership};
use crate::topology::UPLINK;

const ETH_P_ARP: u16 = 0x0806;
/// Ethernet and IPv4, six and four bytes; then 1 for a question or 2 for an answer.
const KIND: [u8; 7] = [0, 1, 8, 0, 6, 4, 0];
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;

/// Questions for an address that go on until told to stop.
#[derive(Debug)]
pub struct OwnerWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    asked: Mutex<Vec<Asked>>,
}

impl OwnerWatch {
    /// Asks by broadcast whose `address` is, from a machine of the lab on its uplink,
    /// once every `period`; times count from `began`. Nodes are known by their links'
    /// addresses; what is nobody's is written out.
    pub fn start(
        lab: &Lab,
        machine: &str,
        address: Ipv4Addr,
        period: Duration,
        began: Instant,
    ) -> Result<Self> {
        let mut names = BTreeMap::new();
        for node in &lab.topology().nodes {
            names.insert(lab.node(&node.name).mac(UPLINK)?, node.name.clone());
        }
        let namespace = lab.node(machine);
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        let task = Task {
            shared: Arc::clone(&shared),
            mac: stranger(namespace.mac(UPLINK)?),
            address,
            names,
            period,
            began,
        };
        let what = format!("asking {machine}'s neighbours for {address}");
        let thread = namespace.spawn(move || task.run().map_err(Error::io(what)));
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What is known so far.
    pub fn ownership(&self) -> Ownership {
        Ownership(self.shared.asked().clone())
    }

    /// Everybody who answered within the last `period`.
    pub fn owners(&self, began: Instant, period: Duration) -> Vec<String> {
        let since = began.elapsed().saturating_sub(period);
        let ownership = self.ownership();
        ownership.since(since).into_iter().map(Into::into).collect()
    }

    /// Stops asking and gives all.
    pub fn stop(mut self) -> Result<Ownership> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))??;
        }
        Ok(self.ownership())
    }
}

impl Drop for OwnerWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

// === impl Shared ===

impl Shared {
    fn asked(&self) -> std::sync::MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task {
    shared: Arc<Shared>,
    mac: [u8; 6],
    address: Ipv4Addr,
    names: BTreeMap<[u8; 6], String>,
    period: Duration,
    began: Instant,
}

// === impl Task ===

impl Task {
    fn run(self) -> io::Result<()> {
        let protocol = Protocol::from(i32::from(ETH_P_ARP.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        let link = uplink(&nix::ifaddrs::getifaddrs()?.collect::<Vec<_>>())?;
        let question = self.question();
        let mut next = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let at = self.began.elapsed();
            let answers = BTreeMap::new();
            self.shared.asked().push(Asked { at, answers });
            // With the link down nothing can be asked, and nobody answers.
            let _ = sendto(socket.as_raw_fd(), &question, &link, MsgFlags::empty());
            next = (next + self.period).max(Instant::now());
            self.receive_until(&socket, next)?;
        }
        Ok(())
    }

    fn receive_until(&self, socket: &Socket, until: Instant) -> io::Result<()> {
        let mut buffer = [0; 128];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // Zero would be for ever.
            socket.set_read_timeout(Some(left.max(Duration::from_micros(100))))?;
            let mut reader: &Socket = socket;
            if let Ok(length) = reader.read(&mut buffer)
                && let Some(owner) = self.owner(&buffer[..length])
                && let Some(asked) = self.shared.asked().last_mut()
            {
                let at = self.began.elapsed();
                asked.answers.entry(owner).or_insert(at);
            }
        }
    }

    fn question(&self) -> Vec<u8> {
        let (own, address) = ([0; 4], self.address.octets());
        let ethernet = [&[0xff; 6][..], &self.mac, &ETH_P_ARP.to_be_bytes()].concat();
        let body = [&self.mac[..], &own, &[0; 6], &address].concat();
        [&ethernet[..], &KIND, &[QUESTION], &body].concat()
    }

    /// Who says in this frame that the address is his, to us.
    fn owner(&self, frame: &[u8]) -> Option<String> {
        let says = claim(frame)?;
        let to_us = says.to == self.mac && says.address == self.address;
        to_us.then(|| {
            let known = self.names.get(&says.mac).cloned();
            known.unwrap_or_else(|| says.mac.map(|byte| format!("{byte:02x}")).join(":"))
        })
    }
}

/// The interface to ask on.
fn uplink(all: &[nix::ifaddrs::InterfaceAddress]) -> io::Result<LinkAddr> {
    let named = all.iter().filter(|it| it.interface_name == UPLINK);
    let mut links = named.filter_map(|it| it.address?.as_link_addr().copied());
    links
        .next()
        .ok_or_else(|| io::Error::other(format!("there is no {UPLINK}")))
}

/// The link address by which a machine asks: nobody's, and another one for each machine.
fn stranger(mut mac: [u8; 6]) -> [u8; 6] {
    mac[0] ^= 0x40;
    mac
}

/// What an answer says, by its sender and its target.
struct Claim {
    mac: [u8; 6],
    address: Ipv4Addr,
    to: [u8; 6],
}

fn claim(frame: &[u8]) -> Option<Claim> {
    let body = frame.get(14..42)?;
    let is_answer = frame[12..14] == ETH_P_ARP.to_be_bytes() && body[..7] == KIND;
    let six = |at: usize| -> Option<[u8; 6]> { body.get(at..at + 6)?.try_into().ok() };
    let address: [u8; 4] = body.get(14..18)?.try_into().ok()?;
    (is_answer && body[7] == ANSWER).then_some(Claim {
        mac: six(8)?,
        address: address.into(),
        to: six(18)?,
    })
}

/// Who answers for an address just now, asked for so long.
pub(crate) fn owners_now(
    lab: &Lab,
    machine: &str,
    address: Ipv4Addr,
    patience: Duration,
) -> Result<Vec<String>> {
    let began = Instant::now();
    let watch = OwnerWatch::start(lab, machine, address, Duration::from_millis(20), began)?;
    std::thread::sleep(patience);
    let ownership = watch.stop()?;
    let owners = ownership.since(Duration::ZERO);
    Ok(owners.into_iter().map(Into::into).collect())
}

impl NetNs {
    /// Whether a device in here has its carrier, as its driver tells.
    pub fn has_carrier(&self, device: &str) -> Result<bool> {
        let shown = self.run("ip", &["-o", "link", "show", "dev", device])?;
        Ok(!shown.contains("NO-CARRIER") && shown.contains("LOWER_UP"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn task() -> Task {
        Task {
            shared: Arc::new(Shared {
                stop: AtomicBool::new(false),
                asked: Mutex::default(),
            }),
            mac: [2; 6],
            address: [192, 168, 56, 11].into(),
            names: BTreeMap::from([([6; 6], "nuc01".to_owned())]),
            period: Duration::from_millis(10),
            began: Instant::now(),
        }
    }

    /// The answer to a question: sender and target change places.
    fn answer(question: &[u8], mac: [u8; 6]) -> Vec<u8> {
        let mut frame = question.to_vec();
        frame[21] = ANSWER;
        frame[22..28].copy_from_slice(&mac);
        frame[28..32].copy_from_slice(&question[38..42]);
        frame[32..42].copy_from_slice(&question[22..32]);
        frame
    }

    #[test]
    fn an_answer_names_its_sender() {
        let task = task();
        let question = task.question();
        assert_eq!(question.len(), 42);
        assert_eq!(task.owner(&answer(&question, [6; 6])).unwrap(), "nuc01");
        let stranger = task.owner(&answer(&question, [7; 6]));
        assert_eq!(stranger.unwrap(), "07:07:07:07:07:07");
    }

    #[test]
    fn what_is_no_answer_to_us_counts_for_nothing() {
        let task = task();
        let question = task.question();
        assert_eq!(task.owner(&question), None);
        let mut gratuitous = answer(&question, [6; 6]);
        gratuitous[32..38].copy_from_slice(&[0xff; 6]);
        assert_eq!(task.owner(&gratuitous), None);
        assert_eq!(task.owner(&question[..30]), None);
    }
}
