//! Associations over SCTP. Its checksum, a CRC, covers the ports and not the addresses:
//! it must arrive as it was sent, which the receiving kernel checks.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::OnceLock,
    thread,
};

use libtest_mimic::Failed;
use naru_tests::Netns;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    machine::{Machine, inside},
    node_agent, requests,
    site::{self, SCTP_PORT, SCTP_SERVERS, Site},
};

/// The number of the protocol.
const SCTP: i32 = 132;
/// The client's own address by the card: bound to it alone, it tells the server of no other.
const BY_CARD: Ipv4Addr = Ipv4Addr::new(192, 168, 57, 1);
/// The same by the bond.
const BY_BOND: Ipv4Addr = Ipv4Addr::new(192, 168, 59, 1);
/// What is sent: more than fits into a packet.
const LENGTH: usize = 20_000;

pub(crate) fn by_card() -> Result<(), Failed> {
    let machine = crate::machine();
    associate(machine, BY_CARD, &site::CARD, "xdp");
    let before = checksum_errors(machine);
    // So these kernels do check: what is wrong when it is sent is wrong when it arrives.
    inside(&machine.client, || (0..2).for_each(send_broken));
    let deadline = std::time::Instant::now() + requests::PATIENCE;
    let expected = before.map(|count| count + 1);
    while checksum_errors(machine) != expected {
        let late = std::time::Instant::now() > deadline;
        assert!(!late, "errors: {:?}", checksum_errors(machine));
        thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(())
}

pub(crate) fn by_bond() -> Result<(), Failed> {
    associate(crate::machine(), BY_BOND, &site::BOND, "tc-ingress");
    Ok(())
}

/// Four associations by a way, of which a hook forwards those to the server elsewhere.
fn associate(machine: &'static Machine, client: Ipv4Addr, site: &Site, hook: &str) {
    let agent = node_agent::on_all(machine);
    serve(machine);
    let errors = checksum_errors(machine);
    let count = |hook, verdict| agent.packets(hook, verdict);
    let before = [
        count(hook, "forward_nat"),
        count("tc-egress", "reply_local"),
    ];
    let ask = |_| ask(client, site.vip);
    let answers: Vec<_> = inside(&machine.client, || (0..4).map(ask).collect());
    let names = SCTP_SERVERS.map(|(name, _)| name.to_owned());
    assert_eq!(answers[..2], answers[2..], "{answers:?}");
    assert!(
        names.iter().all(|name| answers.contains(name)),
        "{answers:?}"
    );
    assert!(count(hook, "forward_nat") > before[0] + 8);
    assert!(count("tc-egress", "reply_local") > before[1] + 8);
    assert_eq!(checksum_errors(machine), errors);
}

/// Starts the servers; they run until the machine ends.
fn serve(machine: &'static Machine) {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        for ((name, address), namespace) in SCTP_SERVERS.into_iter().zip(namespaces(machine)) {
            let listener = inside(namespace, || {
                let socket = socket(Type::STREAM);
                socket.bind(&at(address, SCTP_PORT)).unwrap();
                socket.listen(16).unwrap();
                socket
            });
            thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    // Who hangs up early has nothing to be told.
                    let _ = answer(socket, name);
                }
            });
        }
    });
}

/// Where the servers are, in their order.
fn namespaces(machine: &Machine) -> [&Netns; 2] {
    [machine.pod(), &machine.client]
}

/// Reads all, and sends the name and all of it back.
fn answer(mut socket: Socket, name: &str) -> std::io::Result<()> {
    let mut received = vec![0; LENGTH];
    socket.read_exact(&mut received)?;
    socket.write_all(format!("{name}\n").as_bytes())?;
    socket.write_all(&received)?;
    // Until the other side has had it.
    socket.read(&mut [0]).map(drop)
}

/// One association: who answered.
fn ask(client: Ipv4Addr, vip: Ipv4Addr) -> String {
    let mut socket = socket(Type::STREAM);
    socket.set_read_timeout(Some(requests::PATIENCE)).unwrap();
    socket.bind(&at(client, 0)).unwrap();
    let vip = at(vip, SCTP_PORT);
    socket.connect_timeout(&vip, requests::PATIENCE).unwrap();
    let sent: Vec<u8> = (0..LENGTH).map(|index| (index * 7 % 251) as u8).collect();
    socket.write_all(&sent).unwrap();
    let mut name = Vec::new();
    loop {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        match byte {
            [b'\n'] => break,
            [byte] => name.push(byte),
        }
    }
    let mut back = vec![0; LENGTH];
    socket.read_exact(&mut back).unwrap();
    assert!(back == sent, "what comes back is not what was sent");
    String::from_utf8(name).unwrap()
}

/// Sends an INIT (RFC 9260, section 3.3.2) with a checksum that is none.
fn send_broken(number: u16) {
    let mut packet = Vec::new();
    packet.extend((4000 + number).to_be_bytes());
    packet.extend(SCTP_PORT.to_be_bytes());
    // No verification tag yet, and no checksum.
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    // Tag, window, streams out and in, first number.
    packet.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let socket = socket(Type::RAW);
    socket.bind(&at(BY_CARD, 0)).unwrap();
    socket.send_to(&packet, &at(site::CARD.vip, 0)).unwrap();
}

/// Packets that the servers' kernels found to have a wrong checksum.
fn checksum_errors(machine: &Machine) -> [u64; 2] {
    namespaces(machine).map(|namespace| {
        let text = inside(namespace, || {
            fs::read_to_string("/proc/thread-self/net/sctp/snmp").unwrap()
        });
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("SctpChecksumErrors"));
        count.expect("a counter").trim().parse().unwrap()
    })
}

fn socket(kind: Type) -> Socket {
    Socket::new(Domain::IPV4, kind, Some(Protocol::from(SCTP))).expect("the module sctp")
}

fn at(address: Ipv4Addr, port: u16) -> socket2::SockAddr {
    SocketAddr::from((address, port)).into()
}
