//! Bounds how many requests are handled at once, and how many wait for that and how long
//! (invariant A4). Long-running ones are not counted: they hold no place.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::request_info::RequestInfo;
use crate::state::{Api, Places};
use crate::status::Status;

/// How long a request may wait for its place.
const WAIT: Duration = Duration::from_secs(10);

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
    let Some(_place) = take(places).await else {
        return Status::too_many_requests("Too many requests, please try again later.", 1)
            .into_response();
    };
    next.run(request).await
}

/// A place at once or after a bounded wait; `None` where too many wait already, or too long.
async fn take(places: &Places) -> Option<SemaphorePermit<'_>> {
    let Ok(_waiting) = places.queue.try_acquire() else { return None };
    let acquired: &Semaphore = &places.under_way;
    tokio::time::timeout(WAIT, acquired.acquire()).await.ok()?.ok()
}
