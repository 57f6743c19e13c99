//! The generator of frames, the stubs that nothing is cheaper than, and the sink.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, ProgramArray},
    programs::{
        ProgramFd, SchedClassifier, TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
        loaded_programs,
    },
};
use lb_common::bench::{Plan, Seen, Watch};

use crate::frames::Frames;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/naru-bench-ebpf"));

/// Frames that are on their way at once: fewer than a veth device's ring has room for.
const BATCH: u32 = 64;

/// How many flows are looked at, to see where they go.
const SAMPLE: u32 = 1 << 12;

const GENERATE: &str = "bench_generate";
const GENERATE_TC: &str = "bench_generate_tc";
const SINK: &str = "bench_sink";
const STUBS: [Stub; 3] = [Stub::Tx, Stub::Drop, Stub::Pass];

/// What becomes of a frame at XDP, by its number.
pub(crate) const ABORTED: u32 = 0;
/// See [`ABORTED`].
pub(crate) const DROP: u32 = 1;
/// See [`ABORTED`].
pub(crate) const PASS: u32 = 2;
/// See [`ABORTED`].
pub(crate) const TX: u32 = 3;
/// What becomes of a frame at TC that goes on to the next program: `TCX_NEXT`, -1.
pub(crate) const NEXT: u32 = u32::MAX;

/// A program that does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stub {
    Tx,
    Drop,
    Pass,
    PassTc,
}

/// How a candidate is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// At XDP, and nothing comes of it.
    Program,
    /// At TC, likewise.
    Classifier,
    /// At XDP, and the frame goes where it is sent to.
    Live,
}

/// Writes frames, runs a candidate on each, and counts those that arrive.
pub(crate) struct Generator {
    ebpf: Ebpf,
    plan: Array<MapData, Plan>,
    candidate: ProgramArray<MapData>,
    classifier: ProgramArray<MapData>,
    arrived: PerCpuArray<MapData, u64>,
    watch: Array<MapData, Watch>,
    seen: Array<MapData, Seen>,
    last: Array<MapData, Seen>,
}

