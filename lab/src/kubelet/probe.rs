//! Whether a pod is ready.

use std::{net::SocketAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long an answer may take, where nobody says.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much of an answer tells.
const BEGINNING: usize = 16;

/// What is asked: what the container's readinessProbe says, or else whether its port takes
/// connections.
#[derive(Clone, Debug)]
pub(super) struct Question {
    to: SocketAddr,
    /// Of HTTP; none: a connection will do.
    path: Option<String>,
    /// How long to wait before the first time.
    pub(super) delay: Duration,
    /// From one time to the next.
    pub(super) period: Duration,
}

impl Question {
    /// None for a container that serves nothing.
    pub(super) fn new(container: &Container, to: Option<SocketAddr>) -> Option<Self> {
        let mut to = to?;
        let probe = container.readiness_probe.as_ref();
        let http = probe.and_then(|it| it.http_get.as_ref());
        let port = http.map(|it| &it.port);
        let port = port.or_else(|| Some(&probe?.tcp_socket.as_ref()?.port));
        if let Some(port) = port.and_then(|it| number(container, it)) {
            to.set_port(port);
        }
        let seconds = |of: fn(&Probe) -> Option<i32>| {
            let seconds = probe.and_then(of).and_then(|it| u64::try_from(it).ok());
            seconds.map(Duration::from_secs)
        };
        Some(Self {
            to,
            path: http.map(|it| it.path.clone().unwrap_or_else(|| "/".to_owned())),
            delay: seconds(|it| it.initial_delay_seconds).unwrap_or_default(),
            period: seconds(|it| it.period_seconds).unwrap_or(PATIENCE),
        })
    }

    /// Asks once.
    pub(super) async fn ask(&self) -> bool {
        timeout(PATIENCE, self.is_answered())
            .await
            .unwrap_or_default()
    }

    async fn is_answered(&self) -> bool {
        let Ok(mut connection) = TcpStream::connect(self.to).await else {
            return false;
        };
        let Some(path) = &self.path else {
            return true;
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kube-probe/lab\r\n\
             Connection: close\r\n\r\n",
            self.to
        );
        let mut answer = [0; BEGINNING];
        let asked = connection.write_all(request.as_bytes()).await;
        let read = match asked {
            Ok(()) => connection.read_exact(&mut answer).await,
            Err(error) => Err(error),
        };
        // `HTTP/1.1 200 …`
        read.is_ok() && matches!(answer[9], b'2' | b'3')
    }
}

fn number(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let port = ports.find(|it| it.name.as_ref() == Some(name))?;
            u16::try_from(port.container_port).ok()
        }
    }
}
