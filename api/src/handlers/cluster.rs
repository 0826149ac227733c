//! Kontiki's own paths: letting servers and nodes in, and how the cluster is.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::body;
use crate::answer;
use crate::authn::User;
use crate::authz::node::node_of;
use crate::client::Client;
use crate::query::Query;
use crate::server::{Caller, EnrollKind};
use crate::state::Api;
use crate::status::Status;

/// `POST /kontiki/v1/enroll/{server,node}`.
pub(crate) async fn enroll(
    api: &Api,
    user: Arc<User>,
    kind: &str,
    request: Request,
) -> Result<Response, Status> {
    let enrollment = api.config.enrollment.as_ref().ok_or_else(Status::no_such_path)?;
    let kind = match kind {
        "server" => EnrollKind::Server,
        "node" => EnrollKind::Node,
        _ => return Err(Status::no_such_path()),
    };
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .ok_or_else(Status::unauthorized)?
        .to_owned();
    let body = json_body(request).await?;
    let client = Client::new(Arc::clone(&api.registry), Arc::clone(&api.authorizer));
    let caller = Caller { user, client };
    Ok(answer::json(&enrollment.enroll(kind, &token, body, caller).await?))
}

/// `GET /kontiki/v1/status`.
pub(crate) async fn cluster_status(api: &Api) -> Result<Response, Status> {
    let status = api.config.cluster_status.as_ref().ok_or_else(Status::no_such_path)?;
    Ok(answer::json(&status.status().await?))
}

/// `POST /kontiki/v1/members`: adds, promotes or removes a member.
pub(crate) async fn change_members(api: &Api, request: Request) -> Result<Response, Status> {
    let cluster = api.config.cluster_status.as_ref().ok_or_else(Status::no_such_path)?;
    let change = json_body(request).await?;
    Ok(answer::json(&cluster.change_members(change).await?))
}

async fn json_body(request: Request) -> Result<Value, Status> {
    let body = body::read(request.into_body()).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Status::bad_request(format!("the body is not JSON: {error}")))
}

/// `GET /kontiki/v1/network?after=TAG`: what the node that asks must know of the others. The answer
/// waits a while for something else than what had the tag.
pub(crate) async fn node_network(
    api: &Api,
    user: &User,
    query: &Query,
) -> Result<Response, Status> {
    let Some(node) = node_of(user) else {
        return Err(Status::bad_request("only the agent of a node is told of its network"));
    };
    let network = api.networks.of(node, query.get("after")).await?;
    Ok(answer::json(&serde_json::to_value(&network).map_err(Status::internal)?))
}

/// `GET /openid/v1/jwks`: the keys by which others check service accounts' tokens.
pub(crate) async fn jwks(api: &Api) -> Result<Response, Status> {
    let keys = api.tokens.keys().jwks().await?;
    let body = serde_json::to_vec(&keys).map_err(Status::internal)?;
    Ok(answer::bytes(StatusCode::OK, "application/jwk-set+json", body))
}

/// `POST /kontiki/v1/service-account-keys/rotate`: a new key signs tokens from now on. Those of the
/// old ones stay good for their time.
pub(crate) async fn rotate_keys(api: &Api) -> Result<Response, Status> {
    let key = api.tokens.keys().rotate().await?;
    Ok(answer::json(&json!({ "keyID": key.id })))
}

/// `POST /kontiki/v1/encryption-keys/rotate`: another key seals what the store does not show, and what
/// others have sealed is sealed anew before this is answered. That takes some seconds: all servers
/// must have heard of the key.
pub(crate) async fn rotate_encryption(api: &Api) -> Result<Response, Status> {
    let sealed = api.sealed.as_ref().ok_or_else(Status::no_such_path)?;
    let done = sealed.rotate().await?;
    Ok(answer::json(&json!({ "sealedAnew": done.sealed, "unreadable": done.unreadable })))
}
