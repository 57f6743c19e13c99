//! What a pod runs: a small HTTP server, and the same name over UDP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the pod's name |
//! | `GET /ip` | the client's address and port as the pod sees them |
//! | `GET /slow?ms=N` | the name, after so long |
//! | `GET /stream` | a line every 100 ms, until somebody hangs up |
//! | `POST /echo` | what was sent |
//! | `GET` of any other path | the pod's name |
//! | a UDP datagram | the pod's name |
//! | one of over 1,000 bytes, or that begins with `probe ` | the name, a line feed, and what was sent |
//!
//! After SIGTERM it serves for two more seconds, so that a balancer has the time to send
//! new connections elsewhere, then finishes what it has begun.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, Request, State};
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use futures_util::stream;
use naru_lab::MARK;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::reflect;

/// How long a pod goes on as if nothing had happened after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long requests that are under way may take after that.
const LAST_CALL: Duration = Duration::from_secs(5);

/// A datagram longer than this comes back.
const LONG: usize = 1_000;

/// What a pod is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Its name, which is its answer
    #[arg(long)]
    name: String,
    /// Where it serves, over TCP and UDP
    #[arg(long)]
    listen: SocketAddr,
    /// What answers say in the header x-version
    #[arg(long, default_value = "")]
    version: String,
    /// Keep a CPU busy for so many milliseconds before each answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    work_ms: u64,
    /// Write a line for each request to standard output
    #[arg(long)]
    log: bool,
}

#[derive(Clone)]
struct Pod {
    name: &'static str,
    version: HeaderValue,
    log: bool,
    work: Duration,
    /// Becomes true when the grace is over: endless answers end.
    closing: watch::Receiver<bool>,
}

/// Serves until told to end.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    // One thread a pod is plenty, and many pods share the machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // For the rest of the process's life, as every answer needs it.
    let name: &'static str = args.name.leak();
    let version = HeaderValue::from_str(&args.version).context("--version")?;
    let (close, closing) = watch::channel(false);
    let pod = Pod {
        name,
        version,
        log: args.log,
        work: Duration::from_millis(args.work_ms),
        closing,
    };
    runtime.block_on(serve(pod, close, args.listen))
}

async fn serve(pod: Pod, close: watch::Sender<bool>, listen: SocketAddr) -> anyhow::Result<()> {
    let name = pod.name;
    let mut terminate = signal(SignalKind::terminate())?;
    if listen.ip().is_unspecified() {
        let udp = reflect::bind(listen).with_context(|| format!("udp {listen}"))?;
        std::thread::spawn(move || reflect::answer(&udp));
    } else {
        let udp = UdpSocket::bind(listen);
        let udp = udp.await.with_context(|| format!("udp {listen}"))?;
        tokio::spawn(answer_datagrams(udp, name));
    }
    let tcp = TcpListener::bind(listen)
        .await
        .with_context(|| format!("tcp {listen}"))?;
    // A line of a stream should leave when it is written.
    let tcp = tcp.tap_io(|connection| drop(connection.set_nodelay(true)));

    let mut stop = pod.closing.clone();
    let routes = Router::new()
        .route("/", get(who))
        .route("/ip", get(client_address))
        .route("/slow", get(slow))
        .route("/stream", get(endless))
        .route("/echo", post(echo))
        .fallback(get(who))
        .layer(DefaultBodyLimit::max(64 << 20))
        .layer(middleware::from_fn_with_state(pod.clone(), sign))
        .with_state(pod)
        .into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(tcp, routes).with_graceful_shutdown(async move {
        // An error says that nobody can tell us any more, which is the end as well.
        let _ = stop.wait_for(|closing| *closing).await;
    });
    let server = tokio::spawn(server.into_future());

    terminate.recv().await;
    sleep(GRACE).await;
    close.send_replace(true);
    match timeout(LAST_CALL, server).await {
        Ok(ended) => ended?.context("serving"),
        // A client that never hangs up does not keep a pod alive.
        Err(_) => Ok(()),
    }
}

async fn answer_datagrams(socket: UdpSocket, name: &'static str) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Errors are those of earlier answers (port unreachable); the next one is new.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = name.as_bytes().to_vec();
            if length > LONG || buffer[..length].starts_with(MARK.as_bytes()) {
                answer.push(b'\n');
                answer.extend_from_slice(&buffer[..length]);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// Puts the pod's name on every answer.
async fn sign(
    State(pod): State<Pod>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if pod.log {
        println!("{} {} {}", client.ip(), request.method(), request.uri());
    }
    let began = Instant::now();
    while began.elapsed() < pod.work {
        std::hint::spin_loop();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Ok(name) = HeaderValue::from_str(pod.name) {
        headers.insert("x-pod", name);
    }
    if !pod.version.is_empty() {
        headers.insert("x-version", pod.version);
    }
    response
}

async fn who(State(pod): State<Pod>) -> String {
    format!("{}\n", pod.name)
}

async fn client_address(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    format!("{client}\n")
}

#[derive(serde::Deserialize)]
struct Slow {
    ms: u64,
}

async fn slow(State(pod): State<Pod>, Query(slow): Query<Slow>) -> String {
    sleep(Duration::from_millis(slow.ms)).await;
    format!("{}\n", pod.name)
}

async fn endless(State(pod): State<Pod>) -> Body {
    Body::from_stream(stream::unfold(
        (0u64, pod),
        |(number, mut pod)| async move {
            if number > 0 {
                let pause = Duration::from_millis(100);
                let closing = timeout(pause, pod.closing.wait_for(|closing| *closing));
                if closing.await.is_ok() {
                    return None;
                }
            }
            let line = format!("{} {number}\n", pod.name);
            Some((Ok::<_, Infallible>(Bytes::from(line)), (number + 1, pod)))
        },
    ))
}

async fn echo(body: Bytes) -> Bytes {
    body
}
