//! Kontiki's own paths: letting servers and nodes in, and how the cluster is.

use axum::extract::Request;
use axum::response::Response;
use http::header::AUTHORIZATION;

use super::body;
use crate::answer;
use crate::server::EnrollKind;
use crate::state::Api;
use crate::status::Status;

/// `POST /kontiki/v1/enroll/{server,node}`.
pub(crate) async fn enroll(api: &Api, kind: &str, request: Request) -> Result<Response, Status> {
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
    let body = body::read(request.into_body()).await?;
    let body = serde_json::from_slice(&body)
        .map_err(|error| Status::bad_request(format!("the body is not JSON: {error}")))?;
    Ok(answer::json(&enrollment.enroll(kind, &token, body).await?))
}

/// `GET /kontiki/v1/status`.
pub(crate) async fn cluster_status(api: &Api) -> Result<Response, Status> {
    let status = api.config.cluster_status.as_ref().ok_or_else(Status::no_such_path)?;
    Ok(answer::json(&status.status().await?))
}
