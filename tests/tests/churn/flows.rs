//! The connections, and what they were promised.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use crate::{
    lan::{Lan, PORT, VIP},
    rng::Rng,
};
use etherparse::PacketBuilder;

/// Why the promise does not hold for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// Its pod is no endpoint any more.
    Gone,
    /// It was silent for a whole window.
    Silent,
}

struct Flow {
    number: u32,
    pod: SocketAddr,
    excused: Option<Cause>,
    broken: bool,
}

#[derive(Default)]
pub(crate) struct Flows {
    open: Vec<Flow>,
    begun: u32,
    packets: u64,
    replies: u64,
    excused: BTreeMap<Cause, (u64, u64)>,
    kept: u64,
}

impl Flows {
    /// Opens connections until there are so many.
    pub(crate) fn open(&mut self, lan: &mut Lan, many: usize) -> Result<(), String> {
        while self.open.len() < many {
            let number = self.begun;
            self.begun += 1;
            self.packets += 1;
            let pod = lan.deliver(&mut frame(number, true));
            let pod = pod.map_err(|why| format!("connection {number} does not begin: {why}"))?;
            self.open.push(Flow {
                number,
                pod,
                excused: None,
                broken: false,
            });
        }
        Ok(())
    }

    /// Ends some of them, without a word.
    pub(crate) fn close(&mut self, rng: &mut Rng, many: usize) {
        for _ in 0..many.min(self.open.len()) {
            let flow = self.open.swap_remove(rng.below(self.open.len()));
            self.account(&flow);
        }
    }

    fn account(&mut self, flow: &Flow) {
        match flow.excused {
            None => self.kept += 1,
            Some(cause) => {
                let (all, broken) = self.excused.entry(cause).or_default();
                *all += 1;
                *broken += u64::from(flow.broken);
            }
        }
    }

    /// Notes whom a change excuses from the promise.
    pub(crate) fn changed(&mut self, lan: &Lan) {
        for flow in &mut self.open {
            if !lan.exists(flow.pod) {
                flow.excused.get_or_insert(Cause::Gone);
            }
        }
    }

    /// A packet of nearly each, which must come to where the first one came. Where the window
    /// ends thereafter, who was silent is excused.
    pub(crate) fn send(
        &mut self,
        lan: &mut Lan,
        rng: &mut Rng,
        window_ends: bool,
    ) -> Result<(), String> {
        for flow in &mut self.open {
            if rng.chance(20) {
                if window_ends {
                    flow.excused.get_or_insert(Cause::Silent);
                }
                continue;
            }
            self.packets += 1;
            let got = lan.deliver(&mut frame(flow.number, false));
            if got.as_ref() != Ok(&flow.pod) {
                if flow.excused.is_none() {
                    let (number, pod) = (flow.number, flow.pod);
                    let known = lan.known(client(number));
                    return Err(format!(
                        "connection {number} of {pod}: now {got:?}; {known}"
                    ));
                }
                flow.broken = true;
                continue;
            }
            if flow.number % 16 == 0
                && let Some(from) = lan.answered(flow.pod, &reply(flow))
            {
                self.replies += 1;
                let wanted = SocketAddr::new(VIP.into(), PORT);
                if from != wanted && flow.excused.is_none() {
                    return Err(format!("a reply of connection {} from {from}", flow.number));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn tell(&mut self) {
        for flow in std::mem::take(&mut self.open) {
            self.account(&flow);
        }
        let Self {
            packets, replies, ..
        } = self;
        println!("{packets} packets, {replies} replies");
        println!(
            "{} connections that the promise covers: all kept",
            self.kept
        );
        for (cause, (all, broken)) in &self.excused {
            println!("{cause:?}: {all} connections, {broken} broken");
        }
    }
}

fn client(number: u32) -> (Ipv4Addr, u16) {
    let addr = Ipv4Addr::from(0x0a40_0000 + number / 16_384);
    (addr, 1024 + (number % 16_384) as u16)
}

fn frame(number: u32, opens: bool) -> Vec<u8> {
    let (addr, port) = client(number);
    let builder = PacketBuilder::ethernet2([0; 6], [0; 6])
        .ipv4(addr.octets(), VIP.octets(), 64)
        .tcp(port, PORT, 1, 1024);
    let builder = if opens { builder.syn() } else { builder.ack(1) };
    let mut bytes = Vec::with_capacity(64);
    builder.write(&mut bytes, &[]).expect("a vector");
    bytes
}

fn reply(flow: &Flow) -> Vec<u8> {
    let (addr, port) = client(flow.number);
    let std::net::IpAddr::V4(pod) = flow.pod.ip() else {
        return Vec::new();
    };
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 9, 9])
        .ipv4(pod.octets(), addr.octets(), 64)
        .tcp(flow.pod.port(), port, 1, 1024)
        .ack(1);
    let mut bytes = Vec::with_capacity(64);
    builder.write(&mut bytes, &[]).expect("a vector");
    bytes
}
