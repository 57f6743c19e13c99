//! What would become of a packet: the loaded program's twin runs on it, over the same
//! maps, and nothing is counted, advanced or recorded.

use std::net::{IpAddr, SocketAddr};

use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use etherparse::{IpNumber, PacketBuilder};
use lb_common::{Backend, Hook, Protocol, Trace, Tuple, Verdict};

use super::{
    Datapath, DatapathError, causes,
    load::{TC_EGRESS, TC_INGRESS, XDP, program},
};

/// The packet to explain: the first one of a client's flow.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The client.
    pub client: SocketAddr,
    /// Where it sends to.
    pub frontend: SocketAddr,
    /// TCP (a SYN) or UDP.
    pub protocol: Protocol,
    /// The interface it comes in by.
    pub ifindex: u32,
    /// That interface's hardware address.
    pub mac: [u8; 6],
}

/// What the program would do with it.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    /// The way out.
    pub verdict: Verdict,
    /// Index of the service whose frontend matched.
    pub service: Option<u32>,
    /// The slot of its table that was consulted.
    pub slot: Option<u32>,
    /// The backend.
    pub backend: Option<Backend>,
    /// Whether an existing flow named it, rather than a slot.
    pub from_flow: bool,
    /// The packet as it would leave, if it would be rewritten.
    pub rewritten: Option<Tuple>,
    /// The interface that it would leave by; none where the stack delivers.
    pub egress: Option<u32>,
}

impl Datapath {
    /// Runs the twin on the packet that `probe` describes.
    pub fn explain(&mut self, probe: &Probe) -> Result<Explanation, DatapathError> {
        self.explain_frame(&frame(probe)?, probe.ifindex)
    }

    /// Runs the twin on a frame that comes in by interface `ifindex`.
    pub fn explain_frame(
        &mut self,
        frame: &[u8],
        ifindex: u32,
    ) -> Result<Explanation, DatapathError> {
        let trace = self.dry_run(frame, ifindex)?;
        let verdict =
            Verdict::from_number(trace.verdict).ok_or_else(|| DatapathError::TestRun {
                reason: format!("the program reports an unknown verdict {}", trace.verdict),
            })?;
        let backend = self
            .live
            .backends
            .get(trace.backend.index())
            .filter(|backend| backend.id == trace.backend);
        Ok(Explanation {
            verdict,
            service: trace.service.checked_sub(1),
            slot: trace.slot.checked_sub(1),
            backend: backend.copied(),
            from_flow: trace.from_flow != 0,
            rewritten: Some(trace.to).filter(|to| *to != Tuple::default()),
            egress: Some(trace.egress).filter(|&index| index != 0),
        })
    }

    /// Runs the twin on a frame and gives what it reports.
    fn dry_run(&mut self, frame: &[u8], ifindex: u32) -> Result<Trace, DatapathError> {
        self.maps
            .trace
            .set(0, Trace::default(), 0)
            .map_err(DatapathError::map("TRACE"))?;
        let xdp: &mut Xdp = program(&mut self.twin, XDP)?;
        test_run(xdp, frame, &xdp_context(frame.len() as u32, ifindex))?;
        self.maps
            .trace
            .get(&0, 0)
            .map_err(DatapathError::map("TRACE"))
    }

    /// The descriptor of a hook's program, for a benchmark that calls it.
    ///
    /// # Errors
    /// Where it is not loaded.
    pub fn descriptor(&mut self, hook: Hook) -> Result<ProgramFd, DatapathError> {
        let fd = match hook {
            Hook::Xdp => program::<Xdp>(&mut self.ebpf, XDP)?.fd(),
            Hook::TcIngress => program::<SchedClassifier>(&mut self.ebpf, TC_INGRESS)?.fd(),
            Hook::TcEgress => program::<SchedClassifier>(&mut self.ebpf, TC_EGRESS)?.fd(),
        };
        let failed = |error: &dyn std::error::Error| DatapathError::TestRun {
            reason: causes(error),
        };
        let fd = fd.map_err(|error| failed(&error))?;
        fd.try_clone().map_err(|error| failed(&error))
    }

    /// Runs the real program of `hook` on a frame that is at interface `ifindex`, with
    /// all its effects on maps and counters, and gives what becomes of the frame.
    pub fn test_run(
        &mut self,
        hook: Hook,
        frame: &[u8],
        ifindex: u32,
    ) -> Result<TestFrame, DatapathError> {
        match hook {
            Hook::Xdp => {
                let xdp: &mut Xdp = program(&mut self.ebpf, XDP)?;
                test_run(xdp, frame, &xdp_context(frame.len() as u32, ifindex))
            }
            Hook::TcIngress | Hook::TcEgress => {
                let name = match hook {
                    Hook::TcEgress => TC_EGRESS,
                    _ => TC_INGRESS,
                };
                let tc: &mut SchedClassifier = program(&mut self.ebpf, name)?;
                test_run(tc, frame, &skb_context(ifindex))
            }
        }
    }
}

/// A frame after a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFrame {
    /// The program's return value.
    pub action: u32,
    /// The frame's bytes.
    pub bytes: Vec<u8>,
}

fn test_run<'a, P>(
    program: &P,
    frame: &'a [u8],
    context: &'a [u8],
) -> Result<TestFrame, DatapathError>
where
    P: for<'b> TestRun<Opts<'b> = TestRunOptions<'b>, Result = TestRunResult>,
{
    // Room for what a refusal adds in front.
    let mut bytes = vec![0; frame.len() + 256];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut bytes),
            ctx_in: Some(context),
            ..TestRunOptions::new()
        })
        .map_err(|error| DatapathError::TestRun {
            reason: causes(&error),
        })?;
    bytes.truncate(result.data_size_out as usize);
    Ok(TestFrame {
        action: result.return_value,
        bytes,
    })
}

/// `struct xdp_md` of a frame of `len` bytes that came in by `ifindex`.
fn xdp_context(len: u32, ifindex: u32) -> [u8; 24] {
    let mut bytes = [0; 24];
    // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    for (at, word) in [0, len, 0, ifindex, 0, 0].into_iter().enumerate() {
        bytes[at * 4..at * 4 + 4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    bytes
}

/// `struct __sk_buff` of a frame at `ifindex`; only that field may be set, at byte 40.
fn skb_context(ifindex: u32) -> [u8; 192] {
    let mut bytes = [0; 192];
    bytes[40..44].copy_from_slice(&ifindex.to_ne_bytes());
    bytes
}

fn frame(probe: &Probe) -> Result<Vec<u8>, DatapathError> {
    // Locally administered; no neighbour is looked up by it.
    const SENDER: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
    let link = PacketBuilder::ethernet2(SENDER, probe.mac);
    let network = match (probe.client.ip(), probe.frontend.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), 64),
        (client, frontend) => {
            return Err(DatapathError::TestRun {
                reason: format!("{client} and {frontend} are of different families"),
            });
        }
    };
    let (from, to) = (probe.client.port(), probe.frontend.port());
    let mut bytes = Vec::new();
    match probe.protocol {
        Protocol::Tcp => network
            .tcp(from, to, 0, 64_240)
            .syn()
            .write(&mut bytes, &[]),
        Protocol::Udp => network.udp(from, to).write(&mut bytes, &[0; 8]),
        Protocol::Sctp => {
            let [a, b] = from.to_be_bytes();
            let [c, d] = to.to_be_bytes();
            let header = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
            network.write(&mut bytes, IpNumber::SCTP, &header)
        }
    }
    .map_err(|error| DatapathError::TestRun {
        reason: error.to_string(),
    })?;
    Ok(bytes)
}
