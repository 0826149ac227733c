//! Bounds the time of every request that is not long-running.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::state::Api;
use crate::status::Status;

/// What Kubernetes says, to the letter: clients match on it.
const PAST_DEADLINE: &str =
    "request did not complete within requested timeout - context deadline exceeded";

pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    Extension(query): Extension<Arc<Query>>,
    request: Request,
    next: Next,
) -> Response {
    if info.is_long_running() {
        return next.run(request).await;
    }
    let limit = match asked(&query) {
        Ok(asked) => asked.unwrap_or(Duration::MAX).min(api.config.request_timeout),
        Err(refusal) => return refusal.into_response(),
    };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::timeout(PAST_DEADLINE).into_response(),
    }
}

/// The client's own bound: `timeout=30s`.
fn asked(query: &Query) -> Result<Option<Duration>, Status> {
    let text = query.get("timeout");
    if text.is_empty() {
        return Ok(None);
    }
    let invalid =
        || Status::bad_request(format!("invalid timeout specified in the request URL: {text:?}"));
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(invalid()),
    };
    let limit = Duration::try_from_secs_f64(seconds).map_err(|_| invalid())?;
    // As upstream, 0 asks for nothing.
    Ok(Some(limit).filter(|limit| !limit.is_zero()))
}
