//! `proxy`: a request is led on to a pod, a Service's endpoint or a node, with whatever method, path
//! and body it has, and the answer back.

mod html;
mod target;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;

use super::Call;
use super::connect::{also_create, pass_on};
use crate::admission::{Admit, Operation};
use crate::context::RequestContext;
use crate::kubelet::Upgrade;
use crate::object::Object;
use crate::registry::strategy::Kind;
use crate::request_info::ResourcePath;
use crate::state::Api;
use crate::status::Status;
use target::Place;

/// The longest page whose links are rewritten; a longer one is passed on as it is.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// What concerns one connection only, and so is not passed on.
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A request without its body, which one task alone can hold.
struct Asked {
    api: Arc<Api>,
    ctx: RequestContext,
    kind: &'static Kind,
    path: ResourcePath,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// Leads a request on.
pub(super) async fn proxy(call: Call) -> Result<Response, Status> {
    let Call { api, ctx, kind, path, method, uri, headers, body, upgrade, .. } = call;
    let call = Asked { api, ctx, kind, path, method, uri, headers };
    let path = behind(&call);
    if call.headers.contains_key(UPGRADE) {
        also_create(&call.api, &call.ctx).await?;
    }
    admit(&call, &path).await?;
    let place = Place::of(&call).await?;
    if path.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(with_slash(&call));
    }
    let permit = Arc::clone(&call.api.streams)
        .try_acquire_owned()
        .map_err(|_| Status::too_many_requests("Too many streams, please try again later.", 1))?;
    let prefix = call.uri.path().strip_suffix(&path).unwrap_or_default().to_owned();
    let wants_upgrade = call.headers.contains_key(UPGRADE) && upgrade.is_some();
    let url = match call.uri.query() {
        Some(query) => format!("{}{path}?{query}", place.origin),
        None => format!("{}{path}", place.origin),
    };
    let mut headers = passed_on(&call.headers);
    if wants_upgrade {
        for name in [UPGRADE, CONNECTION] {
            if let Some(value) = call.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
    }
    forward_headers(&mut headers, &call, &format!("{prefix}{path}"));
    let client = place.client(&call)?;
    let mut request = client.request(call.method.clone(), &url).headers(headers);
    // What is known to be empty is not sent as a stream of nothing.
    if !wants_upgrade && body.size_hint().exact() != Some(0) {
        request = request.body(reqwest::Body::wrap_stream(body.into_data_stream()));
    }
    let answer = request.send().await.map_err(|error| {
        Status::unavailable(format!("error trying to reach service: {}", causes(&error)))
    })?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer.headers().clone();
        let headers = HeaderMap::new();
        let stream = answer.upgrade().await.map_err(|error| Status::unavailable(causes(&error)))?;
        let client = upgrade.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
        let upgrade = Upgrade { headers, stream };
        tokio::spawn(pass_on(client, upgrade, call.api.stop.clone(), permit));
        return Ok(response);
    }
    let (stop, prefix) = (call.api.stop.clone(), prefix.trim_end_matches('/').to_owned());
    answered(answer, &prefix, async move {
        stop.cancelled_owned().await;
        drop(permit);
    })
    .await
}

/// What of the request's path is the other end's: empty, or what begins with the slash behind
/// `proxy`.
fn behind(call: &Asked) -> String {
    let before = if call.path.namespace.is_empty() { 6 } else { 8 };
    match call.uri.path().splitn(before + 1, '/').nth(before) {
        Some(rest) => format!("/{rest}"),
        None => String::new(),
    }
}

/// Relative links of the other end work only behind a slash.
fn with_slash(call: &Asked) -> Response {
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(value) = HeaderValue::from_str(&format!("{}/{query}", call.uri.path())) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

async fn admit(call: &Asked, path: &str) -> Result<(), Status> {
    let kind = match call.kind.plural {
        "pods" => "PodProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    let mut options = Object::empty("v1", kind);
    options.remove(&["metadata"]);
    if !path.is_empty() {
        options.set(&["path"], path);
    }
    let admit = Admit {
        ctx: &call.ctx,
        registry: &call.api.registry,
        kind: call.kind,
        subresource: "proxy",
        operation: Operation::Connect,
        namespace: &call.path.namespace,
        name: &call.path.name,
        old: None,
    };
    call.api.registry.admission().document(&admit, &mut options).await
}

/// The headers of a message without those of one connection; who asked is nobody else's business.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named).chain([AUTHORIZATION]) {
        kept.remove(name);
    }
    kept
}

fn forward_headers(headers: &mut HeaderMap, call: &Asked, uri: &str) {
    if let Ok(uri) = HeaderValue::from_str(uri) {
        headers.insert(FORWARDED_URI, uri);
    }
    let authority = call.uri.authority().and_then(|one| HeaderValue::from_str(one.as_str()).ok());
    if let Some(host) = headers.get(HOST).cloned().or(authority) {
        headers.insert(HOST, host.clone());
        headers.insert(FORWARDED_HOST, host);
    }
}

/// The other end's answer. Places of it in the answer are those that the client can reach.
async fn answered(
    answer: reqwest::Response,
    prefix: &str,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Result<Response, Status> {
    let mut headers = passed_on(answer.headers());
    let origin = answer.url().origin().ascii_serialization();
    if let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
        let location = location.strip_prefix(&origin).unwrap_or(location);
        if let Ok(value) = HeaderValue::from_str(&html::rewritten(location, prefix)) {
            headers.insert(LOCATION, value);
        }
    }
    let code = answer.status();
    let is_page = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|media| media.trim_start().starts_with("text/html"));
    let is_short = answer.content_length().is_some_and(|length| length <= PAGE_BYTES_MAX as u64);
    let body = if is_page && is_short && !headers.contains_key(CONTENT_ENCODING) {
        let text = answer.bytes().await.map_err(|error| {
            Status::unavailable(format!("error trying to reach service: {}", causes(&error)))
        })?;
        headers.remove(CONTENT_LENGTH);
        match std::str::from_utf8(&text) {
            Ok(text) => Body::from(html::rewrite(text, prefix)),
            Err(_) => Body::from(text),
        }
    } else {
        Body::from_stream(answer.bytes_stream().take_until(Box::pin(ended)))
    };
    let mut response = Response::new(body);
    *response.status_mut() = code;
    *response.headers_mut() = headers;
    Ok(response)
}

/// An error with what lies behind it.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}
