//! A small HTTP server: what clients may take of memory and of time is bounded.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Clients served at a time; further ones wait.
const MAX_CLIENTS: usize = 8;
/// How long a client may take to ask, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers whoever comes, without end. `what` is for messages.
pub(crate) async fn serve<F>(
    listener: TcpListener,
    what: &'static str,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Response<String>> + Send,
{
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer.clone();
                tokio::spawn(async move {
                    // A client that is slow or goes away is no concern of ours.
                    let _ = timeout(PATIENCE, one(stream, answer)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("{what}: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Serves one connection.
async fn one<F>(stream: TcpStream, answer: impl Fn(Request<Incoming>) -> F) -> hyper::Result<()>
where
    F: Future<Output = Response<String>>,
{
    let answer = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.serve_connection(TokioIo::new(stream), answer).await
}

/// An answer of some text.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut answer = Response::new(text.to_owned());
    *answer.status_mut() = status;
    answer
}
