//! Decides whether the caller may, and gives the handlers their [`RequestContext`] (invariant A2).

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{USER_AGENT, WARNING};

use crate::audit::Trail;
use crate::authn::User;
use crate::context::RequestContext;
use crate::fields;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::state::Api;

pub(super) async fn filter(
    State(api): State<Arc<Api>>,
    Extension(info): Extension<Arc<RequestInfo>>,
    Extension(query): Extension<Arc<Query>>,
    Extension(user): Extension<Arc<User>>,
    mut request: Request,
    next: Next,
) -> Response {
    let attributes = info.attributes(&query);
    let trail = request.extensions().get::<Arc<Trail>>().cloned();
    let note = |key: &str, value: &str| {
        if let Some(trail) = &trail {
            trail.annotate(format!("authorization.k8s.io/{key}"), value);
        }
    };
    let seat = request.extensions().get().cloned();
    let asked = RequestContext::authorize_seated(&*api.authorizer, user, attributes, seat);
    let mut ctx = match asked.await {
        Ok(ctx) => ctx,
        Err(refusal) => {
            note("decision", "forbid");
            note("reason", "");
            return refusal.into_response();
        }
    };
    note("decision", "allow");
    note("reason", &ctx.allowed_by);
    ctx.trail.clone_from(&trail);
    match query.is_dry_run() {
        Ok(is_dry_run) => ctx.dry_run = is_dry_run,
        Err(refusal) => return refusal.into_response(),
    }
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    ctx.field_manager = fields::manager_of(query.get("fieldManager"), agent.unwrap_or_default());
    request.extensions_mut().insert(ctx.clone());
    let mut response = next.run(request).await;
    for warning in ctx.warnings() {
        let text = format!("299 - {warning:?}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}
