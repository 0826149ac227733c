//! Which path leads to which handler.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::Method;

use crate::context::RequestContext;
use crate::handlers::{self, Call};
use crate::query::Query;
use crate::request_info::{RequestInfo, ResourcePath};
use crate::server::Surface;
use crate::state::Api;
use crate::status::Status;
use crate::{aggregate, answer, crd, health, version};

/// All routes, without the filters before them. The paths of resources are not known before the
/// scheme is, so they are not axum's to match.
pub(crate) fn routes(api: &Arc<Api>) -> Router {
    Router::new().fallback(dispatch).with_state(Arc::clone(api))
}

async fn dispatch(
    State(api): State<Arc<Api>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    Extension(query): Extension<Arc<Query>>,
    Extension(ctx): Extension<RequestContext>,
    request: Request,
) -> Response {
    if let Some(service) = api.aggregation.remote(request.uri().path()) {
        let answer = aggregate::forward::forward(&api, &ctx, &service, request).await;
        return answer.unwrap_or_else(IntoResponse::into_response);
    }
    let is_served = api.config.surface == Surface::Whole || is_of_members(&info);
    let answer = match &*info {
        _ if !is_served => Err(Status::no_such_path()),
        RequestInfo::Resource(path) => resource(api, ctx, path, query, request).await,
        RequestInfo::Path { method, path } => {
            other(&api, &ctx, method, path, &query, request).await
        }
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// Whether a path is one of those that members of a cluster need of one another.
fn is_of_members(info: &RequestInfo) -> bool {
    let RequestInfo::Path { path, .. } = info else { return false };
    let mut segments = path.split('/').filter(|part| !part.is_empty());
    match segments.next() {
        Some("healthz" | "livez" | "readyz" | "version" | "metrics") => true,
        Some("kontiki") => matches!(segments.nth(1), Some("enroll" | "status" | "members")),
        _ => false,
    }
}

async fn resource(
    api: Arc<Api>,
    ctx: RequestContext,
    path: &ResourcePath,
    query: Arc<Query>,
    request: Request,
) -> Result<Response, Status> {
    let known = api.registry.scheme().resource(&path.group, &path.version, &path.resource);
    let found = match known {
        Some(kind) => Some(kind),
        None => crd::look(&api.registry, &path.group, &path.version, &path.resource).await?,
    };
    let found = found.filter(|kind| kind.is_namespaced() || path.namespace.is_empty());
    let Some(kind) = found else { return nothing_of(&api, &path.group) };
    if kind.is_namespaced() && path.namespace.is_empty() && !path.name.is_empty() {
        return Err(Status::no_such_path());
    }
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove();
    let (path, headers, method, uri) = (path.clone(), parts.headers, parts.method, parts.uri);
    let call = Call { api, ctx, kind, path, method, uri, query, headers, body, upgrade };
    if call.path.subresource.is_empty() {
        handlers::resource(call).await
    } else {
        handlers::subresource(call).await
    }
}

/// Nothing is there: a `Status` says so for the groups built in, whose paths upstream's own router
/// knows, and Go's multiplexer for all others.
fn nothing_of(api: &Api, group: &str) -> Result<Response, Status> {
    if api.registry.scheme().built_in().iter().any(|kind| kind.group == group) {
        return Err(Status::no_such_path());
    }
    Ok(answer::no_such_page())
}

async fn other(
    api: &Api,
    ctx: &RequestContext,
    method: &Method,
    path: &str,
    query: &Query,
    request: Request,
) -> Result<Response, Status> {
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let (&Method::POST, ["kontiki", "v1", "enroll", kind]) = (method, segments.as_slice()) {
        return handlers::enroll(api, ctx.shared_user(), kind, request).await;
    }
    if let (&Method::POST, ["kontiki", "v1", "service-account-keys", "rotate"]) =
        (method, segments.as_slice())
    {
        return handlers::rotate_keys(api).await;
    }
    if let (&Method::POST, ["kontiki", "v1", "members"]) = (method, segments.as_slice()) {
        return handlers::change_members(api, request).await;
    }
    if let (&Method::POST, ["kontiki", "v1", "encryption-keys", "rotate"]) =
        (method, segments.as_slice())
    {
        return handlers::rotate_encryption(api).await;
    }
    let headers = request.headers();
    let response = match segments.as_slice() {
        [endpoint @ ("healthz" | "livez" | "readyz")] => {
            health::answer(api, endpoint, "", query).await
        }
        [endpoint @ ("healthz" | "livez" | "readyz"), check] => {
            health::answer(api, endpoint, check, query).await
        }
        [".well-known", "openid-configuration"] => {
            answer::json(&api.tokens.discovery(&api.config.advertise_address))
        }
        ["openid", "v1", "jwks"] => handlers::jwks(api).await?,
        [] | ["index.html"] => handlers::root(api),
        ["version"] => answer::indented(&version::document()),
        ["metrics"] => api.metrics.answer()?,
        ["kontiki", "v1", "network"] => {
            handlers::node_network(api, &ctx.shared_user(), query).await?
        }
        ["kontiki", "v1", "status"] => handlers::cluster_status(api).await?,
        ["openapi", rest @ ..] => handlers::openapi(api, rest, query, headers).await?,
        ["api", ..] => {
            handlers::discovery(api, &segments, headers).map_or_else(|| nothing_of(api, ""), Ok)?
        }
        ["apis", group @ ..] => handlers::discovery(api, &segments, headers)
            .map_or_else(|| nothing_of(api, group.first().copied().unwrap_or_default()), Ok)?,
        _ => return Ok(answer::no_such_page()),
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    Ok(response)
}
