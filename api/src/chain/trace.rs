//! Gives each request an identity, counts it, and turns a panic into an answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue};

use crate::request_info::RequestInfo;
use crate::state::Api;
use crate::status::Status;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The longest identity that is taken from a client.
const AUDIT_ID_BYTES_MAX: usize = 64;

/// The identity of a request.
#[derive(Debug, Clone)]
pub(super) struct AuditId(pub(super) HeaderValue);

pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = request
        .headers()
        .get(AUDIT_ID)
        .filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_BYTES_MAX)
        .cloned()
        .unwrap_or_else(new_id);
    let line = format!("{} {}", request.method(), request.uri().path());
    request.extensions_mut().insert(AuditId(id.clone()));
    let under_way = api.metrics.begin(&info);
    let outcome = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    drop(under_way);
    let mut response = outcome.unwrap_or_else(|panic| {
        let why = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(request = line, ?id, why, "a handler panicked");
        Status::internal("the server panicked on this request and has logged it").into_response()
    });
    response.headers_mut().insert(AUDIT_ID, id.clone());
    api.metrics.end(&info, response.status().as_u16(), begun.elapsed());
    tracing::debug!(
        request = line,
        ?id,
        code = response.status().as_u16(),
        micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
        "answered"
    );
    response
}

fn new_id() -> HeaderValue {
    HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a uuid must fit into a header")
}
