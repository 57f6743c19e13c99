//! Requests as a machine on the LAN makes them: real sockets in the client's namespace.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::load::{Load, LoadOptions, LongLived};
use crate::netns::NetNs;
use crate::topology::UPLINK;

/// How long a client waits for an answer where nothing else is said.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);

/// A machine that asks.
#[derive(Clone, Debug)]
pub struct Client {
    namespace: NetNs,
    timeout: Duration,
}

/// An answer of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The pod that says it has answered.
    pub pod: String,
    /// The body, without white space at its end.
    pub body: String,
    /// From the first packet of the connection to the last byte of the body.
    pub took: Duration,
}

impl Client {
    /// A client in any namespace of a lab: on a node, or in a pod.
    pub fn new(namespace: NetNs) -> Self {
        Self {
            namespace,
            timeout: TIMEOUT,
        }
    }

    /// The same with another limit on the time that a request may take.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Where it is.
    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// One request on a connection of its own.
    pub fn get(&self, url: &str) -> Result<Answer> {
        self.namespace.enter(|| http_get(url, self.timeout))?
    }

    /// So many requests one after the other, each on a connection of its own.
    pub fn many(&self, url: &str, count: usize) -> Result<Vec<Result<Answer>>> {
        self.namespace.enter(|| {
            let http = Http::per_request(self.timeout);
            (0..count).map(|_| http.get(url)).collect()
        })
    }

    /// So many requests one after the other on one connection, which is kept.
    pub fn many_kept_alive(&self, url: &str, count: usize) -> Result<Vec<Result<Answer>>> {
        self.namespace.enter(|| {
            let http = Http::keep_alive(self.timeout);
            (0..count).map(|_| http.get(url)).collect()
        })
    }

    /// Starts requests in the background, until told to stop.
    pub fn load(&self, url: &str, options: LoadOptions) -> Load {
        Load::start(&self.namespace, url, options)
    }

    /// Opens a connection on which a pod sends a line every 100 ms, for ever.
    pub fn long_lived(&self, url: &str) -> Result<LongLived> {
        LongLived::open(&self.namespace, url)
    }

    /// A datagram and what comes back, as text.
    pub fn udp(&self, to: SocketAddr, payload: &[u8]) -> Result<String> {
        let failed = |error: std::io::Error| Error::Request {
            target: format!("udp {to}"),
            reason: error.to_string(),
        };
        self.namespace
            .enter(|| -> std::io::Result<String> {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.set_read_timeout(Some(self.timeout))?;
                socket.connect(to)?;
                socket.send(payload)?;
                let mut buffer = [0; 2048];
                let length = socket.recv(&mut buffer)?;
                Ok(String::from_utf8_lossy(&buffer[..length])
                    .trim_end()
                    .to_owned())
            })?
            .map_err(failed)
    }

    /// The MAC address behind an IP address of the LAN, asked for by ARP afresh.
    pub fn resolve(&self, address: IpAddr) -> Result<[u8; 6]> {
        let text = address.to_string();
        let neighbour = |verb: &str, more: &[&str]| {
            let args = [&["neigh", verb, text.as_str(), "dev", UPLINK], more].concat();
            self.namespace.run("ip", &args)
        };
        // Nothing to forget is fine.
        let _ = neighbour("del", &[]);
        self.namespace.enter(|| {
            // Whoever has a datagram to send must ask first. Port 9 discards.
            let _ =
                UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(&[0], (address, 9)));
        })?;
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(mac) = link_address(&neighbour("show", &[])?) {
                return Ok(mac);
            }
            if Instant::now() > deadline {
                let reason = format!(
                    "nobody answers ARP on {UPLINK} of {}",
                    self.namespace.name()
                );
                return Err(Error::Request {
                    target: text,
                    reason,
                });
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// HTTP from the namespace that the calling thread is in.
#[derive(Debug)]
pub struct Http(ureq::Agent);

impl Http {
    /// Every request on a connection of its own.
    pub fn per_request(timeout: Duration) -> Self {
        Self::with(timeout, 0)
    }

    /// Requests one after the other on one connection.
    pub fn keep_alive(timeout: Duration) -> Self {
        Self::with(timeout, 1)
    }

    fn with(timeout: Duration, idle: usize) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .max_idle_connections(idle)
            .max_idle_connections_per_host(idle)
            // The machine's proxy is not the lab's.
            .proxy(None)
            .user_agent("naru-lab");
        Self(config.build().into())
    }

    /// One request.
    pub fn get(&self, url: &str) -> Result<Answer> {
        let began = Instant::now();
        let mut response = self
            .0
            .get(url)
            .call()
            .map_err(|error| failed(url, &error))?;
        let pod = pod_of(&response);
        let body = response
            .body_mut()
            .read_to_string()
            .map_err(|error| failed(url, &error))?;
        Ok(Answer {
            pod,
            body: body.trim_end().to_owned(),
            took: began.elapsed(),
        })
    }
}

/// One request on a connection of its own, from the namespace that the thread is in.
pub fn http_get(url: &str, timeout: Duration) -> Result<Answer> {
    Http::per_request(timeout).get(url)
}

/// The pod that names itself in a response.
pub(crate) fn pod_of(response: &ureq::http::Response<ureq::Body>) -> String {
    let header = response
        .headers()
        .get("x-pod")
        .and_then(|value| value.to_str().ok());
    header.unwrap_or("(no pod)").to_owned()
}

pub(crate) fn failed(url: &str, error: &ureq::Error) -> Error {
    Error::Request {
        target: url.to_owned(),
        reason: error.to_string(),
    }
}

/// Out of `192.168.56.11 lladdr 02:00:00:00:00:01 REACHABLE`.
fn link_address(shown: &str) -> Option<[u8; 6]> {
    let text = shown.split_once("lladdr ")?.1.split_whitespace().next()?;
    let bytes: Vec<u8> = text
        .split(':')
        .map_while(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read() {
        let shown = "192.168.56.11 lladdr 02:00:5e:00:00:0b REACHABLE \n";
        assert_eq!(link_address(shown), Some([2, 0, 0x5e, 0, 0, 11]));
        assert_eq!(link_address("192.168.56.11 FAILED"), None);
        assert_eq!(link_address(""), None);
    }
}
