//! Answers: documents and refusals as HTTP responses.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::Stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use crate::negotiate::Format;
use crate::status::Status;

/// A document in the text that the client takes.
pub(crate) fn document(code: StatusCode, format: Format, value: &Value) -> Response {
    let text = match format {
        Format::Json => serde_json::to_vec(value).expect("a JSON value must have a text"),
        Format::Yaml => match serde_yaml_ng::to_string(value) {
            Ok(text) => text.into_bytes(),
            Err(error) => return Status::internal(error).into_response(),
        },
    };
    bytes(code, format.media_type(), text)
}

/// A JSON document.
pub(crate) fn json(value: &Value) -> Response {
    document(StatusCode::OK, Format::Json, value)
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

/// A long answer in parts.
pub(crate) fn parts(
    media_type: &'static str,
    parts: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Response {
    let mut response = bytes(StatusCode::OK, media_type, Vec::new());
    *response.body_mut() = Body::from_stream(parts);
    response.extensions_mut().insert(Ends);
    response
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = document(code, Format::Json, &self.to_value());
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
