//! The node's own processes and those in its pods, served at their sockets.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use libtest_mimic::Failed;

use crate::{
    machine::inside,
    node_agent::{self, CGROUP},
    requests,
    site::CARD,
};

const ROOT: &str = "/sys/fs/cgroup";

/// This process in the cgroup that is served; dropped, it is back at the root, where the
/// client of all other cases is.
struct Served;

impl Served {
    fn begin() -> Self {
        join(CGROUP);
        Self
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        join(ROOT);
    }
}

fn join(cgroup: &str) {
    fs::write(format!("{cgroup}/cgroup.procs"), "0").unwrap();
}

pub(crate) fn clients_on_the_node() -> Result<(), Failed> {
    let machine = crate::machine();
    let agent = node_agent::on_all(machine);
    assert_eq!(agent.status()["cgroup"], CGROUP);
    let _served = Served::begin();
    let by_every_way = || [by_tcp(), by_connected_udp(), by_udp()];
    for answers in by_every_way() {
        requests::everyone(&CARD, &answers);
    }
    for answers in inside(machine.pod(), by_every_way) {
        requests::everyone(&CARD, &answers);
    }
    Ok(())
}

fn vip() -> SocketAddr {
    (CARD.vip, 80).into()
}

fn by_tcp() -> Vec<String> {
    let one = |_| {
        let mut stream = TcpStream::connect_timeout(&vip(), requests::PATIENCE).unwrap();
        stream.set_read_timeout(Some(requests::PATIENCE)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), vip());
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        body.trim().to_owned()
    };
    (0..6).map(one).collect()
}

fn by_connected_udp() -> Vec<String> {
    let one = |_| {
        let socket = requests::question();
        socket.connect(vip()).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), vip());
        socket.send(b"who?").unwrap();
        let mut answer = [0; 64];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!(from, vip());
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    (0..6).map(one).collect()
}

fn by_udp() -> Vec<String> {
    let one = |_| {
        let socket = requests::question();
        socket.send_to(b"who?", vip()).unwrap();
        let mut answer = [0; 64];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!(from, vip());
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    (0..6).map(one).collect()
}