impl Generator {
    /// Loads it for so many flows at most.
    pub(crate) fn load(flows: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        let mut ebpf = loader
            .map_max_entries("SEEN", flows)
            .load(OBJECT)
            .context("loading the generator")?;
        for name in [GENERATE, SINK].into_iter().chain(STUBS.map(Stub::program)) {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        for name in [GENERATE_TC, Stub::PassTc.program()] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        let mut take = |name: &'static str| ebpf.take_map(name).context(name);
        Ok(Self {
            plan: Array::try_from(take("PLAN")?)?,
            candidate: ProgramArray::try_from(take("CANDIDATE")?)?,
            classifier: ProgramArray::try_from(take("CLASSIFIER")?)?,
            arrived: PerCpuArray::try_from(take("ARRIVED")?)?,
            watch: Array::try_from(take("WATCH")?)?,
            seen: Array::try_from(take("SEEN")?)?,
            last: Array::try_from(take("LAST")?)?,
            ebpf,
        })
    }

    /// A stub, to be run as a candidate is.
    pub(crate) fn stub(&self, stub: Stub) -> Result<ProgramFd> {
        let name = stub.program();
        let program = self.ebpf.program(name).context(name)?;
        let fd = if stub == Stub::PassTc {
            <&SchedClassifier>::try_from(program)?.fd()?.try_clone()?
        } else {
            <&Xdp>::try_from(program)?.fd()?.try_clone()?
        };
        Ok(fd)
    }

    /// Has frames that come in by a device, of the namespace that this thread is in, end.
    /// It is native XDP, without which a veth device would not take what XDP sends to it.
    pub(crate) fn end_at(&mut self, ifindex: u32) -> Result<()> {
        let sink: &mut Xdp = self.ebpf.program_mut(SINK).context(SINK)?.try_into()?;
        sink.attach_to_if_index(ifindex, XdpMode::Driver)
            .context("attaching the sink")?;
        Ok(())
    }

    /// Runs a candidate on so many frames that come in by a device; gives the nanoseconds that
    /// each took, and what became of the last.
    pub(crate) fn run(
        &mut self,
        way: Way,
        candidate: &ProgramFd,
        frames: &Frames,
        ifindex: u32,
        count: u32,
    ) -> Result<(f64, u32)> {
        self.plan.set(0, frames.plan, 0)?;
        // The kernel looks at the first one's Ethernet type before the generator runs.
        let words = frames.plan.template.iter().flat_map(|it| it.to_ne_bytes());
        let mut frame: Vec<u8> = words.take(frames.len).collect();
        frame.resize(frames.len, 0);
        let xdp = xdp_context(frames.len as u32, ifindex);
        let tc = tc_context(ifindex);
        let mut options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&xdp),
            repeat: count,
            ..TestRunOptions::new()
        };
        let result = if way == Way::Classifier {
            self.classifier.set(0, candidate, 0)?;
            options.ctx_in = Some(&tc);
            let program = self.ebpf.program(GENERATE_TC).context(GENERATE_TC)?;
            <&SchedClassifier>::try_from(program)?.test_run(options)?
        } else {
            self.candidate.set(0, candidate, 0)?;
            if way == Way::Live {
                options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            }
            let program = self.ebpf.program(GENERATE).context(GENERATE)?;
            <&Xdp>::try_from(program)?.test_run(options)?
        };
        Ok((result.duration.as_nanos() as f64, result.return_value))
    }

    /// How many frames have arrived since it was loaded.
    pub(crate) fn arrived(&self) -> Result<u64> {
        Ok(self.arrived.get(&0, 0)?.iter().sum())
    }

    /// What the sink takes down from now on, of this many flows.
    pub(crate) fn watch(&mut self, what: u32, flows: u32, replies: bool) -> Result<()> {
        let watch = Watch {
            what,
            taken: 0,
            mask: flows - 1,
            replies: replies.into(),
        };
        Ok(self.watch.set(0, watch, 0)?)
    }

    /// The last frame that arrived.
    pub(crate) fn last(&self) -> Result<Seen> {
        let seen = self.last.get(&0, 0)?;
        ensure!(seen.there == 1, "no frame arrived");
        Ok(seen)
    }

    /// Some of the frames of so many flows that arrived, from all over them.
    pub(crate) fn some(&self, flows: u32) -> Result<Vec<Seen>> {
        let step = (flows / SAMPLE).max(1) as usize;
        let places = (0..flows).step_by(step);
        places.map(|place| Ok(self.seen.get(&place, 0)?)).collect()
    }
}

/// How many instructions of the kernel's own a program has, as it counts them (`xlated`).
pub(crate) fn instructions(program: &ProgramFd) -> Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).context(path)?;
    let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
    let id: u32 = id
        .context("a descriptor without a program")?
        .trim()
        .parse()?;
    for info in loaded_programs() {
        let info = info?;
        if info.id() == id {
            return Ok(info.size_translated().context("the kernel hides it")? / 8);
        }
    }
    anyhow::bail!("program {id} is not there")
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_context(len: u32, ifindex: u32) -> Vec<u8> {
    let words = [0, len, 0, ifindex, 0, 0];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// `struct __sk_buff`, in which the eleventh word is the device.
fn tc_context(ifindex: u32) -> Vec<u8> {
    let words = (0..48).map(|word| if word == 10 { ifindex } else { 0 });
    words.flat_map(u32::to_ne_bytes).collect()
}

// === impl Stub ===

impl Stub {
    const fn program(self) -> &'static str {
        match self {
            Self::Tx => "bench_tx",
            Self::Drop => "bench_drop",
            Self::Pass => "bench_pass",
            Self::PassTc => "bench_pass_tc",
        }
    }
}
