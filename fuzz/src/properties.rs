//! What must hold of the stages of the kernel part for any packet, at XDP and at TC.

use lb_common::{Addr, Family, Port, Protocol, Tuple, Verdict};

use crate::{
    answer,
    frame::Frame,
    headers::{Fragment, Headers, Payload},
    icmp,
    machine::{self, programs},
    parse, questions, refuse,
    sums::{self, Sum},
    tc::TcFrame,
    wire::{address_offsets, put_ip},
    witness,
    work::Work,
    xdp::XdpFrame,
};

/// Bytes before the frame in the input of a run.
const PREFIX: usize = 1 + 2 * 16 + 2 * 2;
/// Bit of the first byte: the TTL is to be counted down.
const HOP: u8 = 1;
/// Bit of the first byte: the checksums are made right first.
const REPAIR: u8 = 2;

/// A packet, and what is to be made of it.
struct Input<'a> {
    hop: bool,
    repair: bool,
    prefix: &'a [u8],
    frame: &'a [u8],
}

/// A packet under test.
struct Packet {
    bytes: Vec<u8>,
    headers: Headers,
    sums: Vec<Sum>,
    /// What it is rewritten to.
    to: Tuple,
    hop: bool,
    /// All checksums are right.
    valid: bool,
}

/// A frame of a hook, over one of this process.
trait Hooked: Frame {
    fn on(frame: &mut machine::Frame) -> Self;
}

impl Hooked for XdpFrame {
    fn on(frame: &mut machine::Frame) -> Self {
        Self::new(programs::XdpContext::new(frame))
    }
}

impl Hooked for TcFrame<false> {
    fn on(frame: &mut machine::Frame) -> Self {
        Self::new(programs::TcContext::new(frame))
    }
}

/// Takes an input apart and holds everything against it that the kernel part would do.
///
/// It is a byte of bits ([`HOP`], [`REPAIR`]), then source and destination address (of
/// IPv4 the first four bytes count) and ports to rewrite to, then the frame.
pub fn check(data: &[u8]) {
    let Some((prefix, frame)) = data.split_at_checked(PREFIX) else {
        return;
    };
    let input = Input {
        hop: prefix[0] & HOP != 0,
        repair: prefix[0] & REPAIR != 0,
        prefix: &prefix[1..],
        frame,
    };
    questions::check(input.frame, input.repair);
    // Not all that is parsed is rewritten, and not all is parsed.
    let Some(packet) = Packet::new(&input) else {
        return;
    };
    packet.check::<XdpFrame>();
    packet.check::<TcFrame<false>>();
}

impl Packet {
    fn new(input: &Input<'_>) -> Option<Self> {
        let mut bytes = input.frame.to_vec();
        let headers = read::<XdpFrame>(&bytes);
        if let Some(packet) = witness::Packet::read(&bytes) {
            match &headers {
                Ok(headers) if headers.payload == Payload::Ports => {
                    assert!(packet.agrees(headers), "{bytes:02x?}");
                }
                // Of a datagram's length, etherparse takes more.
                Ok(headers) if headers.payload == Payload::BadUdp => {}
                _ => assert!(!packet.must_be_read(), "{bytes:02x?} is not read"),
            }
        }
        let headers = headers.ok()?;
        let sums = sums::all(&bytes, &headers);
        if input.repair {
            sums::repair(&mut bytes, &sums);
        }
        Some(Self {
            to: target(input.prefix, &headers.tuple),
            // The stack answers where it would run out.
            hop: input.hop && headers.ttl > 1,
            valid: input.repair && headers.fragment == Fragment::No,
            bytes,
            headers,
            sums,
        })
    }

    fn check<F: Hooked>(&self) {
        match self.headers.payload {
            Payload::Ports => {
                self.rewritten::<F>();
                self.refused::<F>();
                self.too_big::<F>();
            }
            Payload::Echo => self.echoed::<F>(),
            Payload::Error => self.translated::<F>(),
            _ => {}
        }
    }

