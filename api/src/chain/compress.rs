//! Packs large answers for clients that can unpack them.

use std::io::Write as _;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::answer::Ends;
use crate::status::Status;

/// Smaller answers are sent as they are, as upstream does.
const PACKED_BYTES_MIN: u64 = 128 << 10;

pub(super) async fn filter(request: Request, next: Next) -> Response {
    let is_wanted = takes_gzip(request.headers());
    let response = next.run(request).await;
    if is_wanted && response.extensions().get::<Ends>().is_some() {
        return pack_parts(response);
    }
    // What else streams has no known size and is never held back.
    let is_large = response.body().size_hint().exact().is_some_and(|size| size >= PACKED_BYTES_MIN);
    if !is_wanted || !is_large || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(content) = body.collect().await else {
        return Status::internal("an answer could not be read").into_response();
    };
    let packed = tokio::task::spawn_blocking(move || pack(&content.to_bytes())).await;
    let Ok(Ok(packed)) = packed else {
        return Status::internal("an answer could not be packed").into_response();
    };
    say_packed(&mut parts.headers);
    Response::from_parts(parts, Body::from(packed))
}

fn say_packed(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Packs a long answer part by part, as it is made.
fn pack_parts(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    say_packed(&mut parts.headers);
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = stream::try_unfold(Some((body.into_data_stream(), encoder)), |state| async {
        let Some((mut content, mut encoder)) = state else { return Ok(None) };
        while let Some(part) = content.next().await {
            encoder.write_all(&part.map_err(std::io::Error::other)?)?;
            let packed = std::mem::take(encoder.get_mut());
            if !packed.is_empty() {
                return Ok(Some((packed.into(), Some((content, encoder)))));
            }
        }
        Ok::<_, std::io::Error>(Some((Bytes::from(encoder.finish()?), None)))
    });
    Response::from_parts(parts, Body::from_stream(packed))
}

/// Whether a client can unpack.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| part == "q=0")
        })
}

fn pack(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content)?;
    encoder.finish()
}
