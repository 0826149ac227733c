//! Connections of the etcd API: gRPC and the JSON gateway on one port, plain or over TLS.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, FutureExt as _};
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use super::gateway::Gateway;

/// How many connections there may be; one more waits until another has ended.
const CONNECTIONS_MAX: usize = 16_384;

/// How long a client may take to prove who it is, or to send the head of a request.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// How long calls may still take once the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// After the system has refused a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// What answers requests: by their type the services themselves, or the gateway to them.
#[derive(Clone)]
pub(super) struct Front {
    routes: Routes,
    gateway: Arc<Gateway>,
}

impl Front {
    pub(super) fn of(routes: Routes, gateway: Gateway) -> Self {
        Self { routes, gateway: Arc::new(gateway) }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        <Routes as Service<Request<Incoming>>>::Future,
        BoxFuture<'static, Result<Response<Body>, Infallible>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let kind = request.headers().get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
            return Either::Left(self.routes.call(request));
        }
        let gateway = Arc::clone(&self.gateway);
        Either::Right(async move { Ok(gateway.answer(request).await) }.boxed())
    }
}

/// Serves until `token` is cancelled, and then as long as [`GRACE`].
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    front: Front,
    token: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let (slots, tasks) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
    while let Some(accepted) = token.run_until_cancelled(accept(&listener, &slots)).await {
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept a client of the etcd API");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, front, token) = (acceptor.clone(), front.clone(), token.clone());
        tasks.spawn(async move {
            if let Err(error) = connection(stream, acceptor, front, token).await {
                tracing::debug!(%error, "a connection to the etcd API ended");
            }
            drop(slot);
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    front: Front,
    token: CancellationToken,
) -> Ended {
    match acceptor {
        None => http(stream, front, token).await,
        Some(acceptor) => {
            let shaken = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await;
            http(shaken??, front, token).await
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    front: Front,
    token: CancellationToken,
) -> Ended {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_WITHIN);
    // A watch is a stream: a client has as many as it wants, as in etcd.
    builder.http2().max_concurrent_streams(None::<u32>);
    let service = TowerToHyperService::new(front);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return served,
        () = token.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    tokio::time::timeout(GRACE, serving).await.unwrap_or(Ok(()))
}