    /// Nothing but addresses, ports, TTL and checksums changes, and it can be undone.
    fn rewritten<F: Hooked>(&self) {
        let to = |to: Tuple, hop| {
            move |frame: &mut F, headers: &mut Headers| frame.rewrite(headers, &to, hop)
        };
        let after = made(&self.bytes, to(self.to, self.hop));
        let mut expected = self.bytes.clone();
        self.put(&mut expected, self.headers.l3(), &self.to);
        if self.headers.fragment != Fragment::Later {
            put_ports(&mut expected, self.headers.l4(), &self.to);
        }
        self.put_ttl(&mut expected, self.headers.ttl - u8::from(self.hop));
        sums::compare(&self.bytes, &expected, &after, &self.sums);
        if self.valid
            && let Some(packet) = witness::Packet::read(&after)
        {
            assert!(packet.is_valid(), "{after:02x?}");
        }

        let back = made(&after, to(self.headers.tuple, false));
        let mut expected = self.bytes.clone();
        self.put_ttl(&mut expected, self.headers.ttl - u8::from(self.hop));
        sums::compare(&self.bytes, &expected, &back, &self.sums);
    }

    /// Outer and quoted packet change alike, with the checksums of both.
    fn translated<F: Hooked>(&self) {
        let mut quoted = self.to.reversed();
        quoted.protocol = self.headers.quoted.protocol;
        let after = made(&self.bytes, |frame: &mut F, headers| {
            let work = Work::of(F::HOOK)?;
            (work.to, work.quoted) = (self.to, quoted);
            icmp::translate(frame, headers, work, self.hop)
        });
        let mut expected = self.bytes.clone();
        self.put(&mut expected, self.headers.l3(), &self.to);
        self.put(&mut expected, self.headers.quoted_l3(), &quoted);
        put_ports(&mut expected, self.headers.quoted_l4(), &quoted);
        self.put_ttl(&mut expected, self.headers.ttl - u8::from(self.hop));
        sums::compare(&self.bytes, &expected, &after, &self.sums);
    }

    /// The reply to a ping is the ping, but for its direction, its type and a TTL of 64.
    fn echoed<F: Hooked>(&self) {
        let after = made(&self.bytes, |frame: &mut F, headers| {
            icmp::echo(frame, headers)
        });
        let mut expected = self.bytes.clone();
        expected[..6].copy_from_slice(&self.bytes[6..12]);
        expected[6..12].copy_from_slice(&self.bytes[..6]);
        let tuple = self.headers.tuple.reversed();
        self.put(&mut expected, self.headers.l3(), &tuple);
        self.put_ttl(&mut expected, 64);
        expected[self.headers.l4()] = match tuple.family() {
            Family::V4 => 0,
            Family::V6 => 129,
        };
        sums::compare(&self.bytes, &expected, &after, &self.sums);
    }

    fn refused<F: Hooked>(&self) {
        let outcome = run(&self.bytes, |frame: &mut F, headers| {
            refuse::refuse(frame, headers)
        });
        if let Some(answer) = self.answer(outcome) {
            if self.headers.is_tcp() {
                answer::reset(&self.bytes, &self.headers, &answer);
            } else {
                let kind = match self.to.family() {
                    Family::V4 => [3, 3],
                    Family::V6 => [1, 4],
                };
                answer::error(&self.bytes, &self.headers, &answer, kind, 0);
            }
        }
    }

    fn too_big<F: Hooked>(&self) {
        let mtu = self.to.src_port.get();
        let outcome = run(&self.bytes, |frame: &mut F, headers| {
            let work = Work::of(F::HOOK)?;
            work.fib.__bindgen_anon_1.mtu_result = mtu;
            refuse::too_big(frame, headers, work)
        });
        if let Some(answer) = self.answer(outcome) {
            let kind = match self.to.family() {
                Family::V4 => [3, 4],
                Family::V6 => [2, 0],
            };
            answer::error(&self.bytes, &self.headers, &answer, kind, mtu.into());
        }
    }

