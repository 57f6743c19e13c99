//! What the API server says is served, and what it said last while it is away.

use std::{thread::sleep, time::Duration};

use naru_lab::ServiceSpec;

use crate::scene::{Scene, none_failed, service, wait};

#[test]
fn a_service_is_served_and_followed_also_past_an_api_server_that_was_away() {
    let scene = Scene::new();
    let all = scene.pods().to_vec();
    assert_eq!(scene.answering().len(), all.len());
    let load = scene.load();
    scene.set_endpoints(&all[..3]);

    scene.plane.stop_server();
    wait("the agent tells that it is away", || {
        let away = |note: &String| note.contains("cannot be followed");
        scene.notes().iter().any(away)
    });
    sleep(Duration::from_secs(20));
    assert_eq!(scene.answering().len(), 3, "what it said last is in force");
    scene.plane.start_server().unwrap();
    scene.set_endpoints(&all);
    wait("nothing is to be told any more", || {
        scene.notes().is_empty()
    });

    // An agent that is started while it is away goes on with what an earlier one left.
    scene.plane.stop_server();
    scene.agent.restart().unwrap();
    assert_eq!(scene.answering().len(), all.len());
    scene.plane.start_server().unwrap();
    scene.set_endpoints(&all[1..]);
    none_failed(load);
}

#[test]
fn a_mistake_in_one_service_is_told_and_disturbs_neither_it_nor_others() {
    let scene = Scene::new();
    let load = scene.load();
    let annotate = |value: &str| {
        let name = service().name;
        let algorithm = format!("naru.dev/algorithm={value}");
        let args = ["annotate", "--overwrite", "service", &name, &algorithm];
        scene.plane.kubectl(&args).unwrap();
    };
    annotate("sideways");
    let named = |scene: &Scene| {
        let notes = scene.notes();
        notes
            .iter()
            .any(|it| it.contains("Service default/nest-server") && it.contains("sideways"))
    };
    wait("the mistake is told", || named(&scene));
    assert_eq!(scene.answering().len(), scene.pods().len(), "as before");

    let other = ServiceSpec::new("other", [192, 168, 56, 12].into(), 80, 3000);
    scene.plane.apply(&other.yaml()).unwrap();
    let pods: Vec<_> = scene.pods().iter().map(Into::into).collect();
    scene.plane.apply(&other.endpoints_yaml(&pods)).unwrap();
    wait("another Service is served", || {
        scene.lab.client().get(&other.url("/")).is_ok()
    });

    annotate("maglev");
    wait("it is mended", || !named(&scene));
    none_failed(load);
}
