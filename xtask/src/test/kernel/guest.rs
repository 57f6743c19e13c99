//! One virtual machine: its devices, its output, its end.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    host,
    test::debian::{ramdisk::Ramdisk, store::Kernel},
};

/// What it takes to mount the host's file system; the rest is loaded from there.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// After so long without a line a guest counts as hanging. The longest silence is that of
/// a case that loads programs: half a minute on a busy machine.
const SILENCE: Duration = Duration::from_secs(180);
/// How long a guest may take in all: twice what it does beside another one on two processors.
const PATIENCE: Duration = Duration::from_secs(1600);
/// Lines of the guest's console that are shown where it fails.
const CONSOLE: usize = 40;
const QEMU: &str = "qemu-system-x86_64";

/// How a guest ended.
pub(super) struct End {
    /// Whether it came to its end, with all programs successful.
    pub(super) success: bool,
    pub(super) took: Duration,
}

/// Boots a kernel, runs the job, and hands on each line of what it prints. An error
/// shows the end of the console.
pub(super) fn run(kernel: &Kernel, job: &str, line: &mut dyn FnMut(&str)) -> Result<End> {
    let dir = host::target().join("xtask");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let disk = dir.join(format!("kernel-{}.cpio", kernel.series.name));
    let console = dir.join(format!("kernel-{}.log", kernel.series.name));
    let ramdisk = Ramdisk {
        init: include_str!("init.sh"),
        modules: &MODULES,
        files: &[("guest.sh", include_str!("guest.sh")), ("job.sh", job)],
    };
    ramdisk.write(&disk, kernel)?;
    let said = dir.join(format!("kernel-{}-qemu.log", kernel.series.name));
    let file = File::create(&said).with_context(|| format!("cannot write {}", said.display()))?;
    let mut qemu = command(kernel, &disk, &console);
    let outcome = watch(qemu.stderr(file), line);
    if !matches!(&outcome, Ok(end) if end.success) {
        show("QEMU's own words", &said);
        show("the end of the guest's console", &console);
    }
    outcome
}

/// The hub of each network card, which has the card's number at the end of its address.
const HUBS: [u8; 4] = [0, 0, 1, 1];

/// The machine: the host's file system to read, two network cards on each of two hubs of
/// their own, and two serial lines, for the kernel and for the tests.
fn command(kernel: &Kernel, disk: &Path, console: &Path) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none"])
        .args(["-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "2G"])
        // In software, so that it is the same on every machine.
        .args(["-accel", "tcg,thread=multi"])
        .arg("-serial")
        .arg(prefixed("file:", console))
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(disk)
        .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"])
        .args([
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ]);
    for (card, hub) in HUBS.iter().enumerate() {
        qemu.args(["-netdev", &format!("hubport,hubid={hub},id=net{card}")]);
        qemu.args([
            "-device",
            // No code to boot from the network: its package may not be there.
            &format!("virtio-net-pci,netdev=net{card},mac=52:54:00:6e:61:0{card},romfile="),
        ]);
    }
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    qemu
}

fn prefixed(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(path);
    text
}

fn watch(qemu: &mut Command, line: &mut dyn FnMut(&str)) -> Result<End> {
    let started = Instant::now();
    let mut guest = qemu
        .spawn()
        .with_context(|| format!("cannot run {QEMU}; `apt-get install qemu-system-x86`"))?;
    let outcome = follow(&mut guest, started + PATIENCE, line);
    // It ends by itself; else this is why it must be ended.
    let killed = outcome.is_err() && guest.kill().is_ok();
    let status = guest.wait().context("cannot wait for QEMU")?;
    let success = outcome?;
    if !killed && !status.success() {
        bail!("QEMU failed: {status}");
    }
    Ok(End {
        success,
        took: started.elapsed(),
    })
}

/// Reads the guest's output to its end; true where the script says that all went well.
fn follow(guest: &mut Child, deadline: Instant, line: &mut dyn FnMut(&str)) -> Result<bool> {
    let output = guest.stdout.take().context("QEMU has no output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || read(output, &sender));
    let mut success = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left.min(SILENCE)) {
            Ok(text) => {
                success |= text == "guest: done 0";
                line(&text);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(success),
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "the guest hangs: silent for {} s, or not at its end after {} s",
                    SILENCE.as_secs(),
                    PATIENCE.as_secs()
                )
            }
        }
    }
}

fn read(output: impl Read, sender: &mpsc::Sender<String>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        // A terminal ends lines with two characters.
        let text = String::from_utf8_lossy(&line);
        if sender.send(text.trim_end_matches('\r').to_owned()).is_err() {
            return;
        }
    }
}

fn show(what: &str, path: &Path) {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    eprintln!("---- {what}, {}", path.display());
    for line in &lines[lines.len().saturating_sub(CONSOLE)..] {
        eprintln!("  {}", line.trim_end());
    }
}
