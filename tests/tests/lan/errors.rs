//! What people are told when it cannot work: which object, and what to do about it.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Instant,
};

use naru_lab::{Lab, Manifests, ServiceSpec, Topology, UPLINK};

use crate::scene::{self, NODE, PATIENCE, Scene, VIP, naru_on};

/// Runs a command that must end by itself; gives exit code and stderr.
fn ends(command: &mut Command) -> (i32, String) {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            let said = child.wait_with_output().unwrap().stderr;
            panic!("it runs: {}", String::from_utf8_lossy(&said));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    println!("{said}");
    (output.status.code().unwrap(), said)
}

/// An agent by flags on these interfaces.
fn agent<'a>(interfaces: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "agent",
        "--vip",
        "192.168.56.11:80",
        "--backend",
        "10.244.1.2:3000",
    ];
    for name in interfaces {
        args.extend(["--interface", name]);
    }
    args.extend(more);
    args
}

fn fails(lab: &Lab, args: &[&str], words: &[&str]) {
    let (code, said) = ends(&mut naru_on(lab, NODE, args));
    assert_eq!(code, 1, "{said}");
    assert_says(&said, words);
}

fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn without_privileges_the_missing_ones_and_sudo_are_named() {
    let lab = Lab::build(scene::class_room(1)).unwrap();
    // Where another user can run it, whatever the permissions of the target directory.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("naru");
    std::fs::copy(scene::naru(), &program).unwrap();
    for path in [dir.path(), &program] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = lab.node(NODE).command("setpriv");
    command
        .args(["--reuid=65534", "--clear-groups", "--"])
        .arg(&program);
    let (code, said) = ends(
        command
            .args(agent(&[UPLINK], &[]))
            .arg("--state-dir")
            .arg(dir.path()),
    );
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["cap_bpf", "cap_net_admin", "sudo naru agent"]);
}

#[test]
fn an_interface_that_does_not_exist_or_is_taken_or_cannot_is_named_with_the_remedy() {
    let lab = Lab::build(scene::class_room(1)).unwrap();
    fails(&lab, &agent(&["eth7"], &[]), &["eth7", "--interface"]);
    // cni0 is a bridge, whose driver has no XDP.
    let native = ["--attach", "native"];
    fails(
        &lab,
        &agent(&["cni0"], &native),
        &["cni0", "driver", "--attach generic"],
    );

    let node = lab.node(NODE);
    lab.attach_pass(NODE, UPLINK).unwrap();
    let words = [
        "eth0",
        "another XDP program",
        "ip link set dev eth0 xdp off",
    ];
    fails(&lab, &agent(&[UPLINK], &[]), &words);
    fails(&lab, &agent(&[UPLINK], &["--attach", "generic"]), &words);

    // The remedy is one, and nothing of the failures is in the way.
    node.run("ip", &["link", "set", "dev", UPLINK, "xdp", "off"])
        .unwrap();
    let manifests = Manifests::create(lab.dir().join("manifests")).unwrap();
    let options = scene::options(&manifests)
        .interface(UPLINK)
        .interface("cni0");
    let agent = lab.agent(NODE, options).unwrap();
    let status = agent.json(&["status"]).unwrap();
    let kinds: Vec<_> = scene::rows(&status["attachments"])
        .iter()
        .map(|it| {
            (
                scene::text(it, "interface"),
                it["native"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [("cni0", false), ("eth0", false)],
        "auto takes what is sure to work"
    );
}

#[test]
fn two_services_on_one_frontend_are_both_named_and_neither_is_served() {
    let (lab, manifests) = scene::set_up(Topology::nuc());
    let rival = ServiceSpec::new("rival", VIP, 80, 3000);
    manifests.service(&rival).unwrap();
    let dir = manifests.dir().to_str().unwrap().to_owned();
    let words = ["nest-server", "rival", "192.168.56.11:80"];
    fails(
        &lab,
        &["agent", "--manifests", &dir, "--interface", UPLINK],
        &words,
    );
    let check = naru_on(&lab, NODE, &["check", &dir]).output().unwrap();
    assert_eq!(check.status.code(), Some(1));
    assert_says(&String::from_utf8(check.stdout).unwrap(), &words);

    manifests.remove("rival.yaml").unwrap();
    let check = naru_on(&lab, NODE, &["check", &dir, "-o", "json"])
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(0));
    serde_json::from_slice::<serde_json::Value>(&check.stdout).unwrap();
}

#[test]
fn a_second_agent_is_refused_and_a_question_without_agent_ends_with_3() {
    let scene = Scene::new();
    let pid = scene.agent.pid().unwrap().to_string();
    let mut second = scene.agent.command(&agent(&[UPLINK], &[]));
    let (code, said) = ends(&mut second);
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["another naru agent", &pid, "--state-dir"]);
    let (code, said) = ends(&mut scene.agent.command(&["detach"]));
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &["another naru agent", &pid, "stop it"]);
    scene.agent.json(&["status"]).unwrap();

    scene.agent.kill().unwrap();
    for question in ["status", "services", "backends", "flows"] {
        let (code, said) = ends(&mut scene.agent.command(&[question]));
        assert_eq!(code, 3, "{said}");
        assert_says(&said, &["no naru agent", "naru agent"]);
    }
    let (code, _) = ends(&mut scene.agent.command(&["no-such-command"]));
    assert_eq!(code, 2);
}