    /// What a packet was answered with; none where there was a reason not to.
    fn answer(&self, outcome: Result<Vec<u8>, Verdict>) -> Option<Vec<u8>> {
        let silent = answer::must_not_be(&self.headers);
        match outcome {
            Ok(answer) => {
                assert!(!silent, "{:02x?} was answered", self.bytes);
                Some(answer)
            }
            Err(Verdict::RefusalSuppressed) if silent => None,
            Err(verdict) => panic!("{:02x?} was not answered: {verdict}", self.bytes),
        }
    }

    /// Writes the addresses of `tuple` into the network header at `l3`.
    fn put(&self, bytes: &mut [u8], l3: usize, tuple: &Tuple) {
        let (src, dst) = address_offsets(tuple.family() == Family::V6);
        put_ip(bytes, l3 + src, tuple.src.to_ip());
        put_ip(bytes, l3 + dst, tuple.dst.to_ip());
    }

    fn put_ttl(&self, bytes: &mut [u8], ttl: u8) {
        let offset = match self.headers.tuple.family() {
            Family::V4 => 8,
            Family::V6 => 7,
        };
        bytes[self.headers.l3() + offset] = ttl;
    }
}

fn put_ports(bytes: &mut [u8], l4: usize, tuple: &Tuple) {
    bytes[l4..l4 + 2].copy_from_slice(&tuple.src_port.get().to_be_bytes());
    bytes[l4 + 2..l4 + 4].copy_from_slice(&tuple.dst_port.get().to_be_bytes());
}

/// The tuple that a packet of `from` is to be rewritten to.
fn target(prefix: &[u8], from: &Tuple) -> Tuple {
    let addr = |at: usize| {
        let word = |n: usize| {
            let bytes = &prefix[at + 4 * n..];
            u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        match from.family() {
            Family::V4 => Addr::from_v4_word(word(0)),
            // No IPv4 address may come of it.
            Family::V6 => Addr::from_words([word(0) | 1, word(1), word(2), word(3)]),
        }
    };
    let port = |at: usize| Port::from_word(u16::from_ne_bytes([prefix[at], prefix[at + 1]]));
    let (mut src_port, mut dst_port) = (port(32), port(34));
    if from.protocol == Protocol::Sctp as u8 {
        // Its checksum covers them, so they stay.
        (src_port, dst_port) = (from.src_port, from.dst_port);
    }
    Tuple::new(addr(0), src_port, addr(16), dst_port, from.protocol)
}

fn read<F: Hooked>(bytes: &[u8]) -> Result<Headers, Verdict> {
    let mut host = machine::Frame::new(bytes);
    let headers = parsed(&F::on(&mut host))?;
    // SAFETY: a copy of integers, from scratch memory that the next packet writes anew.
    Ok(unsafe { std::ptr::read(headers) })
}

/// A function of its own: the kernel part wants all that it calls inlined, again and again.
#[inline(never)]
fn parsed<F: Hooked>(frame: &F) -> Result<&'static mut Headers, Verdict> {
    let headers = Headers::of(F::HOOK)?;
    parse::parse(frame.context(), headers)?;
    Ok(headers)
}

/// What becomes of a frame that a stage must be able to deal with.
fn made<F: Hooked>(
    bytes: &[u8],
    stage: impl FnOnce(&mut F, &mut Headers) -> Result<(), Verdict>,
) -> Vec<u8> {
    match run(bytes, stage) {
        Ok(bytes) => bytes,
        Err(verdict) => panic!("{bytes:02x?}: {verdict}"),
    }
}

fn run<F: Hooked>(
    bytes: &[u8],
    stage: impl FnOnce(&mut F, &mut Headers) -> Result<(), Verdict>,
) -> Result<Vec<u8>, Verdict> {
    let mut host = machine::Frame::new(bytes);
    let mut frame = F::on(&mut host);
    let headers = parsed(&frame)?;
    stage(&mut frame, headers)?;
    Ok(host.bytes().to_vec())
}
