//! Documents that describe the API: discovery.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::discovery::{self, Path};
use crate::state::Api;
use crate::status::Status;

/// `/api`, `/apis` and what is below them without being a resource.
pub(crate) fn discovery(
    api: &Api,
    segments: &[&str],
    headers: &HeaderMap,
) -> Result<Response, Status> {
    let path = match *segments {
        ["api"] => Path::Api,
        ["apis"] => Path::Apis,
        ["api", version] => Path::GroupVersion("", version),
        ["apis", group] => Path::Group(group),
        ["apis", group, version] => Path::GroupVersion(group, version),
        _ => return Err(Status::no_such_path()),
    };
    let accepted: Vec<&str> =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let document =
        api.discovery.document(path, &accepted.join(",")).ok_or_else(Status::no_such_path)?;
    Ok(answer(document, headers))
}

fn answer(document: &discovery::Document, headers: &HeaderMap) -> Response {
    let is_known = headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == document.etag));
    let mut response = Response::new(Body::empty());
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(document.body.clone());
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(document.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(ETAG, etag);
    }
    response
}
