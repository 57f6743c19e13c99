//! The lab itself, without an agent. Needs root; run as another user it fails and says so.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use naru_lab::{Client, Lab, LoadOptions, PodKind, Topology, left_of};

/// The processes in a namespace.
fn inside(namespace: &naru_lab::NetNs) -> Vec<String> {
    let listed = Command::new("ip")
        .args(["netns", "pids", namespace.name()])
        .output()
        .unwrap();
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_lan_connects_and_leaves_nothing() {
    let began = Instant::now();
    let lab = Lab::build(Topology::nuc()).unwrap();
    println!("built in {:?}", began.elapsed());
    let id = lab.id().to_owned();
    assert!(!left_of(&id).unwrap().is_empty());

    // The client reaches a node, and knows no way to a pod.
    lab.node("client")
        .run("ping", &["-c1", "-W2", "192.168.56.101"])
        .unwrap();
    let mac = lab
        .client()
        .resolve("192.168.56.102".parse().unwrap())
        .unwrap();
    assert_eq!(mac, lab.node("nuc02").mac("eth0").unwrap());
    let pod = lab
        .pods()
        .iter()
        .find(|pod| pod.spec().node == "nuc02")
        .unwrap();
    let url = format!("http://{}:{}", pod.spec().address, pod.spec().port);
    lab.client()
        .timeout(Duration::from_millis(300))
        .get(&url)
        .unwrap_err();

    // A pod on nuc02 is reached from nuc01, and from a pod there, which it sees.
    let node = Client::new(lab.node("nuc01").clone());
    assert_eq!(node.get(&url).unwrap().body, pod.name());
    let other = lab
        .pods()
        .iter()
        .find(|pod| pod.spec().node == "nuc01")
        .unwrap();
    let seen = Client::new(other.namespace().clone())
        .get(&format!("{url}/ip"))
        .unwrap();
    assert!(
        seen.body.starts_with(&other.spec().address.to_string()),
        "{}",
        seen.body
    );
    let udp = SocketAddr::from((pod.spec().address, pod.spec().port));
    assert_eq!(node.udp(udp, b"who?").unwrap(), pod.name());

    // A megabyte there and back: checksums and segments survive the wire.
    let file = lab.dir().join("megabyte");
    std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
    let data = format!("@{}", file.display());
    let echo = format!("{url}/echo");
    let args = [
        "-sS",
        "--noproxy",
        "*",
        "-m",
        "5",
        "--data-binary",
        &data,
        &echo,
    ];
    assert_eq!(lab.node("nuc01").run("curl", &args).unwrap().len(), 1 << 20);

    let servers: Vec<String> = lab
        .pods()
        .iter()
        .flat_map(|pod| inside(pod.namespace()))
        .collect();
    assert_eq!(servers.len(), 5);
    // Also what a test started and forgot.
    let mut forgotten = lab
        .node("nuc03")
        .command("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    while inside(lab.node("nuc03")).is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    lab.teardown().unwrap();
    assert_eq!(left_of(&id).unwrap(), Vec::<PathBuf>::new());
    assert!(
        servers
            .iter()
            .all(|pid| !Path::new("/proc").join(pid).exists()),
        "{servers:?}"
    );
    assert!(!forgotten.wait().unwrap().success());
}

#[test]
fn pods_end_and_come_back() {
    let lab = Lab::build(Topology::nuc()).unwrap();
    let client = Client::new(lab.node("nuc03").clone());
    let (first, second) = (&lab.pods()[0], &lab.pods()[1]);
    let url = |pod: &naru_lab::Pod| format!("http://{}:3000", pod.spec().address);

    let stream = client
        .long_lived(&format!("{}/stream", url(first)))
        .unwrap();
    let load = client.load(
        &url(second),
        LoadOptions {
            keep_alive: true,
            ..LoadOptions::default()
        },
    );
    std::thread::sleep(Duration::from_millis(400));
    assert!(stream.is_alive() && stream.lines() > 2 && stream.pod() == first.name());

    first.kill().unwrap();
    client.get(&url(first)).unwrap_err();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!stream.is_alive(), "{stream:?}");
    let tally = load.stop().unwrap();
    assert!(tally.failed == 0 && tally.ok > 50, "{tally:?}");
    assert_eq!(tally.by_pod[second.name()], tally.ok);
    first.start().unwrap();
    assert_eq!(client.get(&url(first)).unwrap().pod, first.name());

    // Asked to end, it goes on for two seconds and finishes what it has begun.
    let began = Instant::now();
    second.stop().unwrap();
    let slow = client
        .get(&format!("{}/slow?ms=1500", url(second)))
        .unwrap();
    assert_eq!(slow.pod, second.name());
    assert!(second.is_running());
    second.wait_stopped().unwrap();
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn dns_pods_answer_behind_a_cni() {
    let mut topology = Topology::nuc_without_pods().with_cni_masquerade();
    topology.add_pods("dns", PodKind::Dns, 5353, 2);
    let lab = Lab::build(topology).unwrap();
    let pod = &lab.pods()[1];
    let to = SocketAddr::from((pod.spec().address, 5353));
    let answer = Client::new(lab.node("nuc01").clone())
        .udp(to, &txt_question())
        .unwrap();
    assert!(answer.contains(pod.name()), "{answer:?}");
    // The rules are there, and conntrack looks at what is forwarded.
    let rules = lab.node("nuc01").run("nft", &["list", "ruleset"]).unwrap();
    assert!(
        rules.contains("masquerade") && rules.contains("ct state invalid drop"),
        "{rules}"
    );
}

/// `who.test TXT?`
fn txt_question() -> Vec<u8> {
    let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [&header[..], b"\x03who\x04test\x00", &[0, 16, 0, 1]].concat()
}

#[test]
fn what_a_killed_lab_left_is_swept() {
    let mut owner = demo("killed");
    let id = wait_for_lab_of(owner.id());
    wait_for_agent(&id);
    owner.kill().unwrap();
    owner.wait().unwrap();
    // A killed process cannot clean up: that is for the next one.
    assert!(left_of(&id).unwrap().len() > 10);
    // What it was just starting may hold its lock for a moment longer.
    let deadline = Instant::now() + Duration::from_secs(2);
    while !left_of(&id).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", left_of(&id));
        naru_lab::sweep().unwrap();
    }
    assert_eq!(orphans("naru-lab\0pod\0--name\0"), Vec::<PathBuf>::new());
}

#[test]
fn an_interrupted_lab_cleans_up() {
    // While it is being made, at several points, and while it runs.
    for after in [0, 50, 150, 1000] {
        let mut owner = demo("interrupted");
        let id = wait_for_lab_of(owner.id());
        std::thread::sleep(Duration::from_millis(after));
        Command::new("kill")
            .args(["-INT", &owner.id().to_string()])
            .status()
            .unwrap();
        assert_eq!(
            owner.wait().unwrap().code(),
            Some(naru_lab::interrupt::EXIT_CODE)
        );
        assert_eq!(
            left_of(&id).unwrap(),
            Vec::<PathBuf>::new(),
            "after {after} ms"
        );
    }
}

fn wait_for_agent(id: &str) {
    let log = PathBuf::from(format!("/run/naru-lab/{id}/nuc01.agent.log"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !log.exists() {
        assert!(Instant::now() < deadline, "no agent in lab {id}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A lab in another process: the demo, with an agent that never gets ready.
fn demo(test: &str) -> Child {
    let naru = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("naru-{test}"));
    let script = "#!/bin/sh\ncase $1 in agent) exec sleep 60 ;; status) exit 1 ;; esac\n";
    std::fs::write(&naru, script).unwrap();
    std::fs::set_permissions(&naru, Permissions::from_mode(0o755)).unwrap();
    let mut demo =
        Command::new(std::env::var_os("NARU_LAB_BIN").expect("NARU_LAB_BIN names naru-lab"));
    demo.args(["demo", "--once", "--naru"]).arg(naru);
    demo.stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait_for_lab_of(pid: u32) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let records = Path::new("/run/naru-lab").read_dir().into_iter().flatten();
        for record in records.filter_map(|entry| Some(entry.ok()?.path())) {
            let text = std::fs::read_to_string(&record).unwrap_or_default();
            if text.contains(&format!("\"pid\":{pid}}}"))
                && record.extension().is_some_and(|e| e == "json")
            {
                return record.file_stem().unwrap().to_string_lossy().into_owned();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no lab of {pid}");
}

/// Pods that live although their namespace has no name any more.
fn orphans(program: &str) -> Vec<PathBuf> {
    let inode = |path: PathBuf| std::fs::metadata(path).ok().map(|file| file.ino());
    let processes = Path::new("/proc")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let pods: Vec<PathBuf> = processes
        .filter(|path| {
            let line = std::fs::read_to_string(path.join("cmdline"));
            line.is_ok_and(|line| line.contains(program))
        })
        .collect();
    let named = Path::new("/run/netns").read_dir().unwrap();
    let named: Vec<_> = named.map(|entry| inode(entry.unwrap().path())).collect();
    let nameless =
        |path: &PathBuf| inode(path.join("ns/net")).is_some_and(|i| !named.contains(&Some(i)));
    pods.into_iter().filter(nameless).collect()
}
