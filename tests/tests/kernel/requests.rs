//! What the client asks, and the turns that the answers must show.

use std::{
    collections::BTreeSet,
    net::UdpSocket,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use crate::{
    machine::{Machine, inside},
    site::Site,
};

/// Longer than a segment takes to be sent again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// So many requests on connections of their own: the servers that answered.
pub(crate) fn by_tcp(machine: &Machine, site: &Site, count: usize) -> Vec<String> {
    inside(&machine.client, || {
        let url = format!("http://{}/", site.vip);
        (0..count)
            .map(|_| naru_lab::http_get(&url, PATIENCE).unwrap().pod)
            .collect()
    })
}

/// So many questions from ports of their own: the servers that answered.
pub(crate) fn by_udp(machine: &Machine, site: &Site, count: usize) -> Vec<String> {
    inside(&machine.client, || {
        (0..count)
            .map(|_| {
                let socket = question();
                socket.connect((site.vip, 80)).unwrap();
                socket.send(b"who?").unwrap();
                let mut answer = [0; 64];
                let len = socket.recv(&mut answer).unwrap();
                String::from_utf8_lossy(&answer[..len]).into_owned()
            })
            .collect()
    })
}

/// A socket to ask from, with a port that none had before: who asks again by one within half a
/// minute is sent to the same server, out of turn.
pub(crate) fn question() -> UdpSocket {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Checks that the servers took turns, each as often as any other.
#[track_caller]
pub(crate) fn in_turn(site: &Site, answers: &[String]) {
    let round: Vec<_> = answers.iter().take(site.servers.len()).collect();
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(answer, round[at % round.len()], "{answers:?}");
    }
    everyone(site, answers);
}

/// Checks that every server has answered, and nobody else.
#[track_caller]
pub(crate) fn everyone(site: &Site, answers: &[String]) {
    let named: BTreeSet<&str> = answers.iter().map(String::as_str).collect();
    let all = site.servers.map(|(name, _)| name);
    assert_eq!(named, BTreeSet::from(all), "{answers:?}");
}
