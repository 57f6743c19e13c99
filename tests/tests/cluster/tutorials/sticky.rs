//! I: sticky sessions.

use crate::scene::{answering, class_room, expose, load, none_failed, wait, wait_answering};

/// A client stays with its pod, and moves once when that goes.
#[test]
fn i_sticky_sessions() {
    let kube = class_room();
    let create = "--image=nest-server --replicas=3 --port=3000";
    let ip = expose(&kube, "nest-server", create, "--port=80 --target-port=3000");
    let url = format!("http://{ip}/");
    wait_answering(&kube, &url, 3);
    let patch = r#"{"spec":{"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":600}}}}"#;
    let args = ["patch", "service", "nest-server", "-p", patch];
    kube.plane().kubectl(&args).unwrap();
    wait("it sticks", || answering(&kube, &url, 20).len() == 1);
    let requests = load(&kube, &url);
    let first = answering(&kube, &url, 30);
    assert_eq!(first.len(), 1, "{first:?}");
    let gone = first.first().unwrap();
    kube.kubectl(&format!("delete pod {gone}")).unwrap();
    let second = answering(&kube, &url, 30);
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(second, first);
    kube.kubectl("scale deployment nest-server --replicas=6")
        .unwrap();
    kube.kubectl("rollout status deployment nest-server --timeout=100s")
        .unwrap();
    assert_eq!(answering(&kube, &url, 30), second);
    none_failed("I", requests);
}
