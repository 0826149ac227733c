//! Indents documents for people: for browsers and command lines, and for who asks for it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http_body_util::BodyExt as _;

use crate::answer::Own;
use crate::answer::indent::indent;
use crate::query::Query;
use crate::status::Status;

/// Programs behind which a person sits, as upstream has them.
const PEOPLE: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

pub(super) async fn filter(request: Request, next: Next) -> Response {
    let query = request.extensions().get::<Arc<Query>>();
    let is_wanted = is_wanted(query.map_or("", |query| query.get("pretty")), request.headers());
    let response = next.run(request).await;
    let is_own = response.extensions().get::<Own>().is_some();
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|media| media.as_bytes().starts_with(b"application/json"));
    if !is_wanted || !is_own || !is_json {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(content) = body.collect().await else {
        return Status::internal("an answer could not be read").into_response();
    };
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(indent(&content.to_bytes())))
}

/// The query parameter decides, then the media type, then who asks.
fn is_wanted(asked: &str, headers: &HeaderMap) -> bool {
    if !asked.is_empty() {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let by_media_type = text(ACCEPT).split(';').any(|part| part.trim().starts_with("pretty=1"));
    by_media_type || PEOPLE.iter().any(|program| text(USER_AGENT).starts_with(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_indented_documents_and_so_does_who_asks() {
        for (asked, accept, agent, expected) in [
            ("", "", "", false),
            ("", "*/*", "kubectl/v1.35.0", false),
            ("", "*/*", "curl/7.88.1", true),
            ("", "", "Wget/1.21", true),
            ("", "text/html", "Mozilla/5.0 (X11)", true),
            ("true", "", "", true),
            ("1", "", "", true),
            ("false", "", "curl/7.88.1", false),
            ("yes", "", "curl/7.88.1", false),
            ("", "application/json;pretty=1", "", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a valid header"));
            headers.insert(USER_AGENT, agent.parse().expect("a valid header"));
            let found = is_wanted(asked, &headers);
            assert_eq!(found, expected, "{asked} {accept} {agent}");
        }
    }
}
