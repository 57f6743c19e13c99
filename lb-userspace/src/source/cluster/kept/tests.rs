use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    core::{Status, response::StatusSummary},
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};

use super::*;
use crate::source::{
    Loaded,
    cluster::table::{Name, Told},
    kubernetes::Sourced,
};

mod terms;

/// A cluster in which nothing is yet.
fn empty() -> Kept {
    listed(Terms::default())
}

/// The same, read on these terms.
fn listed(terms: Terms) -> Kept {
    let mut kept = Kept::new(terms);
    each!(&mut kept, table => {
        table.take(Ok(Event::Init));
        assert!(table.take(Ok(Event::InitDone)));
    });
    kept
}

fn service(name: &str, annotations: Value, ip: &str) -> Told<Service> {
    let object = json!({
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"externalIPs": [ip], "ports": [{"port": 80}]},
    });
    applied("default", name, &object)
}

/// An object as its watch tells of it.
fn applied<T: serde::de::DeserializeOwned>(namespace: &str, name: &str, object: &Value) -> Told<T> {
    Ok(Event::Apply((
        Name {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        Arc::new(Sourced {
            origin: Origin::Cluster,
            object: serde_json::from_value(object.clone()).expect("an object"),
        }),
    )))
}

fn failed<T>(code: u16) -> Told<T> {
    let status = Status {
        status: Some(StatusSummary::Failure),
        message: format!("it says {code}"),
        code,
        ..Status::default()
    };
    let error = kube::Error::Api(Box::new(status));
    Err(watcher::Error::InitialListFailed(error))
}

fn outcome(kept: &mut Kept) -> Loaded {
    kept.outcome(&mut Known::default())
        .expect("all that is valid")
}

/// The names of the Services that are served.
fn served(loaded: &Loaded) -> Vec<String> {
    loaded
        .desired
        .services
        .keys()
        .map(|it| it.0.clone())
        .collect()
}

const A: &str = "192.168.56.11";
const B: &str = "192.168.56.12";

#[test]
fn what_has_two_mistakes_counts_as_it_was_and_a_newcomer_not_at_all() {
    let mut kept = empty();
    kept.services.take(service("a", json!({}), A));
    let before = outcome(&mut kept);
    assert_eq!(served(&before), ["default/a:80"]);
    let mistakes = json!({"naru.dev/algorithm": "sideways", "naru.dev/maglev-slots": "7"});
    kept.services.take(service("a", mistakes.clone(), A));
    kept.services.take(service("b", mistakes, B));
    let after = outcome(&mut kept);
    assert_eq!(after.desired, before.desired);
    let of = |name: &str| {
        let named = format!("Service default/{name}");
        let notes = after
            .notes
            .iter()
            .filter(move |it| it.refused && it.object == named);
        notes.map(|it| it.what.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("a").len(), 2, "{:?}", after.notes);
    assert!(of("a").iter().all(|it| it.contains("stays in force")));
    assert!(of("b").iter().all(|it| it.contains("counts without that")));
    kept.services.take(service("a", json!({}), B));
    let mended = outcome(&mut kept);
    assert!(
        mended
            .notes
            .iter()
            .all(|it| it.object != "Service default/a")
    );
}

#[test]
fn a_pool_with_a_mistake_makes_the_configuration_stale_and_a_service_does_not() {
    let mut kept = empty();
    kept.pools.take(pool("lan", "192.0.2.8-192.0.2.9"));
    let mistake = json!({"naru.dev/algorithm": "sideways"});
    kept.services.take(service("a", mistake, A));
    let refused = |loaded: &Loaded| -> Vec<String> {
        let refused = loaded.notes.iter().filter(|it| it.refused);
        refused.map(|it| it.object.clone()).collect()
    };
    let before = outcome(&mut kept);
    assert_eq!(refused(&before), ["Service default/a"]);
    assert!(!before.is_stale());
    kept.pools.take(pool("lan", "192.0.2.9-192.0.2.8"));
    let after = outcome(&mut kept);
    assert_eq!(
        refused(&after),
        ["IPAddressPool metallb-system/lan", "Service default/a"]
    );
    assert!(after.is_stale());
    assert_eq!(after.desired, before.desired, "as it was");
}

fn slice(service: &str, address: &str) -> Told<Slice> {
    let name = format!("{service}-1");
    let object: EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]}],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }))
    .expect("an object");
    let object = Arc::new(Sourced {
        origin: Origin::Cluster,
        object: Slice::from(object),
    });
    let name = Name {
        namespace: "default".to_owned(),
        name,
    };
    Ok(Event::Apply((name, object)))
}

