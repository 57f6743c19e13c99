//! Addresses out of pools: the walkthroughs with MetalLB's ConfigMap and with its custom
//! resources, from the manifest to the answer of a pod.

use std::{fs, net::Ipv4Addr, process::Stdio};

use naru_lab::{Lab, Manifests, PodKind, ServiceSpec, Tally, Topology};
use naru_tests::CONFIG_MAP;
use serde_json::Value;

use crate::scene::{self, Scene, naru_on, rows, text, wait};

/// The pool of [`CONFIG_MAP`] in the newer form, with one for who asks for it.
const RESOURCES: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: nginx-ip-range, namespace: metallb-system}
spec: {addresses: [192.168.56.11-192.168.56.13]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: chosen, namespace: metallb-system}
spec: {addresses: [192.168.56.32/29], autoAssign: false}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lan, namespace: metallb-system}
";
const CONFIG_FILE: &str = "metallb.yaml";

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 56, last)
}

/// A service that a pool is expected to give this address to.
fn of_pool(name: &str, last: u8) -> ServiceSpec {
    ServiceSpec::new(name, address(last), 80, 3000).from_pool()
}

/// The class room with three pods of each app, and the agent with this configuration and
/// no service yet.
fn class_room(apps: &[&str], config: &str) -> Scene {
    let mut topology = Topology::nuc_without_pods();
    for app in apps {
        topology.add_pods(app, PodKind::Echo, 3000, 3);
    }
    let lab = Lab::build(topology).unwrap();
    let manifests = Manifests::create(lab.dir().join("manifests")).unwrap();
    manifests.write(CONFIG_FILE, config).unwrap();
    let options = scene::options(&manifests);
    Scene::start(lab, manifests, options)
}

/// Writes a service with the pods of the same name behind it.
fn expose(scene: &Scene, service: &ServiceSpec) {
    let pods = scene.lab.topology().pods_of(&service.name);
    scene.manifests.endpoints(service, pods).unwrap();
    scene.manifests.service(service).unwrap();
}

/// The addresses that `naru pools` says a service has; none where it knows of no pools.
fn given(scene: &Scene, name: &str) -> Option<Vec<String>> {
    let pools = scene.agent.json(&["pools"]).ok()?;
    let mut found = Vec::new();
    for pool in rows(&pools["pools"]) {
        for (ip, holders) in pool["given"].as_object().unwrap() {
            if rows(holders).iter().any(|it| it == name) {
                found.push(ip.clone());
            }
        }
    }
    Some(found)
}

/// Waits until a service has its address, and asks it: all three pods answer, and nobody
/// else does.
fn assert_served(scene: &Scene, service: &ServiceSpec) {
    let name = format!("default/{}", service.name);
    wait(&format!("{name} has {}", service.address), || {
        given(scene, &name).is_some_and(|it| it == [service.address.to_string()])
    });
    wait("it is announced", || {
        scene.client().resolve(service.address.into()).is_ok()
    });
    let tally = Tally::of(&scene.client().many(&service.url("/"), 9).unwrap());
    assert_eq!(tally.failed, 0, "{name}: {:?}", tally.failures);
    let pods: Vec<_> = scene.lab.topology().pods_of(&service.name).collect();
    assert_eq!(tally.by_pod.len(), pods.len(), "{:?}", tally.by_pod);
    for pod in pods {
        assert_eq!(tally.by_pod[&pod.name], 3, "{:?}", tally.by_pod);
    }
}

fn pool<'a>(pools: &'a Value, name: &str) -> &'a Value {
    let mut all = rows(&pools["pools"]).iter();
    all.find(|it| text(it, "name") == name).unwrap()
}

