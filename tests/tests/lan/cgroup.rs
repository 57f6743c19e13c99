//! A cgroup of the test's own, whose processes the agent serves at their sockets.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use naru_lab::{NetNs, Topology};

use crate::scene::Scene;

/// A cgroup that is removed with the scene.
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|fields| fields[2] == "cgroup2")
            .map(|fields| PathBuf::from(fields[1]))
            .expect("a cgroup2 file system");
        let path = root.join(format!("naru-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A shell's lines in this cgroup, on a machine of the lab; what they print.
    pub fn shell(&self, machine: &NetNs, lines: &str) -> Result<String, String> {
        let enter = format!("echo $$ > {}/cgroup.procs\n{lines}", self.0.display());
        let mut command: Command = machine.command("sh");
        let output = command.args(["-ec", &enter]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!(
                "{:?} {}",
                output.status.code(),
                text(&output.stderr)
            ))
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The class room, with an agent that serves the cgroup.
pub fn scene(name: &str) -> (Cgroup, Scene) {
    let cgroup = Cgroup::new(name);
    let path = cgroup.path().to_str().unwrap().to_owned();
    let scene = Scene::with(Topology::nuc(), &["--cgroup", &path]);
    (cgroup, scene)
}

pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Ten requests, each on a connection of its own.
pub fn ten(url: &str) -> String {
    format!("for n in 1 2 3 4 5 6 7 8 9 10; do curl -sS --max-time 3 {url}; done")
}
