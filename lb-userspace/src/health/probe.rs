//! One question to one endpoint.

use std::{net::SocketAddr, time::Duration};

use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::desired::{HealthCheck, HealthProbe};

const USER_AGENT: &str = concat!("naru/", env!("CARGO_PKG_VERSION"));

/// Asks once; why not, where the endpoint is not as it should be.
pub(super) async fn probe(check: &HealthCheck, endpoint: SocketAddr) -> Result<(), String> {
    let mut target = endpoint;
    if let Some(port) = check.port {
        target.set_port(port);
    }
    let answer = async {
        let stream = TcpStream::connect(target)
            .await
            .map_err(|error| format!("connecting to {target}: {error}"))?;
        match &check.probe {
            HealthProbe::Tcp => Ok(()),
            HealthProbe::Http { path } => get(stream, target, path).await,
        }
    };
    match timeout(check.timeout, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "no answer from {target} within {}",
            text(check.timeout)
        )),
    }
}

/// GET, and nothing of the answer but its status.
async fn get(stream: TcpStream, target: SocketAddr, path: &str) -> Result<(), String> {
    let failed = |error: hyper::Error| format!("HTTP with {target}: {error}");
    let request = Request::get(path)
        .header(header::HOST, target.to_string())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| format!("HTTP with {target}: {error}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // The connection does the work for as long as it is asked to; it ends with us.
    let response = tokio::select! {
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    match response.map_err(failed)?.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(format!("{target} answers {}", said(status))),
    }
}

fn said(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn text(duration: Duration) -> String {
    format!("{duration:?}")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers each connection with these bytes, where there are any.
    async fn server(answer: Option<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let address = listener.local_addr().expect("address");
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(answer) = answer {
                    let mut request = [0; 1024];
                    let length = stream.read(&mut request).await.expect("a request");
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    assert!(request.starts_with("GET /up?x=1 HTTP/1.1\r\n"), "{request}");
                    stream.write_all(answer.as_bytes()).await.expect("written");
                }
                open.push(stream);
            }
        });
        address
    }

    fn http() -> HealthCheck {
        HealthCheck {
            probe: HealthProbe::Http {
                path: "/up?x=1".to_owned(),
            },
            timeout: Duration::from_millis(300),
            ..HealthCheck::default()
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
            .block_on(future)
    }

    #[test]
    fn a_status_of_two_or_three_hundred_is_good_and_nothing_else() {
        run(async {
            for (answer, good) in [
                ("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", true),
                ("HTTP/1.1 204 No Content\r\n\r\n", true),
                ("HTTP/1.0 301 Moved\r\nLocation: /\r\n\r\n", true),
                ("HTTP/1.1 404 Not Found\r\n\r\n", false),
                ("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n", false),
                ("SSH-2.0-OpenSSH_9.2\r\n", false),
                ("HTTP/1.1 200", false),
            ] {
                let outcome = probe(&http(), server(Some(answer)).await).await;
                assert_eq!(outcome.is_ok(), good, "{answer:?}: {outcome:?}");
            }
            let down = "HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n";
            let error = probe(&http(), server(Some(down)).await).await;
            let error = error.expect_err("down");
            assert!(
                error.ends_with(" answers 503 Service Unavailable"),
                "{error}"
            );
        });
    }

    #[test]
    fn who_says_nothing_has_as_long_as_was_agreed() {
        run(async {
            let silent = server(None).await;
            let began = Instant::now();
            let error = probe(&http(), silent).await.expect_err("silent");
            assert!(error.ends_with("within 300ms"), "{error}");
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(300), "{took:?}");
            assert!(took < Duration::from_millis(1500), "{took:?}");
            // Who only has to accept is well.
            assert_eq!(probe(&HealthCheck::default(), silent).await, Ok(()));
            // Nobody at all, and another port than the endpoint's.
            let elsewhere = HealthCheck {
                port: Some(silent.port()),
                ..HealthCheck::default()
            };
            let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
            assert_eq!(probe(&elsewhere, nobody).await, Ok(()));
            let error = probe(&HealthCheck::default(), nobody).await;
            let error = error.expect_err("nobody");
            assert!(error.contains("refused"), "{error}");
        });
    }
}
