//! Connections: accept, TLS, HTTP/1.1 or HTTP/2, until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::authn::{ClientCertificates, Peer};
use crate::chain::ClientAddress;

/// How many connections are open at once; more wait in the kernel's queue (A4).
const CONNECTIONS_MAX: usize = 8192;

/// How long a client may take for its handshake, and for the head of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many requests of one HTTP/2 connection are under way at once.
const STREAMS_MAX: u32 = 1000;

/// How often a silent HTTP/2 connection is asked whether it lives, and how long it may take to say
/// so (R11).
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests under way may take once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when no connection can be accepted: out of file descriptors, mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What each connection is served with.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) tls: TlsAcceptor,
    pub(super) router: Router,
    pub(super) clients: Arc<ClientCertificates>,
}

/// Serves until `stop`; then `streams` ends what goes on for ever, and the rest is waited for.
pub(super) async fn run(
    listener: TcpListener,
    connections: Connections,
    stop: &CancellationToken,
    streams: &CancellationToken,
) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tasks = TaskTracker::new();
    let draining = CancellationToken::new();
    loop {
        // Both arms are cancel-safe: a place not used is given back, `accept` loses no connection.
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            (place, accepted) = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => (place, accepted),
        };
        match accepted {
            Ok((stream, address)) => {
                let (connections, draining) = (connections.clone(), draining.clone());
                tasks.spawn(async move {
                    let _place = place;
                    connections.serve(stream, address, draining).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    streams.cancel();
    draining.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "stopping with requests under way");
    }
    Ok(())
}

impl Connections {
    async fn serve(self, stream: TcpStream, address: SocketAddr, draining: CancellationToken) {
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "a connection is not tuned");
        }
        let accepting = self.tls.accept(stream);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
            Err(_) => return tracing::debug!("TLS handshake took too long"),
        };
        let peer = self.clients.peer(stream.get_ref().1.peer_certificates());
        let router = self.router;
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert::<Peer>(peer.clone());
            request.extensions_mut().insert(ClientAddress(address));
            router.clone().oneshot(request.map(Body::new))
        });
        let builder = builder();
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            () = draining.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        drop(tokio::time::timeout(DRAIN_TIMEOUT, connection).await);
    }
}

/// Answers are small and wanted at once; a peer that vanished is noticed though neither side has
/// anything to say, as in a shell that waits (R11).
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PING_INTERVAL)?;
    sockopt::set_tcp_keepintvl(stream, PING_TIMEOUT)?;
    Ok(())
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "connection ended");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
