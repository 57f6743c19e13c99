//! The processes that are the pods.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::interrupt;
use crate::netns::NetNs;
use crate::nginx;
use crate::tool::not_started;
use crate::topology::{PodKind, PodSpec};

/// How long a pod may take to serve, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server in its namespace. Its address and links stay while it is down.
#[derive(Debug)]
pub struct Pod {
    spec: PodSpec,
    namespace: NetNs,
    program: PathBuf,
    log: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Pod {
    pub(crate) fn new(spec: PodSpec, namespace: NetNs, program: &Path, dir: &Path) -> Self {
        let log = dir.join(format!("{}.log", spec.name));
        Self {
            spec,
            namespace,
            program: program.to_owned(),
            log,
            process: Mutex::new(None),
        }
    }

    /// What it was made from.
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its number, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Child::id)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// Ends it at once, as a crash would: SIGKILL.
    pub fn kill(&self) -> Result<()> {
        let Some(mut child) = self.process().take() else {
            return Ok(());
        };
        child
            .kill()
            .and_then(|()| child.wait())
            .map(drop)
            .map_err(|error| self.error(error))
    }

    /// Asks it to end, as Kubernetes does: SIGTERM. It serves for two more seconds and
    /// finishes what it has begun; [`wait_stopped`](Self::wait_stopped) sees it out.
    pub fn stop(&self) -> Result<()> {
        self.send(Signal::SIGTERM)
    }

    /// Holds it where it is: SIGSTOP. Nothing happens where it does not run.
    pub fn pause(&self) -> Result<()> {
        self.send(Signal::SIGSTOP)
    }

    /// Lets it go on: SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.send(Signal::SIGCONT)
    }

    fn send(&self, which: Signal) -> Result<()> {
        let process = self.process();
        let sent = process.as_ref().map_or(Ok(()), |it| signal(it, which));
        sent.map_err(|errno| self.error(errno))
    }

    /// Waits until it has ended after a [`stop`](Self::stop).
    pub fn wait_stopped(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            if Instant::now() > deadline {
                return Err(self.error("has not ended 10 s after it was asked to"));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Starts it again (nothing happens where it runs); returns when it serves.
    pub fn start(&self) -> Result<()> {
        if !self.is_running() {
            self.launch()?;
        }
        self.wait_ready()
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        let mut process = self.process();
        let running = process
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !running {
            *process = None;
        }
        running
    }

    /// Starts the process without waiting for it to serve.
    pub(crate) fn launch(&self) -> Result<()> {
        let _gate = interrupt::gate();
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| self.error(error))?;
        let mut command = self.server()?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the lab, which ends its pods in order.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| not_started(&command, error))?;
        *self.process() = Some(child);
        Ok(())
    }

    /// Waits until it serves, seen from its own namespace.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.namespace.enter(|| {
            while !self.serves() {
                if !self.is_running() || Instant::now() > deadline {
                    let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                    return Err(self.error(format!("does not serve; its log: {}", log.trim())));
                }
                sleep(Duration::from_millis(10));
            }
            Ok(())
        })?
    }

    /// Whether somebody answers on its port; to be asked from inside its namespace.
    fn serves(&self) -> bool {
        let to = SocketAddr::from((self.spec.address, self.spec.port));
        let short = Duration::from_millis(200);
        match self.spec.kind {
            PodKind::Echo | PodKind::EchoAny | PodKind::Http => {
                TcpStream::connect_timeout(&to, short).is_ok()
            }
            PodKind::Dns => {
                // An empty question: whatever answers, even with an error, is there.
                let header = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let ask = || -> std::io::Result<usize> {
                    let socket = UdpSocket::bind((self.spec.address, 0))?;
                    socket.set_read_timeout(Some(short))?;
                    socket.connect(to)?;
                    socket.send(&header)?;
                    socket.recv(&mut [0; 512])
                };
                ask().is_ok() || TcpStream::connect_timeout(&to, short).is_ok()
            }
        }
    }

    fn server(&self) -> Result<Command> {
        let PodSpec {
            name,
            address,
            port,
            ..
        } = &self.spec;
        Ok(match self.spec.kind {
            PodKind::Echo | PodKind::EchoAny => {
                let address = match self.spec.kind {
                    PodKind::EchoAny => &Ipv4Addr::UNSPECIFIED,
                    _ => address,
                };
                let mut command = self.namespace.command(&self.program);
                command.args([
                    "pod",
                    "--name",
                    name,
                    "--listen",
                    &format!("{address}:{port}"),
                ]);
                command
            }
            PodKind::Http => {
                let config = self.log.with_extension("conf");
                // At every address that is routed to the pod.
                nginx::write(&config, name, &port.to_string(), false)?;
                let mut command = self.namespace.command("nginx");
                command.args(["-e", "stderr", "-c"]).arg(config);
                command
            }
            PodKind::Dns => {
                let mut command = self.namespace.command("dnsmasq");
                command.args([
                    "--no-daemon",
                    "--no-resolv",
                    "--no-hosts",
                    "--bind-interfaces",
                ]);
                command.args(["--conf-file=/dev/null", "--pid-file=", "--user=root"]);
                command.arg(format!("--port={port}"));
                command.arg(format!("--listen-address={address}"));
                command.arg(format!("--txt-record=who.test,{name}"));
                command.arg(format!("--host-record=who.test,{address}"));
                command
            }
        })
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, reason: impl ToString) -> Error {
        Error::Pod {
            pod: self.spec.name.clone(),
            reason: reason.to_string(),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The namespace's clean-up ends what is left in any case.
        let _ = self.kill();
    }
}

/// Sends a signal to a child that has not been waited for, whose number is thus its own.
pub(crate) fn signal(child: &Child, signal: Signal) -> nix::Result<()> {
    i32::try_from(child.id()).map_or(Ok(()), |pid| kill(Pid::from_raw(pid), signal))
}
