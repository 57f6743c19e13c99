//! Metrics for Prometheus, over HTTP.
//!
//! Nothing is counted for them but how long changes take: each scrape asks what `naru status` and
//! its like ask, and writes it down in OpenMetrics' format, with what the process takes of the
//! machine.

mod page;
mod process;
mod rows;

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    collector::Collector, encoding::text, metrics::histogram::Histogram, registry::Registry,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

pub use self::page::{AgentPage, ControllerPage};

/// Clients served at a time; further ones wait.
const MAX_CLIENTS: usize = 8;
/// How long a client may take to ask, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of what is counted of [`durations`], in seconds.
const DURATIONS: [f64; 13] = [
    0.002, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// Where it is counted how long changes take; copies share it.
pub fn durations() -> Histogram {
    Histogram::new(DURATIONS)
}

/// Serves `/metrics` there, of what `page` says at each scrape.
///
/// # Errors
/// Where it cannot listen.
pub async fn serve<P, F>(
    address: SocketAddr,
    page: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> io::Result<()>
where
    P: Collector,
    F: Future<Output = Option<P>> + Send,
{
    let listener = TcpListener::bind(address).await?;
    tracing::info!("metrics at http://{address}/metrics");
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let page = page.clone();
                    tokio::spawn(async move {
                        // A client that is slow or goes away is no concern of ours.
                        let _ = timeout(PATIENCE, one(stream, page)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("metrics: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

/// Serves one connection.
async fn one<P, F>(stream: TcpStream, page: impl Fn() -> F) -> hyper::Result<()>
where
    P: Collector,
    F: Future<Output = Option<P>>,
{
    let answer = service_fn(|request: Request<Incoming>| {
        let page = page();
        async move { Ok::<_, Infallible>(answer(&request, page).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.serve_connection(TokioIo::new(stream), answer).await
}

async fn answer<P: Collector>(
    request: &Request<Incoming>,
    page: impl Future<Output = Option<P>>,
) -> Response<String> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "it is at /metrics\n");
    }
    if request.method() != Method::GET {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET it\n");
        let allowed = hyper::header::HeaderValue::from_static("GET");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    let Some(page) = page.await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "it is stopping\n");
    };
    match write(page) {
        Ok(text) => {
            let mut answer = Response::new(text);
            let kind = hyper::header::HeaderValue::from_static(OPEN_METRICS);
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut answer = Response::new(text.to_owned());
    *answer.status_mut() = status;
    answer
}

/// What a page says, in OpenMetrics' format.
fn write(page: impl Collector) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(page));
    registry.register_collector(Box::new(process::Process));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
