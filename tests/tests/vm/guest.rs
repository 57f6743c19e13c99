//! One virtual machine: its devices, and commands to it.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use naru_lab::testbed::Machine;

use crate::hub::Cable;

/// What the machines can do without: each takes a second or more while all boot at once.
/// Drivers are loaded from the RAM disk.
const UNITS_LEFT_OUT: [&str; 8] = [
    "systemd-udev-trigger.service",
    "systemd-binfmt.service",
    "getty.target",
    "serial-getty@ttyS0.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
];

/// How long a machine may take to boot, beside three others on a busy host.
const BOOT: Duration = Duration::from_secs(240);
/// How long a command may take. The longest one, by far, starts an agent: the verifier
/// walks a million instructions, and the processor is emulated.
const PATIENCE: Duration = Duration::from_secs(300);
/// Lines of the console that are shown where a machine does not do as it is told.
const CONSOLE: usize = 30;

/// A machine that runs, until it is killed.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    /// The link address of its card on the LAN.
    pub(crate) link: String,
    process: Mutex<Option<Child>>,
    channel: Mutex<Channel>,
    console: PathBuf,
}

/// The way to the program in the machine that carries out commands.
struct Channel {
    stream: UnixStream,
    /// What was read and is no whole line yet.
    rest: Vec<u8>,
    /// Commands so far.
    count: u32,
}

/// A path out of the environment, as `cargo xtask test vm` sets it.
fn path(variable: &str) -> PathBuf {
    let path = env::var_os(variable);
    PathBuf::from(path.unwrap_or_else(|| panic!("{variable} is not set: cargo xtask test vm")))
}

// === impl Guest ===

impl Guest {
    /// Switches a machine on. Its processor is emulated, so that this is the same
    /// everywhere. The first card leads nowhere and has the same address in every machine,
    /// as that for the way out has with Vagrant; the second one is on the LAN.
    pub(crate) fn start(machine: &Machine, number: usize, cable: &Cable, dir: &Path) -> Self {
        let console = path("NARU_VM_LOGS").join(format!("{}.log", machine.name));
        let said = File::create(console.with_extension("qemu.log")).expect("QEMU's log");
        let link = format!("52:54:00:6e:61:{:02x}", 0x10 + number);
        let control = dir.join(format!("control{number}"));
        // Whatever becomes of this program, the machine ends with it.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", "q35", "-cpu", "max", "-smp", "1", "-m", "512"])
            // As much translated code as it takes, and not a gigabyte for each machine.
            .args(["-accel", "tcg,tb-size=256"])
            .arg("-kernel")
            .arg(path("NARU_VM_KERNEL"))
            .arg("-initrd")
            .arg(path("NARU_VM_RAMDISK"))
            .arg("-append")
            .arg(append())
            .arg("-serial")
            .arg(joined(&["file:"], &console, ""))
            // What a machine writes goes to a file of its own that nobody sees again.
            .arg("-drive")
            .arg(joined(
                &["format=raw,if=virtio,snapshot=on,file="],
                &path("NARU_VM_DISK"),
                "",
            ))
            .arg("-netdev")
            .arg("user,id=out,restrict=on")
            .args(["-device", "virtio-net-pci,netdev=out,romfile="])
            .arg("-netdev")
            .arg(format!(
                "dgram,id=lan,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                cable.machine.display(),
                cable.hub.display()
            ))
            .arg("-device")
            .arg(format!("virtio-net-pci,netdev=lan,mac={link},romfile="))
            .args(["-device", "virtio-serial-pci"])
            .arg("-chardev")
            .arg(joined(
                &["socket,id=control,server=on,wait=off,path="],
                &control,
                "",
            ))
            .args(["-device", "virtserialport,chardev=control,nr=1"]);
        for (tag, variable) in [("modules", "NARU_VM_MODULES"), ("shared", "NARU_VM_SHARED")] {
            let rest = format!(",mount_tag={tag},security_model=none,readonly=on");
            qemu.arg("-virtfs")
                .arg(joined(&["local,path="], &path(variable), &rest));
        }
        let child = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .expect("QEMU; `apt-get install qemu-system-x86`");
        Self {
            machine: machine.clone(),
            link,
            process: Mutex::new(Some(child)),
            channel: Mutex::new(Channel::open(&control)),
            console,
        }
    }

