//! What the command line tells, and that asking changes nothing.

use std::{fs, time::Duration};

use naru_lab::{LoadOptions, UPLINK};
use serde_json::json;

use crate::{
    probe,
    scene::{CLIENT_ADDRESS, NODE, NODE_ADDRESS, Scene, VIP, assert_in_turn, text, wait},
};

#[test]
fn explain_foretells_each_request_and_changes_nothing() {
    let scene = Scene::new();
    let client = scene.lab.node("client");
    let vip = probe::at(VIP, 80);
    let frontend = format!("{VIP}:80/udp");
    let counters = || {
        let traffic = scene.agent.json(&["services"]).unwrap();
        let flows = scene.agent.json(&["flows"]).unwrap();
        (traffic, scene.agent.json(&["backends"]).unwrap(), flows)
    };
    let before = counters();
    let asker = format!("{CLIENT_ADDRESS}:20000");
    let first = scene.explain(&asker, &frontend);
    for _ in 0..10 {
        assert_eq!(scene.explain(&asker, &frontend), first);
        scene.explain(&asker, &format!("{VIP}:80"));
    }
    assert_eq!(counters(), before);
    let verdicts = scene.agent.json(&["status"]).unwrap()["verdicts"].clone();
    let counted = |it: &serde_json::Value| text(it, "verdict").starts_with("forward");
    assert!(
        !crate::scene::rows(&verdicts).iter().any(counted),
        "{verdicts}"
    );

    // Each request goes where was said of it, rewritten as was said.
    let mut answers = Vec::new();
    for port in 20_000..20_010 {
        let asker = format!("{CLIENT_ADDRESS}:{port}");
        let told = scene.explain(&asker, &frontend);
        let pod = probe::ask(client, port, vip).unwrap();
        let spec = scene.pod(&pod);
        let address = format!("{}:3000", spec.address);
        assert_eq!(told["backend"], json!(address), "{told}");
        assert_eq!(told["destination"], json!(address), "{told}");
        assert_eq!(
            (&told["service"], &told["from_flow"]),
            (&json!("default/nest-datagrams:80"), &json!(false))
        );
        assert_eq!(told["slot"], json!(u64::from(port - 20_000) % 5), "{told}");
        if spec.node == NODE {
            assert_eq!(
                (text(&told, "verdict"), text(&told, "mode")),
                ("forward_local", "local")
            );
            assert_eq!(told["source"], json!(asker));
        } else {
            // A neighbour that is not known yet has the next hook send it.
            let verdict = text(&told, "verdict");
            assert!(["forward_nat", "left_to_tc"].contains(&verdict), "{told}");
            assert_eq!(text(&told, "mode"), "nat");
            if verdict == "forward_nat" {
                let source = format!("{NODE_ADDRESS}:");
                assert!(text(&told, "source").starts_with(&source), "{told}");
                assert_eq!(told["egress"], json!(UPLINK));
            }
        }
        let again = scene.explain(&asker, &frontend);
        assert_eq!(
            (&again["backend"], &again["from_flow"], &again["slot"]),
            (&json!(address), &json!(true), &json!(null))
        );
        answers.push(pod);
    }
    assert_in_turn(&answers, scene.pods());

    assert_eq!(
        scene.explain(&asker, "192.168.56.11:81")["verdict"],
        json!("vip_port")
    );
    assert_eq!(
        scene.explain(&asker, "192.168.56.99:80")["verdict"],
        json!("not_ours")
    );
    scene.agent.cli(&["explain", &asker, &frontend]).unwrap();
}

#[test]
fn flows_are_listed_with_their_states_and_counted_for_service_and_backend() {
    let scene = Scene::new();
    let client = scene.lab.node("client");
    let mut streams: Vec<_> = (30_000..30_005)
        .map(|port| probe::connect(client, port, probe::at(VIP, 80)).unwrap())
        .collect();
    let pods: Vec<_> = streams.iter_mut().map(probe::seen_as).collect();
    let flow = |port: u16| {
        let listed = scene.agent.json(&["flows"]).unwrap();
        let asker = json!(format!("{CLIENT_ADDRESS}:{port}"));
        let mut flows = crate::scene::rows(&listed["flows"]).iter();
        flows.find(|flow| flow["client"] == asker).unwrap().clone()
    };
    for (port, (pod, seen)) in (30_000..).zip(&pods) {
        let (flow, spec) = (flow(port), scene.pod(pod));
        assert_eq!(flow["state"], "established", "{flow}");
        assert_eq!(flow["backend"], json!(format!("{}:3000", spec.address)));
        let snat = if spec.node == NODE {
            json!(null)
        } else {
            json!(seen.to_string())
        };
        assert_eq!(flow["snat"], snat, "what the pod sees: {flow}");
    }
    let services = scene.agent.json(&["services"]).unwrap();
    let tcp = crate::scene::rows(&services)
        .iter()
        .find(|it| it["name"] == "default/nest-server:80")
        .unwrap();
    assert_eq!(
        (&tcp["flows"], &tcp["backends"], &tcp["slots"]),
        (&json!(5), &json!(5), &json!(5))
    );
    let backends = scene.agent.json(&["backends"]).unwrap();
    for backend in crate::scene::rows(&backends)
        .iter()
        .filter(|it| it["service"] == tcp["name"])
    {
        assert_eq!(
            (&backend["flows"], &backend["condition"]),
            (&json!(1), &json!("ready")),
            "{backend}"
        );
        assert!(backend["packets_in"].as_u64().unwrap() >= 3, "{backend}");
        assert!(backend["bytes_out"].as_u64().unwrap() > 100, "{backend}");
    }

    drop(streams.remove(0));
    wait("a connection that was closed is listed so", || {
        flow(30_000)["state"] == "closed"
    });
    let question = format!("{CLIENT_ADDRESS}:30001");
    let frontend = format!("{VIP}:80");
    for (args, word) in [
        (&["status"][..], "eth0"),
        (&["services"], "default/nest-server:80"),
        (&["backends"], "ready"),
        (&["flows"], "established"),
        (&["explain", &question, &frontend], "by the flow's record"),
    ] {
        scene.agent.json(args).unwrap();
        let table = scene.agent.cli(args).unwrap();
        assert!(
            table.contains(word),
            "no {word} in `naru {}`:\n{table}",
            args.join(" ")
        );
    }
}

