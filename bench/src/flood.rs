//! `flood`: first packets of TCP connections, each of another client, as fast as they can be
//! made.
//!
//! They come in by a device of this namespace, in which whoever calls this has attached the
//! program that meets them: it is called in the generator's own place, so that each frame
//! meets it. Over a cable nine out of ten would be lost before, where its ring overflows.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use aya::programs::{ProgramFd, loaded_programs};
use lb_common::Family;
use nix::net::if_::if_nametoindex;

use crate::{
    frames::{Frames, To},
    generator::{Generator, Way},
};

/// Clients at most: an address for each 32,768 of them, from 10.64.0.0 on.
const CLIENTS: u32 = 1 << 31;
/// Frames between two looks at the clock.
const STEP: u32 = 1 << 14;
/// No flood is longer, whatever it was told.
const LONGEST: u64 = 600;

/// Arguments of `flood`.
#[derive(clap::Args)]
pub(crate) struct Flood {
    /// The device of this namespace that they come in by
    #[arg(long, value_name = "NAME")]
    device: String,
    /// The kernel's number of the program that is attached there
    #[arg(long, value_name = "ID")]
    program: u32,
    /// The device's link address
    #[arg(long, value_name = "MAC", value_parser = mac)]
    mac: [u8; 6],
    /// The service
    #[arg(long, value_name = "IP:PORT")]
    vip: SocketAddrV4,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    seconds: u64,
}

/// Floods, and tells how many there were in how long, as JSON.
pub(crate) fn run(args: &Flood) -> Result<()> {
    let ifindex =
        if_nametoindex(args.device.as_str()).with_context(|| format!("no {}", args.device))?;
    let mut generator = Generator::load(1)?;
    let program = program(args.program)?;
    let frames = Frames::forward(Family::V4, 64, To::At(args.vip, args.mac), true)?;
    let frames = frames.shuffled(CLIENTS);
    let (began, long) = (Instant::now(), Duration::from_secs(args.seconds));
    let mut packets = 0_u64;
    while began.elapsed() < long {
        generator.run(Way::Live, &program, &frames, ifindex, STEP)?;
        packets += u64::from(STEP);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "packets": packets, "seconds": seconds })
    );
    Ok(())
}

fn program(id: u32) -> Result<ProgramFd> {
    for info in loaded_programs() {
        let info = info?;
        if info.id() == id {
            return Ok(info.fd()?);
        }
    }
    bail!("program {id} is not there")
}

fn mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text
        .split(':')
        .map_while(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes
        .try_into()
        .map_err(|_| "six bytes, as 02:00:00:00:00:01".to_owned())
}
