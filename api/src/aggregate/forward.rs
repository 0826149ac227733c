//! Leads a request on to the server of an APIService, and the answer back, both as they come.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use reqwest::{Client, Url};

use super::identity;
use crate::answer;
use crate::context::RequestContext;
use crate::handlers::{causes, pass_on, passed_on};
use crate::kubelet::Upgrade;
use crate::object::Object;
use crate::request_info::decoded;
use crate::resources::api_service::is_available;
use crate::state::Api;
use crate::status::Status;

const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Answers with what the other server says.
pub(crate) async fn forward(
    api: &Arc<Api>,
    ctx: &RequestContext,
    service: &Object,
    request: Request,
) -> Result<Response, Status> {
    if !is_available(service) {
        return Ok(unavailable("service unavailable"));
    }
    let (client, url) = match api.aggregation.reach(&api.registry, service).await {
        Ok(reached) => reached,
        Err(why) => {
            tracing::info!(api_service = service.name(), why, "not reached");
            return Ok(unavailable("service unavailable"));
        }
    };
    let (mut parts, body) = request.into_parts();
    if !is_straight(parts.uri.path()) {
        return Err(Status::no_such_path());
    }
    let upgrade: Option<OnUpgrade> = parts.extensions.remove();
    let upgrade = upgrade.filter(|_| parts.headers.contains_key(UPGRADE));
    let url = at(url, &parts.uri);
    let headers = headers(ctx, &parts.headers, upgrade.is_some());
    let is_bodiless = upgrade.is_some() || body.size_hint().exact() == Some(0);
    let asked = ask(&client, url, parts.method, headers, (!is_bodiless).then_some(body));
    // Who waits for others holds no place.
    match ctx.outside(asked.send()).await? {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            upgraded(api, answer, upgrade).await
        }
        Ok(answer) => Ok(answered(api, answer)),
        Err(error) => {
            let why = format!("error trying to reach service: {}", causes(&error));
            Ok(unavailable(&why))
        }
    }
}

/// Whether a path leads where it says. One that climbs, or whose segments are other ones to who reads
/// them another way, was allowed as something else than the other server would take it for.
fn is_straight(path: &str) -> bool {
    let is_plain = |segment: &str| {
        let plain = decoded(segment);
        !matches!(plain.as_str(), "." | "..") && !plain.contains(['/', '\\'])
    };
    // A slash at the end says nothing; two in a row are one to some and two to others.
    !path.contains("//") && path.split('/').all(is_plain)
}

/// The same path and query at the other server.
fn at(mut root: Url, uri: &http::Uri) -> Url {
    root.set_path(uri.path());
    root.set_query(uri.query());
    root
}

fn ask(
    client: &Client,
    url: Url,
    method: http::Method,
    headers: HeaderMap,
    body: Option<Body>,
) -> reqwest::RequestBuilder {
    let request = client.request(method, url).headers(headers);
    match body {
        Some(body) => request.body(reqwest::Body::wrap_stream(body.into_data_stream())),
        // What is known to be empty is not sent as a stream of nothing.
        None => request,
    }
}

fn headers(ctx: &RequestContext, asked: &HeaderMap, wants_upgrade: bool) -> HeaderMap {
    let mut headers = passed_on(asked);
    if wants_upgrade {
        if let Some(protocol) = asked.get(UPGRADE) {
            headers.insert(UPGRADE, protocol.clone());
        }
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    // The other server is asked by its own name.
    if let Some(host) = headers.remove(HOST) {
        headers.insert(FORWARDED_HOST, host);
    }
    identity::tell(&mut headers, ctx.user());
    headers
}

async fn upgraded(
    api: &Arc<Api>,
    answer: reqwest::Response,
    client: Option<OnUpgrade>,
) -> Result<Response, Status> {
    let client = client.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let place = Arc::clone(&api.streams)
        .try_acquire_owned()
        .map_err(|_| Status::too_many_requests("Too many streams, please try again later.", 1))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    let stream = answer.upgrade().await.map_err(|error| Status::unavailable(causes(&error)))?;
    let upgrade = Upgrade { headers: HeaderMap::new(), stream };
    // Ends with either of its two connections, or with the server.
    tokio::spawn(pass_on(client, upgrade, api.stop.clone(), place));
    Ok(response)
}

/// The answer, its content as it comes; a watch ends with this server.
fn answered(api: &Arc<Api>, answer: reqwest::Response) -> Response {
    let (code, headers) = (answer.status(), passed_on(answer.headers()));
    let ended = api.stop.clone().cancelled_owned();
    let body = Body::from_stream(answer.bytes_stream().take_until(Box::pin(ended)));
    let mut response = Response::new(body);
    *response.status_mut() = code;
    *response.headers_mut() = headers;
    response
}

/// As Go's servers say it.
fn unavailable(why: &str) -> Response {
    const TEXT: &str = "text/plain; charset=utf-8";
    let text = format!("{why}\n").into_bytes();
    let mut response = answer::bytes(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
    response.headers_mut().insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_climbs_is_not_straight() {
        assert!(is_straight("/apis/g/v1/things/a..b/.x"));
        for path in ["/apis/g/v1/../x", "/apis/g/v1/%2e%2E/x", "/apis/g/v1/."] {
            assert!(!is_straight(path), "{path}");
        }
    }

    #[test]
    fn a_path_whose_segments_hide_others_is_not_straight() {
        assert!(is_straight("/apis/g/v1/things/a%20b%252Fc/"));
        for path in [
            "/apis/g/v1/namespaces/n/pods/x%2Fexec",
            "/apis/g/v1/namespaces/n/pods/x%2fexec",
            "/apis/g/v1/namespaces/n/pods/x\\exec",
            "/apis/g/v1/namespaces/n/pods/x%5Cexec",
            "/apis/g/v1/namespaces/n/pods/..%2Fsecrets",
            "/apis/g/v1//namespaces/n/pods/x/exec",
        ] {
            assert!(!is_straight(path), "{path}");
        }
    }
}
