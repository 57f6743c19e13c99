//! Clients on the node itself and in its pods, in a cgroup of the test's own.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use naru_lab::Endpoint;

use crate::{
    cgroup::{lines, scene, ten},
    scene::{self, NODE, VIP, assert_everyone, assert_in_turn, wait},
};

#[test]
fn the_node_and_its_pods_reach_the_address_in_turn_also_a_pod_of_the_service_itself() {
    let (cgroup, scene) = scene("turns");
    let url = format!("http://{VIP}/");
    let node = scene.lab.node(NODE);
    let answers = cgroup.shell(node, &ten(&url)).unwrap();
    assert_in_turn(&lines(&answers), scene.pods());
    // From a pod that is one of the five: one in five goes to itself.
    let pod = scene.lab.pod(&scene.first(true).name).namespace();
    let answers = cgroup.shell(pod, &ten(&url)).unwrap();
    assert_in_turn(&lines(&answers), scene.pods());
    // A socket of IPv6 speaks to it by the mapped address.
    let mapped = format!("http://[::ffff:{VIP}]/");
    let answers = cgroup.shell(node, &ten(&mapped)).unwrap();
    assert_everyone(&lines(&answers), scene.pods());
    // Who is outside of the cgroup is not served there.
    let outside = node.run("curl", &["-sS", "--max-time", "1", &url]);
    assert!(outside.is_err(), "{outside:?}");
}

#[test]
fn a_connection_is_said_to_be_to_the_address_and_is_to_the_pod() {
    let (cgroup, scene) = scene("names");
    let node = scene.lab.node(NODE);
    let script = format!(
        "import socket; s = socket.create_connection((\"{VIP}\", 80)); \
         print(*s.getpeername()); \
         u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(3); \
         names = set(); \
         [(u.sendto(b\"who?\", (\"{VIP}\", 80)), \
           (lambda data, peer: (names.add(data.decode()), print(*peer)))(*u.recvfrom(99))) \
          for _ in range(4)]; \
         print(len(names)); \
         c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); c.settimeout(3); \
         c.connect((\"{VIP}\", 80)); c.send(b\"who?\"); print(c.recvfrom(99)[1][0])"
    );
    let said = cgroup
        .shell(node, &format!("python3 -c '{script}'"))
        .unwrap();
    let frontend = format!("{VIP} 80");
    let mut expected = vec![frontend.clone()];
    expected.extend(vec![frontend; 4]);
    // A socket's datagrams all go to one pod.
    expected.push("1".to_owned());
    expected.push(VIP.to_string());
    assert_eq!(lines(&said), expected);
}

#[test]
fn sockets_go_on_without_the_agent_and_are_refused_without_a_backend() {
    let (cgroup, mut scene) = scene("life");
    let url = format!("http://{VIP}/");
    let curl = format!("curl -sS --max-time 3 {url}");
    scene.agent.kill().unwrap();
    let node = scene.lab.node(NODE).clone();
    cgroup.shell(&node, &curl).unwrap();
    scene.agent.restart().unwrap();
    cgroup.shell(&node, &curl).unwrap();
    scene.set_endpoints(Vec::<Endpoint>::new());
    // curl's "could not connect", at once: without the refusal nobody would answer.
    let began = Instant::now();
    let refused = cgroup.shell(&node, &curl).unwrap_err();
    assert!(refused.starts_with("Some(7)"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(1));
    scene.set_endpoints(scene.pods());
    cgroup.shell(&node, &curl).unwrap();
    let status = scene.agent.json(&["status"]).unwrap();
    assert_eq!(Path::new(scene::text(&status, "cgroup")), cgroup.path());

    // An agent that is told of no cgroup lets go of it, and so does `detach`.
    let options = scene::options(&scene.manifests);
    scene.agent.restart_with(options).unwrap();
    assert!(cgroup.shell(&node, &curl).is_err());
    let path = cgroup.path().to_str().unwrap().to_owned();
    let options = scene::options(&scene.manifests).args(["--cgroup", &path]);
    scene.agent.restart_with(options).unwrap();
    cgroup.shell(&node, &curl).unwrap();
    scene.agent.detach().unwrap();
    assert!(cgroup.shell(&node, &curl).is_err());
}

/// Connects a UDP socket to the address, and one to the pod that answers itself; writes
/// the pod's name to `file`, and then says what becomes of both.
fn connected(file: &Path, pods: &str) -> String {
    format!(
        "python3 -c 'import errno, socket, time
pods = {{{pods}}}
def to(at, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
    s.connect((at, port)); return s
def ask(s):
    s.send(b\"who?\"); return s.recv(99).decode()
by_vip = to(\"{VIP}\", 80); first = ask(by_vip)
direct = to(pods[first], 3000); assert ask(direct) == first
with open(\"{}\", \"w\") as file: file.write(first)
end = time.time() + 15
try:
    while time.time() < end:
        assert ask(by_vip) == first
        time.sleep(0.05)
    print(\"nothing happens\")
except OSError as error: print(errno.errorcode[error.errno])
print(ask(to(\"{VIP}\", 80)) == first, ask(direct) == first)'",
        file.display()
    )
}

#[test]
fn a_datagram_socket_whose_pod_is_gone_is_destroyed_and_no_other() {
    let (cgroup, scene) = scene("stranded");
    let pods = scene.pods().iter();
    let pods: Vec<_> = pods
        .map(|pod| format!("\"{}\": \"{}\"", pod.name, pod.address))
        .collect();
    let pods = pods.join(", ");
    let here = scene.lab.node(NODE);
    let inside = scene.lab.pod(&scene.first(true).name).namespace();
    for (n, machine) in [here, inside].into_iter().enumerate() {
        scene.set_endpoints(scene.pods());
        let file = scene.lab.dir().join(format!("connected-{n}"));
        let script = connected(&file, &pods);
        let said = thread::scope(|scope| {
            let client = scope.spawn(|| cgroup.shell(machine, &script).unwrap());
            wait("it is connected", || {
                fs::read(&file).is_ok_and(|it| !it.is_empty())
            });
            let pod = fs::read_to_string(&file).unwrap();
            // It goes on serving whoever still asks it.
            scene.set_endpoints(scene.pods().iter().filter(|it| it.name != pod));
            client.join().unwrap()
        });
        // The one where it waits for an answer, the other where it sends.
        let (error, rest) = said.split_once('\n').unwrap();
        assert!(["ECONNABORTED", "EDESTADDRREQ"].contains(&error), "{said}");
        assert_eq!(
            rest, "False True",
            "another pod by the address, the same directly"
        );
    }
}