#[test]
fn the_config_map_gives_addresses_until_none_is_left_and_one_that_goes_frees_its() {
    let apps = ["nginx-1", "nginx-2", "nginx-3", "nginx-4"];
    let scene = class_room(&apps, CONFIG_MAP);
    let services: Vec<_> = apps
        .iter()
        .zip([11, 12, 13, 12])
        .map(|(name, last)| of_pool(name, last))
        .collect();
    for service in &services[..3] {
        expose(&scene, service);
        assert_served(&scene, service);
    }
    expose(&scene, &services[3]);
    let reason = "address is left in pool nginx-ip-range; add addresses, or remove Services";
    wait("the fourth is refused", || {
        let pools = scene.agent.json(&["pools"]).unwrap();
        pools["without_address"]["default/nginx-4"]
            .as_str()
            .is_some_and(|it| it.contains(reason))
    });
    let status = scene.agent.cli(&["status"]).unwrap();
    let line = status.lines().find(|it| it.contains("default/nginx-4"));
    let line = line.expect("a warning");
    assert!(
        line.starts_with("WARNING") && line.contains(reason),
        "{line}"
    );
    let listed = scene.agent.json(&["services"]).unwrap();
    let fourth = rows(&listed)
        .iter()
        .find(|it| text(it, "name") == "default/nginx-4:80");
    let fourth = fourth.expect("it is listed");
    assert!(text(fourth, "without_address").contains(reason), "{fourth}");
    assert!(rows(&fourth["frontends"]).is_empty(), "{fourth}");
    let pools = scene.agent.json(&["pools"]).unwrap();
    let range = pool(&pools, "nginx-ip-range");
    assert_eq!(
        (&range["in_use"]["v4"], &range["free"]["v4"]),
        (&3.into(), &0.into())
    );
    // The others are served as before.
    for service in &services[..3] {
        assert_served(&scene, service);
    }

    scene.manifests.remove("nginx-2.yaml").unwrap();
    scene.manifests.remove("nginx-2-endpoints.yaml").unwrap();
    assert_served(&scene, &services[3]);
    assert_served(&scene, &services[0]);
    assert_served(&scene, &services[2]);
    // It comes back, and somebody has what it had.
    expose(&scene, &services[1]);
    wait("the second is refused now", || {
        let pools = scene.agent.json(&["pools"]).unwrap();
        pools["without_address"].get("default/nginx-2").is_some()
    });
    assert_served(&scene, &services[3]);
}

