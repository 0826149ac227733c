//! Bounds how many requests are handled at once (invariant A4). Long-running ones are not counted.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::request_info::RequestInfo;
use crate::state::Api;
use crate::status::Status;

pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    request: Request,
    next: Next,
) -> Response {
    if info.is_long_running() {
        return next.run(request).await;
    }
    let places = if info.is_read_only() { &api.reads } else { &api.writes };
    let Ok(_place) = places.try_acquire() else {
        return Status::too_many_requests("Too many requests, please try again later.", 1)
            .into_response();
    };
    next.run(request).await
}
