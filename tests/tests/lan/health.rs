//! Backends that are asked whether they live.

use std::{
    io::ErrorKind,
    net::TcpListener,
    thread::sleep,
    time::{Duration, Instant},
};

use naru_lab::{LoadOptions, Tally, Topology};
use serde_json::Value;

use crate::{
    probe,
    scene::{self, NODE, NODE_ADDRESS, Scene, VIP, rows, text, wait},
};

const CHECK: &str = "http:/ interval=100ms timeout=200ms rise=3 fall=3";
const SERVICE: &str = "default/nest-server:80";

/// The class room with a checked service, all of it well.
fn checked(check: &str) -> Scene {
    let (lab, manifests) = scene::set_up(Topology::nuc());
    let service = scene::services()[0].clone();
    let service = service.annotated("naru.dev/health-check", check);
    manifests.service(&service).unwrap();
    let agent = lab.agent(NODE, scene::options(&manifests)).unwrap();
    let scene = Scene {
        agent,
        manifests,
        lab,
    };
    let pods = scene.pods().len();
    wait("all are healthy", || in_state(&scene, "healthy") == pods);
    scene
}

fn backends(scene: &Scene) -> Vec<Value> {
    let backends = scene.agent.json(&["backends"]).unwrap();
    let checked = rows(&backends)
        .iter()
        .filter(|row| row["service"] == SERVICE);
    checked.cloned().collect()
}

fn in_state(scene: &Scene, state: &str) -> usize {
    let backends = backends(scene);
    let such = backends
        .iter()
        .filter(|row| row["health"]["state"] == state);
    such.count()
}

fn is_in_state(scene: &Scene, pod: &str, state: &str) -> bool {
    let backends = backends(scene);
    let row = backends.iter().find(|row| text(row, "name") == pod);
    row.unwrap()["health"]["state"] == state
}

#[test]
fn who_dies_under_load_costs_requests_until_fall_is_reached_and_comes_back() {
    let scene = checked(CHECK);
    let url = scene::services()[0].url("/");
    for local in [true, false] {
        let victim = scene.first(local).name.clone();
        let load = scene.client().load(&url, LoadOptions::default());
        sleep(Duration::from_millis(300));
        assert_eq!(load.tally().failed, 0, "{:?}", load.tally().failures);

        let died = Instant::now();
        scene.lab.pod(&victim).kill().unwrap();
        wait("it is found to be unhealthy", || {
            is_in_state(&scene, &victim, "unhealthy")
        });
        let took = died.elapsed();
        // Three checks at intervals of 100 ms, and what a busy machine adds.
        assert!(took > Duration::from_millis(150), "{took:?}: too soon");
        assert!(took < Duration::from_secs(3), "{took:?}");
        // Requests that were under way may still fail.
        sleep(Duration::from_millis(300));
        let failed = load.tally().failed;
        let asked = load.tally().ok;
        sleep(Duration::from_secs(1));
        let tally = load.tally();
        assert_eq!(tally.failed, failed, "{:?}", tally.failures);
        assert!(tally.ok > asked + 50, "the load goes on");
        println!("{failed} requests failed in {took:?}");

        // The next agent knows it as well: it does not try it on clients.
        scene.agent.restart().unwrap();
        assert!(is_in_state(&scene, &victim, "unhealthy"));
        let table = scene.agent.cli(&["backends"]).unwrap();
        let row = table.lines().find(|line| {
            line.starts_with(SERVICE) && line.contains(&victim) && line.contains("unhealthy")
        });
        assert!(row.is_some(), "{table}");
        sleep(Duration::from_millis(500));
        assert_eq!(load.tally().failed, failed, "{:?}", load.tally().failures);

        scene.lab.pod(&victim).start().unwrap();
        wait("it is healthy again", || {
            is_in_state(&scene, &victim, "healthy")
        });
        let before = load.tally().by_pod[&victim];
        wait("it is asked again", || {
            load.tally().by_pod[&victim] > before
        });
        let tally = load.stop().unwrap();
        assert_eq!(tally.failed, failed, "{:?}", tally.failures);
        assert!(tally.slowest < Duration::from_secs(1), "{tally:?}");
    }
}