#[test]
fn top_shows_rates_of_what_goes_on_and_needs_a_terminal_or_once() {
    let scene = Scene::new();
    let top = |view: &str| {
        let args = ["top", "--once", "--interval", "2", "--view", view];
        scene.agent.cli(&args).unwrap()
    };
    // The row that begins so, by the heads of its columns.
    let rate = |table: &str, name: &str, column: &str| {
        let words =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        let heads = table.lines().map(words);
        let mut heads = heads.skip_while(|it| !it.iter().any(|head| head == column));
        let place = heads
            .next()
            .and_then(|it| it.iter().position(|head| head == column));
        let row = heads.find(|it| it.first().is_some_and(|first| first == name));
        let row = row.unwrap_or_else(|| panic!("no {name} in\n{table}"));
        row[place.unwrap()].clone()
    };
    let idle = top("services");
    assert_eq!(
        rate(&idle, "default/nest-server:80", "FLOWS/S"),
        "0",
        "{idle}"
    );

    let url = crate::scene::services()[0].url("/");
    let pause = Duration::from_millis(10);
    let options = LoadOptions {
        pause,
        ..LoadOptions::default()
    };
    let load = scene.client().load(&url, options);
    let services = top("services");
    for column in ["FLOWS/S", "PPS-IN", "PPS-OUT", "BPS-IN", "BPS-OUT"] {
        let rate = rate(&services, "default/nest-server:80", column);
        assert!(
            !["0", "-"].contains(&rate.as_str()),
            "{column}:\n{services}"
        );
    }
    assert_eq!(rate(&services, "default/nest-server:80", "READY"), "5/5");
    assert_eq!(rate(&services, "default/nest-server:80", "OWNER"), NODE);
    assert_eq!(rate(&services, "default/nest-datagrams:80", "FLOWS/S"), "0");
    let backends = top("backends");
    for pod in scene.pods() {
        let row = backends
            .lines()
            .find(|line| line.starts_with("default/nest-server:80") && line.contains(&pod.name));
        // In turn, so that each gets a fifth.
        let row = row.unwrap_or_else(|| panic!("no {} in\n{backends}", pod.name));
        assert!(row.contains(" ready ") && row.contains(" 20% "), "{row}");
    }
    let owners = top("owners");
    assert_eq!(rate(&owners, &VIP.to_string(), "OWNER"), NODE);
    let verdicts = top("verdicts");
    assert_ne!(rate(&verdicts, "forward_local", "PPS"), "0", "{verdicts}");
    assert_eq!(load.stop().unwrap().failed, 0);

    let output = scene.agent.command(&["top"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("naru top --once"), "{told}");
    scene.agent.kill().unwrap();
    for command in [&["top", "--once"][..], &["status"]] {
        let output = scene.agent.command(command).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
    }
}

#[test]
fn detach_leaves_nothing_attached_or_pinned() {
    let scene = Scene::new();
    let node = scene.lab.node(NODE);
    let links = || {
        let shown = node
            .run("ip", &["-details", "link", "show", UPLINK])
            .unwrap();
        let tc = node
            .run("bpftool", &["net", "show", "dev", UPLINK])
            .unwrap_or_default();
        (shown.contains("xdp"), tc)
    };
    assert!(links().0);
    let pins = scene.agent.pin_dir().to_owned();
    assert!(pins.exists());
    scene.agent.detach().unwrap();
    let (xdp, tc) = links();
    assert!(!xdp && !tc.contains("naru"), "{tc}");
    assert!(!pins.exists());
    // Once more does no harm, and an agent can start afresh.
    assert!(scene.agent.cli(&["detach"]).unwrap().contains("nothing"));
    scene.agent.restart().unwrap();
    let client = scene.lab.node("client");
    assert_in_turn(
        &probe::ask_from(client, 20_000..20_010, probe::at(VIP, 80)),
        scene.pods(),
    );
}

#[test]
fn packets_are_logged_where_that_is_asked_for_and_only_there() {
    let mut scene = Scene::new();
    let client = scene.lab.node("client");
    let vip = probe::at(VIP, 80);
    probe::ask(client, 20_000, vip).unwrap();
    let quiet = scene.agent.log();
    assert!(!quiet.contains(" -> "), "{quiet}");

    let options = crate::scene::options(&scene.manifests).arg("--log-packets");
    scene.agent.restart_with(options).unwrap();
    for port in 20_001..20_006 {
        let from = fs::metadata(scene.agent.state_dir().with_extension("agent.log"))
            .unwrap()
            .len() as usize;
        let pod = probe::ask(client, port, vip).unwrap();
        let request = format!("{CLIENT_ADDRESS}:{port} -> {VIP}:80");
        let reply = format!("{}:3000 ->", scene.pod(&pod).address);
        wait("the request and its reply are logged", || {
            let log = scene.agent.log();
            log[from..].contains(&request) && log[from..].contains(&reply)
        });
    }
}
