//! exec, attach and port-forward: what an API server sends is led to the runtime's streaming server.
//!
//! ```text
//!  client                    this server                        runtime
//!  SPDY/3.1            ────► bytes as they are             ────► SPDY/3.1
//!  v5, v4.channel      ────► channels become streams       ────► SPDY/3.1
//!  SPDY/3.1+portforward ───► messages become bytes         ────► SPDY/3.1
//! ```
//!
//! An open stream may be idle for as long as its ends like; only the handshakes have deadlines.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dialect::Dialect;
use super::{Body, channels, text};
use crate::runtime::Streams;

/// Streams at the same time; more are refused.
const STREAMS_MAX: usize = 256;

/// Longest wait for a connection, and for each side's part of a handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(30);
/// Longest refusal that is passed on.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Longest message of a WebSocket.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes read at once from the runtime.
const BLOCK: usize = 32 << 10;
/// How a WebSocket that carries SPDY is asked for.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What the runtime is asked for, for commands and for ports.
const COMMAND_STREAMS: &str = "v4.channel.k8s.io";
const PORT_STREAMS: &str = "portforward.k8s.io";

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Why the runtime's streaming server was not reached. Users see the words.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the runtime's streaming address {0:?} cannot be used")]
    Address(String),
    #[error("the runtime's streaming server did not answer in time")]
    Silent,
    #[error("connect to the runtime's streaming server: {0}")]
    Connect(#[source] std::io::Error),
    #[error("ask the runtime's streaming server: {0}")]
    Http(#[from] hyper::Error),
    #[error("{1}")]
    Refused(StatusCode, String),
}

/// The streams that are open. They end with either of their ends, or with the server.
#[derive(Clone, Debug)]
pub(super) struct Open {
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Open {
    /// None yet; `stop` ends them all.
    pub(super) fn new(stop: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { places, tasks: TaskTracker::new(), stop }
    }

    /// Waits until the last one has ended, which is soon after `stop`.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What a client's request asks to be upgraded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// SPDY, as old clients do.
    Spdy,
    /// A WebSocket with channels.
    Channels(Dialect),
    /// A WebSocket that carries SPDY.
    Tunnel,
}

impl Ask {
    /// Reads it; the error is what the client is told.
    pub(super) fn of(headers: &HeaderMap, purpose: &Purpose) -> Result<Self, String> {
        let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
        match upgrade {
            Some(to) if to.eq_ignore_ascii_case(SPDY) => return Ok(Self::Spdy),
            Some(to) if to.eq_ignore_ascii_case("websocket") => {}
            _ => return Err("Upgrade request required".to_owned()),
        }
        if !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
            return Err("Sec-WebSocket-Key must be given".to_owned());
        }
        let offered: Vec<&str> = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
            .collect();
        let known: &[Dialect] = match purpose {
            Purpose::Ports(_) if offered.contains(&TUNNEL) => return Ok(Self::Tunnel),
            Purpose::Ports(_) => &Dialect::PORTS,
            Purpose::Command(_) => &Dialect::COMMAND,
        };
        Dialect::choose(known, &offered).map(Self::Channels).ok_or_else(|| {
            let known: Vec<_> = known.iter().map(|dialect| dialect.name()).collect();
            format!("unable to upgrade: none of the protocols {offered:?} is one of {known:?}")
        })
    }
}

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A command or a running process.
    Command(Streams),
    /// Ports of a pod; clients that open streams themselves name them there.
    Ports(Vec<u16>),
}

