//! What is read bit by bit, such as a log, over a WebSocket: for clients that take nothing else.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::answer;
use crate::state::Api;
use crate::status::Status;

/// How long a client may take to be ready for its messages once it was told that they come.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);

/// How messages carry bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As they are, to clients that name no protocol.
    Unnamed,
    /// As they are.
    Binary,
    /// As text in base64.
    Base64,
}

impl Form {
    const ALL: [Self; 3] = [Self::Unnamed, Self::Binary, Self::Base64];

    /// Its name in a handshake.
    fn name(self) -> &'static str {
        match self {
            Self::Unnamed => "",
            Self::Binary => "binary.k8s.io",
            Self::Base64 => "base64.binary.k8s.io",
        }
    }

    /// The first that a client offers among those that are known.
    fn choose(headers: &HeaderMap) -> Option<Self> {
        let mut offered: Vec<&str> = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        if offered.is_empty() {
            offered.push("");
        }
        offered.iter().find_map(|name| Self::ALL.into_iter().find(|form| form.name() == *name))
    }

    fn message(self, bytes: Bytes) -> Message {
        match self {
            Self::Unnamed | Self::Binary => Message::Binary(bytes),
            Self::Base64 => Message::Text(STANDARD.encode(bytes).into()),
        }
    }
}

/// Whether a client wants a WebSocket.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
}

/// Answers with a WebSocket whose messages are `content`; it is closed at the content's end.
pub(super) fn stream<E>(
    api: &Api,
    client: OnUpgrade,
    headers: &HeaderMap,
    content: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Result<Response, Status>
where
    E: std::error::Error + Send + 'static,
{
    let Some(form) = Form::choose(headers) else {
        return Ok(answer::bytes(StatusCode::FORBIDDEN, "text/plain", Vec::new()));
    };
    let place = Arc::clone(&api.streams)
        .try_acquire_owned()
        .map_err(|_| Status::too_many_requests("Too many streams, please try again later.", 1))?;
    tokio::spawn(async move {
        let Ok(Ok(client)) = tokio::time::timeout(UPGRADE_TIMEOUT, client).await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None);
        send(socket.await, form, content).await;
        drop(place);
    });
    Ok(accepted(headers, form))
}

/// The head of the answer.
fn accepted(headers: &HeaderMap, form: Form) -> Response {
    let mut response = answer::bytes(StatusCode::SWITCHING_PROTOCOLS, "text/plain", Vec::new());
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&[][..], HeaderValue::as_bytes);
    let key = HeaderValue::try_from(derive_accept_key(key)).expect("base64 must be a header value");
    let answered = response.headers_mut();
    answered.clear();
    answered.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answered.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answered.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if form != Form::Unnamed {
        answered.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(form.name()));
    }
    response
}

/// Sends until the content or the client ends.
async fn send<S, E>(
    socket: WebSocketStream<S>,
    form: Form,
    content: impl Stream<Item = Result<Bytes, E>>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    E: std::error::Error,
{
    let (mut out, mut messages) = socket.split();
    let mut content = pin!(content);
    let sending = async {
        while let Some(Ok(bytes)) = content.next().await {
            out.send(form.message(bytes)).await?;
        }
        out.send(Message::Close(None)).await
    };
    // Pings are answered while messages are read; what else a client says is of no interest.
    let listening = async {
        while let Some(Ok(message)) = messages.next().await {
            if message.is_close() {
                break;
            }
        }
    };
    // Both are dropped with the connection that they share: whichever ends, ends the other.
    tokio::select! {
        sent = sending => {
            if let Err(error) = sent {
                tracing::debug!(%error, "a stream broke off");
            }
        }
        () = listening => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::Error;

    use super::*;

    fn chosen(offered: &'static str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        if !offered.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
        }
        Form::choose(&headers)
    }

    #[test]
    fn the_first_known_protocol_is_spoken() {
        assert_eq!(chosen(""), Some(Form::Unnamed));
        assert_eq!(chosen("binary.k8s.io"), Some(Form::Binary));
        assert_eq!(chosen("other, base64.binary.k8s.io, binary.k8s.io"), Some(Form::Base64));
        assert_eq!(chosen("v4.channel.k8s.io"), None);
    }

    /// What a client receives of two pieces, up to the end.
    async fn received(form: Form) -> Vec<Message> {
        let (ours, theirs) = tokio::io::duplex(4096);
        let server = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let pieces = ["one\n", "two\n"].map(|piece| Ok::<_, Error>(Bytes::from(piece)));
        let sending = send(server, form, futures_util::stream::iter(pieces));
        let receiving = async {
            let mut all = Vec::new();
            while let Some(Ok(message)) = client.next().await {
                all.push(message);
            }
            all
        };
        tokio::join!(sending, receiving).1
    }

    #[tokio::test]
    async fn pods_logs_come_over_websockets_as_their_protocol_says() {
        let [one, two] = ["one\n", "two\n"].map(|piece| Message::Binary(Bytes::from(piece)));
        assert_eq!(received(Form::Binary).await, [one, two, Message::Close(None)]);
        let [one, two] = ["b25lCg==", "dHdvCg=="].map(|piece| Message::Text(piece.into()));
        assert_eq!(received(Form::Base64).await, [one, two, Message::Close(None)]);
    }
}
