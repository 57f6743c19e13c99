//! Metrics for Prometheus, over HTTP.
//!
//! Nothing is counted for them but how long changes take: each scrape asks what `naru status` and
//! its like ask, and writes it down in OpenMetrics' format, with what the process takes of the
//! machine.

mod page;
mod process;
mod rows;

use std::{future::Future, io, net::SocketAddr};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
};
use prometheus_client::{
    collector::Collector, encoding::text, metrics::histogram::Histogram, registry::Registry,
};
use tokio::net::TcpListener;

use crate::http;

pub use self::page::{AgentPage, ControllerPage};

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
    F: Future<Output = Option<P>> + Send + 'static,
{
    let listener = TcpListener::bind(address).await?;
    tracing::info!("metrics at http://{address}/metrics");
    tokio::spawn(http::serve(listener, "metrics", move |request| {
        let page = page();
        async move { answer(&request, page).await }
    }));
    Ok(())
}

async fn answer<P: Collector>(
    request: &Request<Incoming>,
    page: impl Future<Output = Option<P>>,
) -> Response<String> {
    if request.uri().path() != "/metrics" {
        return http::plain(StatusCode::NOT_FOUND, "it is at /metrics\n");
    }
    if request.method() != Method::GET {
        let mut answer = http::plain(StatusCode::METHOD_NOT_ALLOWED, "GET it\n");
        let allowed = hyper::header::HeaderValue::from_static("GET");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    let Some(page) = page.await else {
        return http::plain(StatusCode::SERVICE_UNAVAILABLE, "it is stopping\n");
    };
    match write(page) {
        Ok(text) => {
            let mut answer = Response::new(text);
            let kind = hyper::header::HeaderValue::from_static(OPEN_METRICS);
            answer.headers_mut().insert(CONTENT_TYPE, kind);
            answer
        }
        Err(error) => http::plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
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
