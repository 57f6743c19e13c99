//! What is written, and what is not.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::{
    desired::Desired,
    ipam::{Authority, Ledger, assign},
    source::{
        Loaded, Origin,
        kubernetes::{self, Known, Objects, Sourced, Terms},
    },
};

fn sourced<T: serde::de::DeserializeOwned>(value: Value) -> Arc<Sourced<T>> {
    Arc::new(Sourced {
        origin: Origin::Cluster,
        object: serde_json::from_value(value).unwrap(),
    })
}

/// A Service of type LoadBalancer, changed by `change`.
fn service(name: &str, change: impl FnOnce(&mut Value)) -> Service {
    let mut value = json!({
        "metadata": { "namespace": "default", "name": name, "resourceVersion": "7", "uid": "u" },
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.10",
            "ipFamilies": ["IPv4"],
            "ports": [{ "port": 80, "protocol": "TCP" }],
        },
        "status": { "loadBalancer": {} },
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn pool(addresses: &str) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": { "namespace": "naru-system", "name": "pool" },
        "spec": { "addresses": [addresses] },
    })
}

/// What these ask for.
fn wanted(all: &[Service], pools: &[Value]) -> Desired {
    let objects = Objects {
        services: all
            .iter()
            .map(|it| sourced(serde_json::to_value(it).unwrap()))
            .collect(),
        pools: pools.iter().cloned().map(sourced).collect(),
        ..Objects::default()
    };
    let terms = Terms {
        pooled: true,
        ..Terms::default()
    };
    let loaded = kubernetes::translate(objects, &terms, &mut Known::default());
    loaded.unwrap().desired
}

/// What a controller that has just started makes of these.
fn assignment(all: &[Service], pools: &[Value]) -> Assignment {
    assign(&wanted(all, pools), &Ledger::default(), Authority::This)
}

fn written(all: &[Service], pools: &[Value]) -> Vec<Write> {
    services(all.iter(), &assignment(all, pools))
}

/// What the API server makes of a service by a merge patch, but for its version.
fn patched(service: &Service, write: &Write) -> Service {
    fn merge(into: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *into = patch.clone();
            return;
        };
        if !into.is_object() {
            *into = json!({});
        }
        let into = into.as_object_mut().unwrap();
        for (key, value) in patch {
            match value {
                Value::Null => drop(into.remove(key)),
                _ => merge(into.entry(key.clone()).or_insert(Value::Null), value),
            }
        }
    }
    let mut value = serde_json::to_value(service).unwrap();
    merge(&mut value, &write.patch);
    serde_json::from_value(value).unwrap()
}

#[test]
fn an_address_is_written_once_with_its_pool_for_the_version_that_was_read() {
    let web = service("web", |_| {});
    let writes = written(std::slice::from_ref(&web), &[pool("192.0.2.8-192.0.2.9")]);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].patch["metadata"]["resourceVersion"], "7");
    let event = writes[0].event.as_ref().unwrap();
    assert_eq!(event.reason, "IPAllocated");
    assert!(event.note.contains("192.0.2.8"), "{}", event.note);
    let web = patched(&web, &writes[0]);
    let ingress = web
        .status
        .clone()
        .unwrap()
        .load_balancer
        .unwrap()
        .ingress
        .unwrap();
    assert_eq!(ingress[0].ip.as_deref(), Some("192.0.2.8"));
    assert_eq!(ingress[0].ip_mode.as_deref(), Some("VIP"));
    assert_eq!(annotation(&web), Some("pool"));
    // Another controller reads that, and has nothing to add.
    assert_eq!(written(&[web], &[pool("192.0.2.8-192.0.2.9")]), []);
}

#[test]
fn what_a_service_says_stays_with_it_whatever_its_name() {
    let late = service("zz", |it| {
        it["spec"]["clusterIP"] = json!("10.96.0.11");
        it["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "192.0.2.8", "ipMode": "VIP" }]);
        it["metadata"]["annotations"] = json!({ FROM_POOL: "pool" });
    });
    let all = [service("aa", |_| {}), late];
    let writes = written(&all, &[pool("192.0.2.8-192.0.2.9")]);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0].name, "aa");
    assert!(writes[0].patch.to_string().contains("192.0.2.9"));
}

