//! How many instructions the verifier walked for each program: what tells how far the
//! programs may still grow.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use libtest_mimic::Failed;
use naru::datapath::{self, AttachMode, Datapath, Options};
use nix::net::if_::if_nametoindex;

/// The kernel's limit for one program.
const LIMIT: u32 = 1_000_000;
/// Above this a program is as good as refused: the next kernel may count differently.
const CLOSE: u32 = LIMIT / 10 * 9;

/// Loads all programs and prints a line for each, `verifier: NAME COUNT`, which
/// `cargo xtask` holds against the record. The kernel cuts names to 15 letters.
pub(crate) fn counts() -> Result<(), Failed> {
    let pin_dir = PathBuf::from("/sys/fs/bpf/naru-verifier");
    datapath::preflight(&pin_dir)?;
    let mut datapath = Datapath::open(Options {
        pin_dir: pin_dir.clone(),
        ..Options::default()
    })?;
    // The program for interfaces without native XDP is loaded where one is met.
    datapath.attach("lo", if_nametoindex("lo")?, AttachMode::Generic)?;
    // And those for sockets where there is a cgroup.
    datapath.attach_sockets(Some(Path::new("/sys/fs/cgroup")))?;
    let mut counts = BTreeMap::<String, u32>::new();
    for program in aya::programs::loaded_programs() {
        let program = program?;
        let name = program.name_as_str().unwrap_or_default();
        if name.starts_with("naru") {
            let count = program
                .verified_instruction_count()
                .ok_or("the kernel does not say how many instructions it verified")?;
            // A program and its dry-run twin have one name; the larger one matters.
            let largest = counts.entry(name.to_owned()).or_default();
            *largest = count.max(*largest);
        }
    }
    drop(datapath);
    datapath::detach(&pin_dir)?;
    // The case's own name stands on the line already.
    println!();
    for (name, count) in &counts {
        println!("verifier: {name} {count}");
    }
    assert!(counts.len() > 4, "{counts:?}");
    assert!(counts.values().all(|&count| count < CLOSE), "{counts:?}");
    Ok(())
}
