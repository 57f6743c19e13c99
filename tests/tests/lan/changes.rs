//! Manifests that change: how soon that is in force, and what of those that are wrong.

use std::{
    net::UdpSocket,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    probe,
    scene::{self, Scene, VIP, wait},
};

/// Who answered last, and when the first answer of that pod came.
type Answering = Arc<Mutex<(String, Instant)>>;

#[test]
fn a_change_of_endpoints_is_in_force_within_50_ms_of_the_write() {
    let scene = Scene::new();
    let service = &scene::services()[1];
    let pods: Vec<_> = scene
        .pods()
        .iter()
        .filter(|pod| pod.node == scene::NODE)
        .cloned()
        .collect();
    scene.set_endpoints([&pods[0]]);

    let answering: Answering = Arc::new(Mutex::new((String::new(), Instant::now())));
    let stop = Arc::new(AtomicBool::new(false));
    let asking = scene.lab.node("client").spawn({
        let (answering, stop) = (Arc::clone(&answering), Arc::clone(&stop));
        move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            socket.connect(probe::at(VIP, 80)).unwrap();
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                // One that is lost is one of many.
                let answer = socket.send(b"who?").and_then(|_| socket.recv(&mut buffer));
                if let Ok(length) = answer {
                    let pod = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let mut now = answering.lock().unwrap();
                    if now.0 != pod {
                        *now = (pod, Instant::now());
                    }
                }
                sleep(Duration::from_millis(1));
            }
        }
    });
    let mut times = Vec::new();
    for round in 1..=20 {
        let pod = &pods[round % 2];
        let written = Instant::now();
        scene.manifests.endpoints(service, [pod]).unwrap();
        wait("the other pod answers", || {
            answering.lock().unwrap().0 == pod.name
        });
        times.push(answering.lock().unwrap().1 - written);
        // Changes that come by themselves, and not as one burst.
        sleep(Duration::from_millis(30));
    }
    stop.store(true, Ordering::Relaxed);
    asking.join().unwrap().unwrap();
    times.sort();
    println!("from the write to the first answer: {times:?}");
    assert!(
        times[times.len() / 2] <= Duration::from_millis(50),
        "{times:?}"
    );
}

#[test]
fn an_invalid_manifest_is_refused_whole_and_told_with_file_line_and_reason() {
    let scene = Scene::new();
    let (client, vip) = (scene.lab.node("client"), probe::at(VIP, 80));
    let status = || scene.agent.json(&["status"]).unwrap();
    assert_eq!(status()["source"]["current"], true);
    let services = scene.agent.json(&["services"]).unwrap()[0]["name"].clone();

    // One good change and one bad one: neither is taken over.
    let [tcp, udp] = scene::services();
    let file = format!("{}.yaml", tcp.name);
    let wrong = tcp.yaml().replace("port: 80\n", "port: 800000\n");
    let wrong = format!("# As in the tutorial.\n---\n{wrong}");
    let line = 3;
    scene.manifests.write(&file, &wrong).unwrap();
    wait("the manifest is refused", || {
        status()["source"]["current"] == false
    });
    scene.manifests.endpoints(&udp, &scene.pods()[..1]).unwrap();
    let problems = status()["source"]["problems"].clone();
    let [problem] = scene::rows(&problems) else {
        panic!("not one problem: {problems}");
    };
    let problem = problem.as_str().unwrap();
    let place = format!("{file}:{line}: ");
    assert!(problem.contains(&place), "{place} is not in {problem}");
    assert!(
        problem.contains("nest-server") && problem.contains("800000"),
        "{problem}"
    );
    let said = scene.agent.cli(&["status"]).unwrap();
    assert!(said.contains("REFUSED") && said.contains(problem), "{said}");
    assert!(scene.agent.log().contains(problem), "{}", scene.agent.log());

    // Where it is not even YAML, the place itself is told.
    let broken = tcp.yaml().replace("  ports:\n", "  ports: [\n");
    scene.manifests.write(&file, &broken).unwrap();
    wait("the other problem is told", || {
        let problems = status()["source"]["problems"].to_string();
        (12..=15).any(|line| problems.contains(&format!("{file}:{line}")))
    });

    assert_eq!(
        scene.agent.json(&["services"]).unwrap()[0]["name"],
        services
    );
    assert_eq!(
        scene
            .agent
            .json(&["backends"])
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        10
    );
    scene::assert_in_turn(&probe::ask_from(client, 20_000..20_010, vip), scene.pods());

    // An agent that is started now keeps what is in force.
    scene.agent.kill().unwrap();
    scene.agent.restart().unwrap();
    assert_eq!(status()["source"]["current"], false);
    scene::assert_in_turn(&probe::ask_from(client, 21_000..21_010, vip), scene.pods());

    scene.manifests.service(&tcp).unwrap();
    wait("the mended manifest is in force", || {
        status()["source"]["current"] == true
    });
    assert_eq!(status()["source"]["problems"], serde_json::json!([]));
    assert_eq!(
        probe::ask_from(client, 22_000..22_003, vip),
        [(); 3].map(|()| scene.pods()[0].name.clone())
    );
}