/// Connects a client's request to the streaming address that the runtime gave for it.
pub(super) async fn connect(
    mut request: Request<Incoming>,
    ask: Ask,
    purpose: Purpose,
    url: &str,
    open: &Open,
) -> Response<Body> {
    let Ok(place) = Arc::clone(&open.places).try_acquire_owned() else {
        return text(StatusCode::TOO_MANY_REQUESTS, "this node has too many streams open");
    };
    let protocols = match (ask, &purpose) {
        (Ask::Spdy, _) => request.headers().get_all(STREAM_PROTOCOL).iter().cloned().collect(),
        (_, Purpose::Command(_)) => vec![HeaderValue::from_static(COMMAND_STREAMS)],
        (_, Purpose::Ports(_)) => vec![HeaderValue::from_static(PORT_STREAMS)],
    };
    let (head, runtime) = match dial(url, protocols).await {
        Ok(dialled) => dialled,
        Err(StreamError::Refused(status, why)) => return text(status, &why),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let response = accept(&request, ask, &head);
    let client = hyper::upgrade::on(&mut request);
    let stop = open.stop.clone();
    open.tasks.spawn(async move {
        let joined = stop.run_until_cancelled(join(client, runtime, ask, purpose)).await;
        if let Some(Err(error)) = joined {
            tracing::debug!(%error, "a stream broke off");
        }
        drop(place);
    });
    response
}

/// Asks the runtime for SPDY; answers the head of its answer and the connection.
async fn dial(
    url: &str,
    protocols: Vec<HeaderValue>,
) -> Result<(HeaderMap, TokioIo<Upgraded>), StreamError> {
    let uri: Uri = url.parse().map_err(|_| StreamError::Address(url.to_owned()))?;
    let authority = uri.authority().ok_or_else(|| StreamError::Address(url.to_owned()))?.clone();
    let shake = async {
        let tcp = TcpStream::connect(authority.as_str()).await.map_err(StreamError::Connect)?;
        tcp.set_nodelay(true).map_err(StreamError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
        // Ends with the upgrade, or with the answer that refuses it.
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri
            .path_and_query()
            .and_then(|path| path.as_str().parse().ok())
            .ok_or_else(|| StreamError::Address(url.to_owned()))?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(authority.as_str());
        headers.insert(header::HOST, host.map_err(|_| StreamError::Address(url.to_owned()))?);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
        for protocol in protocols {
            headers.append(STREAM_PROTOCOL, protocol);
        }
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let why = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
            let why = why.map(|why| String::from_utf8_lossy(&why.to_bytes()).into_owned());
            return Err(StreamError::Refused(status, why.unwrap_or_default()));
        }
        let head = response.headers().clone();
        Ok((head, TokioIo::new(hyper::upgrade::on(response).await?)))
    };
    tokio::time::timeout(HANDSHAKE_DEADLINE, shake).await.map_err(|_| StreamError::Silent)?
}

/// The head of the answer to the client.
fn accept(request: &Request<Incoming>, ask: Ask, runtime: &HeaderMap) -> Response<Body> {
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let subprotocol = match ask {
        Ask::Spdy => {
            headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
            for protocol in runtime.get_all(STREAM_PROTOCOL) {
                headers.append(STREAM_PROTOCOL, protocol.clone());
            }
            return response;
        }
        Ask::Channels(dialect) => dialect.name(),
        Ask::Tunnel => TUNNEL,
    };
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map_or(&[][..], |k| k.as_bytes());
    let key = HeaderValue::try_from(derive_accept_key(key)).expect("base64 must be a header value");
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if !subprotocol.is_empty() {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    response
}

/// What ends a stream before its time.
pub(super) type Broken = Box<dyn std::error::Error + Send + Sync>;

/// The client's side of a WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn join(
    client: OnUpgrade,
    mut runtime: TokioIo<Upgraded>,
    ask: Ask,
    purpose: Purpose,
) -> Result<(), Broken> {
    let client = tokio::time::timeout(HANDSHAKE_DEADLINE, client).await??;
    let mut client = TokioIo::new(client);
    if ask == Ask::Spdy {
        tokio::io::copy_bidirectional(&mut client, &mut runtime).await?;
        return Ok(());
    }
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = Socket::from_raw_socket(client, Role::Server, Some(limits)).await;
    let Ask::Channels(dialect) = ask else { return tunnel(socket, runtime).await };
    let lines = match purpose {
        Purpose::Command(wanted) => channels::process_lines(wanted),
        Purpose::Ports(ports) => channels::port_lines(&ports).ok_or("too many ports")?,
    };
    channels::translate(socket, runtime, dialect, lines).await
}

/// Messages of a WebSocket are the bytes of the connection to the runtime, and the other way.
async fn tunnel(socket: Socket, runtime: TokioIo<Upgraded>) -> Result<(), Broken> {
    let (mut out, mut messages) = socket.split();
    let (mut from, mut to) = tokio::io::split(runtime);
    let up = async {
        while let Some(message) = messages.next().await {
            match message? {
                Message::Binary(bytes) => {
                    to.write_all(&bytes).await?;
                    to.flush().await?;
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok::<(), Broken>(())
    };
    let down = async {
        let mut block = vec![0; BLOCK];
        loop {
            let read = tokio::io::AsyncReadExt::read(&mut from, &mut block).await?;
            if read == 0 {
                break;
            }
            out.send(Message::Binary(Bytes::copy_from_slice(&block[..read]))).await?;
        }
        out.send(channels::end()).await?;
        Ok::<(), Broken>(())
    };
    // Both are dropped with the connections that they use: whichever ends, ends the other.
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(
        upgrade: &'static str,
        protocol: &'static str,
        purpose: &Purpose,
    ) -> Result<Ask, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("a2V5"));
        if !protocol.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        Ask::of(&headers, purpose)
    }

    #[test]
    fn each_purpose_has_its_protocols() {
        let command = Purpose::Command(Streams::default());
        let ports = Purpose::Ports(vec![80]);
        assert_eq!(ask("SPDY/3.1", "", &command), Ok(Ask::Spdy));
        assert_eq!(
            ask("websocket", "v4.channel.k8s.io, v5.channel.k8s.io", &command),
            Ok(Ask::Channels(Dialect::V5))
        );
        assert_eq!(ask("WebSocket", "", &ports), Ok(Ask::Channels(Dialect::Unnamed)));
        assert_eq!(ask("websocket", TUNNEL, &ports), Ok(Ask::Tunnel));
        assert!(ask("websocket", TUNNEL, &command).unwrap_err().contains(TUNNEL));
        assert!(ask("websocket", "v5.channel.k8s.io", &ports).unwrap_err().contains("v5"));
        assert_eq!(ask("h2c", "", &command).unwrap_err(), "Upgrade request required");
    }

    #[test]
    fn a_websocket_without_a_key_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert!(Ask::of(&headers, &Purpose::Ports(Vec::new())).unwrap_err().contains("Key"));
    }
}
