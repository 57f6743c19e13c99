//! Network namespaces for tests that need root. Whatever fails here panics: there is
//! no test without it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

pub mod wire;

use std::{
    fs::File,
    future::Future,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// The agent's program: what `NARU_BIN` names, or else the one beside the test program.
pub fn naru() -> PathBuf {
    std::env::var_os("NARU_BIN").map_or_else(
        || {
            let running = std::env::current_exe().unwrap();
            running.ancestors().nth(2).unwrap().join("naru")
        },
        PathBuf::from,
    )
}

/// The class room's pool as it was written for MetalLB up to 0.12.
pub const CONFIG_MAP: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  namespace: metallb-system
  name: config
data:
  config: |
    address-pools:
    - name: nginx-ip-range
      protocol: layer2
      addresses:
      - 192.168.56.11-192.168.56.13
";

/// A network namespace that is removed when this is dropped, with all in it.
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one with a name that nothing else has. Its loopback device is up.
    pub fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("naru-test-{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip` with these arguments, parted by spaces, in this namespace.
    pub fn ip(&self, arguments: &str) {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        run("ip", &[&["-n", &self.name], &arguments[..]].concat());
    }

    /// Runs a command in this namespace, and hands back how it ended.
    pub async fn exec(&self, command: &str) -> Output {
        tokio::process::Command::new("ip")
            .args(["netns", "exec", &self.name])
            .args(command.split_whitespace())
            .output()
            .await
            .expect("cannot run ip; install iproute2")
    }

    /// Runs a future on a thread of its own in this namespace, so that all sockets
    /// it makes are there.
    pub fn block_on<F, T>(&self, make: impl FnOnce() -> F + Send) -> T
    where
        F: Future<Output = T>,
        T: Send,
    {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("no tokio runtime")
                    .block_on(make())
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread there, for good.
    pub fn enter(&self) {
        let path = format!("/run/netns/{}", self.name);
        let namespace = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns needs root");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
    }
}

/// Connects two namespaces by a virtual cable.
pub fn cable(left: &Netns, left_end: &str, right: &Netns, right_end: &str) {
    left.ip(&format!(
        "link add {left_end} type veth peer name {right_end} netns {}",
        right.name
    ));
    left.ip(&format!("link set {left_end} up"));
    right.ip(&format!("link set {right_end} up"));
}

/// `ip` with these arguments, parted by spaces, in the namespace that the thread is in.
pub fn ip(arguments: &str) {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    run("ip", &arguments);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
