//! The agent's own HTTPS server: logs, commands, ports and figures of its pods, for the API servers
//! and for whom they let in.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::agent::AgentError;
use crate::config::{AgentConfig, ServingTls};
use crate::logs::{self, LogOptions};
use crate::paths::Paths;
use crate::pods::PodIndex;
use crate::runtime::{Container, ContainerState, Runtime};
use crate::stats::Stats;

mod channels;
mod connect;
mod dialect;
mod figures;
pub mod gate;
mod identity;
mod spdy;
mod streams;

use gate::{Caller, ENTERED, Gate};
use streams::Open;

/// Connections of those with a certificate at the same time; more wait, and are let go.
const CONNECTIONS_MAX: usize = 256;
/// Connections of everybody else, who are yet to show a token; more are let go. However many there
/// are, API servers have places of their own.
const STRANGERS_MAX: usize = 64;
/// Handshakes at the same time; more connections wait to be accepted. Each ends soon.
const HANDSHAKES_MAX: usize = 64;
/// Longest wait for a TLS handshake and for the head of a request.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may be silent before it is asked whether its peer lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Parts of a log on their way; the reader of the file waits when it is full.
const LOG_PARTS: usize = 16;
/// Wait after a connection could not be accepted, such as for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What requests are answered from.
pub struct Sources {
    /// The pods of the node.
    pub index: PodIndex,
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// Where logs are.
    pub paths: Paths,
    /// What the pods use.
    pub stats: Stats,
    /// What the agent was told at its start.
    pub config: Arc<AgentConfig>,
    /// Lets callers in.
    pub gate: Gate,
}

/// The server, bound and not yet serving.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    places: Places,
}