/// Held to one that looks at everything each time.
#[test]
fn what_is_not_valid_is_not_looked_at_again_for_endpoints_of_others() {
    let (mut kept, mut known) = (empty(), Known::default());
    let mut anew = empty();
    let valid = || json!({});
    let mistaken = || json!({"naru.dev/algorithm": "sideways"});
    let (one, other) = ("10.244.1.2", "10.244.1.3");
    // Of what there is a Service, or else endpoints; and whether these alone are looked at.
    let steps: [(&str, Option<Value>, &str, bool); 9] = [
        ("a", Some(valid()), A, false),
        ("b", Some(valid()), B, false),
        ("a", None, one, false),
        ("b", None, one, false),
        ("b", Some(mistaken()), A, false),
        ("a", None, other, true),
        ("b", None, other, false),
        ("a", None, one, true),
        ("b", Some(valid()), B, false),
    ];
    for (step, (name, annotations, address, alone)) in steps.into_iter().enumerate() {
        for kept in [&mut kept, &mut anew] {
            match &annotations {
                Some(it) => kept.services.take(service(name, it.clone(), address)),
                None => kept.slices.take(slice(name, address)),
            };
        }
        anew.judged = None;
        let all = kept.objects(&Refused::new());
        let judged = kept.as_before(&all, &mut known);
        assert_eq!(judged.is_some(), alone, "step {step}");
        kept.judged = judged.map(|(_, judged)| judged);
        let (quick, whole) = (kept.outcome(&mut known).unwrap(), outcome(&mut anew));
        assert_eq!(quick.desired, whole.desired, "step {step}");
        assert_eq!(quick.notes, whole.notes, "step {step}");
    }
}

#[test]
fn whoever_comes_later_gives_way_whatever_its_name() {
    let mut kept = empty();
    kept.services.take(service("m", json!({}), A));
    let before = outcome(&mut kept);
    for newcomer in ["a", "z"] {
        kept.services.take(service(newcomer, json!({}), A));
        assert_eq!(outcome(&mut kept).desired, before.desired, "{newcomer}");
    }
    // One that was valid where it was stays there.
    kept.services.take(service("b", json!({}), B));
    assert_eq!(
        served(&outcome(&mut kept)),
        ["default/b:80", "default/m:80"]
    );
    kept.services.take(service("b", json!({}), A));
    assert_eq!(
        served(&outcome(&mut kept)),
        ["default/b:80", "default/m:80"]
    );
}

/// A Service at an external IP, since the year.
fn since(year: u32, name: &str, ip: &str) -> Told<Service> {
    let object = json!({
        "metadata": {
            "name": name,
            "namespace": "default",
            "creationTimestamp": format!("{year}-01-01T00:00:00Z"),
        },
        "spec": {"externalIPs": [ip], "ports": [{"port": 80}]},
    });
    applied("default", name, &object)
}

