//! Bounds how many requests are handled at once, and how many wait for that and how long
//! (invariant A4). Long-running ones are not counted: they hold no place.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::request_info::RequestInfo;
use crate::seat::Seat;
use crate::state::{Api, Places};
use crate::status::Status;

pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    mut request: Request,
    next: Next,
) -> Response {
    if info.is_long_running() {
        return next.run(request).await;
    }
    let places = if info.is_read_only() { &api.reads } else { &api.writes };
    let Some(seat) = take(places).await else {
        return Status::too_many_requests("Too many requests, please try again later.", 1)
            .into_response();
    };
    let _leaves = Leaves(Arc::clone(&seat));
    request.extensions_mut().insert(seat);
    next.run(request).await
}

/// Leaves the place at the end, also where the request is given up.
struct Leaves(Arc<Seat>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A place at once or after a bounded wait; `None` where too many wait already, or too long.
async fn take(places: &Places) -> Option<Arc<Seat>> {
    let Ok(_waiting) = places.queue.try_acquire() else { return None };
    Seat::take(&places.under_way, &places.outside).await
}