/// Who may be connected at the same time.
#[derive(Clone, Debug)]
struct Places {
    handshakes: Arc<Semaphore>,
    certified: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Places {
    fn new(handshakes: usize, certified: usize, strangers: usize) -> Self {
        let of = |count| Arc::new(Semaphore::new(count));
        Self { handshakes: of(handshakes), certified: of(certified), strangers: of(strangers) }
    }

    /// A place for a connection whose handshake is over; none where there is no room.
    async fn take(&self, has_certificate: bool) -> Option<OwnedSemaphorePermit> {
        if !has_certificate {
            return self.strangers.clone().try_acquire_owned().ok();
        }
        let place = self.certified.clone().acquire_owned();
        tokio::time::timeout(HANDSHAKE_DEADLINE, place).await.ok()?.ok()
    }
}

impl Server {
    /// Binds `listen` with this identity.
    pub async fn bind(listen: SocketAddr, tls: &ServingTls) -> Result<Self, AgentError> {
        let config = identity::tls_config(tls)?;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|source| AgentError::Io { act: format!("listen on {listen}"), source })?;
        let places = Places::new(HANDSHAKES_MAX, CONNECTIONS_MAX, STRANGERS_MAX);
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), places })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`.
    pub async fn run(&self, sources: Arc<Sources>, shutdown: CancellationToken) {
        let open = Open::new(shutdown.clone());
        let mut connections = JoinSet::new();
        loop {
            // Every arm is cancel-safe; ended connections are joined as they end.
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.accept() => accepted,
            };
            let (stream, handshake) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let connection = Connection {
                acceptor: self.acceptor.clone(),
                places: self.places.clone(),
                sources: sources.clone(),
                open: open.clone(),
            };
            connections.spawn(connection.serve(stream, handshake));
        }
        connections.shutdown().await;
        open.ended().await;
    }

    /// The next connection, once there is room for its handshake.
    async fn accept(&self) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let place = self.places.handshakes.clone().acquire_owned().await;
        let place = place.map_err(std::io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, place))
    }
}

/// Answers are small and wanted at once; a peer that vanished is noticed though neither side has
/// anything to say (R11).
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE)?;
    Ok(())
}

/// What a connection is served with.
struct Connection {
    acceptor: TlsAcceptor,
    places: Places,
    sources: Arc<Sources>,
    open: Open,
}

impl Connection {
    async fn serve(self, stream: TcpStream, handshake: OwnedSemaphorePermit) {
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "a connection is not tuned");
        }
        let accepted = self.acceptor.accept(stream);
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_DEADLINE, accepted).await else {
            tracing::debug!("a client did not prove itself");
            return;
        };
        let client = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let caller = Arc::new(client.map_or(Caller::Unknown, |cert| identity::caller(cert)));
        // Held until the connection ends; the place of its handshake is another's by then.
        let Some(_place) = self.places.take(client.is_some()).await else {
            tracing::debug!("a client was let go: too many are connected");
            return;
        };
        drop(handshake);
        let Self { sources, open, .. } = self;
        let service = service_fn(move |request| {
            let (sources, open, caller) = (sources.clone(), open.clone(), caller.clone());
            async move { Ok::<_, Infallible>(answer(&sources, &open, request, &caller).await) }
        });
        let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_DEADLINE);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(HANDSHAKE_DEADLINE);
        let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke");
        }
    }
}

async fn answer(
    sources: &Arc<Sources>,
    open: &Open,
    request: Request<Incoming>,
    caller: &Caller,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if path == "/healthz" {
        return text(StatusCode::OK, "ok");
    }
    let admitted = sources.gate.admit(caller, request.method(), &path, request.headers()).await;
    if let Err((code, why)) = admitted {
        return text(code, &why);
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if parts.first().is_some_and(|first| ENTERED.contains(first)) {
        return connect::stream(sources, open, request, &parts).await;
    }
    if let (&Method::DELETE, ["localVolumes", name]) = (request.method(), parts.as_slice()) {
        return remove_volume(sources, name).await;
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served");
    }
    let query = request.uri().query().unwrap_or_default();
    if let ["containerLogs", namespace, pod, container] = parts.as_slice() {
        return container_logs(sources, namespace, pod, container, query).await;
    }
    let figures = figures::answer(sources, &parts, query).await;
    figures.unwrap_or_else(|| text(StatusCode::NOT_FOUND, "404 page not found"))
}

/// Removes what a volume holds, whose claim is gone.
async fn remove_volume(sources: &Sources, name: &str) -> Response<Body> {
    let (paths, name) = (sources.paths.clone(), name.to_owned());
    let removed =
        tokio::task::spawn_blocking(move || crate::volumes::local::remove(&paths, &name)).await;
    match removed {
        Ok(Ok(())) => text(StatusCode::OK, "removed"),
        Ok(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
            text(StatusCode::BAD_REQUEST, &error.to_string())
        }
        Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn container_logs(
    sources: &Sources,
    namespace: &str,
    pod_name: &str,
    container: &str,
    query: &str,
) -> Response<Body> {
    let options = match LogOptions::parse(query, Timestamp::now()) {
        Ok(options) => options,
        Err(why) => return text(StatusCode::BAD_REQUEST, &why),
    };
    let Some(pod) = sources.index.find(namespace, pod_name) else {
        return text(StatusCode::NOT_FOUND, &format!("pod {pod_name:?} not found on this node"));
    };
    let uid = crate::api::uid(&pod).to_owned();
    let containers = match sources.runtime.containers(Some(&uid)).await {
        Ok(containers) => containers,
        Err(error) => return text(StatusCode::SERVICE_UNAVAILABLE, &error.message),
    };
    let instance = match instance(containers, container, pod_name, options.previous) {
        Ok(instance) => instance,
        Err(why) => return text(StatusCode::BAD_REQUEST, &why),
    };
    let path = sources
        .paths
        .pod_logs(namespace, pod_name, &uid)
        .join(crate::spec::log_path(container, instance.attempt));
    if !path.is_file() {
        let why = format!("the log of container {container:?} in pod {pod_name:?} is gone");
        return text(StatusCode::NOT_FOUND, &why);
    }
    let (sink, source) = tokio::sync::mpsc::channel(LOG_PARTS);
    let runtime = sources.runtime.clone();
    // Ends when the log does, or when the client is gone and with it the receiver.
    tokio::spawn(async move {
        let ended = move || {
            let (runtime, uid, id) = (runtime.clone(), uid.clone(), instance.id.clone());
            let ended: BoxFuture<'static, bool> =
                Box::pin(async move { has_ended(runtime.as_ref(), &uid, &id).await });
            ended
        };
        if let Err(error) = logs::send(&path, &options, ended, sink).await {
            tracing::debug!(%error, path = %path.display(), "a log broke off");
        }
    });
    let stream = ReceiverStream::new(source).map(|part| Ok(Frame::data(part)));
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

async fn has_ended(runtime: &dyn Runtime, uid: &str, id: &str) -> bool {
    match runtime.containers(Some(uid)).await {
        Ok(containers) => containers
            .iter()
            .find(|container| container.id == id)
            .is_none_or(|container| container.state == ContainerState::Exited),
        // A runtime that restarts says nothing about its containers.
        Err(_) => false,
    }
}

/// The instance whose log is wanted; the error is what `kubectl logs` shows.
fn instance(
    containers: Vec<Container>,
    name: &str,
    pod: &str,
    previous: bool,
) -> Result<Container, String> {
    let mut instances: Vec<_> = containers
        .into_iter()
        .filter(|c| c.name == name && c.state != ContainerState::Created)
        .collect();
    instances.sort_by_key(|container| std::cmp::Reverse(container.attempt));
    let mut instances = instances.into_iter();
    let latest = instances.next();
    if previous {
        // One that ended and waits to be restarted is still the latest there is.
        return instances.next().ok_or_else(|| {
            format!("previous terminated container {name:?} in pod {pod:?} not found")
        });
    }
    latest.ok_or_else(|| {
        format!("container {name:?} in pod {pod:?} is waiting to start: ContainerCreating")
    })
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(message.as_bytes()));
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
