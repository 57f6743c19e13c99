//! `naru-lab lab`: a LAN that stays until it is taken down. Needs root.
//!
//! One test, because a name is taken by one lab at a time.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::process::{Command, Output};

use naru_lab::left_of;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn lab(words: &[&str]) -> Output {
    let program = |name: &str, beside: &str| {
        std::env::var_os(name).map_or_else(
            || {
                let running = std::env::current_exe().unwrap();
                running.ancestors().nth(2).unwrap().join(beside)
            },
            PathBuf::from,
        )
    };
    let mut command = Command::new(program("NARU_LAB_BIN", "naru-lab"));
    command.arg("lab").arg("--naru");
    command.arg(program("NARU_BIN", "naru"));
    // The other one is for people, who may have it up.
    command.args(["--lab", "vxlan"]).args(words);
    command.output().unwrap()
}

fn done(words: &[&str]) -> String {
    let output = lab(words);
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words:?}: {said}{errors}");
    said
}

fn refused(words: &[&str]) -> String {
    let output = lab(words);
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn record() -> serde_json::Value {
    let text = std::fs::read_to_string("/run/naru-lab/up-vxlan.json").unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_lab_stays_does_what_it_is_told_and_goes() {
    let up = ["up", "vxlan", "--nodes", "2", "--static-owner"];
    let said = done(&up);
    assert!(said.contains("lab exec client curl"), "{said}");
    assert!(refused(&up).contains("there is a lab vxlan already"));
    let id = record()["id"].as_str().unwrap().to_owned();

    // Each node's own agent answers, whatever directories it has.
    for node in ["nuc01", "nuc02"] {
        let status = done(&["exec", node, "naru", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["node"], node);
    }
    let curl = ["exec", "client", "curl", "-sm", "3", "192.168.56.11"];
    assert!(done(&curl).starts_with("nest-server-"));
    let unknown = refused(&["exec", "nuc09", "true"]);
    assert!(
        unknown.contains("nuc09 is not in lab vxlan: nuc01"),
        "{unknown}"
    );
    // The exit status is the command's.
    assert_eq!(
        lab(&["exec", "nuc01", "sh", "-c", "exit 7"]).status.code(),
        Some(7)
    );

    let row = |node: &str| {
        let status = done(&["status"]);
        let row = status.lines().find(|line| line.trim().starts_with(node));
        row.unwrap().to_owned()
    };
    assert!(row("nuc01").contains("runs, pid"));
    done(&["cut", "nuc02"]);
    assert!(row("nuc02").contains("out"));
    done(&["heal", "nuc02"]);
    assert!(row("nuc02").contains("in"));
    done(&["off", "nuc01"]);
    assert!(row("nuc01").contains("no power"));
    assert!(row("nest-server").contains("nobody"));
    assert!(!lab(&curl).status.success());
    assert!(refused(&["heal", "nuc01"]).contains("no power"));
    done(&["on", "nuc01"]);
    assert!(done(&curl).starts_with("nest-server-"));
    assert!(!done(&["logs", "nuc01"]).is_empty());

    done(&["down"]);
    assert_eq!(left_of(&id).unwrap(), Vec::<PathBuf>::new());
    assert!(refused(&["status"]).contains("no lab is up"));

    // One whose keeper was killed is taken down as well.
    done(&up);
    let id = record()["id"].as_str().unwrap().to_owned();
    let owner = std::fs::read_to_string(format!("/run/naru-lab/{id}.json")).unwrap();
    let owner: serde_json::Value = serde_json::from_str(&owner).unwrap();
    let pid = i32::try_from(owner["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    while !refused(&["status"]).contains("has lost its keeper") {}
    assert!(left_of(&id).unwrap().len() > 5);
    assert!(done(&["down"]).contains("what was left is removed"));
    assert_eq!(left_of(&id).unwrap(), Vec::<PathBuf>::new());
}
