//! `naru top` on a terminal: what it leaves behind, however it ends.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::scene::{Scene, naru, wait};

/// The way back from the screen that full-screen programs have to themselves.
const LEFT: &str = "\u{1b}[?1049l";

/// `naru top` on a terminal that `script` has made, and what that has shown so far.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    top: Pid,
    shown: PathBuf,
}

impl Terminal {
    fn new(scene: &Scene) -> Self {
        let shown = scene.lab.dir().join("terminal");
        fs::write(&shown, "").unwrap();
        // Without a size nothing is drawn.
        let command = format!(
            "stty rows 24 cols 80; exec {} top --state-dir {}",
            naru().display(),
            scene.agent.state_dir().display()
        );
        let mut script = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &command])
            .arg(&shown)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let keys = script.stdin.take().unwrap();
        wait("services are on the screen", || {
            fs::read_to_string(&shown).is_ok_and(|it| it.contains("default/nest-server:80"))
        });
        let id = script.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let top = Pid::from_raw(children.trim().parse().unwrap());
        Self {
            script,
            keys,
            top,
            shown,
        }
    }

    /// What it has shown once it has ended by itself, without a complaint.
    fn ended(mut self) -> String {
        assert!(self.script.wait().unwrap().success());
        fs::read_to_string(&self.shown).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Those that a failed test leaves.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn top_gives_the_terminal_back_and_does_not_outlive_it() {
    let scene = Scene::new();
    let mut terminal = Terminal::new(&scene);
    terminal.keys.write_all(b"q").unwrap();
    assert!(terminal.ended().contains(LEFT), "after q");

    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let terminal = Terminal::new(&scene);
        kill(terminal.top, signal).unwrap();
        assert!(terminal.ended().contains(LEFT), "after {signal}");
    }

    let mut terminal = Terminal::new(&scene);
    terminal.script.kill().unwrap();
    terminal.script.wait().unwrap();
    let top = terminal.top;
    wait("it is gone, as its terminal is", || {
        let state = fs::read_to_string(format!("/proc/{top}/stat"));
        state.map_or(true, |it| it.contains(") Z "))
    });
}
