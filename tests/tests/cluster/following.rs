//! What the API server says is served, and what it said last while it is away.

use std::{thread::sleep, time::Duration};

use naru_lab::{Kube, ServiceSpec};
use serde_json::Value;

use crate::scene::{POOL, answering, class_room, expose, load, none_failed, wait, wait_answering};

const NODES: [&str; 3] = ["nuc01", "nuc02", "nuc03"];

/// What the nodes' agents have to say of their source, by `naru status`.
fn notes(kube: &Kube) -> Vec<String> {
    let status = NODES.map(|it| kube.agent(it).unwrap().json(&["status"]).unwrap());
    let notes = status
        .iter()
        .filter_map(|it| it["source"]["notes"].as_array());
    let texts = notes.flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn nest_server(kube: &Kube) -> String {
    let create = "--image=nest-server --replicas=5 --port=3000";
    let ip = expose(kube, "nest-server", create, "--port=80 --target-port=3000");
    let url = format!("http://{ip}/");
    wait_answering(kube, &url, 5);
    url
}

#[test]
fn what_it_said_last_is_in_force_while_it_is_away() {
    let kube = class_room();
    let url = nest_server(&kube);
    let requests = load(&kube, &url);
    kube.plane().stop_server();
    wait("the agents tell that it is away", || {
        let away = |note: &str| note.contains("cannot be followed");
        notes(&kube).iter().filter(|it| away(it)).count() >= NODES.len()
    });
    sleep(Duration::from_secs(120));
    assert_eq!(answering(&kube, &url, 20).len(), 5);
    kube.plane().start_server().unwrap();
    kube.kubectl("scale deployment nest-server --replicas=3")
        .unwrap();
    // Each agent has a pause of its own before it asks again.
    wait("nothing is to be told any more", || notes(&kube).is_empty());
    wait_answering(&kube, &url, 3);

    none_failed("API server away", requests);

    // Agents that are started while it is away go on with what earlier ones left. By round robin
    // a connection outlives two moves of its address; this is three of them.
    kube.plane().stop_server();
    for node in NODES {
        kube.agent(node).unwrap().restart().unwrap();
    }
    assert_eq!(answering(&kube, &url, 20).len(), 3);
    let requests = load(&kube, &url);
    kube.plane().start_server().unwrap();
    kube.kubectl("scale deployment nest-server --replicas=4")
        .unwrap();
    wait_answering(&kube, &url, 4);
    none_failed("API server away", requests);
}

/// Packets between one node and the API server are dropped, which no socket tells of; then some are,
/// and some are not.
#[test]
fn an_api_server_that_does_not_answer_or_flaps_is_asked_again() {
    let kube = class_room();
    let cut_off = "nuc03";
    kube.kubectl(&format!("cordon {cut_off}")).unwrap();
    let url = nest_server(&kube);
    let requests = load(&kube, &url);
    let server = kube.lab().node("nuc01");
    let nft = |rules: &str| server.feed("nft", &["-f", "-"], rules).unwrap();
    let block = || {
        nft("table inet lab {
               chain input {
                 type filter hook input priority 0;
                 ip saddr 192.168.56.103 tcp dport 6443 drop
               }
             }")
    };
    let unblock = || nft("delete table inet lab");
    let backends = || {
        let shown = kube.agent(cut_off).unwrap().json(&["backends"]).unwrap();
        shown.as_array().map_or(0, |all| {
            let of = all
                .iter()
                .filter(|it| it["service"] == "default/nest-server:80");
            of.count()
        })
    };
    block();
    wait("the agent tells that it hears nothing", || {
        let status = kube.agent(cut_off).unwrap().json(&["status"]).unwrap();
        status["source"]["notes"]
            .to_string()
            .contains("cannot be followed")
    });
    kube.kubectl("scale deployment nest-server --replicas=8")
        .unwrap();
    kube.kubectl("rollout status deployment nest-server --timeout=100s")
        .unwrap();
    assert_eq!(backends(), 5, "what was said last is in force");
    unblock();
    wait("it hears of all", || backends() == 8);
    for _ in 0..5 {
        block();
        sleep(Duration::from_secs(2));
        unblock();
        sleep(Duration::from_secs(1));
    }
    kube.kubectl("scale deployment nest-server --replicas=5")
        .unwrap();
    wait("it hears of fewer", || backends() == 5);
    wait_answering(&kube, &url, 5);
    none_failed("API server flaps", requests);
}

#[test]
fn a_mistake_in_one_service_is_told_and_disturbs_neither_it_nor_others() {
    let kube = class_room();
    let url = nest_server(&kube);
    let requests = load(&kube, &url);
    let annotate = |value: &str| {
        let line = format!("annotate --overwrite service nest-server naru.dev/algorithm={value}");
        kube.kubectl(&line).unwrap();
    };
    annotate("sideways");
    let named = || {
        let notes = notes(&kube);
        let of =
            |it: &String| it.contains("Service default/nest-server") && it.contains("sideways");
        notes.iter().any(of)
    };
    wait("the mistake is told", named);
    let told_of = |object: &str| {
        let of = format!("--field-selector reason=Invalid,involvedObject.name={object}");
        let line = format!("get events -A {of} -o jsonpath={{.items[*].message}}");
        kube.kubectl(&line).unwrap()
    };
    wait("it is told of the Service, too", || {
        told_of("nest-server").contains("sideways")
    });
    assert_eq!(answering(&kube, &url, 20).len(), 5, "as before");

    let other = ServiceSpec::new("other", [192, 168, 56, 12].into(), 80, 3000);
    let other = ServiceSpec {
        name: "nest-server-2".to_owned(),
        ..other
    };
    kube.apply(
        &other
            .yaml()
            .replace("app: nest-server-2", "app: nest-server"),
    )
    .unwrap();
    wait("another Service is served", || {
        kube.lab().client().get(&other.url("/")).is_ok()
    });

    annotate("maglev");
    wait("it is mended", || !named());

    let stale = |is: bool| {
        let status = |node: &&str| kube.agent(node).unwrap().json(&["status"]).unwrap();
        NODES
            .iter()
            .map(status)
            .all(|it| it["source"]["stale"] == is)
    };
    assert!(stale(false), "a Service is its author's");
    kube.apply(&POOL.replace("192.168.56.11-192.168.56.13", "192.168.56.13-192.168.56.11"))
        .unwrap();
    wait(
        "a pool with a mistake makes the configuration stale",
        || stale(true),
    );
    wait("it is told of the pool", || {
        told_of("nginx-ip-range").contains("192.168.56.13")
    });
    // By Maglev, which has no turns.
    assert_eq!(answering(&kube, &url, 100).len(), 5, "as before");
    kube.apply(POOL).unwrap();
    wait("it is mended, too", || stale(false));
    none_failed("a mistake", requests);
}
