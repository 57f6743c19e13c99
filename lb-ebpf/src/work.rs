//! Scratch memory of one program run: what would not fit on BPF's 512-byte stack.

use aya_ebpf::{bindings::bpf_fib_lookup, btf_maps::PerCpuArray, macros::btf_map};
use lb_common::{Addr, AddressUse, BackendId, Claim, Entry, Flow, Hook, Tuple, Verdict};

use crate::{count, headers::Headers, packet};

/// The large values that the stages hand on. One per hook and CPU; programs of one
/// hook do not nest on a CPU, since they run with softirqs disabled.
///
/// Offsets into the packet do not belong here: the verifier forgets the bounds of what
/// is stored in a map.
#[repr(C)]
pub struct Work {
    /// The packet as it shall leave.
    pub to: Tuple,
    /// Whose link address it is sent to, after the kernel's routing: its destination, or the
    /// peer that it is handed over to.
    pub hop: Addr,
    /// What an ICMP error shall quote.
    pub quoted: Tuple,
    /// The tuple of the backend's packets of a flow.
    pub reply_key: Tuple,
    /// 1 where a peer handed the packet over: here, as other facts that only some paths
    /// know, so that the verifier walks what follows once and not for either.
    pub handed: u32,
    /// How often the packet has gone back to a node that had the VIP before.
    pub returns: u32,
    /// 1 where its flow is to be recorded as one that began there.
    pub leaves: u32,
    /// The [`Mode`] of the flow, as its number.
    pub mode: u32,
    /// By which entry the packet came.
    pub entry: Entry,
    /// What its destination is to the program.
    pub usage: AddressUse,
    /// The tick of the flows' clock.
    pub now: u32,
    /// The [`lb_common::hop::tag`] that was in force when the packet came.
    pub tag: u32,
    /// A [`Counted`] as its number: what the packet is counted as once it is sent.
    pub counted: u32,
    /// The service that it is counted for.
    pub service: u32,
    /// The backend that it is counted for.
    pub backend: BackendId,
    /// A flow about to be recorded.
    pub flow: Flow,
    /// The place of an earlier one whose replies would be taken for its;
    /// [`lb_common::Ends::NONE`] without one.
    pub held: u32,
    /// The place in `REPLIES` of what leads to that one.
    pub held_reply: u32,
    /// How it is to be recorded: a [`Recorded`] as its number.
    pub recorded: u32,
    /// Index of the service that it is of.
    pub flow_service: u32,
    /// A backend that a flow may begin with; none: those of the slots.
    pub candidate: BackendId,
    /// The table in map `SERVICES` that a flow's backend is looked for in.
    pub table: u32,
    /// The slot of that table where the search goes on.
    pub slot: u32,
    /// 1 where the flow is recorded.
    pub records: u32,
    /// Which port of the SNAT range is tried.
    pub port_offset: u32,
    /// How many ports further the next try is.
    pub port_step: u32,
    /// How many ports the range has.
    pub port_count: u32,
    /// The first of them.
    pub port_first: u32,
    /// What a question is for.
    pub claim: Claim,
    /// Destination and source of a frame that is handed over, or of an answer: on the stack
    /// there is no room.
    pub link: [[u8; 6]; 2],
    /// Question to the kernel's routing table, and its answer.
    pub fib: bpf_fib_lookup,
}

/// How a flow is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Not at all.
    Not = 0,
    /// So that its client's packets are known.
    OneWay = 1,
    /// So that those of its backend are, too.
    BothWays = 2,
}

/// What a packet is counted as, for its service and its backend.
#[derive(Clone, Copy)]
pub enum Counted {
    /// Nothing.
    Not = 0,
    /// A client's.
    Request = 1,
    /// A backend's.
    Reply = 2,
}

#[btf_map]
static WORK: PerCpuArray<Work, { Hook::ALL.len() }> = PerCpuArray::new();

impl Work {
    /// The scratch memory of `hook` on this CPU; its contents are of an earlier packet.
    #[inline(always)]
    pub fn of(hook: Hook) -> Result<&'static mut Self, Verdict> {
        let work = WORK.get_ptr_mut(hook as u32).ok_or(Verdict::EmitFailed)?;
        // SAFETY: this CPU's copy, taken once a run, and runs of one hook do not nest.
        // Every field is integers, valid with any contents.
        Ok(unsafe { &mut *work })
    }

    /// Says that [`Work::flow`] is to be recorded, for a service.
    #[inline(always)]
    pub fn records(&mut self, recorded: Recorded, service: u32) {
        self.recorded = recorded as u32;
        self.flow_service = service;
    }

    /// Says what the packet is counted as once it is sent.
    #[inline(always)]
    pub fn counts(&mut self, counted: Counted, service: u32, backend: BackendId) {
        self.counted = counted as u32;
        self.service = service;
        self.backend = backend;
    }

    /// Counts it.
    #[inline(always)]
    pub fn count(&self, headers: &Headers) {
        if self.counted == Counted::Request as u32 {
            count::request(self.service, self.backend, headers.frame_len());
        } else if self.counted == Counted::Reply as u32 {
            count::reply(self.service, self.backend, headers.frame_len());
        }
    }

    /// The same, of which the compiler knows no more than the verifier.
    #[inline(always)]
    pub fn sealed(&mut self) -> &mut Self {
        packet::sealed(self)
    }
}
