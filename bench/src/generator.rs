//! The generator of frames, and the stubs that nothing is cheaper than.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, TestRun, TestRunOptions, Xdp},
};
use lb_common::bench::Plan;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/naru-bench-ebpf"));

/// Writes frames and runs a candidate on each.
pub(crate) struct Generator {
    ebpf: Ebpf,
    plan: Array<MapData, Plan>,
    candidate: ProgramArray<MapData>,
}

/// What becomes of a frame at XDP, by its number.
pub(crate) const TX: u32 = 3;
/// See [`TX`].
pub(crate) const PASS: u32 = 2;

impl Generator {
    pub(crate) fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("loading the generator")?;
        for name in ["bench_generate", "bench_tx", "bench_drop", "bench_pass"] {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        let plan = ebpf.take_map("PLAN").context("map PLAN")?;
        let candidate = ebpf.take_map("CANDIDATE").context("map CANDIDATE")?;
        Ok(Self {
            plan: Array::try_from(plan)?,
            candidate: ProgramArray::try_from(candidate)?,
            ebpf,
        })
    }

    /// A stub: `bench_tx`, `bench_drop` or `bench_pass`.
    pub(crate) fn stub(&self, name: &str) -> Result<ProgramFd> {
        let program: &Xdp = self.ebpf.program(name).context("no such stub")?.try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Which frames are made from now on.
    pub(crate) fn plan(&mut self, plan: Plan) -> Result<()> {
        Ok(self.plan.set(0, plan, 0)?)
    }

    /// Runs a candidate on so many frames that came in by an interface; gives the time that
    /// each took, and what became of the last.
    pub(crate) fn run(
        &mut self,
        candidate: &ProgramFd,
        ifindex: u32,
        len: usize,
        packets: u32,
    ) -> Result<(Duration, u32)> {
        self.candidate.set(0, candidate, 0)?;
        let frame = vec![0; len];
        let context = context(len as u32, ifindex);
        let program: &Xdp = self
            .ebpf
            .program("bench_generate")
            .context("no generator")?
            .try_into()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::new()
        })?;
        if result.return_value == 0 {
            bail!("the candidate was not called, or aborted");
        }
        Ok((result.duration, result.return_value))
    }
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(len: u32, ifindex: u32) -> Vec<u8> {
    let words = [0, len, 0, ifindex, 0, 0];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}
