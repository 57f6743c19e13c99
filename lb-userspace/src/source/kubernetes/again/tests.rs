//! Whatever happens to a cluster's slices, it is translated as if there had been nothing before.

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::source::{Origin, kubernetes::translate};

fn sourced<T: serde::de::DeserializeOwned>(value: Value) -> Sourced<T> {
    Sourced {
        origin: Origin::Cluster,
        object: serde_json::from_value(value).expect("an object"),
    }
}

/// A slice of a Service, with endpoints that are one apart.
#[derive(Clone, Debug, PartialEq)]
struct Sketch {
    service: u8,
    first: u8,
    count: u8,
    /// What there is to remark on it, or what is wrong with it.
    quirk: u8,
}

fn slice(name: usize, sketch: &Sketch) -> Arc<Sourced<Slice>> {
    let address = |n: u8| match sketch.quirk {
        0 => "10.1.1".to_owned(),
        _ => format!("10.1.1.{n}"),
    };
    let endpoint = |n: u8| {
        let mut addresses = vec![address(n)];
        addresses.extend((sketch.quirk == 1).then(|| address(n + 100)));
        json!({"addresses": addresses, "conditions": {"ready": !n.is_multiple_of(3)}, "nodeName": format!("nuc{name}")})
    };
    let port = match sketch.quirk {
        3 => 8081,
        _ => 8080,
    };
    let endpoints = sketch.first..sketch.first + sketch.count;
    let slice: Sourced<EndpointSlice> = sourced(json!({
        "metadata": {
            "name": format!("s{name}"),
            "labels": {"kubernetes.io/service-name": format!("web{}", sketch.service)},
        },
        "addressType": "IPv4",
        "ports": [{"name": if sketch.quirk == 2 { "other" } else { "" }, "port": port}],
        "endpoints": endpoints.map(endpoint).collect::<Vec<_>>(),
    }));
    Arc::new(slice.into())
}

fn service(n: u8, port: u16, protocol: &str) -> Arc<Sourced<Service>> {
    // The first two are of one address.
    Arc::new(sourced(json!({
        "metadata": {"name": format!("web{n}")},
        "spec": {
            "type": "NodePort",
            "externalIPs": [format!("192.0.2.{}", n / 2)],
            "ports": [{"port": port, "protocol": protocol, "nodePort": 8080}],
        },
    })))
}

fn legacy(n: u8) -> Arc<Sourced<Endpoints>> {
    Arc::new(sourced(json!({
        "metadata": {"name": format!("web{n}")},
        "subsets": [{"addresses": [{"ip": format!("10.2.2.{n}")}], "ports": [{"port": 8080}]}],
    })))
}

#[derive(Clone, Debug)]
enum Event {
    /// A slice is there, or is another.
    Slice(usize, Sketch),
    Gone(usize),
    Port(u8, u16),
    Legacy(u8),
    /// It is looked at.
    Look,
}

fn event() -> impl Strategy<Value = Event> {
    let sketch = (0_u8..4, 0_u8..6, 0_u8..4, 0_u8..12);
    let sketch = sketch.prop_map(|(service, first, count, quirk)| Sketch {
        service,
        first,
        count,
        quirk,
    });
    prop_oneof![
        8 => (0_usize..5, sketch).prop_map(|(name, sketch)| Event::Slice(name, sketch)),
        2 => (0_usize..5).prop_map(Event::Gone),
        1 => (0_u8..3, 8078_u16..8082).prop_map(|(n, port)| Event::Port(n, port)),
        1 => (0_u8..3).prop_map(Event::Legacy),
        8 => Just(Event::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn it_is_what_translating_all_comes_to(events in prop::collection::vec(event(), 1..24)) {
        let terms = Terms::default();
        let mut known = Known::default();
        let mut slices = BTreeMap::new();
        // Over SCTP the node port is there for endpoints of the same port alone.
        let protocols = ["TCP", "SCTP", "UDP"];
        let mut objects = Objects {
            services: (0..3).map(|n| service(n, 8080, protocols[usize::from(n)])).collect(),
            ..Objects::default()
        };
        for event in events {
            match event {
                Event::Slice(name, sketch) => {
                    slices.insert(name, slice(name, &sketch));
                }
                Event::Gone(name) => {
                    slices.remove(&name);
                }
                Event::Port(n, port) => {
                    let n = usize::from(n);
                    objects.services[n] = service(n as u8, port, protocols[n]);
                }
                Event::Legacy(n) => {
                    let is_there = objects.endpoints.pop().is_some();
                    objects.endpoints.extend((!is_there).then(|| legacy(n)));
                }
                Event::Look => {
                    // Files are in no order of the objects' names.
                    objects.slices = slices.values().rev().cloned().collect();
                    let anew = translate(objects.clone(), &terms, &mut Known::default());
                    prop_assert_eq!(translate(objects.clone(), &terms, &mut known), anew);
                }
            }
        }
    }
}

/// Where it always translated everything, the property above would say nothing.
#[test]
fn endpoints_alone_are_no_reason_to_look_at_everything() {
    let of = |service: u8, first: u8| Sketch {
        service,
        first,
        count: 3,
        quirk: 4,
    };
    let mut objects = Objects {
        services: (0..3).map(|n| service(n, 80, "TCP")).collect(),
        slices: (0..3).map(|n| slice(n, &of(n as u8, 0))).collect(),
        ..Objects::default()
    };
    let (terms, mut known) = (Terms::default(), Known::default());
    assert!(known.again(&objects, &terms).is_none());
    // Node ports are of one Service each.
    objects.services.truncate(1);
    let before = translate(objects.clone(), &terms, &mut known).expect("valid");
    objects.slices[0] = slice(0, &of(0, 2));
    let after = known.again(&objects, &terms).expect("endpoints alone");
    assert_ne!(after.desired, before.desired);
    let mut more = objects.clone();
    more.slices.push(slice(3, &of(0, 5)));
    assert!(known.again(&more, &terms).is_none(), "another slice");
}
