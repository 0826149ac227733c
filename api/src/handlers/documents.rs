//! Documents that describe the API: discovery and OpenAPI.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, HeaderName,
    IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use crate::answer;
use crate::discovery::Path;
use crate::openapi::OpenApi;
use crate::query::Query;
use crate::state::Api;
use crate::status::Status;

/// `/api`, `/apis` and what is below them without being a resource; nothing for other paths.
pub(crate) fn discovery(api: &Api, segments: &[&str], headers: &HeaderMap) -> Option<Response> {
    let path = match *segments {
        ["api"] => Path::Api,
        ["apis"] => Path::Apis,
        ["api", version] => Path::GroupVersion("", version),
        ["apis", group] => Path::Group(group),
        ["apis", group, version] => Path::GroupVersion(group, version),
        _ => return None,
    };
    let accept = header(headers, &ACCEPT);
    let discovery = api.described().discovery;
    let document = discovery.document(path, &accept)?;
    let mut response = tagged(&document.etag, document.content_type, headers, || {
        Body::from(document.body.clone())
    });
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    response.extensions_mut().insert(answer::Own);
    Some(response)
}

/// `/`: where something can be read that is no object.
pub(crate) fn root(api: &Api) -> Response {
    let others = [
        "/.well-known/openid-configuration",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    let mut paths = api.described().discovery.paths();
    paths.extend(others.map(str::to_owned));
    paths.sort_unstable();
    answer::indented(&json!({ "paths": paths }))
}

/// `/openapi/v2`, `/openapi/v3` and the documents behind it.
pub(crate) async fn openapi(
    api: &Api,
    segments: &[&str],
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Status> {
    let documents = api.described().openapi;
    let path = segments.join("/");
    let hash = query.get("hash").to_owned();
    let headers = headers.clone();
    // The first to ask waits while the documents are made, which takes the processor for a while.
    tokio::task::spawn_blocking(move || specification(&documents, &path, &hash, &headers))
        .await
        .map_err(Status::internal)
}

fn specification(documents: &OpenApi, path: &str, hash: &str, headers: &HeaderMap) -> Response {
    if path == "v3" {
        let index = documents.index();
        let body = || Body::from(index.body.clone());
        return tagged(&index.etag, index.content_type, headers, body);
    }
    let packed = match path {
        "v2" => Some(documents.v2(&header(headers, &ACCEPT))),
        _ => path.strip_prefix("v3/").and_then(|path| documents.group_version(path)),
    };
    let Some(packed) = packed else { return answer::no_such_page() };
    if !hash.is_empty() && hash != packed.hash() {
        return moved(path, packed.hash());
    }
    let takes_gzip = crate::chain::takes_gzip(headers);
    let mut response = tagged(&packed.etag(), packed.content_type(), headers, || {
        Body::from(if takes_gzip { packed.gzip() } else { packed.plain() })
    });
    let is_whole = response.status() == StatusCode::OK;
    let headers = response.headers_mut();
    if takes_gzip && is_whole {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.append(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if !hash.is_empty() {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let year = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 365);
        let expires = year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(expires) = HeaderValue::from_str(&expires) {
            headers.insert(EXPIRES, expires);
        }
    }
    response
}

/// The document behind an old hash is elsewhere now.
fn moved(path: &str, hash: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(place) = HeaderValue::from_str(&format!("/openapi/{path}?hash={hash}")) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

fn header(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&str> =
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// A document, or 304 for a client that has it.
fn tagged(
    etag: &str,
    media_type: &'static str,
    headers: &HeaderMap,
    body: impl FnOnce() -> Body,
) -> Response {
    let is_known = header(headers, &IF_NONE_MATCH).split(',').any(|tag| tag.trim() == etag);
    let mut response = Response::new(if is_known { Body::empty() } else { body() });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(ETAG, etag);
    }
    response
}
