//! Sockets of a client, where the ready-made requests of the lab say too little.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use naru_lab::NetNs;
use socket2::{Domain, Socket, Type};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

pub fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

/// A datagram from this port of the machine and the answer to it, from where it was
/// sent to and from nowhere else.
pub fn ask(machine: &NetNs, port: u16, to: SocketAddr) -> io::Result<String> {
    machine.enter(|| ask_here(port, to, PATIENCE)).unwrap()
}

/// The same from several ports, one after the other.
pub fn ask_from(machine: &NetNs, ports: impl Iterator<Item = u16>, to: SocketAddr) -> Vec<String> {
    let ports: Vec<u16> = ports.collect();
    let all = || ports.iter().map(|port| ask_here(*port, to, PATIENCE));
    machine
        .enter(|| all().collect::<io::Result<_>>())
        .unwrap()
        .unwrap()
}

/// The same from the namespace that the thread is in.
pub fn ask_here(port: u16, to: SocketAddr, patience: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(to)?;
    socket.send(b"who?")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A datagram that only fits in fragments, and what comes back of it: pod and bytes.
pub fn echo_datagram(machine: &NetNs, port: u16, to: SocketAddr, body: &[u8]) -> Answer {
    try_echo_datagram(machine, port, to, body, PATIENCE).unwrap()
}

pub fn try_echo_datagram(
    machine: &NetNs,
    port: u16,
    to: SocketAddr,
    body: &[u8],
    patience: Duration,
) -> io::Result<Answer> {
    let exchange = || -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind(("0.0.0.0", port))?;
        socket.set_read_timeout(Some(patience))?;
        socket.connect(to)?;
        socket.send(body)?;
        let mut buffer = vec![0; 1 << 16];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    };
    let answer = machine.enter(exchange).unwrap()?;
    let end = answer
        .iter()
        .position(|&byte| byte == b'\n')
        .expect("a line");
    Ok(Answer {
        pod: String::from_utf8(answer[..end].to_vec()).unwrap(),
        body: answer[end + 1..].to_vec(),
    })
}

/// A connection from this port (0: any).
pub fn connect(machine: &NetNs, port: u16, to: SocketAddr) -> io::Result<TcpStream> {
    connect_within(machine, port, to, PATIENCE)
}

pub fn connect_within(
    machine: &NetNs,
    port: u16,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<TcpStream> {
    machine.enter(|| connect_here(port, to, patience)).unwrap()
}

fn connect_here(port: u16, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&at(Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.connect_timeout(&to.into(), patience)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// The pod that answers on a connection, which stays open.
pub fn who(stream: &mut TcpStream) -> io::Result<String> {
    let answer = request(stream, "GET / HTTP/1.1\r\nHost: test\r\n\r\n", &[])?;
    Ok(String::from_utf8_lossy(&answer.body).trim().to_owned())
}

/// Who answers on connections from these ports. Each ends with a reset, so that its port
/// is free at once.
pub fn who_from(machine: &NetNs, ports: impl Iterator<Item = u16>, to: SocketAddr) -> Vec<String> {
    let ports: Vec<u16> = ports.collect();
    let one = |port: u16| -> io::Result<String> {
        let mut stream = connect_here(port, to, PATIENCE)?;
        let pod = who(&mut stream)?;
        Socket::from(stream).set_linger(Some(Duration::ZERO))?;
        Ok(pod)
    };
    let all = || ports.iter().map(|port| one(*port)).collect();
    machine
        .enter(all)
        .map(|it: io::Result<_>| it.unwrap())
        .unwrap()
}

/// An answer over HTTP.
pub struct Answer {
    pub pod: String,
    pub body: Vec<u8>,
}

/// Has a pod echo a body; gives back which one did.
pub fn echo(stream: &mut TcpStream, body: &[u8]) -> io::Result<Answer> {
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    request(stream, &head, body)
}

/// The address and port of the client as a pod sees them, and the pod.
pub fn seen_as(stream: &mut TcpStream) -> (String, SocketAddr) {
    let answer = request(stream, "GET /ip HTTP/1.1\r\nHost: test\r\n\r\n", &[]).unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    (answer.pod, text.trim().parse().unwrap())
}

fn request(stream: &mut TcpStream, head: &str, body: &[u8]) -> io::Result<Answer> {
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut received = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        if let Some(answer) = whole(&received) {
            return Ok(answer);
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received.extend_from_slice(&buffer[..length]),
        }
    }
}

/// The answer, once all of it is there.
fn whole(received: &[u8]) -> Option<Answer> {
    let end = received
        .windows(4)
        .take(4096)
        .position(|at| at == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&received[..end]).ok()?;
    let field = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut named = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    };
    let length: usize = field("content-length")?.parse().ok()?;
    let body = &received[end + 4..];
    (body.len() >= length).then(|| Answer {
        pod: field("x-pod").unwrap_or_default().to_owned(),
        body: body[..length].to_vec(),
    })
}

/// How an attempt failed, and how soon.
#[track_caller]
pub fn failure<T>(attempt: impl FnOnce() -> io::Result<T>) -> (io::ErrorKind, Duration) {
    let began = Instant::now();
    let error = attempt().err().expect("this should have failed");
    (error.kind(), began.elapsed())
}

/// Bytes in which every kind of damage shows.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}
