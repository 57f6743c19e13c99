//! What the API server asks a kubelet for: the logs of its pods, and what pods use.

use std::{
    fs,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

use super::{Shared, life, roll::API};

/// Where a kubelet listens.
pub(crate) const PORT: u16 = 10250;
/// How long a client may take to agree on a key.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Begins to listen on the node's address.
pub(super) async fn listen(
    shared: Arc<Shared>,
) -> Result<impl Future<Output = ()>, Box<dyn std::error::Error>> {
    let [certificate, key] = &shared.options.identity;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)?.collect();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates?, PrivateKeyDer::from_pem_file(key)?)?;
    let address = SocketAddr::from((shared.options.node.address, PORT));
    let listener = Secured {
        tcp: TcpListener::bind(address).await?,
        tls: TlsAcceptor::from(Arc::new(config)),
    };
    let routes = Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .route(&format!("/apis/{API}"), get(resources))
        .route(
            &format!("/apis/{API}/namespaces/{{namespace}}/pods"),
            get(usage),
        )
        .with_state(shared);
    Ok(async move {
        // It ends with the kubelet alone.
        let _ = axum::serve(listener, routes).await;
    })
}

/// Connections by TLS.
struct Secured {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((connection, from)) = self.tcp.accept().await
                && let Ok(Ok(secured)) = timeout(PATIENCE, self.tls.accept(connection)).await
            {
                return (secured, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// What metrics.k8s.io offers here.
async fn resources() -> Json<Value> {
    Json(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": API,
        "resources": [{
            "name": "pods",
            "singularName": "",
            "namespaced": true,
            "kind": "PodMetrics",
            "verbs": ["list"],
        }],
    }))
}

/// Which pods an autoscaler asks for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selected {
    label_selector: Option<String>,
}

/// What pods use, those of other nodes too.
async fn usage(
    State(shared): State<Arc<Shared>>,
    Path(namespace): Path<String>,
    Query(selected): Query<Selected>,
) -> Json<Value> {
    let selector = selected.label_selector.unwrap_or_default();
    // A Deployment's selector comes as `a=b,c=d`.
    let labels = selector.split(',').filter_map(|it| it.split_once('='));
    let labels: Vec<(&str, &str)> = labels.collect();
    Json(shared.options.roll.metrics(&namespace, &labels))
}

/// What `kubectl logs` asks for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    follow: Option<bool>,
    tail_lines: Option<usize>,
}

async fn logs(
    State(shared): State<Arc<Shared>>,
    Path((namespace, pod, _)): Path<(String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let file = life::base(&shared, &namespace, &pod).with_extension("log");
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("{}: {error}\n", file.display());
            return (StatusCode::NOT_FOUND, what).into_response();
        }
    };
    let first = tail(&text, wanted.tail_lines);
    let begun = Bytes::copy_from_slice(&text[first..]);
    if wanted.follow != Some(true) {
        return begun.into_response();
    }
    let grown = stream::unfold((file, text.len()), |(file, from)| async move {
        let more = more(&file, from).await?;
        let end = from + more.len();
        Some((more, (file, end)))
    });
    let all = stream::once(async { begun });
    let all = futures_util::StreamExt::chain(all, grown);
    Body::from_stream(futures_util::StreamExt::map(all, Ok::<_, io::Error>)).into_response()
}

/// Where the last so many lines begin.
fn tail(text: &[u8], lines: Option<usize>) -> usize {
    let Some(lines) = lines else { return 0 };
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut breaks = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, it)| **it == b'\n');
    match lines {
        0 => text.len(),
        _ => breaks.nth(lines - 1).map_or(0, |(at, _)| at + 1),
    }
}

/// What a log has grown by; none once it is gone.
async fn more(file: &FilePath, from: usize) -> Option<Bytes> {
    loop {
        let text = fs::read(PathBuf::from(file)).ok()?;
        if text.len() > from {
            return Some(Bytes::copy_from_slice(&text[from..]));
        }
        sleep(LOOK).await;
    }
}
