//! A scene: services, packets and changes in their order, as text and as data.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use lb_common::{Algorithm, Hook};

use crate::wire::{SCTP, TCP, UDP};

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// These are the services from now on.
    Services(Vec<Service>),
    /// The drain window of all changes passes: slots forget their previous backends, services
    /// their former tables, and new backends' replies are restored without records.
    Window,
    /// A scan of the flow table settles the slots that are looked up.
    Scan,
    /// The VIPs that another node had before come here from it.
    TakeOver,
    /// A frame meets the program of a hook at an interface.
    Packet {
        hook: Hook,
        device: &'static str,
        frame: Vec<u8>,
    },
}

/// A service as the cases write it:
/// `rr tcp 192.168.56.11:80 192.168.56.12:80 > 10.244.1.2:3000 10.244.1.3:3000=2 10.7.0.9:80=drain`
/// (or `=failed`),
/// with `sticky=600` and `from=10.0.0.0/8` among the frontends for session affinity in
/// seconds and for the networks that may use it, and `dsr` where packets are handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) algorithm: Algorithm,
    pub(crate) protocol: u8,
    pub(crate) frontends: Vec<SocketAddr>,
    /// For how many seconds a client comes back to its backend.
    pub(crate) sticky: Option<u64>,
    /// Whether its backends elsewhere are on peers.
    pub(crate) dsr: bool,
    /// The networks that may use it; empty: all.
    pub(crate) sources: Vec<(IpAddr, u8)>,
    pub(crate) backends: Vec<Backend>,
}

/// One of its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    pub(crate) share: Share,
}

/// What a backend takes of new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Weight(u32),
    /// None where others are: it is draining.
    Drain,
    /// None: it does not answer.
    Failed,
}

impl Service {
    /// Reads a service off its line.
    pub(crate) fn parse(line: &str) -> Self {
        let (front, back) = line.split_once('>').expect("frontends > backends");
        let mut words = front.split_whitespace();
        let algorithm = match words.next() {
            Some("maglev") => Algorithm::Maglev,
            _ => Algorithm::RoundRobin,
        };
        let protocol = match words.next() {
            Some("udp") => UDP,
            Some("sctp") => SCTP,
            _ => TCP,
        };
        let backend = |word: &str| {
            let (addr, share) = word.split_once('=').unwrap_or((word, "1"));
            Backend {
                addr: addr.parse().expect("address:port"),
                share: match share {
                    "drain" => Share::Drain,
                    "failed" => Share::Failed,
                    weight => Share::Weight(weight.parse().expect("a weight")),
                },
            }
        };
        let mut service = Self {
            algorithm,
            protocol,
            frontends: Vec::new(),
            sticky: None,
            dsr: false,
            sources: Vec::new(),
            backends: back.split_whitespace().map(backend).collect(),
        };
        for word in words {
            match word.split_once('=') {
                Some(("sticky", seconds)) => service.sticky = seconds.parse().ok(),
                Some((_, network)) => {
                    let (ip, len) = network.split_once('/').expect("address/length");
                    let network = (ip.parse().expect("an address"), len.parse().expect("bits"));
                    service.sources.push(network);
                }
                None if word == "dsr" => service.dsr = true,
                None => service.frontends.push(word.parse().expect("address:port")),
            }
        }
        service
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            UDP => "udp",
            SCTP => "sctp",
            _ => "tcp",
        };
        let algorithm = match self.algorithm {
            Algorithm::Maglev => "maglev",
            Algorithm::RoundRobin => "rr",
        };
        write!(f, "{algorithm} {protocol}")?;
        for frontend in &self.frontends {
            write!(f, " {frontend}")?;
        }
        if let Some(seconds) = self.sticky {
            write!(f, " sticky={seconds}")?;
        }
        if self.dsr {
            f.write_str(" dsr")?;
        }
        for (ip, len) in &self.sources {
            write!(f, " from={ip}/{len}")?;
        }
        f.write_str(" >")?;
        for backend in &self.backends {
            write!(f, " {}", backend.addr)?;
            match backend.share {
                Share::Drain => f.write_str("=drain")?,
                Share::Failed => f.write_str("=failed")?,
                Share::Weight(1) => {}
                Share::Weight(weight) => write!(f, "={weight}")?,
            }
        }
        Ok(())
    }
}

/// A step of a kept case, as [`source`] writes it: `Services` with a line for each, `Window`,
/// `Scan` and `TakeOver` alone, packets with their interface and bytes in hexadecimal.
pub(crate) enum Line {
    Services(&'static [&'static str]),
    Window,
    Scan,
    TakeOver,
    Xdp(&'static str, &'static str),
    TcIngress(&'static str, &'static str),
    TcEgress(&'static str, &'static str),
}

impl Line {
    pub(crate) fn step(&self) -> Step {
        let packet = |hook, name: &str, hex: &str| Step::Packet {
            hook,
            device: crate::node::find(name).name,
            frame: from_hex(hex),
        };
        match self {
            Self::Services(lines) => {
                Step::Services(lines.iter().map(|line| Service::parse(line)).collect())
            }
            Self::Window => Step::Window,
            Self::Scan => Step::Scan,
            Self::TakeOver => Step::TakeOver,
            Self::Xdp(device, hex) => packet(Hook::Xdp, device, hex),
            Self::TcIngress(device, hex) => packet(Hook::TcIngress, device, hex),
            Self::TcEgress(device, hex) => packet(Hook::TcEgress, device, hex),
        }
    }
}

/// A scene as the Rust source of a kept case.
pub(crate) fn source(name: &str, steps: &[Step]) -> String {
    let mut text = format!("    Case {{\n        name: {name:?},\n        lines: &[\n");
    for step in steps {
        match step {
            Step::Services(services) => {
                text.push_str("            Services(&[\n");
                for service in services {
                    let _ = writeln!(text, "                \"{service}\",");
                }
                text.push_str("            ]),\n");
            }
            Step::Window => text.push_str("            Window,\n"),
            Step::Scan => text.push_str("            Scan,\n"),
            Step::TakeOver => text.push_str("            TakeOver,\n"),
            Step::Packet {
                hook,
                device,
                frame,
            } => {
                let line = match hook {
                    Hook::Xdp => "Xdp",
                    Hook::TcIngress => "TcIngress",
                    Hook::TcEgress => "TcEgress",
                };
                let hex = wrapped(&to_hex(frame));
                let _ = writeln!(
                    text,
                    "            {line}(\n                \"{device}\",\n                \"{hex}\",\n            ),"
                );
            }
        }
    }
    text.push_str("        ],\n    },\n");
    text
}

/// A long literal in lines of bearable length.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for char in text.chars() {
        // A blank at the start of a line would be lost.
        let full = lines.last().is_some_and(|line| line.len() >= 76);
        if full && char != ' ' {
            lines.push(String::new());
        }
        lines.last_mut().expect("the first").push(char);
    }
    lines.join("\\\n                 ")
}

/// Bytes in hexadecimal; a long run of one byte as ` 00*1200 `.
fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() > 8 {
            let _ = write!(text, " {:02x}*{} ", run[0], run.len());
        } else {
            run.iter().for_each(|byte| {
                let _ = write!(text, "{byte:02x}");
            });
        }
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
        let pairs = digits.as_bytes().chunks(2);
        let run: Vec<u8> = pairs
            .map(|pair| {
                let pair = std::str::from_utf8(pair).expect("hexadecimal");
                u8::from_str_radix(pair, 16).expect("hexadecimal")
            })
            .collect();
        bytes.extend(run.repeat(times.parse().expect("a number")));
    }
    bytes
}