#[test]
fn who_was_refused_does_not_come_in_by_a_change_or_a_list_of_the_other() {
    let mut kept = empty();
    kept.services.take(service("m", json!({}), A));
    let before = outcome(&mut kept);
    // One that never counted, and one that counted elsewhere.
    kept.services.take(service("b", json!({}), B));
    outcome(&mut kept);
    for name in ["a", "b"] {
        kept.services.take(service(name, json!({}), A));
    }
    let both = ["default/b:80", "default/m:80"];
    assert_eq!(served(&outcome(&mut kept)), both);
    for time in 0..3 {
        kept.services
            .take(service("m", json!({"touched": time.to_string()}), A));
        assert_eq!(served(&outcome(&mut kept)), both, "touched");
        kept.services.take(Ok(Event::Init));
        for name in ["a", "b", "m"] {
            let Ok(Event::Apply(object)) = service(name, json!({}), A) else {
                unreachable!("it is applied")
            };
            kept.services.take(Ok(Event::InitApply(object)));
        }
        kept.services.take(Ok(Event::InitDone));
        assert_eq!(served(&outcome(&mut kept)), both, "listed");
    }
    assert_eq!(outcome(&mut kept).desired.services.len(), 2);
    assert_eq!(before.desired.services.len(), 1);
}

#[test]
fn where_nothing_counted_before_the_older_one_does() {
    for [older, younger] in [["a", "m"], ["m", "a"]] {
        let mut kept = empty();
        kept.services.take(since(2025, older, A));
        kept.services.take(since(2026, younger, A));
        assert_eq!(served(&outcome(&mut kept)), [format!("default/{older}:80")]);
    }
}

#[test]
fn a_mistake_that_was_always_there_costs_no_more_than_what_it_is_about() {
    let mut kept = listed(Terms {
        pooled: true,
        ..Terms::default()
    });
    let web = |given: Value| {
        let object = json!({
            "metadata": {
                "name": "web",
                "namespace": "default",
                "annotations": {
                    "naru.dev/weights": "heavy",
                    "metallb.io/loadBalancerIPs": "here",
                    "metallb.io/ip-allocated-from-pool": "lan",
                },
            },
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.96.0.10",
                "externalIPs": ["10.96.0.0/16"],
                "ports": [{"port": 80, "nodePort": 30080}],
            },
            "status": {"loadBalancer": {"ingress": given}},
        });
        applied("default", "web", &object)
    };
    // Without an address it is given none that it did not ask for.
    kept.services.take(web(json!([])));
    let loaded = outcome(&mut kept);
    let port = loaded.desired.services.values().next().expect("a port");
    assert!(port.cluster.len() == 1 && port.node_port.is_some() && port.external.is_empty());
    assert!(loaded.desired.balancers.is_empty());
    let said = |it: &Note| it.refused && it.what.contains("its cluster IP, its node ports");
    assert!(loaded.notes.iter().any(said), "{:?}", loaded.notes);

    // With one it keeps it, though its pool is not valid either, and nobody gets another of that.
    kept.pools.take(pool("lan", "192.0.2.8-192.0.2.1"));
    kept.services.take(web(json!([{"ip": "192.0.2.4"}])));
    let desired = outcome(&mut kept).desired;
    let ranges: Vec<String> = desired.pools["lan"]
        .ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ranges, ["192.0.2.4-192.0.2.4"]);
    assert!(!desired.pools["lan"].auto_assign);
    let balancer = desired.balancers.values().next().expect("it is ours");
    assert_eq!(balancer.given, [std::net::IpAddr::from([192, 0, 2, 4])]);
    assert!(balancer.requested.is_empty());

    // Where it is not known whom it is for, it is for those inside.
    let object = json!({
        "metadata": {"name": "inside", "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.11",
            "loadBalancerSourceRanges": ["everybody"],
            "ports": [{"port": 80}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.5"}]}},
    });
    kept.services.take(applied("default", "inside", &object));
    let desired = outcome(&mut kept).desired;
    let inside = crate::desired::BalancerName("default/inside".to_owned());
    assert!(!desired.balancers.contains_key(&inside));
    assert_eq!(desired.services.len(), 2);
}

#[test]
fn an_api_server_that_answers_nonsense_takes_nothing_away() {
    let mut kept = empty();
    kept.services.take(service("a", json!({}), A));
    let before = outcome(&mut kept);
    assert!(kept.services.take(failed(404)), "it is told");
    assert!(!kept.services.take(failed(404)), "once");
    // MetalLB's kinds may not be there.
    assert!(!kept.pools.take(failed(404)));
    let away = outcome(&mut kept);
    assert_eq!(away.desired, before.desired);
    let said = "Service objects cannot be followed: 404 it says 404; what the API server said last \
                stays in force";
    assert_eq!(away.notes.len(), 1 + before.notes.len());
    assert!(
        away.notes.iter().any(|it| it.what == said),
        "{:?}",
        away.notes
    );
    // Half of a list is none.
    kept.services.take(Ok(Event::Init));
    assert_eq!(outcome(&mut kept).desired, before.desired);
    assert!(kept.services.take(Ok(Event::InitDone)));
    let back = outcome(&mut kept);
    assert!(served(&back).is_empty() && back.notes.iter().all(|it| it.what != said));
}

#[test]
fn it_is_complete_once_each_kind_was_listed_or_is_not_there() {
    let mut kept = Kept::new(Terms::default());
    each!(&mut kept, table => { table.take(failed(404)); });
    assert!(!kept.is_complete());
    let problems = kept.unreachable().problems;
    assert_eq!(problems.len(), 1);
    // Not of MetalLB's kinds.
    let what = "Service, EndpointSlice, Node, Namespace, ConfigMap objects cannot be listed: 404 it \
                says 404";
    assert_eq!(problems[0].what, what);
    each!(&mut kept, table => { table.take(Ok(Event::InitDone)); });
    assert!(kept.is_complete());
}

/// MetalLB's ConfigMap with one pool.
fn config_map(range: &str) -> Told<Legacy> {
    let text =
        format!("address-pools:\n- name: lan\n  protocol: layer2\n  addresses:\n  - {range}\n");
    let object = json!({
        "metadata": {"name": "config", "namespace": "metallb-system"},
        "data": {"config": text},
    });
    let object: Told<k8s_openapi::api::core::v1::ConfigMap> =
        applied("metallb-system", "config", &object);
    let Ok(Event::Apply((name, map))) = object else {
        unreachable!("it is applied")
    };
    let object = Legacy::from(map.object.clone());
    let origin = Origin::Cluster;
    Ok(Event::Apply((name, Arc::new(Sourced { origin, object }))))
}

fn pool(name: &str, range: &str) -> Told<IpAddressPool> {
    let object = json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {"name": name, "namespace": "metallb-system"},
        "spec": {"addresses": [range]},
    });
    applied("metallb-system", name, &object)
}

