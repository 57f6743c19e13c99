//! What the client asks, and the turns that the answers must show.

use std::{net::UdpSocket, time::Duration};

use crate::machine::{Machine, SERVERS, VIP, inside};

/// Longer than a segment takes to be sent again.
const PATIENCE: Duration = Duration::from_secs(15);

/// So many requests on connections of their own: the servers that answered.
pub(crate) fn by_tcp(machine: &Machine, count: usize) -> Vec<String> {
    inside(&machine.client, || {
        let url = format!("http://{VIP}/");
        (0..count)
            .map(|_| naru_lab::http_get(&url, PATIENCE).unwrap().pod)
            .collect()
    })
}

/// So many questions from ports of their own: the servers that answered.
pub(crate) fn by_udp(machine: &Machine, count: usize) -> Vec<String> {
    inside(&machine.client, || {
        (0..count)
            .map(|_| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect((VIP, 80)).unwrap();
                socket.send(b"who?").unwrap();
                let mut answer = [0; 64];
                let len = socket.recv(&mut answer).unwrap();
                String::from_utf8_lossy(&answer[..len]).into_owned()
            })
            .collect()
    })
}

/// Checks that the servers took turns, each as often as any other.
#[track_caller]
pub(crate) fn in_turn(answers: &[String]) {
    let mut round: Vec<_> = answers.iter().take(SERVERS.len()).collect();
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(answer, round[at % round.len()], "{answers:?}");
    }
    round.sort();
    let mut names = SERVERS.map(|(name, _)| name);
    names.sort_unstable();
    assert_eq!(round, names, "{answers:?}");
}