#[test]
fn addresses_stay_over_restarts_whatever_came_and_went() {
    let apps = ["late", "gone", "early"];
    let scene = class_room(&apps, CONFIG_MAP);
    // By name, `early` comes first; it has the second address, because it came second.
    let (gone, early) = (of_pool("gone", 11), of_pool("early", 12));
    expose(&scene, &gone);
    assert_served(&scene, &gone);
    expose(&scene, &early);
    assert_served(&scene, &early);
    scene.manifests.remove("gone.yaml").unwrap();
    scene.manifests.remove("gone-endpoints.yaml").unwrap();
    wait("it is gone", || {
        given(&scene, "default/gone") == Some(vec![])
    });
    for how in ["stopped", "killed", "while it is away"] {
        match how {
            "stopped" => scene.agent.restart().unwrap(),
            "killed" => {
                scene.agent.kill().unwrap();
                scene.agent.restart().unwrap();
            }
            _ => {
                scene.agent.stop().unwrap();
                // What was given is in force without an agent too.
                let neighbour = scene.client().many(&early.url("/"), 3).unwrap();
                assert_eq!(Tally::of(&neighbour).failed, 0);
                expose(&scene, &of_pool("late", 13));
                expose(&scene, &gone);
                scene.agent.restart().unwrap();
            }
        }
        assert_served(&scene, &early);
    }
    assert_served(&scene, &gone);
    assert_served(&scene, &of_pool("late", 13));

    // What an earlier agent gave stays in force where the next one finds nothing valid.
    scene
        .manifests
        .write("broken.yaml", "kind: Service\n")
        .unwrap();
    scene.agent.kill().unwrap();
    scene.agent.restart().unwrap();
    let said = scene.agent.command(&["pools"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("see `naru status`"), "{said}");
    let tally = Tally::of(&scene.client().many(&early.url("/"), 9).unwrap());
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    scene.manifests.remove("broken.yaml").unwrap();
    assert_served(&scene, &early);
}

#[test]
fn custom_resources_serve_who_chooses_its_address_and_who_does_not() {
    let apps = ["web", "api", "chooser"];
    let scene = class_room(&apps, RESOURCES);
    let chosen = ServiceSpec::new("chooser", address(35), 80, 3000);
    let (web, api) = (of_pool("web", 11), of_pool("api", 32));
    let api = api.annotated("metallb.io/address-pool", "chosen");
    for service in [&chosen, &web, &api] {
        expose(&scene, service);
        assert_served(&scene, service);
    }
    // Evenly, as `ab -n 1000` would count it.
    let answers = scene.client().many(&chosen.url("/"), 300).unwrap();
    let tally = Tally::of(&answers);
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(
        tally.by_pod.values().all(|count| *count == 100),
        "{:?}",
        tally.by_pod
    );

    // Another choice; the old address is nobody's then.
    let moved = ServiceSpec::new("chooser", address(36), 80, 3000);
    expose(&scene, &moved);
    assert_served(&scene, &moved);
    wait("the old address is given up", || {
        scene.client().resolve(chosen.address.into()).is_err()
    });
    // One that somebody has.
    expose(&scene, &ServiceSpec::new("chooser", address(11), 80, 3000));
    wait("it is refused", || {
        let pools = scene.agent.json(&["pools"]).unwrap();
        pools["without_address"]["default/chooser"]
            .as_str()
            .is_some_and(|it| it.contains("192.168.56.11 is taken by default/web"))
    });
    assert_served(&scene, &web);
    // Unless both want to share it, on ports of their own.
    let share = |it: ServiceSpec| it.annotated("metallb.io/allow-shared-ip", "one");
    let beside = share(ServiceSpec::new("chooser", address(11), 81, 3000));
    expose(&scene, &share(web.clone()));
    expose(&scene, &beside);
    assert_served(&scene, &beside);
    assert_served(&scene, &web);

    let table = scene.agent.cli(&["pools"]).unwrap();
    for words in [
        "nginx-ip-range  yes   lan        192.168.56.11-192.168.56.13     3       1     2",
        "chosen          no    lan        192.168.56.32-192.168.56.39     8       1     7",
        "192.168.56.11  nginx-ip-range  default/chooser, default/web",
    ] {
        assert!(table.contains(words), "no `{words}` in\n{table}");
    }
}

#[test]
fn a_converted_config_map_serves_as_it_did() {
    let scene = class_room(&["web"], CONFIG_MAP);
    let web = of_pool("web", 11);
    expose(&scene, &web);
    assert_served(&scene, &web);
    let path = scene.manifests.dir().join(CONFIG_FILE);
    let mut convert = naru_on(&scene.lab, scene::NODE, &["convert", "-"]);
    convert.stdin(Stdio::from(fs::File::open(&path).unwrap()));
    let output = convert.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let yaml = String::from_utf8(output.stdout).unwrap();
    assert!(yaml.contains("kind: IPAddressPool"), "{yaml}");
    scene.manifests.write(CONFIG_FILE, &yaml).unwrap();
    wait("it is announced by the resource", || {
        let pools = scene.agent.json(&["pools"]).unwrap();
        pool(&pools, "nginx-ip-range")["advertisements"] == serde_json::json!(["l2advertisement1"])
    });
    assert_served(&scene, &web);

    let broken = CONFIG_MAP.replace("56.13", "56.1");
    fs::write(scene.lab.dir().join("broken.yaml"), broken).unwrap();
    let broken = scene.lab.dir().join("broken.yaml");
    let args = ["convert", broken.to_str().unwrap()];
    let output = naru_on(&scene.lab, scene::NODE, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("broken.yaml:9: ") && said.contains("ends before it begins"),
        "{said}"
    );
}