#[test]
fn metallbs_config_map_gives_way_to_whatever_it_is_at_odds_with() {
    let mut kept = empty();
    kept.services.take(service("web", json!({}), "192.0.2.1"));
    kept.legacy.take(config_map("192.0.2.8-192.0.2.9"));
    assert_eq!(outcome(&mut kept).desired.pools.len(), 1);

    // Wrong in itself: as it was.
    kept.legacy.take(config_map("192.0.2.9-192.0.2.8"));
    let loaded = outcome(&mut kept);
    assert_eq!(served(&loaded), ["default/web:80"]);
    assert_eq!(loaded.desired.pools.len(), 1);
    let said = loaded.notes.iter().map(ToString::to_string);
    assert!(
        said.into_iter()
            .any(|it| it.contains("ConfigMap metallb-system/config"))
    );

    // What it was converted to counts in its place, of the same name or over the same addresses.
    for name in ["lan", "another"] {
        let mut kept = empty();
        kept.legacy.take(config_map("192.0.2.8-192.0.2.9"));
        outcome(&mut kept);
        kept.pools.take(pool(name, "192.0.2.8-192.0.2.20"));
        let pools = outcome(&mut kept).desired.pools;
        assert_eq!(pools.keys().collect::<Vec<_>>(), [name]);
        assert_eq!(pools[name].ranges[0].to_string(), "192.0.2.8-192.0.2.20");
    }
}
