//! Answers: documents and refusals as HTTP responses.

pub(crate) mod indent;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::Stream;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::codec;
use crate::negotiate::Format;
use crate::status::Status;

/// Does what takes long in one piece, such as encoding thousands of objects: what waits behind it on
/// this thread, raft perhaps, goes on on another. A leader that deleted 10,000 pods at once lost its
/// lead by its answer.
pub(crate) fn at_length<T>(act: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(act),
        _ => act(),
    }
}

/// A document of this server's own: its text may be indented on its way out, as somebody else's,
/// passed on, must not be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own;

/// A document in the text that the client takes.
pub(crate) fn document(code: StatusCode, format: Format, value: &Value) -> Response {
    let text = match format {
        Format::Json => line(value),
        Format::Yaml => match serde_yaml_ng::to_string(value) {
            Ok(text) => text.into_bytes(),
            Err(error) => return Status::internal(error).into_response(),
        },
        Format::Protobuf => match codec::encode_protobuf(value) {
            Some(bytes) => bytes,
            None => return Status::internal("this kind has no protobuf form").into_response(),
        },
    };
    own(code, format, text)
}

fn own(code: StatusCode, format: Format, text: Vec<u8>) -> Response {
    let mut response = bytes(code, format.media_type(), text);
    response.extensions_mut().insert(Own);
    response
}

/// JSON ends its line, as Kubernetes' encoder ends it: clients' tests compare whole bodies.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).expect("a document must have a JSON text");
    text.push(b'\n');
    text
}

/// The same of a JSON text that is there already.
pub(crate) fn own_text(mut text: Vec<u8>) -> Response {
    text.push(b'\n');
    let mut response = bytes(StatusCode::OK, Format::Json.media_type(), text);
    response.extensions_mut().insert(Own);
    response
}

/// A JSON document.
pub(crate) fn json(value: &Value) -> Response {
    document(StatusCode::OK, Format::Json, value)
}

/// A JSON document for people, who read it by `kubectl get --raw`.
pub(crate) fn indented(value: &Value) -> Response {
    let text = serde_json::to_vec_pretty(value).expect("a JSON value must have a text");
    bytes(StatusCode::OK, Format::Json.media_type(), text)
}

/// What Go's own multiplexer answers where nothing is: no `Status`, which clients notice.
pub(crate) fn no_such_page() -> Response {
    let text = b"404 page not found\n".to_vec();
    let mut response = bytes(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Bytes of a media type.
pub(crate) fn bytes(code: StatusCode, media_type: &'static str, content: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(content));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// That an answer whose size nobody knows yet ends by itself, unlike a watch: it may be packed, and
/// read whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends;

/// A long JSON document in parts.
pub(crate) fn parts(
    parts: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Response {
    let mut response = own_text(Vec::new());
    *response.body_mut() = Body::from_stream(parts);
    response.extensions_mut().insert(Ends);
    response
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = own(code, Format::Json, line(&self));
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if code == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Basic realm=\"kubernetes-master\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        response
    }
}
