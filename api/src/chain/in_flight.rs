//! Bounds how many requests are handled at once, and how many wait for that and how long
//! (invariant A4), by priority and fairness. Long-running ones are not counted: they hold no place.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::authn::User;
use crate::fairness::Seat;
use crate::request_info::RequestInfo;
use crate::state::Api;

pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    Extension(user): Extension<Arc<User>>,
    mut request: Request,
    next: Next,
) -> Response {
    if info.is_long_running() {
        return next.run(request).await;
    }
    let class = api.fairness.class(&info, &user);
    let mut response = match api.fairness.enter(&class).await {
        Ok(seat) => {
            let _leaves = Leaves(Arc::clone(&seat));
            request.extensions_mut().insert(seat);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    class.tell(response.headers_mut());
    response
}

/// Leaves the turn at the end, also where the request is given up.
struct Leaves(Arc<Seat>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.leave();
    }
}