#[test]
fn who_is_refused_has_nothing_and_is_told_why_once() {
    let stale = service("web", |it| {
        it["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "198.51.100.1" }]);
        it["metadata"]["annotations"] = json!({ FROM_POOL: "gone" });
    });
    let all = [stale];
    let assignment = assignment(&all, &[]);
    let writes = services(all.iter(), &assignment);
    let cleared = patched(&all[0], &writes[0]);
    assert_eq!(annotation(&cleared), None);
    assert_eq!(cleared.status.unwrap().load_balancer.unwrap().ingress, None);
    assert_eq!(writes[0].event, None, "a refusal is told by itself");
    let now = refused(&assignment);
    let told = refusals(all.iter(), &now, &BTreeMap::new());
    assert_eq!(told.len(), 1);
    assert!(
        told[0].warning && told[0].note.contains("no pool is defined"),
        "{told:?}"
    );
    assert_eq!(refusals(all.iter(), &now, &now), []);
}

#[test]
fn who_does_not_count_as_it_is_is_told_why_once() {
    let value = |it: Service| serde_json::to_value(it).unwrap();
    let scene = Scene {
        outcome: Ok(Loaded::default()),
        services: vec![sourced(value(service("web", |_| {})))],
        pools: vec![sourced(pool("192.0.2.9-192.0.2.8"))],
        advertisements: Vec::new(),
    };
    let note = |object: &str, refused| Note {
        origin: Origin::Cluster,
        object: object.to_owned(),
        what: format!("what is wrong with {object}"),
        refused,
    };
    let (web, lan) = ("Service default/web", "IPAddressPool naru-system/pool");
    let notes = [note(web, true), note(lan, true)];
    let told = invalid(&scene, &notes, &[]);
    let of = |it: &Event| {
        let of = it.of.clone();
        let parts = [of.api_version, of.kind, of.namespace, of.name];
        parts.map(Option::unwrap_or_default).join(" ")
    };
    assert_eq!(
        told.iter().map(of).collect::<Vec<_>>(),
        [
            "v1 Service default web",
            "metallb.io/v1beta1 IPAddressPool naru-system pool"
        ]
    );
    assert!(told.iter().all(|it| it.warning && it.reason == "Invalid"));
    assert_eq!(told[0].of.uid.as_deref(), Some("u"));
    assert!(told[0].note.contains("what is wrong with Service"));
    assert_eq!(invalid(&scene, &notes, &notes[..1]).len(), 1);
    assert_eq!(invalid(&scene, &[note(web, false)], &[]), []);
    // One that is gone meanwhile.
    assert_eq!(invalid(&scene, &[note("Service default/a", true)], &[]), []);
}

#[test]
fn what_others_gave_stays_theirs() {
    // Of a class of theirs, and one of ours that somebody gave an address of no pool.
    let others = service("aa", |it| {
        it["spec"]["loadBalancerClass"] = json!("example.org/other");
        it["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "192.0.2.8" }]);
    });
    let invalid = service("bb", |it| {
        it["spec"]["clusterIP"] = json!("10.96.0.12");
        it["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "198.51.100.7" }]);
    });
    let wants = service("cc", |it| {
        it["spec"]["clusterIP"] = json!("10.96.0.11");
    });
    let all = [others, invalid, wants];
    let mut desired = wanted(&all, &[pool("192.0.2.8-192.0.2.9")]);
    desired.balancers.retain(|name, _| name.0 != "default/bb");
    desired.foreign = foreign(all.iter(), |it| desired.balancers.contains_key(it));
    assert_eq!(desired.foreign.len(), 2);
    let now = assign(&desired, &Ledger::default(), Authority::This);
    let writes = services(all.iter(), &now);
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert!(writes[0].name == "cc" && writes[0].patch.to_string().contains("192.0.2.9"));
    // Nor by name; but who says itself that it has it keeps it: the two may have shared it.
    let mut asks = desired.clone();
    let cc = BalancerName("default/cc".to_owned());
    let mut balancer = asks.balancers.get(&cc).unwrap().clone();
    balancer.requested = vec!["192.0.2.8".parse().unwrap()];
    asks.balancers.insert(cc.clone(), balancer.clone());
    let refused = assign(&asks, &Ledger::default(), Authority::This).refused;
    assert!(matches!(refused[&cc], Refusal::Taken { .. }), "{refused:?}");
    balancer.given = balancer.requested.clone();
    asks.balancers.insert(cc.clone(), balancer);
    let kept = assign(&asks, &Ledger::default(), Authority::This);
    assert!(kept.addresses.contains_key(&cc), "{:?}", kept.refused);
    // Without any pool nothing is taken from those that were given theirs by others.
    assert_eq!(written(&all[1..], &[]), []);
}

#[test]
fn a_service_of_another_class_is_left_as_it_is() {
    let others = service("web", |it| {
        it["spec"]["loadBalancerClass"] = json!("example.org/other");
        it["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "198.51.100.1" }]);
        it["metadata"]["annotations"] = json!({ FROM_POOL: "theirs" });
    });
    assert_eq!(written(&[others], &[pool("192.0.2.8-192.0.2.9")]), []);
}

#[test]
fn a_service_that_is_of_another_type_now_has_no_address() {
    let inside = service("web", |it| {
        it["spec"]["type"] = json!("ClusterIP");
        it["status"]["loadBalancer"]["ingress"] = json!([{ "ip": "192.0.2.8" }]);
        it["metadata"]["annotations"] = json!({ FROM_POOL: "pool", "kept": "yes" });
    });
    let all = [inside];
    let writes = written(&all, &[pool("192.0.2.8-192.0.2.9")]);
    let inside = patched(&all[0], &writes[0]);
    assert_eq!(inside.status.unwrap().load_balancer.unwrap().ingress, None);
    let annotations = inside.metadata.annotations.unwrap();
    assert_eq!(annotations.into_keys().collect::<Vec<_>>(), ["kept"]);
}

#[test]
fn pools_say_how_full_they_are() {
    let all = [service("web", |_| {})];
    let pools = [pool("192.0.2.8-192.0.2.10")];
    let assignment = assignment(&all, &pools);
    let mut object: IpAddressPool = serde_json::from_value(pools[0].clone()).unwrap();
    let writes = super::pools(std::iter::once(&object), &assignment);
    let status = &writes[0].patch["status"];
    assert_eq!(
        (&status["assignedIPv4"], &status["availableIPv4"]),
        (&json!(1), &json!(2))
    );
    object.status = Some(status.clone());
    assert_eq!(super::pools(std::iter::once(&object), &assignment), []);
}