#[test]
fn who_falls_silent_is_left_alone_and_where_all_are_clients_are_refused_at_once() {
    let scene = checked("tcp interval=100ms timeout=100ms rise=1 fall=2");
    let client = scene.lab.node("client");
    let vip = probe::at(VIP, 80);
    let link = |pod: &str, what: &str| {
        let namespace = scene.lab.pod(pod).namespace();
        namespace.run("ip", &["link", "set", "eth0", what]).unwrap();
    };
    let silent = scene.first(false).name.clone();
    let mut open = probe::connect(client, 0, vip).unwrap();
    let pod = probe::who(&mut open).unwrap();
    link(&silent, "down");
    wait("its silence is noticed", || {
        is_in_state(&scene, &silent, "unhealthy")
    });
    let url = scene::services()[0].url("/");
    let tally = Tally::of(&scene.client().many(&url, 50).unwrap());
    assert_eq!((tally.ok, tally.failed), (50, 0), "{:?}", tally.failures);
    assert!(!tally.by_pod.contains_key(&silent));

    // No silence for clients, whatever the pods do.
    for other in scene.pods().iter().filter(|it| it.name != silent) {
        scene.lab.pod(&other.name).kill().unwrap();
    }
    let pods = scene.pods().len();
    wait("nobody is healthy", || {
        in_state(&scene, "unhealthy") == pods
    });
    let (kind, took) = probe::failure(|| probe::connect(client, 0, vip));
    assert_eq!(kind, ErrorKind::ConnectionRefused);
    assert!(took < Duration::from_millis(500), "{took:?}");
    let services = scene.agent.json(&["services"]).unwrap();
    let mut services = rows(&services).iter();
    let row = services.find(|row| row["name"] == SERVICE).unwrap();
    assert_eq!((&row["backends"], &row["slots"]), (&0.into(), &0.into()));
    drop((open, pod));

    // Without the check they are what the source says, and nobody asks any more.
    scene.manifests.service(&scene::services()[0]).unwrap();
    wait("they are not checked", || {
        backends(&scene)
            .iter()
            .all(|row| row["health"].is_null() && row["condition"] == "ready")
    });
}

#[test]
fn the_node_says_at_the_health_check_node_port_whether_it_has_pods() {
    const PORT: u16 = 30_999;
    let scene = Scene::new();
    let node = scene.lab.node(NODE);
    let mine = || TcpListener::bind((NODE_ADDRESS, PORT)).unwrap();
    let taken = node.enter(mine).unwrap();
    let service = || {
        let [service, _] = scene::services();
        let service = service.with("externalTrafficPolicy", "Local");
        service.with("healthCheckNodePort", &PORT.to_string())
    };
    scene.manifests.service(&service()).unwrap();
    let status = || scene.agent.json(&["status"]).unwrap().to_string();
    wait("somebody else has the port", || {
        status().contains("its health check at 192.168.56.101:30999 is not served")
    });
    drop(taken);

    // The code, and how many endpoints there are; none where nobody listens.
    let said = || {
        let url = format!("http://{NODE_ADDRESS}:{PORT}/healthz");
        let args = ["-sS", "--max-time", "5", "-w", "%{http_code}", &url];
        let text = scene.lab.node("client").run("curl", &args).ok()?;
        let (body, code) = text.rsplit_once('\n')?;
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["service"]["name"], "nest-server");
        Some((code.parse::<u16>().unwrap(), body["localEndpoints"].clone()))
    };
    let local = scene.pods().iter().filter(|it| it.node == NODE).count();
    wait("it has some", || said() == Some((200, local.into())));
    assert!(!status().contains("30999"), "{}", status());
    let (elsewhere, here): (Vec<_>, Vec<_>) = scene.pods().iter().partition(|it| it.node != NODE);
    scene.set_endpoints(elsewhere);
    wait("it has none", || said() == Some((503, 0.into())));
    scene.set_endpoints(here.into_iter().take(1));
    wait("it has one", || said() == Some((200, 1.into())));
    scene.manifests.service(&scene::services()[0]).unwrap();
    wait("nobody asks any more", || said().is_none());
}
