//! A virtual IP that is the node's own address, as k3d's ServiceLB has it.

use std::{
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
};

use naru_lab::{ServiceSpec, Topology};

use crate::{
    probe,
    scene::{self, CLIENT_ADDRESS, NODE, NODE_ADDRESS, assert_in_turn, order},
};

#[test]
fn a_service_on_the_nodes_own_address_leaves_the_rest_of_its_traffic_alone() {
    let (lab, manifests) = scene::set_up(Topology::nuc());
    for service in scene::services() {
        let service = ServiceSpec {
            address: NODE_ADDRESS,
            ..service
        };
        manifests.service(&service).unwrap();
    }
    let (client, node) = (lab.node("client"), lab.node(NODE));
    let listener = node
        .enter(|| TcpListener::bind((NODE_ADDRESS, 9999)))
        .unwrap()
        .unwrap();
    let datagrams = node
        .enter(|| UdpSocket::bind((NODE_ADDRESS, 9999)))
        .unwrap()
        .unwrap();
    let own = probe::at(NODE_ADDRESS, 9999);
    let mut before = probe::connect(client, 0, own).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();

    let agent = lab.agent(NODE, scene::options(&manifests)).unwrap();
    let pods = &lab.topology().pods;
    let url = format!("http://{NODE_ADDRESS}/");
    assert_in_turn(&order(lab.client().many(&url, 10).unwrap()), pods);
    let answers = probe::ask_from(client, 20_000..20_010, probe::at(NODE_ADDRESS, 80));
    assert_in_turn(&answers, pods);

    // What was open, what is opened, datagrams, echoes, closed ports, the node's own calls.
    let says = |from: &mut dyn Write, to: &mut dyn Read| {
        from.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        to.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    };
    says(&mut before, &mut accepted);
    says(&mut accepted, &mut before);
    let mut after = probe::connect(client, 0, own).unwrap();
    says(&mut listener.accept().unwrap().0, &mut after);
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let (length, from) = datagrams.recv_from(&mut buffer).unwrap();
        datagrams.send_to(&buffer[..length], from).unwrap();
    });
    assert_eq!(probe::ask(client, 0, own).unwrap(), "who?");
    answering.join().unwrap();
    client
        .run("ping", &["-c1", "-W2", &NODE_ADDRESS.to_string()])
        .unwrap();
    let (kind, _) = probe::failure(|| probe::connect(client, 0, probe::at(NODE_ADDRESS, 81)));
    assert_eq!(
        kind,
        std::io::ErrorKind::ConnectionRefused,
        "by the host's own stack"
    );
    let outside = client
        .enter(|| TcpListener::bind((CLIENT_ADDRESS, 9998)))
        .unwrap()
        .unwrap();
    let mut call = probe::connect(node, 0, probe::at(CLIENT_ADDRESS, 9998)).unwrap();
    says(&mut outside.accept().unwrap().0, &mut call);

    // The kernel answers ARP for its own address; the agent must not as well.
    let status = agent.json(&["status"]).unwrap();
    assert_eq!(status["announced"], serde_json::json!([]));
    let host_port = scene::rows(&status["verdicts"])
        .iter()
        .find(|it| it["verdict"] == "host_port");
    assert!(
        host_port.unwrap()["packets"].as_u64().unwrap() > 8,
        "{host_port:?}"
    );

    // And it is as before when the agent is gone for good.
    agent.detach().unwrap();
    says(&mut before, &mut accepted);
    let (kind, _) = probe::failure(|| probe::connect(client, 0, probe::at(NODE_ADDRESS, 80)));
    assert_eq!(kind, std::io::ErrorKind::ConnectionRefused);
}