    /// Waits until the machine takes commands.
    pub(crate) fn wait_up(&self) {
        let mut channel = self.channel.lock().expect("the channel");
        let deadline = Instant::now() + BOOT;
        while let Some(line) = channel.line(deadline) {
            if line == "ready" {
                return;
            }
        }
        panic!(
            "{} does not boot: {}",
            self.machine.name,
            self.console_tail()
        );
    }

    /// What a command prints, and its exit status.
    pub(crate) fn run(&self, command: &str) -> (i32, String) {
        assert!(!command.contains('\n'), "a command is one line: {command}");
        let mut channel = self.channel.lock().expect("the channel");
        channel.count += 1;
        let mark = format!("done-{}", channel.count);
        writeln!(channel.stream, "{mark} {command}").expect("a command to the machine");
        let deadline = Instant::now() + PATIENCE;
        let mut output = String::new();
        while let Some(line) = channel.line(deadline) {
            if let Some(status) = line.strip_prefix(&format!("{mark} ")) {
                let status = status.parse().expect("an exit status");
                return (status, output.trim_end().to_owned());
            }
            output += &line;
            output.push('\n');
        }
        panic!(
            "{}: `{command}` does not end; it printed:\n{output}\n{}",
            self.machine.name,
            self.console_tail()
        );
    }

    /// What a command prints that has to succeed.
    pub(crate) fn sh(&self, command: &str) -> String {
        let (status, output) = self.run(command);
        assert_eq!(status, 0, "{}: `{command}`:\n{output}", self.machine.name);
        output
    }

    /// Waits until a command succeeds, and gives what it then prints.
    pub(crate) fn wait_for(&self, what: &str, bound: Duration, command: &str) -> String {
        let deadline = Instant::now() + bound;
        loop {
            let (status, output) = self.run(command);
            if status == 0 {
                return output;
            }
            assert!(
                Instant::now() < deadline,
                "{}: {what}: not so after {} s; `{command}` printed:\n{output}",
                self.machine.name,
                bound.as_secs()
            );
            sleep(Duration::from_millis(500));
        }
    }

    /// What `naru … -o json` says.
    pub(crate) fn naru(&self, command: &str) -> serde_json::Value {
        let text = self.sh(&format!("naru {command} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Whether it is switched on.
    pub(crate) fn is_on(&self) -> bool {
        self.process.lock().expect("the process").is_some()
    }

    /// Switches the machine off as if its plug were pulled.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.process.lock().expect("the process").take() {
            child.kill().expect("QEMU to be killed");
            child.wait().expect("QEMU to end");
        }
    }

    fn console_tail(&self) -> String {
        let mut text = String::new();
        for path in [
            self.console.with_extension("qemu.log"),
            self.console.clone(),
        ] {
            let bytes = fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&bytes);
            let lines: Vec<_> = log.lines().collect();
            text += &format!("---- {}\n", path.display());
            text += &lines[lines.len().saturating_sub(CONSOLE)..].join("\n");
            text.push('\n');
        }
        text
    }
}

/// The kernel's command line.
fn append() -> String {
    let masks = UNITS_LEFT_OUT.map(|unit| format!(" systemd.mask={unit}"));
    let own = "console=ttyS0 quiet panic=5 net.ifnames=0 mitigations=off";
    format!("{own}{}", masks.concat())
}

/// An option of QEMU's with a path in it.
fn joined(before: &[&str], path: &Path, after: &str) -> OsString {
    let mut text = OsString::from(before.concat());
    text.push(path);
    text.push(after);
    text
}

// === impl Channel ===

impl Channel {
    /// Connects to QEMU, which makes the socket before anything else.
    fn open(path: &Path) -> Self {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    return Self {
                        stream,
                        rest: Vec::new(),
                        count: 0,
                    };
                }
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "QEMU makes no {}: {error}; see its log",
                    path.display()
                ),
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// The next line; none where the time is over or the machine is gone.
    fn line(&mut self, deadline: Instant) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            // A bound of nothing would be none.
            let left = left.max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).ok()?;
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.rest.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}
